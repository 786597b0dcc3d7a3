"""Numbers as people and models write them, as exact fractions."""

from __future__ import annotations

import re
from fractions import Fraction

# Thousands may be set apart by a comma, a space (U+00A0 and U+202F do not break) or an apostrophe.
_DIGITS = r"(?:\d{1,3}(?:[,\u00a0\u202f ']\d{3})+(?![\d,])|\d+)(?:\.\d+)?|\.\d+"
_LATEX = r"\\[dt]?frac\s*\{\s*(?P<over>[-+]?\d+)\s*\}\s*\{\s*(?P<under>\d+)\s*\}"
NUMBER = re.compile(
    rf"(?<![\w.,])(?P<sign>[-+]\s?)?[$€£]?(?P<minus>-)?(?:{_LATEX}|(?P<whole>{_DIGITS})(?:[eE](?P<power>[-+]?\d+))?"
    rf"(?:\s?/\s?(?P<below>\d+(?:\.\d+)?))?)(?P<percent>\s?(?:%|\\%|per ?cent\b))?",
)
_LONGEST = 400
"""Digits of a number that is read at all; what is longer is no answer."""


def plain(text: str) -> str:
    """Return a text with the signs, marks and spaces of typesetting in their plain form."""
    # Minus sign and dash; LaTeX's comma within a number, and its negative space.
    text = text.replace("\u2212", "-").replace("\u2013", "-").replace("{,}", ",").replace("\\!", "")
    return re.sub(r"\\(?:left|right|,|;|:|\$)", lambda found: "$" if found[0] == "\\$" else "", text)


def numbers_in(text: str) -> list[tuple[Fraction, bool]]:
    """Return the numbers of a text in order, each with whether it is a percentage.

    A number with another decimal mark (``8,5``) is left out, since it cannot be told what it is.
    """
    found = []
    text = plain(text)
    position = 0
    while match := NUMBER.search(text, position):
        position = match.end()
        # Followed at once by a comma or a point and more digits it cannot be told what it is (8,5; 1.2.3).
        tail = re.match(r",\d+|\.\d", text[position:])
        if tail:
            position += tail.end()
            continue
        value = _value(match)
        if value is not None:
            found.append((value, match["percent"] is not None))
    return found


def _value(match: re.Match[str]) -> Fraction | None:
    negative = (match["sign"] or "").strip() == "-" or match["minus"] is not None
    if match["over"] is not None:
        below = int(match["under"])
        if below == 0 or len(match[0]) > _LONGEST:
            return None
        value = Fraction(int(match["over"]), below)
    else:
        power = match["power"]
        # As an exact fraction 1e999999999 would fill the memory.
        if len(match[0]) > _LONGEST or (power is not None and abs(int(power)) > _LONGEST):
            return None
        value = Fraction(re.sub(r"[,\u00a0\u202f ']", "", match["whole"]))
        if power is not None:
            value *= Fraction(10) ** int(power)
        if match["below"] is not None:
            below_ = Fraction(match["below"])
            if below_ == 0:
                return None
            value /= below_
    return -value if negative else value


def only_number(text: str) -> tuple[Fraction, bool] | None:
    """Return the one number of a text; None where there is none, or more than one."""
    found = numbers_in(text)
    return found[0] if len(found) == 1 else None


def last_number(text: str) -> tuple[Fraction, bool] | None:
    """Return the last number of a text; None where there is none, or where it cannot be told what it is."""
    found = numbers_in(text)
    return found[-1] if found else None


def equal(answer: tuple[Fraction, bool], gold: tuple[Fraction, bool]) -> bool:
    """Tell whether two numbers are the same: to a millionth, and 0.5 or 50 for 50 %."""
    if answer[1] == gold[1]:
        return _near(answer[0], gold[0])
    percent, other = (answer[0], gold[0]) if answer[1] else (gold[0], answer[0])
    return _near(percent, other) or _near(percent / 100, other)


def _near(first: Fraction, second: Fraction) -> bool:
    return abs(first - second) <= abs(second) * Fraction(1, 1_000_000)


def written(value: Fraction) -> str:
    """Return a number as it is usually written: an integer, a short decimal or a fraction."""
    if value.denominator == 1:
        return str(value.numerator)
    # A decimal that ends has no other prime factors below the line.
    rest = value.denominator
    for factor in (2, 5):
        while rest % factor == 0:
            rest //= factor
    return (
        repr(float(value)) if rest == 1 and len(repr(float(value))) < 12 else f"{value.numerator}/{value.denominator}"
    )
