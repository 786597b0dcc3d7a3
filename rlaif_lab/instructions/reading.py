"""From a judge's words to its verdict or score: one reader for every judge and every template.

What a person reads as one verdict without doubt is read; where there is doubt, nothing. A label counts where a
statement ends with it (``Verdict: B``, ``[[B]]``, ``The better response is B.``) or where the statement says that it
wins (``Response A is better.``). No verdict are several labels, comparisons (``A < B``), open headings (``Response
A:``), an answer that was cut off, what is quoted, and what is asked, denied or only supposed.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from rlaif_lab.instructions.thoughts import without_thoughts

LONGEST = 600
"""Characters of a sentence that may state a verdict; longer ones are not looked at."""
Rank = Literal["strong", "final", "weak", "bare", "first"]


@dataclass(frozen=True)
class Found:
    """One statement. what: the label (as the template has it), the score, or None for a tie that is no answer.
    at: which line of the answer. rank: how plainly it states its verdict."""

    what: Any
    rank: Rank
    at: int


def final_words(text: str, cut: bool = False, opened: bool = False) -> str | None:
    """Return the part of an answer that may state a verdict, without thoughts; None where there is none.

    Args:
        text: What the model said.
        cut: Whether it was stopped by a limit on its length: then it may have been about to say something else.
        opened: Whether its chat template had opened a thought.
    """
    return None if cut else without_thoughts(text, opened)


def stated_label(text: str, labels: Sequence[str], cue: str = "", tie: str | None = None) -> str | None:
    """Return the one label that a finished answer states, as it stands in ``labels``; None for none or several.

    Args:
        text: The answer, without thoughts (``final_words``).
        labels: What the answers are called. Labels of one letter are told apart from words by their case.
        cue: What the template has the verdict follow (``Verdict:``).
        tie: The label of ``labels`` that says that neither is better, if there is one.
    """
    names = _Names(labels, tie)
    # JSON is read by its keys, whatever its texts say.
    if (content := json_object(text)) is not None:
        return names.in_json(content, None)
    return _agreed(list(_label_statements(_prepared(text, names), names, cue)), _prepared(text, names))


def label_in_json(text: str, labels: Sequence[str], key: str, tie: str | None = None) -> str | None:
    """Return the label that the JSON object ``text`` gives under ``key``; further keys do not matter unless they name
    another label."""
    content = json_object(text)
    return None if content is None else _Names(labels, tie).in_json(content, key)


def stated_score(text: str, minimum: float, maximum: float, cue: str = "") -> float | None:
    """Return the one score from ``minimum`` to ``maximum`` that a finished answer states; None for none or several.

    The whole number expression has to be a number on that scale: ``7/10`` is 7 where 10 is the maximum and nothing
    where it is not; so are ranges, shares and thousands. A decimal comma is read as such.
    """
    if (content := json_object(text)) is not None:
        return _score_in(content, None, minimum, maximum, cue)
    prepared = _prepared(text, None)
    found = [*_score_statements(prepared, maximum, cue)]
    if any(isinstance(one.what, float) and math.isnan(one.what) for one in found):
        return None  # a number of another scale, or no single number, beside the cue
    score = _agreed(found, prepared)
    return score if score is not None and minimum <= score <= maximum else None


def score_in_json(text: str, minimum: float, maximum: float, key: str) -> float | None:
    """Return the score that the JSON object ``text`` gives under ``key``."""
    content = json_object(text)
    return None if content is None else _score_in(content, key, minimum, maximum, "")


_REFUSAL = re.compile(
    r"^\W*(?:i(?:'m| am) sorry\W|sorry,|i apologi[sz]e\W|i (?:can(?:not|'t)|won't|will not|must decline)\b"
    r"|i(?:'m| am) (?:not able|unable)\b|as an ai\b)",
    re.IGNORECASE,
)


def is_refusal(text: str) -> bool:
    """Return whether a judge's answer opens by declining to answer. Only asked of answers that hold no verdict."""
    return _REFUSAL.match(text.replace("’", "'")) is not None


# --- what of an answer can state anything -----------------------------------------------------------------------------
_FENCE = re.compile(r"```[ \t]*(\w*)[ \t]*\n?(.*?)```", re.DOTALL)
_MATERIAL = re.compile(r"\[BEGIN ([A-Z ]+?)( [A-Z]+)\].*?\[END \1\2\]", re.DOTALL)
_QUOTED = re.compile(r"\"([^\"]{0,2000})\"|“([^”]{0,2000})”|«([^»]{0,2000})»|„([^“”]{0,2000})[“”]|`([^`]{0,2000})`")
_SINGLE_QUOTED = re.compile(r"(?<!\w)['‘]([^'’\n]{1,400})['’](?!\w)")
_QUOTED_LINE = re.compile(r"^[ \t]*>.*$", re.MULTILINE)
_BOXED = re.compile(r"\\boxed\s*\{\s*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\s*([^{}]*?)\s*\}?\s*\}")
_SYMBOLS = r"\u2190-\u21ff\u2600-\u27bf\U0001f000-\U0001faff\ufe0f"
_LEADING = re.compile(rf"^(?:[-•–—+#|]+\s+|#+\s*|[{_SYMBOLS}]+\s*|\(?\d{{1,2}}[.)]\s+(?=\D))+")
_TRAILING = re.compile(rf"[\s.!…{_SYMBOLS}]+$")
_SENTENCE = re.compile(r"(?<=[.!?…])[\"')\]*_]*\s+")


def _prepared(text: str, names: _Names | None) -> list[str]:
    """Return the lines of an answer that can state something: without what it quotes, in plain characters."""
    # \boxed{A}, as models of mathematics answer, is [[A]].
    text = _BOXED.sub(lambda match: f"[[{match.group(1)}]]", text.strip())
    # An answer that is nothing but one fence is read as the fence's content.
    whole = _FENCE.fullmatch(text)
    text = whole.group(2).strip() if whole else text
    if len(text) > 1 and (text[0], text[-1]) in {('"', '"'), ("“", "”"), ("'", "'"), ("`", "`")}:
        inner = text[1:-1]
        text = text if text[0] in inner else inner
    # The judge's own material, quoted back with its code, states nothing.
    text = _MATERIAL.sub(" (...) ", text)
    text = _FENCE.sub(" (...) ", text)
    text = _QUOTED_LINE.sub(" (...) ", text)

    def unquoted(match: re.Match[str]) -> str:
        inner = next((group for group in match.groups() if group is not None), "").strip()
        # Quotation marks around nothing but a label or a number are emphasis.
        plain = (names is not None and names.only(inner) is not None) or _NUMBER_ALONE.fullmatch(inner)
        return inner if plain else "(...)"

    text = _SINGLE_QUOTED.sub(unquoted, _QUOTED.sub(unquoted, text.replace("**", "").replace("__", "")))
    text = re.sub(r"\\\(|\\\)|\$", "", text).replace("*", "")
    # Full-width letters and digits as plain ones.
    text = plain_characters(text).replace("’", "'")
    lines = [line.strip() for line in text.splitlines()]
    return _joined([line for line in lines if line and not re.fullmatch(r"[-=_~#|\s]+", line)])


def plain_characters(text: str) -> str:
    """Return a text with full-width letters, and digits of every script, as ASCII has them. Raised and lowered ones,
    fractions and digits in circles stay as they are: what stands for a note or a half is no digit."""
    plain = []
    for character in text:
        if character.isdecimal():
            plain.append(str(unicodedata.decimal(character)))
        elif unicodedata.numeric(character, None) is not None and not character.isascii():
            plain.append(character)
        else:
            plain.append(unicodedata.normalize("NFKC", character))
    return unicodedata.normalize("NFC", "".join(plain))


def _joined(lines: list[str]) -> list[str]:
    """Return the lines, each heading that is nothing but a cue joined with the line under it."""
    joined: list[str] = []
    for line in lines:
        if joined and _CUE_ALONE.fullmatch(joined[-1]):
            joined[-1] = f"{joined[-1].rstrip(': ')}: {line}"
        else:
            joined.append(line)
    return joined


def _statements(lines: Sequence[str]) -> Iterator[tuple[int, str, bool]]:
    """Return (line, sentence, whether it is the whole of its line), without list marks and full stops."""
    for at, line in enumerate(lines):
        bare = _LEADING.sub("", line)
        sentences = [s for s in _SENTENCE.split(bare) if s.strip()]
        for sentence in sentences:
            yield at, _TRAILING.sub("", sentence).strip(), len(sentences) == 1


# --- labels -----------------------------------------------------------------------------------------------------------
_NOUN = (
    r"(?i:(?:the\s+)?(?:ai\s+)?(?:response|answer|option|assistant|output|candidate|reply|completion|model|choice|text"
    r"|version|solution|system|chatbot|summary|translation|essay|story|number)\s+)"
)
_OPEN, _CLOSE = r"[\s\[({<\"'_【「『]*", r"[\s\])}>\"'_】」』]*"
_ADVERBS = (
    r"(?:(?:clearly|therefore|thus|hence|still|definitely|overall|obviously|slightly|much|far|significantly|also|so"
    r"|a\s+bit|the|a)\s+)*"
)
_CUE_WORDS = (
    r"(?:final\s+|overall\s+)?(?:verdict|winner|decision|choice|preference|pick|selection|judge?ment|vote)"
    r"|(?:better|best|preferred|superior|stronger|winning|chosen)"
    r"(?:\s+(?:response|answer|option|assistant|output|candidate|reply|completion|model|one|text|version|solution))?"
    r"|final\s+answer|preferred"
)
_WEAK_CUES = r"answer|conclusion|result"
_LINK = r"[\])\"'_]*\s*(?:(?:is|are|was|should\s+be|would\s+be|must\s+be|goes\s+to|to|as)\b)?\s*[:=\-–—→>]*\s*"
_BETTER = (
    r"(?:(?:the\s+)?(?:better|best|superior|preferable|preferred|stronger|winner|winning|chosen)"
    r"(?:\s+(?:one|response|answer|option|choice|assistant|output|candidate))?"
    r"|the\s+(?:right|correct)\s+(?:one|choice)|(?:what|the\s+one)\s+I\s+(?:choose|prefer|pick)|my\s+(?:choice|pick))"
)
_OPENERS = (
    r"(?:(?:so|thus|therefore|hence|overall|finally|clearly|and|but|i\s+(?:think|believe|conclude|find|judge|feel|say)"
    r"(?:\s+that)?|it\s+is\s+clear\s+that|in\s+(?:conclusion|summary|short|total)|to\s+(?:conclude|sum\s+up)|here"
    r"|my\s+(?:final\s+)?(?:verdict|decision|conclusion|judge?ment)\s+is(?:\s+that)?)[,:]?\s+)*"
)
_OPENER = re.compile(rf"(?i:{_OPENERS})")
_TAIL = (
    r"(?:\s+(?:overall|by\s+far|here|in\s+every\s+(?:way|respect)|for\s+(?:this|these|that|those)\s+reasons?|of\s+the\s+two"
    r"|(?:than|over|to)\s+(?:the\s+other(?:\s+\w+)?|{label}))|,?\s+(?:because|since|as|due\s+to)\s+(?P<why>.+))?"
)
_DENIED = re.compile(r"\b(?:not|no|never|nor|neither|hardly|cannot|without|\w+n't)\b", re.IGNORECASE)
_SUPPOSED = re.compile(
    r"\b(?:if|unless|whether|would|could|might|may|must|should|say|says|said|saying|claims?|claimed|states?|stated"
    r"|writes?|wrote|tells?|told|asks?|asked|asking|orders?|instruct\w*|demand\w*|want\w*|pretend\w*|quote\w*|wrong"
    r"|tempt\w*|instead|rather|or|either|end\s+with|answer\s+with|output|format|example|e\.g|line|lines|tries|trying"
    r"|attempt\w*|initial\w*|first\s+(?:glance|impression)|previous\w*|at\s+first)\b",
    re.IGNORECASE,
)
_DOUBT = re.compile(
    r"\b(?:tie|tied|draw|equal|equally|neither|actually|wait|hmm+|on\s+second\s+thought|correction|changed?\s+my\s+mind"
    r"|not\s+sure|unsure|undecided|can(?:not|'t)\s+(?:decide|tell)|however|on\s+the\s+other\s+hand|reconsider\w*"
    r"|scratch\s+that|no,)",
    re.IGNORECASE,
)
_THOUGHT_SO = re.compile(r"\bi\s+(?:think|believe|feel|find)\b", re.IGNORECASE)
_I_SAY = re.compile(r"\bi\s+(?:would\s+|must\s+)?(?:say|state)\b", re.IGNORECASE)
_CONTRAST = re.compile(r"\b(?:but|however|although|though|yet|whereas|while)\b", re.IGNORECASE)
_TIE = re.compile(
    r"(?i:(?:(?:it|this)\s+is\s+|it's\s+)?(?:a\s+|an\s+)?(?:tie|draw|equal(?:ly\s+good)?|neither(?:\s+is\s+better)?"
    r"|both(?:\s+are\s+equally\s+good)?|tied))"
)
_CUE_ALONE = re.compile(
    rf"(?i:(?:#+\s*)?(?:my\s+)?(?:{_CUE_WORDS}|{_WEAK_CUES}|(?:final\s+|overall\s+|total\s+)?(?:score|rating|grade))\s*:?)"
)
_JSON_KEYS = (
    *("verdict", "winner", "choice", "answer", "preference", "preferred", "better", "best", "decision", "judgement"),
    *(
        "judgment",
        "final_verdict",
        "final_answer",
        "result",
        "label",
        "selection",
        "better_response",
        "winning_response",
    ),
)


class _Names:
    """How labels are written."""

    def __init__(self, labels: Sequence[str], tie: str | None) -> None:
        self.tie = tie
        self.of = {_plain(_stripped(label)): label for label in labels}
        # Longer labels first, so that none is matched by its beginning.
        names = sorted((_stripped(label) for label in labels), key=len, reverse=True)
        self.any = "|".join(re.escape(n) if len(n) == 1 else f"(?i:{re.escape(n)})" for n in names)
        short = {_plain(name.split()[-1]): self.of[_plain(name)] for name in names if len(name.split()) > 1}
        if len(short) == sum(len(name.split()) > 1 for name in names):  # "Response A" is also called A
            new = {name: label for name, label in short.items() if name not in self.of}
            self.of |= new
            self.any += "".join(f"|{re.escape(name)}" if len(name) == 1 else f"|(?i:{re.escape(name)})" for name in new)

    def named(self, match: re.Match[str]) -> str:
        return self.of[_plain(match.group("label"))]

    def only(self, text: str) -> str | None:
        """Return the label that is all of a text."""
        match = _forms(self.any, "").bare.fullmatch(plain_characters(text).strip().rstrip(".!"))
        return self.named(match) if match else None

    def in_json(self, content: Mapping[str, Any], key: str | None) -> str | None:
        """Return the label that an object gives under ``key`` (None: under any of the usual ones)."""
        keys = [key] if key is not None else [k for k in content if k.strip().lower().replace(" ", "_") in _JSON_KEYS]
        texts = {k: v for k, v in content.items() if isinstance(v, str)}
        # None is for a key whose value is no label: then there is no single answer.
        said = {self.only(texts[k]) if k in texts else None for k in keys if k in content}
        # Another key that names another label leaves it open.
        others = {self.only(text) for k, text in texts.items() if k not in keys} - {None}
        if len(said) != 1 or others - said:
            return None
        return said.pop()


@dataclass(frozen=True)
class _Forms:
    """The forms of a statement for one set of labels."""

    marked: re.Pattern[str]
    compared: re.Pattern[str]
    cued: re.Pattern[str]
    weakly: re.Pattern[str]
    wins: re.Pattern[str]
    chosen: re.Pattern[str]
    bare: re.Pattern[str]
    opening: re.Pattern[str]
    any: re.Pattern[str]


@lru_cache(maxsize=64)
def _forms(label: str, cue: str) -> _Forms:
    """Return the ways to state a label. label: what matches any of the labels."""
    own = cue.strip().rstrip(":").rstrip()
    strong = f"{re.escape(own)}|{_CUE_WORDS}" if own else _CUE_WORDS
    one = rf"{_OPEN}(?:{_NOUN}{_OPEN})?(?<!\w)(?:{label})(?!\w){_CLOSE}"
    caught = rf"{_OPEN}(?:{_NOUN}{_OPEN})?(?<!\w)(?P<label>{label})(?!\w){_CLOSE}"
    judged = rf"(?:{caught}|(?P<tie>{_TIE.pattern}))"
    tail = _TAIL.replace("{label}", one)
    return _Forms(
        re.compile(rf"(?P<lead>.*?)\[\[{caught}"),
        re.compile(rf"(?P<lead>.*?)\[\[\s*({label})\s*(>{{1,2}}|=)\s*({label})\s*\]\]"),
        re.compile(rf"(?P<lead>.*?)(?<!\w)(?i:(?P<cue>{strong}))(?!\w){_LINK}{_ADVERBS}{judged}"),
        weakly=re.compile(rf"(?P<lead>.*?)(?<!\w)(?i:(?P<cue>{_WEAK_CUES}))(?!\w){_LINK}{_ADVERBS}{judged}"),
        wins=re.compile(
            rf"(?P<lead>.*?)(?:(?i:(?:{strong}))\s*:\s*)?{caught}(?i:\s*(?:is|'s|was)\s+{_ADVERBS}{_BETTER}"
            rf"|\s*(?:wins|won))(?i:{tail})"
        ),
        chosen=re.compile(
            r"(?P<lead>.*?)\b(?i:(?:i|we)(?:\s+(?:will|would|do|shall|therefore|thus|hence|clearly|have\s+to)|'ll|'d)*\s+"
            r"(?:choose|chose|pick|select|prefer|favou?r|vote\s+for|go\s+with|opt\s+for|declare))\s+"
            rf"{caught}(?i:(?:\s*(?:as|to\s+be)\s+{_BETTER})?{tail})"
        ),
        bare=re.compile(caught),
        opening=re.compile(rf"(?P<lead>){_OPEN}(?P<label>{label})[\])}}\"'_]*\.\s+\S.*"),
        any=re.compile(rf"(?<!\w)(?:{label})(?!\w)|{_TIE.pattern}"),
    )


def _label_statements(lines: Sequence[str], names: _Names, cue: str) -> Iterator[Found]:
    forms = _forms(names.any, cue)
    count = len(lines)
    for at, sentence, alone in _statements(lines):
        # Most sentences hold no label: they are passed over before the slower patterns.
        if len(sentence) > LONGEST or not forms.any.search(sentence):
            continue
        # From the plainest form to the least plain: the first that fits is taken.
        if match := forms.compared.fullmatch(sentence):
            first, sign, second = match.group(2), match.group(3), match.group(4)
            if _plain(first) != _plain(second) and not _doubtful(match.group("lead")):
                tied = names.tie if sign == "=" else names.of[_plain(first)]
                yield Found(tied, "strong", at)
        elif (match := forms.wins.fullmatch(sentence) or forms.chosen.fullmatch(sentence)) and _leads(match):
            yield Found(names.named(match), "strong", at)
        elif match := forms.marked.fullmatch(sentence):
            if "[[" not in match.group("lead") and not _doubtful(match.group("lead")):
                yield Found(names.named(match), "strong", at)
        elif (match := forms.cued.fullmatch(sentence)) and not _doubtful(match.group("lead")):
            said = match.group("cue") + match.group("lead")
            final = re.search(r"(?i)\b(?:final|overall)\b", said) is not None
            yield Found(_or_tie(match, names), "final" if final else "strong", at)
        elif (match := forms.weakly.fullmatch(sentence)) and not _doubtful(match.group("lead")):
            yield Found(_or_tie(match, names), "weak", at)
        elif alone and (match := forms.bare.fullmatch(sentence)):
            # A label alone on its line may be the heading of what follows, which is not a verdict.
            ends, headed = at == count - 1, re.search(_NOUN, sentence) is not None
            yield Found(names.named(match), "bare" if ends or not headed else "first", at)
        elif alone and names.tie is not None and _TIE.fullmatch(sentence):
            yield Found(names.tie, "bare", at)
    for at, line in enumerate(lines):
        # "1. ..." is an item of a list.
        if (match := forms.opening.fullmatch(line[:LONGEST])) and not match.group("label").isdigit():
            yield Found(names.named(match), "bare", at)


def _or_tie(match: re.Match[str], names: _Names) -> str | None:
    return names.named(match) if match.group("label") is not None else names.tie


def _leads(match: re.Match[str]) -> bool:
    """Return whether what stands before and after a statement of who wins leaves it one."""
    lead = match.group("lead").strip()
    why = match.groupdict().get("why")
    if why is not None and (_CONTRAST.search(why) or _DOUBT.search(why)):
        return False
    stated = match.group()[len(match.group("lead")) :]
    if _THOUGHT_SO.search(lead) and not re.match(rf"{_OPEN}{_NOUN}", stated):
        return False  # "I think A is": an article as often as a label
    plain = not lead or _OPENER.fullmatch(f"{lead} ") is not None or lead.endswith((",", ":", ";", "-", "–", "—"))
    return plain and not _doubtful(lead)


def _doubtful(lead: str) -> bool:
    """Return whether a statement that follows these words is denied, supposed or somebody else's."""
    # "I say" is nobody else's statement.
    lead = _I_SAY.sub("", lead)
    # A denial counts within its own clause, a supposition anywhere before.
    clause = re.split(r"[,;:–—]", lead.rstrip(" ,;:–—-"))[-1]
    return _SUPPOSED.search(lead) is not None or _DENIED.search(clause) is not None or "?" in lead


def _agreed(found: Sequence[Found], lines: Sequence[str]) -> Any:
    """Return what all the plainest statements say, if nothing after them takes it back; None where they disagree."""
    # What is stated most plainly decides; what comes after it must not contradict it.
    for ranks in (("final",), ("strong", "final"), ("weak",), ("bare", "first")):
        held = [one for one in found if one.rank in ranks]
        if not held:
            continue
        values = {one.what for one in held}
        last = max(held, key=lambda one: one.at)
        later = {one.what for one in found if one.at > last.at}
        if ranks == ("final",) and last is not max(found, key=lambda one: one.at):
            continue  # not so final
        if len(values) != 1 or later - values or (held[0].what is None):
            return None
        if last.rank == "first" or (last.rank == "bare" and 0 < last.at < len(lines) - 1):
            return None  # a heading, or a label amid the text
        # Whatever takes it back counts, in any words.
        rest = "\n".join(lines[last.at + 1 :])
        return None if _DOUBT.search(rest) else values.pop()
    return None


def _stripped(label: str) -> str:
    """Return a label without brackets and marks around it, where that leaves anything."""
    return label.strip().strip("[](){}<>\"'*_`.: ") or label.strip()


def _plain(label: str) -> str:
    """Return a text as it is compared. Single letters are told apart by case (``a`` is an article), words are not."""
    return label if len(label) == 1 else label.lower()


# --- scores -----------------------------------------------------------------------------------------------------------
_DIGITS = r"[0-9]+(?:[.,][0-9]+)?"
_NUMBER = (
    rf"(?P<number>(?<![\w.,/\-–])(?:{_DIGITS}))"
    rf"(?:\s*(?:/|out\s+of|of|from)\s*(?P<scale>{_DIGITS}))?(?:\s*(?:points?|pts))?"
)
_NUMBER_ALONE = re.compile(rf"{_OPEN}{_NUMBER}{_CLOSE}[.!]?", re.IGNORECASE)
_SCORE_CUES = r"(?:final|overall|total)?\s*(?:score|rating|grade|mark|points|result)"
_GIVERS = r"deserves?|earns?|gets?|receives?|merits?|scores?"
_GIVEN = (
    rf"(?:give|assign|award|rate|grade|score|{_GIVERS})\b[\w\s]{{0,60}}?"
    rf"\b(?:a|an|of|as|at|it|this|that|response|answer|score|rating|{_GIVERS})"
)
_SCORE_KEYS = ("score", "rating", "grade", "final_score", "overall_score", "total_score", "overall", "points")


@lru_cache(maxsize=64)
def _score_forms(cue: str) -> tuple[re.Pattern[str], re.Pattern[str], re.Pattern[str]]:
    own = cue.strip().rstrip(":").rstrip()
    words = f"{re.escape(own)}|{_SCORE_CUES}" if own else _SCORE_CUES
    return (
        re.compile(rf"(?i)(?P<lead>.*?)(?<!\w)(?P<cue>{words})(?!\w){_LINK}(?:a\s+)?{_OPEN}{_NUMBER}{_CLOSE}"),
        re.compile(rf"(?i)(?P<lead>.*?)(?<!\w)(?:i\s+(?:would|will)\s+)?{_GIVEN}\s+{_OPEN}{_NUMBER}{_CLOSE}"),
        re.compile(rf"(?i)(?:.*?(?<!\w))?(?P<cue>{words})(?!\w){_LINK}{_OPEN}[-+~]?[0-9].*"),
    )


def _score_statements(lines: Sequence[str], maximum: float, cue: str) -> Iterator[Found]:
    cued, given, begun = _score_forms(cue)
    for at, sentence, alone in _statements(lines):
        if len(sentence) > LONGEST or not any(map(str.isdigit, sentence)):
            continue
        if match := cued.fullmatch(sentence):
            if not _doubtful(match.group("lead")):
                said = match.group("cue") + match.group("lead")
                final = re.search(r"(?i)\b(?:final|overall|total)\b", said) is not None
                yield Found(_value(match, maximum), "final" if final else "strong", at)
        elif (match := given.fullmatch(sentence)) and not _doubtful(match.group("lead")):
            yield Found(_value(match, maximum), "strong", at)
        elif alone and (match := _NUMBER_ALONE.fullmatch(sentence)):
            yield Found(_value(match, maximum), "bare", at)
        elif (match := begun.fullmatch(sentence)) and not _doubtful(sentence):
            yield Found(math.nan, "strong", at)


def _value(match: re.Match[str], maximum: float) -> float:
    """Return the number on the template's scale; nan for one of another."""
    number, scale = _number(match.group("number")), match.groupdict().get("scale")
    # Out of another maximum: a number on another scale.
    if scale is not None and _number(scale) != maximum:
        return math.nan
    return number


def _number(text: str) -> float:
    if re.fullmatch(r"[0-9]+,[0-9]{3,}", text):  # thousands
        return math.nan
    value = float(text.replace(",", "."))
    return value if math.isfinite(value) else math.nan


def _score_in(content: Mapping[str, Any], key: str | None, minimum: float, maximum: float, cue: str) -> float | None:
    own = cue.strip().rstrip(":").strip().lower()
    keys = (
        [key] if key is not None else [k for k in content if k.strip().lower().replace(" ", "_") in (*_SCORE_KEYS, own)]
    )
    values = [content[k] for k in keys if k in content]
    # Exactly one: two scores are none.
    if len(values) != 1:
        return None
    value = values[0]
    if isinstance(value, str):
        match = _NUMBER_ALONE.fullmatch(plain_characters(value).strip())
        value = _value(match, maximum) if match else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if minimum <= value <= maximum else None  # nan is in no range


# --- JSON -------------------------------------------------------------------------------------------------------------
def json_object(text: str) -> dict[str, Any] | None:
    """Return the one JSON object that an answer is, or that it ends with in a fence; None where it is none.

    A key given twice with different values makes it none.
    """
    text = text.strip()
    fenced = [m for m in _FENCE.finditer(text) if m.group(1).lower() in ("", "json", "json5", "jsonc")]
    # Only a fence at the end: what follows could take it back.
    if fenced and not text[fenced[-1].end() :].strip():
        objects = [_parsed(m.group(2)) for m in fenced if m.group(2).strip().startswith("{")]
        found = [one for one in objects if one is not None]
        # Several fences have to say the same.
        return found[0] if found and len(found) == len(objects) and all(one == found[0] for one in found) else None
    return _parsed(text) if text.startswith("{") else None


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        # Given twice with the same value it is one statement.
        if key in content and content[key] != value:
            raise ValueError(f"{key!r} is given twice")
        content[key] = value
    return content
