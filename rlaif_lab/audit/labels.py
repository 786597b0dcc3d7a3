"""What the labels of a file mean: understood once, from all of them, or stated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlaif_lab.tasks.formats.base import FIRST, SECOND, TIE, FileFormat, short

MEANINGS = {"first": FIRST, "second": SECOND, "tie": TIE}
ONE_OR_TWO = {"1": FIRST, "2": SECOND}
PROBABILITY = {"1": FIRST, "0": SECOND, "0.5": TIE}
NAMED_CODES = {
    "better_response_id": "pku_saferlhf",
    "safer_response_id": "pku_saferlhf",
    "preference_strength": "helpsteer2",
    "overall_preference": "helpsteer3",
}
"""Columns whose numbers mean something else than those of a label, and the format that knows what."""

Located = tuple[str, Any]
"""Where a label stands, and the label."""


def label_text(value: Any) -> str:
    """Return a label in the form in which labels are compared: small letters, no spaces, no vain decimal point."""
    # Booleans are integers in Python, and no labels.
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return str(value).lower()
    # "A > B" and "a>b" are one label, and so are 1 and 1.0.
    text = "".join(str(value).split()).lower()
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() else repr(number)


def stated_codes(labels: Mapping[Any, Any], key: str) -> dict[str, float]:
    """Return a user's map of labels as codes.

    Raises:
        ValueError: for a meaning that is none of first, second, tie.
    """
    found = {}
    for label, meaning in labels.items():
        if not isinstance(meaning, str) or meaning not in MEANINGS:
            raise ValueError(f"{key}: {label!r} must mean one of {', '.join(MEANINGS)}; got {meaning!r}")
        found[label_text(label)] = MEANINGS[meaning]
    return found


def codes_of(
    labels: Sequence[Located], form: FileFormat, *, stated: Mapping[str, float] | None, column: str, key: str
) -> Mapping[str, float]:
    """Return what every label of a file means.

    Args:
        labels: of all rows.
        form: the format, with the words that it knows.
        stated: the user's codes, which then are the only ones.
        column: the file's own name of the column.
        key: the setting by which codes are stated, for messages.

    Raises:
        ValueError: with the line of a label without a meaning; for codes that can be read in more than one way.
    """
    # A user's codes are the only ones: what the file's words usually mean is set aside.
    if stated is not None:
        _check_known(labels, stated, f"is not in {key}, which has {', '.join(stated)}")
        return stated
    words = form.codes or {}
    if not form.numbers:
        _check_known(
            labels, words, f"must be one of {', '.join(words)}; say what others mean with {key}={{...: first}}"
        )
        return words
    # What is left over are numbers, which can mean several things.
    numbers = {label_text(value) for _, value in labels} - set(words)
    # Some known columns count from 0, or by strength: guessing would turn labels round.
    if numbers and column in NAMED_CODES:
        raise ValueError(
            f"{labels[0][0]}: column {column!r} has codes of its own: read the file with "
            f"bank.format={NAMED_CODES[column]}, or say what they mean with {key}, e.g. {key}={{0: first, 1: second}}"
        )
    # A 2 can only be a number of responses, a 0.5 only a probability; 0 and 1 alone could be either.
    for coding in (ONE_OR_TWO if "2" in numbers else {}, PROBABILITY if "0.5" in numbers else {}):
        if coding and numbers <= set(coding):
            return {**words, **coding}
    _check_known(
        labels,
        {**words, **PROBABILITY, **ONE_OR_TWO},
        "must be first, second or tie (or A, B; 1, 2; or 1, 0, 0.5 as the probability that the first is better); "
        f"say what others mean with {key}={{...: first, ...: second}}",
    )
    if numbers:
        where = next(where for where, value in labels if label_text(value) in numbers)
        raise ValueError(
            f"{where}: the labels {', '.join(sorted(numbers))} can be read in more than one way (the number of the "
            f"better response from 0 or from 1, or the probability that the first is better); say what they mean with "
            f"{key}, e.g. {key}={{1: first, 0: second}}, or write first, second, tie"
        )
    return words


def _check_known(labels: Sequence[Located], codes: Mapping[str, float], reason: str) -> None:
    for where, value in labels:
        if label_text(value) not in codes:
            raise ValueError(f"{where}: label {reason}; got {short(value)}")
