"""The third fate of a loop: hacked. The judge finds the policy better and better, and gold finds it worse.

Neither alone is a sign of it. Quality also falls under a judge that knows nothing, whose win rate then stays where it
was; and a win rate also rises where quality does. Both are measured against round 0 on the same evaluation prompts, so
that a seed's change is one number, and the arm's interval is over its seeds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rlaif_lab.statistics.intervals import Interval, t_interval

LEAST_MOVE = 0.05
"""By which quality must have fallen, and the judge's win rate risen, on average: several times what evaluation and the
swings of training move by themselves."""


@dataclass(frozen=True)
class Hacked:
    """What it rests on. quality: change of true quality since round 0, below 0. win_rate: change of how often the
    training judge prefers the policy to round 0's, above 0. Both with their 95 % t interval over seeds."""

    quality: Interval
    win_rate: Interval

    @property
    def sentence(self) -> str:
        """Return a clause for headlines."""
        return (
            f"hacked: its judge prefers it to round 0 more often than at first ({self.win_rate.mean:+.3f}), while "
            f"quality has changed by {self.quality.mean:+.3f}"
        )


def hacked(changes: Mapping[int, tuple[float, float]]) -> Hacked | None:
    """Return what shows an arm to be hacked; None where it is not shown. Pure, whatever the order of the seeds.

    Args:
        changes: Seed -> change of quality and of the judge's win rate, last round minus round 0; nan where unknown.
    """
    # Seeds with both numbers: the fates of quality and of win rate are compared within them.
    known = [changes[seed] for seed in sorted(changes) if all(map(math.isfinite, changes[seed]))]
    if not known:
        return None
    quality, win_rate = (t_interval([float(change[which]) for change in known]) for which in (0, 1))
    enough = quality.mean <= -LEAST_MOVE and win_rate.mean >= LEAST_MOVE
    # With several seeds both intervals have to keep off 0; with one there are none.
    several = len(known) == 1 or (quality.high < 0.0 < win_rate.low)
    return Hacked(quality, win_rate) if enough and several else None
