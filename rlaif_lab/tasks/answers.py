"""Questions with right answers, from a file or a data set: GSM8K, MATH, multiple choice, or one's own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

from rlaif_lab.config import did_you_mean
from rlaif_lab.config.ranges import Written
from rlaif_lab.records import Prompt
from rlaif_lab.tasks.formats import AUTO
from rlaif_lab.tasks.formats.base import names, optional, short
from rlaif_lab.tasks.graders import Choice, graded, grader_of
from rlaif_lab.tasks.graders.extract import WAYS, Where
from rlaif_lab.tasks.prompts_file import Columns, PromptsFile
from rlaif_lab.tasks.read_rows import FileRow

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
OWN_COLUMNS = ("answer", "choices", "difficulty")
COSTLY_CHECKS = 50
"""Answer keys that are checked before the run where checking one takes milliseconds; the others when they are used."""


class Answers(PromptsFile):
    """path, split, subset, format, ignore, evaluation_share, repeat, max_characters: as of PromptsFile.

    columns: {prompt, answer, choices, difficulty, id, system, input}. answer: the column with the right answer.
        choices: the options of multiple choice, a list of texts or {text, label}, which are put behind the question
        under their letters; the answer is then a letter, the number of an option from 0, or an option's text.
        difficulty: the level, by which quality is told apart.
    grader: exact | number | choice | math | regex | python:module.function, see ``rlaif_lab.tasks.graders``. answer:
        the part of a response that an exact answer must be: whole | last_line | last_number | tag.
    suffix: put behind every question.
    """

    has_gold = True

    def __init__(
        self,
        path: str,
        max_response_tokens: int,
        grader: Annotated[str, Written("exact | number | choice | math | regex | python:module.function")],
        split: str = "train",
        subset: str | None = None,
        columns: Mapping[str, Any] | None = None,
        suffix: str = "",
        answer: Where = "whole",
        evaluation_share: float = 0.2,
        repeat: bool = False,
        max_characters: int | None = None,
        name: str = "answers",
        format: str = AUTO,
        ignore: Sequence[str] = (),
    ) -> None:
        # PromptsFile refuses columns that it does not know.
        own = {key: (columns or {}).get(key) for key in OWN_COLUMNS}
        others = {key: value for key, value in (columns or {}).items() if key not in OWN_COLUMNS}
        unknown = [key for key in others if key not in Columns.__dataclass_fields__]
        if unknown:
            known = [*OWN_COLUMNS, *Columns.__dataclass_fields__]
            hint = did_you_mean(str(unknown[0]), known)
            raise ValueError(f"task.columns has no {unknown[0]!r}{hint}; it takes {', '.join(known)}")
        if answer not in WAYS:
            raise ValueError(f"task.answer must be one of {', '.join(WAYS)}; got {answer!r}")
        if own["choices"] is not None and grader != "choice":
            raise ValueError(f"task.columns.choices needs task.grader=choice; got {grader!r}")
        super().__init__(
            path,
            max_response_tokens,
            split=split,
            subset=subset,
            columns=others,
            evaluation_share=evaluation_share,
            repeat=repeat,
            max_characters=max_characters,
            name=name,
            format=format,
            ignore=ignore,
        )
        self.answer_column = str(own["answer"] or "answer")
        self.choices_column, self.difficulty_column = own["choices"], own["difficulty"]
        self.suffix, self.answer, self.grader = suffix, answer, grader_of(grader, answer)
        self._keys: dict[str, str] = {}
        self._levels: dict[str, str] = {}
        self._options: dict[str, dict[str, str]] = {}

    # --- what a task is -----------------------------------------------------------------------------------------------
    def quality(self, prompt: Prompt, response: str) -> float:
        key, options = self.key(prompt), self._options.get(self._id(prompt))
        # Options differ from question to question, so the grader is made for this one's letters.
        grader = self.grader if options is None else Choice(tuple(options))
        return graded(self.grader.name, prompt.text, response, lambda: grader.grade(response, key))

    def key(self, prompt: Prompt) -> str:
        """Return the right answer of a prompt, without the way to it."""
        self._splits  # noqa: B018  (reads the file)
        if self._id(prompt) not in self._keys:
            raise ValueError(f"prompt {prompt.id!r} is none of task {self.name!r}, or its file has changed")
        return self._keys[self._id(prompt)]

    def _id(self, prompt: Prompt) -> str:
        """Return the id without the mark that it is asked again."""
        # An id in the file may itself end in #2; it then has a key of its own.
        before, mark, again = prompt.id.rpartition("#")
        return before if mark and again.isdecimal() and prompt.id not in self._keys else prompt.id

    def gold_answer(self, prompt: Prompt) -> str | None:
        # Tried before it is given out: what a grader makes of a key need not be graded 1.
        response = self.grader.response(self.key(prompt))
        return response if response is not None and self.quality(prompt, response) == 1.0 else None

    def difficulty(self, prompt: Prompt) -> str | None:
        self._splits  # noqa: B018
        return self._levels.get(self._id(prompt))

    def identity(self) -> str:
        """Return an identity by content, the answers included."""
        # The answers too: with other keys the same prompts give other results.
        held = super().identity()
        digest = hashlib.sha256(repr((sorted(self._keys.items()), self.grader.name, self.answer)).encode())
        return f"{held} {digest.hexdigest()[:16]}"

    # --- reading ------------------------------------------------------------------------------------------------------
    def _prompt(self, row: FileRow) -> Prompt:
        prompt = super()._prompt(row)
        shown = "".join(f"\n{label}. {text}" for label, text in self._options_of(row).items()) + self.suffix
        if not shown:
            return prompt
        # The last turn is the question: answers at the end were left out.
        turns = (*prompt.turns[:-1], ("user", prompt.turns[-1][1] + shown)) if prompt.turns else ()
        # The options are part of what is asked, and so of its hash.
        own = hashlib.sha256(repr((prompt.text + shown, turns)).encode()).hexdigest()[:16]
        number = prompt.id if self.columns.id is not None else f"{self.name}/{own}"
        return replace(prompt, id=number, text=prompt.text + shown, turns=turns)

    def _keep(self, prompt: Prompt, row: FileRow) -> None:
        options = self._options_of(row)
        if options:
            self._options[prompt.id] = options
        self._keys[prompt.id] = self._key_of(row, options)
        if self.difficulty_column is not None:
            level = optional(row, str(self.difficulty_column))
            if level is None:
                raise ValueError(f"{row.where}: column {self.difficulty_column!r} (task.columns.difficulty) is empty")
            self._levels[prompt.id] = level

    def _key_of(self, row: FileRow, options: Mapping[str, str]) -> str:
        column = self.answer_column
        if column not in row.values:
            hint = did_you_mean(column, list(row.values))
            raise ValueError(
                f"{row.where}: no column {column!r} (task.columns.answer){hint}; there is {names(list(row.values))}"
            )
        value = row.values[column]
        # A bool is an int to Python, but no answer.
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            raise ValueError(
                f"{row.where}: the answer in column {column!r} must be a text or a number; got {short(value)}"
            )
        answer = str(value)
        if not answer.strip():
            raise ValueError(f"{row.where}: the answer in column {column!r} is empty")
        if options:
            answer = _option(row, answer, options, isinstance(value, int))
        try:
            key = self.grader.key(answer)
            if not self.grader.costly or len(self._keys) < COSTLY_CHECKS:
                self.grader.check(key)
            return key
        except ValueError as error:
            raise ValueError(
                f"{row.where}: the answer {short(answer)} {error} (task.grader={self.grader.name})"
            ) from None

    def _options_of(self, row: FileRow) -> dict[str, str]:
        """Return letter -> option; empty where the task has no column of them."""
        if self.choices_column is None:
            return {}
        column = str(self.choices_column)
        value = row.values.get(column)
        labels: Any = LETTERS
        # As ARC has them: {"text": [...], "label": [...]}.
        if isinstance(value, Mapping) and {"text", "label"} <= set(value):
            value, labels = value["text"], value["label"]
        if not isinstance(value, list) or not 2 <= len(value) <= len(LETTERS) or len(labels) < len(value):
            raise ValueError(
                f"{row.where}: column {column!r} (task.columns.choices) must be a list of 2 to {len(LETTERS)} texts, "
                f"or {{text, label}} of two lists; got {short(row.values.get(column))}"
            )
        if not all(isinstance(text, str) for text in value):
            raise ValueError(f"{row.where}: the options in column {column!r} must be texts; got {short(value)}")
        return {str(label).strip().upper(): text for label, text in zip(labels, value, strict=False)}


def _option(row: FileRow, answer: str, options: Mapping[str, str], is_number: bool) -> str:
    """Return the letter of the right option, which a file gives as a letter, as a number from 0, or as the option's
    text."""
    # As a label first: labels may be digits themselves (ARC's 1 to 4), which are then not places.
    letter = answer.strip().upper()
    if letter in options:
        return letter
    if is_number or answer.strip().isdigit():
        number = int(answer)
        if 0 <= number < len(options):
            return list(options)[number]
    same = [label for label, text in options.items() if text.strip() == answer.strip()]
    # The same text in two options would leave it open.
    if len(same) == 1:
        return same[0]
    raise ValueError(f"{row.where}: the answer {short(answer)} is none of the options {', '.join(options)}")
