"""Graders: is a response right, given the right answer of the file? One class each; ``grader_of`` makes one by name.

A grader returns a quality in [0, 1]. What it cannot read in a *response* is a wrong response (0); what it cannot read
in the *answer key* is a mistake in the file, told with its line before the run; what it raises, or a value that is
none, ends the run with a sentence, since a failure that counts as "wrong" would be a result.
"""

from __future__ import annotations

import importlib
import math
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from rlaif_lab.config import did_you_mean
from rlaif_lab.tasks.graders.extract import Where, extract, final_statement, last_boxed
from rlaif_lab.tasks.graders.numbers import equal, last_number, numbers_in, only_number, plain, written

PYTHON = "python:"


class GraderError(ValueError):
    """A grader failed on a response, or returned what is no quality."""


class Grader(ABC):
    """name: as it is called in the configuration. costly: whether checking an answer key takes milliseconds."""

    name: str
    costly: bool = False

    def key(self, answer: str) -> str:
        """Return the right answer as it stands in a file's answer, which may hold the way to it as well.

        Raises:
            ValueError: with the reason, for one that this grader cannot grade by.
        """
        return answer.strip()

    def check(self, key: str) -> None:
        """Raise ValueError, with the reason, for a key that nothing can be graded by."""

    @abstractmethod
    def grade(self, response: str, key: str) -> float:
        """Return the quality of a response, in [0, 1]."""

    def response(self, key: str) -> str | None:
        """Return a response of quality 1; None where there is no one such to tell."""
        return key


class Exact(Grader):
    """The same text, apart from space around it. where: the part of the response that counts."""

    name = "exact"

    def __init__(self, where: Where = "whole") -> None:
        self.where = where

    def grade(self, response: str, key: str) -> float:
        return float(extract(response, self.where) == key)

    def response(self, key: str) -> str | None:
        return f"<answer>{key}</answer>" if self.where == "tag" else key


class Number(Grader):
    """The same number: the last one of what the response states as its answer."""

    name = "number"

    def key(self, answer: str) -> str:
        # GSM8K gives the way and then "#### 18", MATH a box at the end of it; anything else must be one number.
        found = last_number(final_statement(answer)) if _gives_the_way(answer) else only_number(answer)
        if found is None:
            raise ValueError("is no number (nor ends with one behind ####)")
        # A key is a text, which ``grade`` reads again.
        return written(found[0]) + ("%" if found[1] else "")

    def grade(self, response: str, key: str) -> float:
        gold = numbers_in(key)[0]
        stated = last_number(final_statement(response))
        return float(stated is not None and equal(stated, gold))


def _gives_the_way(answer: str) -> bool:
    return "####" in answer or last_boxed(answer) is not None


class Choice(Grader):
    """The letter (or number) of one of the options.

    labels: all that occur. A response names one where it says nothing else, or states it as the answer; one that names
    several without saying which is its answer is wrong.
    """

    name = "choice"

    def __init__(self, labels: Sequence[str] = ()) -> None:
        self.labels = tuple(labels)

    def key(self, answer: str) -> str:
        found = answer.strip().strip("().").upper()
        if not found or not re.fullmatch(r"[A-Z]|\d{1,2}", found):
            raise ValueError("is no letter or number of an option")
        if self.labels and found not in self.labels:
            raise ValueError(f"is none of the options {', '.join(self.labels)}")
        return found

    def grade(self, response: str, key: str) -> float:
        # Without a column of options nobody knows how many there are.
        return float(named_option(response, self.labels or tuple("ABCDEFGHIJ")) == key)


def named_option(response: str, labels: Sequence[str]) -> str | None:
    """Return the one option that a response names; None where it names none, or several."""
    stated = final_statement(response)
    letters = "|".join(map(re.escape, labels))
    # Begins with a label and does not go on as a sentence: "B", "(b)", "option B: 12", but not "a dog".
    opening = re.match(
        rf"[\s*_`\"'($\\]*(?:option |choice )?\(?({letters})(?![\w'’])(?! \w)", plain(stated), re.IGNORECASE
    )
    # Only where it is stated as the answer: a response as a whole may begin with any label.
    if stated is not response and opening:
        return opening[1].upper()
    # Capitals alone are letters of options here; "a" is a word, and so is an "A" before another word.
    found = set(re.findall(rf"(?<![\w'’-])({letters})(?![\w'’-])(?<!\bA(?= (?!or\b|and\b)[a-z]))", stated))
    if len(found) == 1:
        return str(found.pop())
    # A small letter counts where it is all that is said.
    only = re.fullmatch(rf"\W*({letters})\W*", stated.strip(), re.IGNORECASE)
    return only[1].upper() if only else None


class Math(Grader):
    """The same mathematical object (math-verify): LaTeX, fractions, sets, intervals, expressions."""

    name = "math"
    costly = True

    def __init__(self) -> None:
        try:
            import math_verify
        except ImportError:
            raise ValueError("task.grader=math needs math-verify: pip install 'rlaif-lab[reasoning]'") from None
        self.library = math_verify
        self._keys: dict[str, Any] = {}

    def key(self, answer: str) -> str:
        boxed = last_boxed(answer)
        return (boxed if boxed is not None else answer.rpartition("####")[2]).strip()

    def check(self, key: str) -> None:
        if not self._parsed(key):
            raise ValueError("cannot be read as mathematics")

    def grade(self, response: str, key: str) -> float:
        self.check(key)
        said = self.library.parse(response, **self._limit("parsing_timeout"))
        # The library found nothing in it: what it states is read as if it were set as mathematics.
        if not said:
            statement = final_statement(response).strip()
            said = self.library.parse(f"${statement}$", **self._limit("parsing_timeout"))
        return float(self.library.verify(self._parsed(key), said, **self._limit("timeout_seconds")))

    def response(self, key: str) -> str | None:
        return f"$\\boxed{{{key}}}$"

    def _parsed(self, key: str) -> Any:
        # Parsing takes milliseconds, and the same key is needed for each response to a prompt.
        if key not in self._keys:
            self._keys[key] = self.library.parse(f"${key.strip().strip('$')}$", **self._limit("parsing_timeout"))
        return self._keys[key]

    def _limit(self, name: str) -> dict[str, Any]:
        """Return no limit outside the main thread: the library's limits are alarms, which no other thread may set."""
        return {} if threading.current_thread() is threading.main_thread() else {name: None}


class Pattern(Grader):
    """The answer is a regular expression that is found somewhere in the response."""

    name = "regex"

    def key(self, answer: str) -> str:
        try:
            re.compile(answer)
        except re.error as error:
            raise ValueError(f"is no regular expression ({error})") from None
        return answer

    def grade(self, response: str, key: str) -> float:
        return float(re.search(key, response) is not None)

    def response(self, key: str) -> str | None:
        return None


class Function(Grader):
    """A function of your own: (response, answer) -> quality in [0, 1], or whether it is right."""

    def __init__(self, path: str) -> None:
        self.name = f"{PYTHON}{path}"
        module, _, name = path.rpartition(".")
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"task.grader: there is no function {path!r} ({error})") from None
        if not callable(function):
            raise ValueError(f"task.grader: {path!r} is no function; it is a {type(function).__name__}")
        self.function: Callable[[str, str], Any] = function

    def key(self, answer: str) -> str:
        return answer

    def grade(self, response: str, key: str) -> float:
        return self.function(response, key)

    def response(self, key: str) -> str | None:
        return None


GRADERS: dict[str, Callable[[], Grader]] = {
    "exact": Exact, "number": Number, "choice": Choice, "math": Math, "regex": Pattern,
}  # fmt: skip


def grader_of(name: str, where: Where = "whole") -> Grader:
    """Return the grader of this name.

    Raises:
        ValueError: for one that does not exist, or whose library is not there.
    """
    if name.startswith(PYTHON):
        return Function(name.removeprefix(PYTHON))
    if name not in GRADERS:
        known = list(GRADERS)
        raise ValueError(
            f"task.grader must be one of {', '.join(known)} or python:module.function{did_you_mean(name, known)}; "
            f"got {name!r}"
        )
    return Exact(where) if name == "exact" else GRADERS[name]()


def graded(name: str, prompt: str, response: str, grade: Callable[[], Any]) -> float:
    """Return what a grader says, which must be a quality.

    Raises:
        GraderError: it raised, or returned something that is no number in [0, 1]; with grader, prompt and response.
    """
    about = f"grader {name} on the response {_short(response)} to the prompt {_short(prompt)}"
    try:
        value = grade()
    except Exception as error:
        # On one line: a library's message may have several.
        reason = " ".join(str(error).split())
        raise GraderError(f"{about}: {type(error).__name__}: {reason[:200]}") from error
    try:
        quality = float(value)
    except (TypeError, ValueError):
        quality = math.nan
    # Written so that nan is refused too.
    if not 0.0 <= quality <= 1.0:
        raise GraderError(f"{about} returned {value!r:.80}, which is no quality in [0, 1]")
    return quality


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 120 else f"{shown[:80]} ... {shown[-36:]}"


__all__ = ["Grader", "GraderError", "graded", "grader_of"]
