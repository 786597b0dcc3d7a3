"""Judge prompts as data: a YAML template and the texts to be judged -> chat messages, and a judge's words -> a verdict.

The texts to be judged are not trusted: a response may address the judge, imitate a verdict, close a quotation or spell
out a model's control tokens. So every one of them is

- put between BEGIN and END lines that carry a code which occurs in none of the texts of the comparison, so that no
  response can close its own quotation;
- freed of control tokens: what looks like one (``<|im_end|>``, ``[INST]``, ``</s>``, ...) gets a space after its first
  character, control characters and lone surrogates become U+FFFD;
- cut in the middle, with a visible mark, when it is longer than the template's ``limit`` in characters;
- shown as ``(empty response)`` when there is nothing to see.

What a response *says* is left as it was written: whether a judge falls for it is measured (audit/injection.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from rlaif_lab.config import did_you_mean
from rlaif_lab.instructions.reading import final_words, label_in_json, score_in_json, stated_label, stated_score
from rlaif_lab.instructions.yaml_files import YamlFile, find_yaml, read_mapping
from rlaif_lab.records import Comparison, Prompt
from rlaif_lab.seeding import seed_for

Message = dict[str, str]
"""One chat turn: ``{"role": "system" | "user" | "assistant", "content": ...}``."""
Choice = Literal["first", "second", "tie"]

EMPTY = "(empty response)"
_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_CONTROL_TOKEN = re.compile(
    r"<(?=[|｜][^<>\n]{0,60}[|｜]>)"  # <|im_start|>, <|eot_id|>, and the full-width bars of some families
    r"|<(?=/?(?:s|bos|eos|pad|unk|mask|think|tool_call|tool_response|start_of_turn|end_of_turn|end_of_utterance)>)"
    r"|\[(?=/?(?:INST|SYS|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|SYSTEM_PROMPT)\])"
    r"|<(?=</?SYS>>)",
    re.IGNORECASE,
)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


# --- texts that are not trusted ---------------------------------------------------------------------------------------
def neutralised(text: str, limit: int) -> str:
    """Return a text as a judge is shown it: without control tokens, at most ``limit`` characters, never empty."""
    # Line ends first: their carriage return would come out as a replacement character.
    text = _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n"))
    # A space after the first character is enough: the tokenizer then sees no control token.
    text = _CONTROL_TOKEN.sub(lambda match: match.group() + " ", text)
    if not text.strip():
        return EMPTY
    if len(text) <= limit:
        return text
    # Three quarters from the beginning, one from the end.
    tail = limit // 4
    return f"{text[: limit - tail]}\n[... {len(text) - limit} characters left out ...]\n{text[len(text) - tail :]}"


def code_for(prompt: Prompt, *texts: str) -> str:
    """Return letters that none of these texts holds: the same for every comparison of a prompt unless a text does, so
    that a prompt's comparisons share their beginning; the same in both orders."""
    shown = _conversation(prompt)
    attempt = 0
    while True:  # a huge text may hold every code of four letters, but not of ever more
        # By the prompt: its comparisons share the code, and with it their beginning.
        seed = seed_for("code", shown, attempt)
        # Five bits for a letter; longer after every fourth attempt.
        code = "".join(chr(ord("A") + (seed >> (5 * i)) % 26) for i in range(min(4 + attempt // 4, 12)))
        if not any(code in text for text in (shown, *texts)):
            return code
        attempt += 1


def quoted(title: str, text: str, code: str) -> str:
    return f"[BEGIN {title} {code}]\n{text}\n[END {title} {code}]"


def _conversation(prompt: Prompt) -> str:
    """Return what was asked, as text; of a conversation every turn, under its role."""
    if len(prompt.turns) < 2:
        return prompt.turns[0][1] if prompt.turns else prompt.text
    return "\n\n".join(f"{role.capitalize()}: {content}" for role, content in prompt.turns)


# --- templates --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Template:
    """What pairwise and single-response templates share.

    system, user: texts with placeholders in braces (``{prompt}``); other braces stand for themselves. system: may be
    empty. cue: what the judge's verdict follows (``Verdict:``); a local judge's answer is begun with it.
    limit: characters shown of each text.
    """

    name: str
    system: str
    user: str
    cue: str
    limit: int

    @property
    def takes_principle(self) -> bool:
        return "{principle}" in self.system + self.user

    def identity(self) -> str:
        """Return an identity by content: a template of the same name with another word is another template."""
        content = [(f.name, getattr(self, f.name)) for f in fields(self) if f.name != "name"]
        return hashlib.sha256(repr(content).encode()).hexdigest()[:16]

    def _messages(self, values: Mapping[str, str]) -> list[Message]:
        """Fill in the placeholders in one pass: what is put in is never looked at again."""
        messages = []
        for role, text in (("system", self.system), ("user", self.user)):
            if text.strip():
                content = _PLACEHOLDER.sub(lambda match: values[match.group(1)], text).strip()
                messages.append({"role": role, "content": content})
        return messages

    def _principle(self, principle: str | None) -> str:
        if (principle is not None) != self.takes_principle:
            raise ValueError(
                f"template {self.name!r} has no {{principle}} to put a principle in"
                if principle is not None
                else f"template {self.name!r} asks for a {{principle}}, and there is none"
            )
        return principle or ""


@dataclass(frozen=True)
class JudgeTemplate(_Template):
    """Asks which of two responses is better.

    labels: what a judge calls the response shown first and the one shown second. tie_label: what it says when neither
    is better; None: it has to choose.
    """

    labels: tuple[str, str] = ("A", "B")
    tie_label: str | None = None

    @classmethod
    def load(cls, name_or_path: str) -> JudgeTemplate:
        """Return a template of ``conf/template/`` by name, or any YAML file by path.

        Raises ValueError, naming file and line, for a missing or unknown key or placeholder, or labels that cannot be
        told apart.
        """
        file = read_mapping(
            find_yaml("template", name_or_path), ("user", "labels"), ("system", "tie_label", "cue", "limit")
        )
        _check_placeholders(file, {"criteria", "prompt", "first", "second", "principle"}, optional={"principle"})
        labels, tie = file.data["labels"], file.data.get("tie_label")
        if not (
            isinstance(labels, list) and len(labels) == 2 and all(isinstance(x, str) and x.strip() for x in labels)
        ):
            raise ValueError(f"{file.at('labels')}: labels must be two texts, e.g. [A, B]; got {labels!r}")
        if tie is not None and not (isinstance(tie, str) and tie.strip()):
            raise ValueError(f"{file.at('tie_label')}: tie_label must be a text or null; got {tie!r}")
        said = [*labels, *([] if tie is None else [tie])]
        if len({label.strip().lower() for label in said}) < len(said):
            raise ValueError(f"{file.at('labels')}: labels must differ from each other; got {', '.join(said)}")
        return cls(**_common(file), labels=(labels[0].strip(), labels[1].strip()), tie_label=tie and tie.strip())

    def all_labels(self) -> tuple[str, ...]:
        """Return the labels of first, second and, where there is one, tie."""
        return self.labels if self.tie_label is None else (*self.labels, self.tie_label)

    def render(self, comparison: Comparison, criteria: str, principle: str | None = None) -> list[Message]:
        """Return the chat turns that put a comparison to a judge."""
        prompt, first, second = comparison.prompt, comparison.first, comparison.second
        code = code_for(prompt, first, second)
        return self._messages(
            {
                "criteria": criteria.strip(),
                "principle": self._principle(principle).strip(),
                "prompt": quoted("PROMPT", neutralised(_conversation(prompt), self.limit), code),
                "first": quoted(f"RESPONSE {self.labels[0]}", neutralised(first, self.limit), code),
                "second": quoted(f"RESPONSE {self.labels[1]}", neutralised(second, self.limit), code),
            }
        )

    def parse(self, text: str, cut: bool = False, opened: bool = False) -> Choice | None:
        """Return the one verdict that a judge's words state, None when they state none or several (see reading.py).

        Args:
            text: What the judge said, its thoughts included.
            cut: Whether a limit on its length stopped it.
            opened: Whether its chat template had opened a thought.
        """
        words = final_words(text, cut, opened)
        label = None if words is None else self.stated(words)
        return None if label is None else self.choice_of(label)

    def stated(self, words: str, json_key: str | None = None) -> str | None:
        """Return the one label that these words state; with ``json_key``, what a JSON object has under it."""
        if json_key is not None:
            return label_in_json(words, self.all_labels(), json_key, self.tie_label)
        return stated_label(words, self.all_labels(), self.cue, self.tie_label)

    def choice_of(self, label: str) -> Choice:
        """Return which response this label stands for."""
        choices: tuple[Choice, ...] = ("first", "second", "tie")
        return choices[self.all_labels().index(label)]


@dataclass(frozen=True)
class ScoreTemplate(_Template):
    """Asks for a score of one response, a whole number from ``minimum`` to ``maximum``."""

    minimum: int = 1
    maximum: int = 10

    @classmethod
    def load(cls, name_or_path: str) -> ScoreTemplate:
        """Load a template as JudgeTemplate.load does; placeholders are {criteria}, {prompt}, {response}."""
        file = read_mapping(
            find_yaml("template", name_or_path), ("user", "minimum", "maximum"), ("system", "cue", "limit")
        )
        _check_placeholders(file, {"criteria", "prompt", "response"})
        minimum, maximum = file.data["minimum"], file.data["maximum"]
        # type(...) is int: True would be 1.
        if not (type(minimum) is int and type(maximum) is int and 0 <= minimum < maximum <= 100):
            raise ValueError(
                f"{file.at('maximum')}: a score's minimum and maximum must be whole numbers with "
                f"0 <= minimum < maximum <= 100; got {minimum!r} and {maximum!r}"
            )
        return cls(**_common(file), minimum=minimum, maximum=maximum)

    def all_labels(self) -> tuple[str, ...]:
        """Return every score as it is written, the lowest first."""
        return tuple(str(score) for score in range(self.minimum, self.maximum + 1))

    def render_single(self, prompt: Prompt, response: str, criteria: str) -> list[Message]:
        """Return the chat turns that put one response to a judge."""
        code = code_for(prompt, response)
        return self._messages(
            {
                "criteria": criteria.strip(),
                "prompt": quoted("PROMPT", neutralised(_conversation(prompt), self.limit), code),
                "response": quoted("RESPONSE", neutralised(response, self.limit), code),
            }
        )

    def parse_score(self, text: str, cut: bool = False, opened: bool = False) -> float | None:
        """Return the one score within range that a judge's words state, None for none, several or one out of range.

        The arguments are those of JudgeTemplate.parse.
        """
        words = final_words(text, cut, opened)
        return None if words is None else self.stated(words)

    def stated(self, words: str, json_key: str | None = None) -> float | None:
        """Return the one score that these words state; with ``json_key``, what a JSON object has under it."""
        if json_key is not None:
            return score_in_json(words, self.minimum, self.maximum, json_key)
        return stated_score(words, self.minimum, self.maximum, self.cue)


# --- checks -----------------------------------------------------------------------------------------------------------
def _common(file: YamlFile) -> dict[str, Any]:
    """Return the fields of every template, checked."""
    values = {"name": file.path.stem}
    for key in ("system", "user", "cue"):
        text = file.data.get(key) or ""
        if not isinstance(text, str):
            raise ValueError(f"{file.at(key)}: {key} must be a text; got {text!r}")
        values[key] = text.strip() if key == "cue" else text
    limit = file.data.get("limit", 8000)
    if type(limit) is not int or limit < 100:
        raise ValueError(
            f"{file.at('limit')}: limit (characters shown of each text) must be at least 100; got {limit!r}"
        )
    return {**values, "limit": limit}


def _check_placeholders(file: YamlFile, known: set[str], optional: frozenset[str] | set[str] = frozenset()) -> None:
    found = set()
    for key in ("system", "user"):
        text = file.data.get(key) or ""
        for name in _PLACEHOLDER.findall(text if isinstance(text, str) else ""):
            if name not in known:
                where = file.line_with(f"{{{name}}}", key)
                hint = did_you_mean(name, sorted(known))
                allowed = ", ".join(f"{{{k}}}" for k in sorted(known))
                raise ValueError(f"{where}: unknown placeholder {{{name}}}{hint}; known are {allowed}")
            found.add(name)
    for name in sorted(known - found - set(optional)):
        raise ValueError(f"{file.at('user')}: the placeholder {{{name}}} is missing")
