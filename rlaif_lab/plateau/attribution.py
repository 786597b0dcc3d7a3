"""Why an arm stopped, from the identity gain = D x I - eps (SCIENCE: plateau attribution)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rlaif_lab.report.statistics import Interval

Cause = Literal["still going", "sharpened out", "judge limit", "misled", "optimiser", "mixed", "unclear", "unknown"]


@dataclass(frozen=True)
class Phase:
    """A quantity in the first rounds and in the last: means over seeds with their intervals. change: late minus early,
    paired by seed."""

    early: Interval
    late: Interval
    change: Interval


@dataclass(frozen=True)
class Attribution:
    """cause, and ``sentence``, which names the numbers it rests on.

    diversity: D. informativeness: I. gap: D x I, what best of two by this judge gains. update_loss: eps.
    gain: gap - eps, of true quality per round. early, late: first and last round of either window.
    """

    cause: Cause
    sentence: str
    diversity: Phase
    informativeness: Phase
    gap: Phase
    update_loss: Phase
    gain: Phase
    early: tuple[int, int]
    late: tuple[int, int]
    seeds: int
