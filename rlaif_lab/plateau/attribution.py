"""Why an arm stopped.

What true quality gains in a round is what best of two by this judge would gain, less what the update loses of it:

    gain = gap - eps,    gap = D x I     (D: how much the samples differ in quality; I: how well the judge tells)

so a loop stops because D -> 0 (the policy has sharpened, there is nothing left to choose from), because I -> 0 (the
judge cannot tell), or because eps ~ gap (the judge is right, the optimiser does not take it up). The three are not
symmetric: at a full stop the gain is 0, and eps equals the gap whatever made the gap small. The optimiser is therefore
named only where D and I have *not* fallen.

The first rounds are compared with the last, max(2, T / 4) of each; the seed is the unit. In this order:

- `still going`    the detector says improving; or it says nothing, and the gain of the last rounds is above 0 and may
                   be delta or more (by its interval over the seeds)
- `sharpened out`  D in the last rounds is at most .02, so that not even a perfect judge could gain more a round
- `misled`         I in the last rounds is below -.1: the judge prefers the worse answer
- `judge limit`    I in the last rounds is at most .1: the better answer in no more than 55 % of the pairs
- `mixed`          both D and I have fallen to half or less
- `judge limit`    I has, D has not
- `sharpened out`  D has, I has not
- `optimiser`      neither has, and the last rounds gain less than a fifth of the gap
- `unclear`        none of these

"To half or less" is said of the means over seeds, with two seeds or more only where the interval of the paired change
lies below 0 as well.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rlaif_lab.plateau.verdict import State, recent
from rlaif_lab.statistics.intervals import Interval, t_interval

Floats = npt.NDArray[np.float64]
Cause = Literal["still going", "misled", "judge limit", "sharpened out", "mixed", "optimiser", "unclear", "unknown"]

FALLEN = 0.5
AT_CHANCE = 0.1
NOTHING_TO_CHOOSE = 0.02
UPTAKE = 0.2


@dataclass(frozen=True)
class Phase:
    """A quantity in the first rounds and in the last: means over seeds, with intervals. change: late minus early,
    paired by seed."""

    early: Interval
    late: Interval
    change: Interval

    @property
    def fallen(self) -> bool:
        """To half or less, and the seeds agree on the direction."""
        agreed = math.isnan(self.change.high) or self.change.high < 0.0
        return self.late.mean <= FALLEN * self.early.mean and agreed


@dataclass(frozen=True)
class Attribution:
    """cause, and ``sentence``, which names the numbers it rests on.

    diversity: D. informativeness: I. gap: D x I. update_loss: eps. gain: gap - eps, of true quality per round.
    early, late: first and last round of either window. seeds: that it is taken over.
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


@dataclass(frozen=True)
class Factors:
    """One seed, rounds 0 .. T - 1, each (T,), nan where undefined: D, D x I, eps."""

    diversity: Floats
    gap: Floats
    update_loss: Floats


def attribution(
    seeds: Mapping[int, Factors], delta: float, state: State = "undecided", confidence: float = 0.95
) -> Attribution | None:
    """None where no seed has its D, gap and eps in both windows, as without gold. delta: gain per round that counts.
    state: the detector's, of the arm. Pure, and the same whatever the order of the seeds."""
    windows: dict[int, tuple[slice, slice]] = {}
    for seed in sorted(seeds):
        rounds = len(seeds[seed].gap)
        if rounds >= 2:
            size = min(recent(rounds), rounds // 2)
            windows[seed] = slice(0, size), slice(rounds - size, rounds)
    means = {seed: [_means(seeds[seed], part) for part in both] for seed, both in windows.items()}
    means = {seed: both for seed, both in means.items() if np.isfinite([window[:-1] for window in both]).all()}
    if not means:
        return None
    values = np.array(list(means.values()))  # (seeds, 2 windows, 5 quantities)

    def phase(quantity: int) -> Phase:
        both = values[:, :, quantity]
        early, late = both[np.isfinite(both).all(1)].T
        return Phase(*(t_interval(v.tolist(), confidence) for v in (early, late, late - early)))

    diversity, gap, loss, gain, informativeness = (phase(quantity) for quantity in range(5))
    rising = gain.late.low > 0.0 and gain.late.high >= delta
    going = state == "improving" or (state == "undecided" and rising)
    cause: Cause = "still going" if going else _cause(diversity, informativeness, gap, gain)
    first, last = max((windows[seed] for seed in means), key=lambda both: both[1].stop)
    return Attribution(
        cause,
        _sentence(cause, diversity, informativeness, gap, gain),
        diversity,
        informativeness,
        gap,
        loss,
        gain,
        (first.start, first.stop - 1),
        (last.start, last.stop - 1),
        len(means),
    )


def _means(seed: Factors, window: slice) -> list[float]:
    """D, gap, eps, gain and I of a window. I is the ratio of the means, nan where no pair differed at all."""
    diversity, gap, loss = (float(v[window].mean()) for v in (seed.diversity, seed.gap, seed.update_loss))
    return [diversity, gap, loss, gap - loss, gap / diversity if diversity > 0 else math.nan]


def _cause(diversity: Phase, informativeness: Phase, gap: Phase, gain: Phase) -> Cause:
    """Of an arm that does not go on."""
    told = informativeness.late
    if diversity.late.mean <= NOTHING_TO_CHOOSE:
        return "sharpened out"
    if told.mean < -AT_CHANCE and not told.high >= 0.0:  # nan with one seed
        return "misled"
    if told.mean <= AT_CHANCE:
        return "judge limit"
    if diversity.fallen and informativeness.fallen:
        return "mixed"
    if informativeness.fallen:
        return "judge limit"
    if diversity.fallen:
        return "sharpened out"
    return "optimiser" if gain.late.mean < UPTAKE * gap.late.mean else "unclear"


def _sentence(cause: Cause, diversity: Phase, informativeness: Phase, gap: Phase, gain: Phase) -> str:
    d, i = _moved("D", diversity), _moved("I", informativeness)
    left = (
        f"of the {_number(gap.late.mean, True)} that best of two by this judge would still gain a round, "
        f"the policy gains {_number(gain.late.mean, True)}"
    )
    if cause == "still going":
        first = _number(gain.early.mean, True)
        return f"still going: the last rounds gain {_signed(gain.late)} each, the first {first}; {d}, {i}"
    if cause == "misled":
        return f"misled: the judge prefers the worse answer, I is {_signed(informativeness.late)}; {d}"
    if cause == "judge limit" and informativeness.late.mean <= AT_CHANCE:
        return f"judge limit: the judge cannot tell better from worse, I is {_signed(informativeness.late)}; {d}"
    if cause == "judge limit":
        return f"judge limit: {i}, while {d}; {left}"
    if cause == "sharpened out":
        return f"sharpened out: {d}, while {i}; {left}"
    if cause == "mixed":
        return f"mixed: both {d} and {i}; {left}"
    if cause == "optimiser":
        return f"optimiser: {d} and {i}, but {left}"
    return f"unclear: {d}, {i}; {left}"


def _moved(name: str, phase: Phase) -> str:
    """``D fell from .19 to .08``; ``stayed at`` where the difference does not stand out."""
    if math.isnan(phase.late.mean):
        return f"{name} is undefined"
    before, after = _number(phase.early.mean), _number(phase.late.mean)
    change = phase.change
    same = before == after or (not math.isnan(change.low) and change.low <= 0.0 <= change.high)
    if same and abs(change.mean) < 0.1 * abs(phase.early.mean) + 0.005:
        return f"{name} stayed at {after}" if before == after else f"{name} stayed near {after}"
    if same:
        return f"{name} went from {before} to {after}"
    return f"{name} {'fell' if change.mean < 0 else 'rose'} from {before} to {after}"


def _number(value: float, signed: bool = False) -> str:
    """Three digits below .1, else two: .084, .19; a leading 0 is left out."""
    text = f"{value:{'+' if signed else ''}.{3 if abs(value) < 0.0995 else 2}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def _signed(interval: Interval) -> str:
    if math.isnan(interval.low):
        return _number(interval.mean, True)
    return f"{_number(interval.mean, True)} ({_number(interval.low, True)} to {_number(interval.high, True)})"
