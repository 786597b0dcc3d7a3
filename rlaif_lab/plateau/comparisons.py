"""Arms against arms: seed-paired differences, performance gap recovered, and aggregates across tasks."""

from __future__ import annotations

from dataclasses import dataclass

from rlaif_lab.report.statistics import Interval


@dataclass(frozen=True)
class Difference:
    """``first`` minus ``second`` in one quantity, over the ``seeds`` that both have. p: of the paired t test,
    two-sided; p_holm: adjusted for all comparisons of that quantity (Holm 1979)."""

    quantity: str
    first: str
    second: str
    interval: Interval
    seeds: int
    p: float
    p_holm: float


@dataclass(frozen=True)
class GapRecovered:
    """PGR = (Q_run - Q_floor) / (Q_ceiling - Q_floor), with Fieller's interval over paired seeds.

    Undefined (interval all nan, ``reason`` says why) where the interval of the denominator contains 0."""

    interval: Interval
    floor: str
    ceiling: str
    seeds: int
    reason: str
