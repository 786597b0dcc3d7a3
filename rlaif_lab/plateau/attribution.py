"""What true quality gained in a round, taken apart: before and after.

What it gains is what best of two by this judge would gain, less what the update loses of it:

    gain = gap - eps,    gap = D x I     (D: how much the samples differ in quality; I: how well the judge tells)

The first rounds are compared with the last, max(2, T / 4) of each; the seed is the unit. These are numbers about all
pairs together. They name no cause: I stays high for a judge that is right about slips and always wrong about its
misconception, and D falls as far where the loop goes on. Causes are read off what is left (cause.py).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from rlaif_lab.plateau.verdict import recent
from rlaif_lab.records import Floats
from rlaif_lab.statistics.intervals import Interval, t_interval


@dataclass(frozen=True)
class Phase:
    """A quantity in the first rounds and in the last: means over seeds, with intervals. change: late minus early,
    paired by seed."""

    early: Interval
    late: Interval
    change: Interval


@dataclass(frozen=True)
class Attribution:
    """sentence: the numbers in words.

    diversity: D. informativeness: I. gap: D x I. update_loss: eps. gain: gap - eps, of true quality per round.
    early, late: first and last round of either window. seeds: that it is taken over.
    """

    sentence: str
    diversity: Phase
    informativeness: Phase
    gap: Phase
    update_loss: Phase
    gain: Phase
    early: tuple[int, int]
    late: tuple[int, int]
    seeds: int


@dataclass(frozen=True)
class Factors:
    """One seed, rounds 0 .. T - 1, each (T,), nan where undefined: D, D x I, eps."""

    diversity: Floats
    gap: Floats
    update_loss: Floats


def attribution(seeds: Mapping[int, Factors], confidence: float = 0.95) -> Attribution | None:
    """Return what moved between the early and the late rounds; None where no seed has its D, gap and eps in both
    windows, as without gold.

    Pure, and the same whatever the order of the seeds.
    """
    windows: dict[int, tuple[slice, slice]] = {}
    # In the order of the seeds, so that the sums do not depend on the mapping's.
    for seed in sorted(seeds):
        rounds = len(seeds[seed].gap)
        if rounds >= 2:
            # Halves at most: the two windows must not share a round.
            size = min(recent(rounds), rounds // 2)
            windows[seed] = slice(0, size), slice(rounds - size, rounds)
    means = {seed: [_means(seeds[seed], part) for part in both] for seed, both in windows.items()}
    # Without I, which is undefined where no pair of a window differs: a seed is not lost for that.
    means = {seed: both for seed, both in means.items() if np.isfinite([window[:-1] for window in both]).all()}
    if not means:
        return None
    values = np.array(list(means.values()))  # (seeds, 2 windows, 5 quantities)

    def phase(quantity: int) -> Phase:
        both = values[:, :, quantity]
        # Paired by seed: what is undefined in one window leaves the seed out of both.
        early, late = both[np.isfinite(both).all(1)].T
        return Phase(*(t_interval(v.tolist(), confidence) for v in (early, late, late - early)))

    diversity, gap, loss, gain, informativeness = (phase(quantity) for quantity in range(5))
    # Those of the longest seed: where seeds differ in length, the sentence speaks of it.
    first, last = max((windows[seed] for seed in means), key=lambda both: both[1].stop)
    return Attribution(
        _sentence(diversity, informativeness, gap, gain),
        diversity,
        informativeness,
        gap=gap,
        update_loss=loss,
        gain=gain,
        early=(first.start, first.stop - 1),
        late=(last.start, last.stop - 1),
        seeds=len(means),
    )


def _means(seed: Factors, window: slice) -> list[float]:
    """Return D, gap, eps, gain and I of a window. I is the ratio of the means, nan where no pair differed at all."""
    diversity, gap, loss = (float(v[window].mean()) for v in (seed.diversity, seed.gap, seed.update_loss))
    # A ratio of means and not a mean of ratios: rounds in which hardly a pair differs would dominate.
    return [diversity, gap, loss, gap - loss, gap / diversity if diversity > 0 else math.nan]


def _sentence(diversity: Phase, informativeness: Phase, gap: Phase, gain: Phase) -> str:
    return (
        f"{_moved('D', diversity)}, {_moved('I', informativeness)}; of the {_number(gap.late.mean, True)} that best of "
        f"two by this judge would still gain a round, the policy gains {_signed(gain.late)}"
    )


def _moved(name: str, phase: Phase) -> str:
    """Return ``D fell from 0.19 to 0.080``; ``stayed at`` where the difference does not stand out."""
    if math.isnan(phase.late.mean):
        return f"{name} is undefined"
    before, after = _number(phase.early.mean), _number(phase.late.mean)
    change = phase.change
    same = before == after or (not math.isnan(change.low) and change.low <= 0.0 <= change.high)
    # Near the same and not shown to differ: a large but uncertain difference is reported as "went".
    if same and abs(change.mean) < 0.1 * abs(phase.early.mean) + 0.005:
        return f"{name} stayed at {after}" if before == after else f"{name} stayed near {after}"
    if same:
        return f"{name} went from {before} to {after}"
    return f"{name} {'fell' if change.mean < 0 else 'rose'} from {before} to {after}"


def _number(value: float, signed: bool = False) -> str:
    """Write three digits below 0.1, else two: 0.084, 0.19."""
    return f"{value:{'+' if signed else ''}.{3 if abs(value) < 0.0995 else 2}f}"


def _signed(interval: Interval) -> str:
    if math.isnan(interval.low):
        return _number(interval.mean, True)
    return f"{_number(interval.mean, True)} ({_number(interval.low, True)} to {_number(interval.high, True)})"
