"""Does the verdict follow the slot or the response? And does the same question get the same answer twice?

``shown_first``, ``shown_second``: (N,) the judge's probability that one and the same response wins, as said when it was
shown in slot one and in slot two (as in records.Judgement); nan where there is no verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlaif_lab.judges.asking import decisions
from rlaif_lab.records import Floats


@dataclass(frozen=True)
class SlotChoices:
    """Comparisons by what the two orders chose.

    same_response: one response both times. slot_one, slot_two: that slot both times, whatever was in it.
    undecided: a tie in at least one order. failed: no verdict in at least one order.
    """

    same_response: int
    slot_one: int
    slot_two: int
    undecided: int
    failed: int

    @property
    def same_slot_rate(self) -> float:
        """Return the share of comparisons, of those decided in both orders, whose verdict follows the slot; 0 is no
        bias, nan where none was decided."""
        decided = self.same_response + self.slot_one + self.slot_two
        return (self.slot_one + self.slot_two) / decided if decided else float("nan")

    @property
    def signed_preference(self) -> float:
        """Return (slot one - slot two) / inconsistent, in [-1, 1]: which slot draws the verdicts that follow a slot. 1:
        always the first, 0: neither more than the other (noise), nan where no verdict follows a slot."""
        inconsistent = self.slot_one + self.slot_two
        return (self.slot_one - self.slot_two) / inconsistent if inconsistent else float("nan")


def slot_choices(shown_first: Floats, shown_second: Floats) -> SlotChoices:
    failed = int((np.isnan(shown_first) | np.isnan(shown_second)).sum())
    slots = same_slot(shown_first, shown_second)
    one, two, neither = (int((slots == slot).sum()) for slot in (1, 2, 0))
    return SlotChoices(neither, one, two, len(slots) - one - two - neither - failed, failed)


def same_slot(shown_first: Floats, shown_second: Floats) -> Floats:
    """Return (N,) the slot that won in both orders, 1 or 2; 0 where one response won in both; nan where an order is a
    tie or failed."""
    first, second = decisions(shown_first), decisions(shown_second)
    # Shown first and shown second are of one response: more in slot one than in slot two means that slot one draws.
    slot = np.where(first > second, 1.0, np.where(first < second, 2.0, 0.0))
    decided = np.isin(first, (0.0, 1.0)) & np.isin(second, (0.0, 1.0))
    return np.where(decided, slot, np.nan)


def slot_one_probability(shown_first: Floats, shown_second: Floats) -> float:
    """Return the mean probability given to slot one, over comparisons judged in both orders; 0.5 is no bias. It sees a
    lean that turns no verdict round."""
    both = ~np.isnan(shown_first) & ~np.isnan(shown_second)
    if not both.any():
        return float("nan")
    return float((shown_first[both] + 1.0 - shown_second[both]).mean() / 2)


def stability(repetitions: Sequence[Floats]) -> float:
    """Return the probability that two askings of the same question, in the same order, end alike: first, tie, second or
    failed.

    repetitions: r >= 2 arrays (N,) of prob_first_wins, nan for a failure. 1 for a deterministic judge; nan where N = 0.
    """
    if len(repetitions) < 2:
        raise ValueError(f"stability needs at least 2 repetitions; got {len(repetitions)}")
    asked = np.stack([np.nan_to_num(decisions(r), nan=-1.0) for r in repetitions])  # (r, N)
    r, n = asked.shape
    if n == 0:
        return float("nan")
    # Ordered pairs of askings, less each with itself.
    alike = (asked[:, None] == asked[None, :]).sum() - r * n
    return float(alike / (r * (r - 1) * n))
