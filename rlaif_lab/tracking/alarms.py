"""Alarms: what usually goes wrong in preference training, told in the round it begins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Watch:
    """Limits, each None for no limit. An alarm is printed and logged (``alarm/<name>`` = 1); it stops nothing.

    displacement: nats by which the chosen responses' log-probability, summed over tokens, may fall within a round while
        they are trained on (likelihood displacement, Razin et al. 2410.08847).
    kl: nats per sequence to the policy of round 0. entropy: share of round 0's entropy per token that must be left.
    length: factor by which the mean length may grow or shrink against round 0.
    unfinished: share of responses that the length limit may cut off.
    """

    displacement: float | None = 2.0
    kl: float | None = 20.0
    entropy: float | None = 0.05
    length: float | None = 2.0
    unfinished: float | None = 0.5

    def __post_init__(self) -> None:
        for name in ("displacement", "kl", "entropy", "unfinished"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"watch.{name} must not be negative, or null for no limit; got {value}")
        if self.length is not None and self.length <= 1:
            raise ValueError(f"watch.length is a factor and must be above 1, or null for no limit; got {self.length}")

    def alarms(self, row: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, str]:
        """Return the name -> sentence for what is beyond its limit in this round's row; ``first`` is round 0's."""
        found: dict[str, str] = {}

        def value(of: Mapping[str, Any], key: str) -> float:
            number = of.get(key)
            return math.nan if number is None else float(number)

        fall = value(row, "train/chosen_logp_at_start") - value(row, "train/chosen_logp")
        if self.displacement is not None and fall > self.displacement:
            found["displacement"] = f"the chosen responses lost {fall:.2f} nats while they were trained on"
        kl = value(row, "kl/per_sequence")
        if self.kl is not None and kl > self.kl:
            found["kl"] = f"the policy is {kl:.1f} nats per sequence from where it started"
        entropy, before = value(row, "entropy/per_token"), value(first, "entropy/per_token")
        if self.entropy is not None and entropy < self.entropy * before:
            found["entropy"] = (
                f"entropy fell from {before:.3f} to {entropy:.3f} nats per token: little is left to sample"
            )
        length, before = value(row, "text/mean_length"), value(first, "text/mean_length")
        if self.length is not None and (length > before * self.length or length < before / self.length):
            found["length"] = f"the mean length went from {before:.1f} to {length:.1f} tokens"
        cut = value(row, "text/unfinished_rate")
        if self.unfinished is not None and cut > self.unfinished:
            found["unfinished"] = f"{cut:.0%} of the responses were cut off by the length limit"
        return found

    def names(self) -> list[str]:
        return [name for name, limit in vars(self).items() if limit is not None]
