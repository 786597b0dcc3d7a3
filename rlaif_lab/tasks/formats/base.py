"""What a file format is: how a row's conversation and its labelled responses are found in its columns."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rlaif_lab.config import did_you_mean
from rlaif_lab.tasks.read_rows import FileRow

Turns = tuple[tuple[str, str], ...]
"""A conversation as (role, content)."""

FIRST, SECOND, TIE = 1.0, 0.0, 0.5
"""Probability that the first response is better, by what a label says."""


@dataclass(frozen=True)
class LabelledResponses:
    """Two responses to a row's conversation, one of which is better.

    prob_first: 1, 0 or 0.5. author_first, author_second: who wrote them, where the file says so. slots_given: the file
    says which stands first; else the order is free and must be chosen without looking at the label.
    """

    first: str
    second: str
    prob_first: float
    author_first: str | None = None
    author_second: str | None = None
    slots_given: bool = True


Context = Callable[[FileRow], Turns]
Pairs = Callable[[FileRow, float], "tuple[Turns, list[LabelledResponses]]"]


@dataclass(frozen=True)
class FileFormat:
    """A layout of columns.

    columns: those that every row must have. about: what it is, in a few words. context: the conversation before the
    responses. pairs: that conversation and the labelled responses; None for layouts without labels. label: the column
    whose codes are understood once for the whole file; its meaning is handed to ``pairs`` (0.5 where there is none).
    codes: label -> probability that the first response is better, in the form of ``label_text``. numbers: whether
    numeric codes may be understood from all the values of the file as well.
    """

    columns: tuple[str, ...]
    about: str
    context: Context
    pairs: Pairs | None = None
    label: str | None = None
    codes: Mapping[str, float] | None = None
    numbers: bool = False


# --- values of a row --------------------------------------------------------------------------------------------------
def need(row: FileRow, column: str, form: str) -> Any:
    """Return a column's value, which must be there and not null."""
    if column not in row.values:
        others = list(row.values)
        raise ValueError(
            f"{row.where}: column {column!r} of format {form} is missing{did_you_mean(column, others)}; it has "
            f"{names(others)}"
        )
    if row.values[column] is None:
        raise ValueError(f"{row.where}: column {column!r} of format {form} is null")
    return row.values[column]


def held(row: FileRow, column: str) -> Any:
    """Return a column's value, which may be null but must be there."""
    if column not in row.values:
        others = list(row.values)
        raise ValueError(
            f"{row.where}: there is no column {column!r}{did_you_mean(column, others)}; it has {names(others)}"
        )
    return row.values[column]


def text(row: FileRow, column: str) -> str:
    """Return a column that must hold a text."""
    value = held(row, column)
    if not isinstance(value, str):
        raise ValueError(f"{row.where}: {column} must be a text; got {short(value)}")
    return value


def optional(row: FileRow, column: str) -> str | None:
    """Return a column as text, or None where it is missing or empty."""
    value = row.values.get(column)
    # pandas writes an empty cell as nan.
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (list, dict)):
        raise ValueError(f"{row.where}: {column} must be a text; got {short(value)}")
    return value if isinstance(value, str) else str(value)


def listed(row: FileRow, column: str) -> list[Any]:
    """Return a column that the format says is a list, also where a file without lists holds it as JSON."""
    value = held(row, column)
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    if not isinstance(value, list):
        raise ValueError(f"{row.where}: {column} must be a list; got {short(value)}")
    return value


def number(row: FileRow, column: str, value: Any) -> float:
    """Return a finite number, also where a file without types holds it as text."""
    try:
        # float(True) would be 1.
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise ValueError(f"{row.where}: {column} must be a number; got {short(value)}, which is not a number")
    return found


def names(columns: Sequence[str]) -> str:
    return ", ".join(map(str, columns)) or "none"


def short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
