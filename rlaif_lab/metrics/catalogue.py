"""The catalogue: one row for every metric that a run logs, read from catalogue.yaml beside this file."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlaif_lab.metrics.base import Row
from rlaif_lab.metrics.labellers import Role


@functools.cache
def sections() -> Mapping[str, tuple[Row, ...]]:
    """Return heading -> rows, in the order in which they are explained."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times faster, where libyaml is there
    content = yaml.load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"), Loader=loader)
    return {
        section["section"]: tuple(_row(entry, section.get("by", ())) for entry in section["rows"])
        for section in content
    }


def _row(entry: Mapping[str, Any], by: Sequence[Role]) -> Row:
    low, high = entry["range"]
    return Row(
        name=entry["name"],
        unit=entry["unit"],
        low=float(low),
        high=float(high),
        better=entry["better"],
        title=entry["title"],
        meaning=entry["meaning"],
        needs_gold=entry.get("gold", False),
        level=entry.get("level", "detail"),
        baseline=entry.get("baseline"),
        failure=entry.get("failure", False),
        by=tuple(entry.get("by", by)),
    )


def rows() -> list[Row]:
    """Return all rows, in the catalogue's order."""
    return [row for found in sections().values() for row in found]


@functools.cache
def _of_the_catalogue(name: str) -> Row | None:
    """Return the most literal row that matches, so that ``gap/best_of_2`` is not explained as one of a family."""
    # Fewest placeholders: the most literal description of a name.
    return min((row for row in rows() if row.matches(name)), key=lambda row: row.name.count("{"), default=None)


def row_of(name: str, more: Sequence[Row] = ()) -> Row:
    """Return the row of a logged name; ``more`` are the rows of metrics that a user added.

    Raises:
        KeyError: if no row describes it.
    """
    found = _of_the_catalogue(name) or next((row for row in more if row.matches(name)), None)
    if found is None:
        raise KeyError(f"no row of the catalogue describes {name!r}")
    return found


def headlines(names: Iterable[str]) -> list[str]:
    """Return those of the logged names that are headlines, in the catalogue's order."""
    logged = sorted(names)
    return [name for row in rows() if row.level == "headline" for name in logged if _of_the_catalogue(name) == row]


def never_left_zero(name: str, values: Iterable[float | None]) -> bool:
    """Return whether a failure count, an alarm or a cost was 0 all the time, so that it gets no chart of its own."""
    row = _of_the_catalogue(name)
    # Any value but 0, nan included, gives the metric its chart.
    return row is not None and row.failure and not any(values)


def is_detail(name: str) -> bool:
    """Return whether this metric is a detail; one that a user added is none."""
    row = _of_the_catalogue(name)
    return row is not None and row.level == "detail"


def is_failure(name: str, value: float) -> bool:
    """Return whether this metric counts failures, alarms or money, and there were some."""
    row = _of_the_catalogue(name)
    return row is not None and row.failure and bool(value)
