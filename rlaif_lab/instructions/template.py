"""Judge prompts as data: a YAML template and the texts to be judged -> chat messages, and a judge's words -> a verdict.

The texts to be judged are not trusted: a response may address the judge, imitate a verdict, close a quotation or spell
out a model's control tokens. So every one of them is

- put between BEGIN and END lines that carry a code which occurs in none of the texts of the comparison, so that no
  response can close its own quotation;
- freed of control tokens: what looks like one (``<|im_end|>``, ``[INST]``, ``</s>``, ...) gets a space after its first
  character, control characters and lone surrogates become U+FFFD;
- cut in the middle, with a visible mark, when it is longer than the template's ``limit`` in characters;
- shown as ``(empty response)`` when there is nothing to see.

What a response *says* is left as it was written: whether a judge falls for it is measured (judges/injection.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from rlaif_lab.config import did_you_mean
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
_REFUSAL = re.compile(
    r"^\W*(?:i(?:'m| am) sorry\W|sorry,|i apologi[sz]e\W|i (?:can(?:not|'t)|won't|will not|must decline)\b"
    r"|i(?:'m| am) (?:not able|unable)\b|as an ai\b)",
    re.IGNORECASE,
)


# --- texts that are not trusted ---------------------------------------------------------------------------------------
def neutralised(text: str, limit: int) -> str:
    """A text as a judge is shown it: without control tokens, at most ``limit`` characters, never empty."""
    text = _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n"))
    text = _CONTROL_TOKEN.sub(lambda match: match.group() + " ", text)
    if not text.strip():
        return EMPTY
    if len(text) <= limit:
        return text
    tail = limit // 4
    return f"{text[: limit - tail]}\n[... {len(text) - limit} characters left out ...]\n{text[len(text) - tail :]}"


def code_for(prompt: Prompt, *texts: str) -> str:
    """Letters that none of these texts holds: the same for every comparison of a prompt unless a text does, so that a
    prompt's comparisons share their beginning; the same in both orders."""
    shown = _conversation(prompt)
    attempt = 0
    while True:  # a huge text may hold every code of four letters, but not of ever more
        seed = seed_for("code", shown, attempt)
        code = "".join(chr(ord("A") + (seed >> (5 * i)) % 26) for i in range(min(4 + attempt // 4, 12)))
        if not any(code in text for text in (shown, *texts)):
            return code
        attempt += 1


def quoted(title: str, text: str, code: str) -> str:
    return f"[BEGIN {title} {code}]\n{text}\n[END {title} {code}]"


def _conversation(prompt: Prompt) -> str:
    """What was asked, as text; of a conversation every turn, under its role."""
    if len(prompt.turns) < 2:
        return prompt.turns[0][1] if prompt.turns else prompt.text
    return "\n\n".join(f"{role.capitalize()}: {content}" for role, content in prompt.turns)


def is_refusal(text: str) -> bool:
    """Whether a judge's answer opens by declining to answer. Only asked of answers that hold no verdict."""
    return _REFUSAL.match(text.replace("’", "'")) is not None


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
        """By content: a template of the same name with another word is another template."""
        content = [(f.name, getattr(self, f.name)) for f in fields(self) if f.name != "name"]
        return hashlib.sha256(repr(content).encode()).hexdigest()[:16]

    def _messages(self, values: Mapping[str, str]) -> list[Message]:
        """One pass over the placeholders: what is put in is never looked at again."""
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
        """A template of ``conf/template/`` by name, or any YAML file by path.

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
        """The labels of first, second and, where there is one, tie."""
        return self.labels if self.tie_label is None else (*self.labels, self.tie_label)

    def render(self, comparison: Comparison, criteria: str, principle: str | None = None) -> list[Message]:
        """The chat turns that put a comparison to a judge."""
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

    def parse(self, text: str) -> Choice | None:
        """The one verdict that a judge's words hold, None when they hold none or several.

        A verdict is a label that is the whole text, that follows the cue (every one of them, if there are several,
        has to name the same label), or that opens a line as a sentence of its own (``A.``, ``A:``, ``Response A``;
        again all have to agree). Brackets, quotes and markdown around a label do not matter. Labels of one letter are
        told apart from words by their case.
        """
        choices: tuple[Choice, ...] = ("first", "second", "tie")
        names = dict(zip(map(_plain, self.all_labels()), choices, strict=False))
        verdict = "|".join(re.escape(label) for label in self.all_labels())
        flags = re.NOFLAG if any(len(label) == 1 for label in names) else re.IGNORECASE
        found = _cued(text, self.cue, verdict, flags) or _opening(text, verdict, flags)
        said = {names[_plain(label)] for label in found}
        return said.pop() if len(said) == 1 else None


@dataclass(frozen=True)
class ScoreTemplate(_Template):
    """Asks for a score of one response, a whole number from ``minimum`` to ``maximum``."""

    minimum: int = 1
    maximum: int = 10

    @classmethod
    def load(cls, name_or_path: str) -> ScoreTemplate:
        """As JudgeTemplate.load; placeholders are {criteria}, {prompt}, {response}."""
        file = read_mapping(
            find_yaml("template", name_or_path), ("user", "minimum", "maximum"), ("system", "cue", "limit")
        )
        _check_placeholders(file, {"criteria", "prompt", "response"})
        minimum, maximum = file.data["minimum"], file.data["maximum"]
        if not (type(minimum) is int and type(maximum) is int and 0 <= minimum < maximum <= 100):
            raise ValueError(
                f"{file.at('maximum')}: a score's minimum and maximum must be whole numbers with "
                f"0 <= minimum < maximum <= 100; got {minimum!r} and {maximum!r}"
            )
        return cls(**_common(file), minimum=minimum, maximum=maximum)

    def all_labels(self) -> tuple[str, ...]:
        """Every score as it is written, the lowest first."""
        return tuple(str(score) for score in range(self.minimum, self.maximum + 1))

    def render_single(self, prompt: Prompt, response: str, criteria: str) -> list[Message]:
        """The chat turns that put one response to a judge."""
        code = code_for(prompt, response)
        return self._messages(
            {
                "criteria": criteria.strip(),
                "prompt": quoted("PROMPT", neutralised(_conversation(prompt), self.limit), code),
                "response": quoted("RESPONSE", neutralised(response, self.limit), code),
            }
        )

    def parse_score(self, text: str) -> float | None:
        """The one score within range that a judge's words hold, None when they hold none, several or one out of
        range. It is the whole text or follows the cue; ``7/10`` is 7 where 10 is the maximum."""
        found = _cued(text, self.cue, rf"\d+(?:\.\d+)?(?:\s*/\s*{self.maximum}(?!\d))?(?!\s*/)", re.NOFLAG)
        said = {float(score.split("/")[0]) for score in found}
        if len(said) != 1:
            return None
        score = said.pop()
        return score if self.minimum <= score <= self.maximum else None


# --- reading ----------------------------------------------------------------------------------------------------------
_OPENING = r"[\s\[({\"'`*_#]*"
_CLOSING = r"[\s\])}\"'`*_]*"
_NOUN = r"(?i:(?:response|answer|option|assistant)\s+)?"


def _plain(label: str) -> str:
    """Single letters are told apart by case (``a`` is an article), words are not."""
    return label if len(label) == 1 else label.lower()


def _cued(text: str, cue: str, verdict: str, flags: re.RegexFlag) -> list[str]:
    """What a text states as its verdict: the whole of it, or whatever follows the cue, in order."""
    whole = re.fullmatch(f"{_OPENING}{_NOUN}{_OPENING}({verdict}){_CLOSING}[.!]?{_CLOSING}", text, flags)
    if whole:
        return [whole.group(1)]
    bare = cue.strip().rstrip(":").rstrip()
    if not bare:
        return []
    link = r"[*_`\"']*\s*(?::|=|is\b)?"
    return re.findall(rf"(?i:{re.escape(bare)}){link}{_OPENING}{_NOUN}{_OPENING}({verdict})(?!\w)", text, flags)


def _opening(text: str, verdict: str, flags: re.RegexFlag) -> list[str]:
    """Labels that open a line as a sentence or heading of their own."""
    closed = r"[\])}\"'`*_]*(?:[.:)](?!\w)|[ \t]*$)"
    return re.findall(rf"^{_OPENING}{_NOUN}{_OPENING}({verdict}){closed}", text, flags | re.MULTILINE)


def _common(file: YamlFile) -> dict[str, Any]:
    """The fields of every template, checked."""
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
