"""From a chat completion, as JSON off the wire, to a judge's answer. Pure functions; nothing about it is trusted."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from rlaif_lab.instructions.reading import final_words, is_refusal
from rlaif_lab.instructions.template import Message
from rlaif_lab.instructions.thoughts import without_thoughts
from rlaif_lab.records import Status

Form = Literal["text", "json"]
Read = Literal["logprobs", "text", "votes"]
Vote = float | Status
"""A value, or why there is none."""

LONGEST_RAW = 20_000
MOST_TOKENS = 10**9
"""Of one request; a server that counts more has not counted."""
MOST_LOGP = 0.01
"""Above 0 by rounding alone."""
_OPENING = " \t\r\n\"'`*_("  # what may stand before a label
_LINK = _OPENING + ":="  # and between a cue and a label
_CLOSING = " \t\r\n\"'`*_).,:"
_CUT = re.compile(r"length|max|limit|abort|error|cancel|incomplete|timeout", re.IGNORECASE)
"""In a ``finish_reason``: something else than the model ended the answer."""
_SURROGATE = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True)
class Question:
    """One thing to ask a judge, and what its answers mean.

    values: the answers it may give, by label, as numbers: for a verdict the probability that the first response wins,
        for a score the score. parse: the number that a finished text states in plain words or (the second argument) in
        JSON, None for no or no single one.
    field: what the answer is called in a JSON object. cue: what it follows in a text.
    reasoning: whether thoughts come before the answer. clamp: what a probability read after them is held to.
    """

    messages: Sequence[Message]
    values: Mapping[str, float]
    parse: Callable[[str, Form], float | None]
    field: str
    cue: str
    reasoning: bool = False
    clamp: tuple[float, float] | None = None

    @property
    def one_token_tells(self) -> bool:
        """Return whether no label begins another one (as 1 does 10), so that the token a label begins with tells it."""
        # By their plain forms, as they are compared when tokens are read.
        labels = [plain(label) for label in self.values]
        return not any(a != b and b.startswith(a) for a in labels for b in labels)

    def asked(self, form: Form, system: bool = True) -> list[Message]:
        """Return the messages that ask for an answer in this form; without ``system``, in no system turn."""
        messages = [dict(message) for message in self.messages]
        if not system and len(messages) > 1 and messages[0]["role"] == "system":
            # Into the user's turn, in front: no server refuses that.
            told, asked, *more = messages
            messages = [{"role": "user", "content": f"{told['content']}\n\n{asked['content']}"}, *more]
        if form == "json":
            example = {"reasoning": "...", self.field: self._example} if self.reasoning else {self.field: self._example}
            # In words as well as by the schema: servers that ignore the schema may still follow the words.
            messages[-1]["content"] += f"\n\nGive your whole answer as one JSON object: {json.dumps(example)}"
        return messages

    def schema(self) -> dict[str, Any]:
        """Return ``response_format`` for an answer in JSON."""
        properties: dict[str, Any] = {"reasoning": {"type": "string"}} if self.reasoning else {}
        # Strings from a closed set: a number or a free text could be misread.
        properties[self.field] = {"type": "string", "enum": list(self.values)}
        content = {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            # OpenAI's strict mode insists on both.
            "additionalProperties": False,
        }
        return {"type": "json_schema", "json_schema": {"name": self.field, "strict": True, "schema": content}}

    @property
    def _example(self) -> str:
        return next(iter(self.values))

    def read(self, choice: Choice, form: Form) -> float | None:
        """Return the one answer that a choice's words state in this form, None if they do not, or were cut off."""
        words = final_words(choice.text, choice.cut)
        return None if words is None else self.parse(words, form)


@dataclass(frozen=True)
class Token:
    """A sampled token with the most probable ones in its place: (text, log-probability in nats)."""

    text: str
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Choice:
    """One of a completion's choices. refused: the server says that the model declined, or that a filter held its words
    back. tokens: None where the server gives no log-probabilities. cut: it was not ended by the model."""

    text: str
    refused: bool
    tokens: tuple[Token, ...] | None
    cut: bool = False


@dataclass(frozen=True)
class Completion:
    """choices: at least one. usage: (prompt, completion) tokens, None where the server does not say."""

    choices: tuple[Choice, ...]
    usage: tuple[int, int] | None


@dataclass(frozen=True)
class Answer:
    """What one request brought. votes: one per choice; of ``logprobs``, one. mass: probability of all labels
    together where the answer was read."""

    votes: tuple[Vote, ...]
    read: Read
    form: Form
    raw: str
    mass: float | None = None


class GarbageError(Exception):
    """The body is no chat completion."""


# --- off the wire -----------------------------------------------------------------------------------------------------
def completion_of(body: str) -> Completion:
    """Return the completion in a body. Raises GarbageError for what is no chat completion."""
    try:
        content = json.loads(body)
    # A deeply nested body must not end the run.
    except (ValueError, RecursionError):
        raise GarbageError("the body is no JSON") from None
    found = content.get("choices") if isinstance(content, dict) else None
    if not isinstance(found, list) or not found:
        raise GarbageError("the body has no choices")
    return Completion(tuple(_choice(choice) for choice in found), _usage(content.get("usage")))


def _choice(content: Any) -> Choice:
    message = content.get("message") if isinstance(content, dict) else None
    if not isinstance(message, dict):
        raise GarbageError("a choice has no message")
    text, refusal = _words(message.get("content")), message.get("refusal")
    ended = content.get("finish_reason")
    # A refusal that is empty is none.
    declined = refusal if isinstance(refusal, str) and refusal.strip() else None
    return Choice(
        text=printable(text or declined or ""),
        refused=declined is not None or ended == "content_filter",
        tokens=_tokens(content.get("logprobs")),
        # "stop" and unknown words pass; what says that something else ended the answer does not.
        cut=isinstance(ended, str) and _CUT.search(ended) is not None,
    )


def _words(content: Any) -> str:
    """Return a message's content: a text, or parts of which some are texts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))
    raise GarbageError("a message's content is no text")


def _tokens(logprobs: Any) -> tuple[Token, ...] | None:
    """Return the tokens, or None unless every token comes with its log-probability."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list) or not content:
        return None
    tokens = []
    for item in content:
        top = item.get("top_logprobs") if isinstance(item, dict) else None
        # The sampled token itself first: some servers leave it out of the list of the most probable.
        pairs = [_pair(item), *(_pair(other) for other in (top if isinstance(top, list) else []))]
        if pairs[0] is None:
            # A gap would shift all places after it.
            return None
        tokens.append(Token(pairs[0][0], tuple(dict(p for p in pairs if p is not None).items())))
    return tuple(tokens)


def _pair(item: Any) -> tuple[str, float] | None:
    text, logp = (item.get("token"), item.get("logprob")) if isinstance(item, dict) else (None, None)
    if not isinstance(text, str) or not isinstance(logp, (int, float)) or isinstance(logp, bool):
        return None
    if not logp <= MOST_LOGP:  # nan and inf are no log-probabilities
        return None
    # Marks that byte-level and SentencePiece tokenizers write for spaces and line ends.
    return text.replace("\u0120", " ").replace("\u2581", " ").replace("\u010a", "\n"), float(logp)


def _usage(content: Any) -> tuple[int, int] | None:
    if not isinstance(content, dict):
        return None
    prompt, completion = content.get("prompt_tokens"), content.get("completion_tokens")
    # type(...) is int: True is an int by isinstance, and no number of tokens.
    if not (type(prompt) is int and type(completion) is int and min(prompt, completion) >= 0):
        return None
    # An impossible number is not a usage: the bound counts instead.
    if max(prompt, completion) > MOST_TOKENS:
        return None
    return prompt, completion


def printable(text: str) -> str:
    """Return a text that can be stored: no lone surrogates, no megabytes."""
    return _SURROGATE.sub("\ufffd", text[:LONGEST_RAW])


# --- reading ----------------------------------------------------------------------------------------------------------
def answer_of(completion: Completion, question: Question, form: Form, minimum_mass: float) -> Answer:
    """Return log-probabilities of the labels where they are given and the labels hold at least ``minimum_mass`` there;
    else what the words say."""
    first = completion.choices[0]
    raw = "\n---\n".join(choice.text for choice in completion.choices)
    # Some servers ignore a request for log-probabilities now and then: its words are then votes.
    if first.tokens is None:
        return Answer(tuple(_said(choice, question, form) for choice in completion.choices), "votes", form, raw)
    # A refusal has probabilities too, of its first words.
    read = None if first.refused else _by_logprobs(first, question, form, minimum_mass)
    if read is None:
        return Answer((_said(first, question, form),), "text", form, first.text)
    return Answer((read[0],), "logprobs", form, first.text, read[1])


def _said(choice: Choice, question: Question, form: Form) -> Vote:
    """Return what the words of a choice say."""
    if choice.refused:
        return "refused"
    value = question.read(choice, form)
    if value is not None:
        return value
    words = final_words(choice.text)
    # Told apart since it says something of the judge: it read the question, and declined.
    return "refused" if words is not None and is_refusal(words) else "invalid"


def _by_logprobs(choice: Choice, question: Question, form: Form, minimum_mass: float) -> tuple[float, float] | None:
    """Return (expected value over the labels, their mass), read at the token that decides; None where no token does."""
    assert choice.tokens is not None
    if not question.one_token_tells:
        return None
    # In JSON a value begins after its name; in text, after the cue.
    after_cue = f'"{question.field}"' if form == "json" else question.cue.strip().rstrip(":").rstrip()
    places = [_place(choice.tokens, after_cue, _LINK)] if after_cue else []
    if question.reasoning or form == "json":
        # The words have to state one verdict: a token in the middle of thoughts is none.
        if question.read(choice, form) is None:
            return None
    else:
        # Without thoughts, an answer may begin with the label itself.
        places.insert(0, _first_word(choice))
    for place in places:
        if place is None or _is_another_word(choice, place, question, form):
            continue
        # All tokens given in that place, not only the one that was sampled.
        masses = label_masses(choice.tokens[place].top, list(question.values))
        mass = sum(masses.values())
        # Normalised over the labels, as local judges do it.
        if mass >= minimum_mass:
            value = sum(question.values[label] * m for label, m in masses.items()) / mass
            if question.reasoning and question.clamp is not None:
                # As in PromptedJudge: a verdict that follows its own reasons is overconfident.
                value = max(question.clamp[0], min(question.clamp[1], value))
            return value, min(1.0, mass)
    return None


def _first_word(choice: Choice) -> int | None:
    """Return the index of the token that the answer begins with, thoughts left out; None where it never began."""
    assert choice.tokens is not None
    text = "".join(token.text for token in choice.tokens)
    words = without_thoughts(text)
    return None if words is None else _token_at(choice.tokens, len(text) - len(text[text.rfind(words) :]), _OPENING)


def _is_another_word(choice: Choice, place: int, question: Question, form: Form) -> bool:
    """Return whether the token here is a label by its looks, and the words that follow make it something else (``A
    tie``)."""
    assert choice.tokens is not None
    # Only what looks like a label can be mistaken for one.
    if not any(label_masses([(choice.tokens[place].text, 0.0)], list(question.values)).values()):
        return False
    # Whether it was cut off matters no longer: the token is there.
    return question.read(replace(choice, cut=False), form) is None


def _place(tokens: Sequence[Token], after: str, skipped: str) -> int | None:
    """Return the index of the first token after the last occurrence of ``after`` that is more than ``skipped``
    characters."""
    at = "".join(token.text for token in tokens).lower().rfind(after.lower())
    return None if at < 0 else _token_at(tokens, at + len(after), skipped)


def _token_at(tokens: Sequence[Token], start: int, skipped: str) -> int | None:
    """Return the index of the first token from character ``start`` that is more than ``skipped`` characters."""
    begins = 0
    for index, token in enumerate(tokens):
        if begins >= start and token.text.strip(skipped):
            return index
        begins += len(token.text)
    return None


def label_masses(top: Sequence[tuple[str, float]], labels: Sequence[str]) -> dict[str, float]:
    """Return the probability of each label: of all tokens that are it (``A``, ``" A"``, ``"A."``) or that begin it and
    no other label. A label that is not among the tokens given gets 0."""
    masses = dict.fromkeys(labels, 0.0)
    for text, logp in top:
        # Spaces, quotes and marks around a label are not part of it.
        token = plain(text.lstrip(_LINK).rstrip(_CLOSING))
        if not token:
            continue
        # A token that is a label, or one that begins exactly one label.
        begun = [label for label in labels if plain(label) == token] or [
            label for label in labels if plain(label).startswith(token)
        ]
        if len(begun) == 1:
            # min: what is above 0 by rounding counts as 0.
            masses[begun[0]] += math.exp(min(0.0, logp))
    return masses


def plain(label: str) -> str:
    """Return a label as it is compared: one letter as it is, since case tells it from a word, and longer ones in lower
    case."""
    return label if len(label) == 1 else label.lower()
