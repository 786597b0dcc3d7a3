"""The null drift: what the same learner gains or loses a round under a judge that knows nothing.

Updates that follow noise move a policy too, mostly for the worse. Where that is as large as delta, a gain below delta
says little about the judge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rlaif_lab.report.arms import Arm, baseline_for
from rlaif_lab.statistics.intervals import Interval, t_interval

NULL = "random"
"""Name of the arm that is the null where none is named."""


@dataclass(frozen=True)
class NullDrift:
    """arm: label of the null arm. drift: its gain per round over all rounds, with the 95 % t interval over seeds."""

    arm: str
    drift: Interval

    def sentence(self, delta: float) -> str:
        """Return what an arm is told beside its delta."""
        low, high = self.drift.low, self.drift.high
        within = "" if math.isnan(low) else f" ({low:+.4f} to {high:+.4f})"
        text = f"null drift: under {self.arm} quality moves by {self.drift.mean:+.4f}{within} a round"
        # The end of the interval that is further from 0; with a single seed, the mean.
        largest = abs(self.drift.mean) if math.isnan(low) else max(abs(low), abs(high))
        return text if largest < delta else f"{text}, and delta = {delta:g} does not exceed this drift"


def null_drift(arm: Arm, arms: Sequence[Arm], null: str | None) -> NullDrift | None:
    """Return the drift that ``arm`` is held against; None for the null itself, or where there is none.

    Args:
        arm: The arm.
        arms: All of the study's.
        null: Name or label of the null arm; None: `NULL`.
    """
    found = baseline_for(arm, arms, null or NULL)
    if found is None:
        return None
    moved = []
    for run in found.complete:
        gained = run.value("quality/sampled", run.last_round) - run.value("quality/sampled", 0)
        if run.last_round and math.isfinite(gained):
            moved.append(gained / run.last_round)
    return NullDrift(found.label, t_interval(moved)) if moved else None
