"""What a metric is: its row in the catalogue, and the contract of one that a user adds."""

from __future__ import annotations

import functools
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rlaif_lab.metrics.labellers import Role, in_words

if TYPE_CHECKING:
    from rlaif_lab.records import Floats, Generation, Judgement
    from rlaif_lab.tasks.base import Task

Better = Literal["up", "down", "zero", "neither"]
"""Which way is better: higher, lower, nearer to zero; ``neither`` where it depends on what else is seen."""
Level = Literal["headline", "detail"]
"""Headlines are charted first; details stand in closed sections."""

FAMILIES: dict[str, tuple[str, str]] = {
    "level": (r"[a-z0-9_]+", "a level of difficulty, as the task names it"),
    "k": (r"\d+", "1, 2, 4, ... up to the number of samples"),
    "pairs": (r"on_policy|frozen", "`on_policy` (the policy's own samples) or `frozen` (the bank's fixed pairs)"),
    "role": (r"judge|heldout_judge", "`judge` (it trains) or `heldout_judge` (it only evaluates)"),
    "subset": (r"[a-z0-9_]+", "a subset of the bank, such as `slip` or `misconception`"),
}
"""Placeholders in names -> what they match, and what that is in words."""


@dataclass(frozen=True)
class Row:
    """One line of the catalogue.

    Attributes:
        name: As logged; ``{k}``, ``{pairs}``, ``{role}`` and ``{subset}`` stand for a family of names.
        unit: Such as ``quality``, ``nats``, ``share``.
        low: Smallest value possible; -inf where there is none.
        high: Largest value possible; inf where there is none.
        better: Which way is better.
        title: A few words, for a chart.
        meaning: One or two sentences, for a caption.
        needs_gold: Whether it is undefined on a task without gold.
        level: Headline or detail.
        baseline: Value or metric to draw as a dotted line; None for none.
        failure: Whether it counts something that should not happen (failures, alarms, money): no chart while it is 0.
        by: Who judged, as roles; () for what is counted.
    """

    name: str
    unit: str
    low: float
    high: float
    better: Better
    title: str
    meaning: str
    needs_gold: bool = False
    level: Level = "detail"
    baseline: float | str | None = None
    failure: bool = False
    by: tuple[Role, ...] = ()

    def caption(self, logged: str = "") -> str:
        """Return what it means, and who judged. logged: the name, where it is one of a family."""
        judged = in_words(self.by, logged or self.name)
        return f"{self.meaning} Judged by: {judged}." if judged else self.meaning

    def matches(self, logged: str) -> bool:
        """Return whether a logged name is this row's."""
        return re.fullmatch(self.pattern, logged) is not None

    @functools.cached_property
    def pattern(self) -> str:
        """Return a regular expression of the names that this row explains."""
        parts = re.split(r"\{(\w+)\}", self.name)
        # Odd parts are the placeholders' names.
        return "".join(f"({FAMILIES[part][0]})" if i % 2 else re.escape(part) for i, part in enumerate(parts))

    @property
    def range(self) -> str:
        """Return the range in words, such as ``[0, 1]`` or ``0 or more``."""
        if math.isinf(self.low) and math.isinf(self.high):
            return "any"
        if math.isinf(self.high):
            return f"{self.low:g} or more"
        return f"at most {self.high:g}" if math.isinf(self.low) else f"[{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class RoundView:
    """What a metric may look at: one round's samples and what the judge said of them.

    Attributes:
        index: The round's index.
        task: The task, whose gold a metric may use.
        generations: N prompts with k responses each.
        judgements: Of all distinct pairs of each prompt's responses.
        prob_beats: (N, k, k) probability that response i beats j; nan where there is no verdict.
        qualities: (N, k) gold quality in [0, 1]; nan without gold.
    """

    index: int
    task: Task
    generations: Sequence[Generation]
    judgements: Sequence[Judgement]
    prob_beats: Floats
    qualities: Floats


class Metric(ABC):
    """A metric that a user adds: one subclass with its rows, plus a line in conf/metrics/."""

    rows: Sequence[Row]
    """The rows of every name that ``compute`` returns. A name without a row is refused."""

    @abstractmethod
    def compute(self, view: RoundView) -> Mapping[str, float]:
        """Return the metric's values for one round, by name; nan where undefined."""


def own_metrics(metrics: Sequence[Metric], view: RoundView) -> dict[str, float]:
    """Return the values of the metrics that a user added.

    Raises:
        ValueError: for a name without a row, or one that two metrics return.
    """
    found: dict[str, float] = {}
    for metric in metrics:
        for name, value in metric.compute(view).items():
            # A name without a row would have no caption and no chart.
            if not any(row.matches(name) for row in metric.rows):
                raise ValueError(f"metric {type(metric).__name__} returns {name!r}, which none of its rows describes")
            if name in found:
                raise ValueError(f"two metrics return {name!r}")
            found[name] = float(value)
    return found
