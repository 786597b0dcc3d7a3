"""Alarms: what usually goes wrong in preference training, told in the round it begins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

CLASS = "audit/accuracy_frozen_"
"""Begins the metric of the judge's accuracy in one class of the frozen bank."""


@dataclass(frozen=True)
class Watch:
    """Limits, each None for no limit. An alarm is printed and logged (``alarm/<name>`` = 1); it stops nothing.

    displacement: nats by which the chosen responses' log-probability, summed over tokens, may fall within a round while
        they are trained on (likelihood displacement, Razin et al. 2410.08847).
    kl: nats per sequence to the policy of round 0. entropy: share of round 0's entropy per token that must be left.
    length: factor by which the mean length may grow or shrink against round 0.
    unfinished: share of responses that the length limit may cut off.
    hacked: by how much quality may have fallen since round 0 while the judge's own win rate has risen by as much: the
        judge is over-optimised. Without gold it is the win rate under the held-out judge that may fall so far.
    judged_class: share of the frozen bank's pairs of one class (such as misconceptions) on which the judge must prefer
        the better answer in round 0: training goes where a judge is wrong more often than right.
    """

    displacement: float | None = 2.0
    kl: float | None = 20.0
    entropy: float | None = 0.05
    length: float | None = 2.0
    unfinished: float | None = 0.5
    hacked: float | None = 0.05
    judged_class: float | None = 0.4

    def __post_init__(self) -> None:
        for name in ("displacement", "kl", "entropy", "unfinished", "hacked", "judged_class"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"watch.{name} must not be negative, or null for no limit; got {value}")
        if self.length is not None and self.length <= 1:
            raise ValueError(f"watch.length is a factor and must be above 1, or null for no limit; got {self.length}")

    def alarms(self, row: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, str]:
        """Return name -> sentence for what is beyond its limit in this round's row; ``first`` is round 0's."""
        found: dict[str, str] = {}

        # nan where one of the two was not logged: it compares false, and raises no alarm.
        fall = _value(row, "train/chosen_logp_at_start") - _value(row, "train/chosen_logp")
        if self.displacement is not None and fall > self.displacement:
            found["displacement"] = f"the chosen responses lost {fall:.2f} nats while they were trained on"
        kl = _value(row, "kl/per_sequence")
        if self.kl is not None and kl > self.kl:
            found["kl"] = f"the policy is {kl:.1f} nats per sequence from where it started"
        entropy, before = _value(row, "entropy/per_token"), _value(first, "entropy/per_token")
        if self.entropy is not None and entropy < self.entropy * before:
            found["entropy"] = (
                f"entropy fell from {before:.3f} to {entropy:.3f} nats per token: little is left to sample"
            )
        length, before = _value(row, "text/mean_length"), _value(first, "text/mean_length")
        # In both directions: shrinking answers are as much a sign of a gamed judge as growing ones.
        if self.length is not None and (length > before * self.length or length < before / self.length):
            found["length"] = f"the mean length went from {before:.1f} to {length:.1f} tokens"
        cut = _value(row, "text/unfinished_rate")
        if self.unfinished is not None and cut > self.unfinished:
            found["unfinished"] = f"{cut:.0%} of the responses were cut off by the length limit"
        return found | self._over_optimised(row, first) | self._wrong_classes(row)

    def _over_optimised(self, row: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, str]:
        """Return the alarm where the judge's win rate has risen while gold, or else the held-out judge's, fell."""
        judge, gold, heldout = "judge/win_rate_vs_round_0", "quality/sampled", "heldout_judge/win_rate_vs_round_0"
        # Gold where there is gold: a held-out judge may be fooled by the same.
        by = gold if row.get(gold) is not None else heldout
        risen, fallen = (_value(row, name) - _value(first, name) for name in (judge, by))
        # Both by at least as much: small movements of either are noise.
        if self.hacked is None or not (risen >= self.hacked and fallen <= -self.hacked):
            return {}
        what = "quality" if by == gold else "the held-out judge's win rate"
        return {
            "hacked": f"the judge's win rate rose from {_value(first, judge):.3f} to {_value(row, judge):.3f} while "
            f"{what} fell from {_value(first, by):.3f} to {_value(row, by):.3f}: the judge is over-optimised"
        }

    def _wrong_classes(self, row: Mapping[str, Any]) -> dict[str, str]:
        """Return the classes of the bank in which the judge is mostly wrong before any training."""
        # In round 0 only: later, training itself has moved what the judge is asked about.
        if self.judged_class is None or row.get("round") != 0:
            return {}
        classes = {name: _value(row, name) for name in row if name.startswith(CLASS)}
        wrong = {name.removeprefix(CLASS): value for name, value in classes.items() if value < self.judged_class}
        if not wrong:
            return {}
        listed = ", ".join(f"{value:.3f} of {name}" for name, value in sorted(wrong.items()))
        return {
            "judged_class": f"on the frozen bank the judge prefers the better answer in {listed}: expect training "
            "under it to end where it is wrong, or worse"
        }

    def names(self) -> list[str]:
        # Alarms that are off are left out: they are not logged.
        return [name for name, limit in vars(self).items() if limit is not None]


def _value(of: Mapping[str, Any], key: str) -> float:
    number = of.get(key)
    return math.nan if number is None else float(number)
