"""The ceiling: how high the loop would get, said only where it would be right whatever kind of curve this is.

A ceiling is an extrapolation, and curves that agree as far as they were seen part beyond it. So nothing is fitted to
one family and believed. Every curve of every family in shapes.py is held against the arm's mean curve, and what they
promise is put together:

1. The covariance of the seeds' levels is estimated from the seeds themselves: independent errors (evaluation, and what
   training mends in the next round), swings that stay (a random walk), and an offset per seed. The random walk's part
   is the larger of what the correlation of neighbouring rounds says and what the seeds' whole gains say.
2. By generalised least squares each curve has its error. Those within `SLACK` of the best one's are not excluded: that
   is three and a half standard errors of a single parameter. For each shape that is left, the promises of all its
   scales within that error are an interval.
3. The union over shapes and families is the interval that is printed, if it is worth it: no wider than `WIDEST`, and if
   no curve in it has more than `MOST_LEFT` to come. So a truth that has not ended is refused because its own curve is
   among those that are not excluded, and the interval covers the truth in any family listed, up to the chance of having
   excluded it. experiments/statements/ceilings.py counts both, on truths that are listed and on others.

Three checks go before: the curve has risen; some family fits; the first two thirds of the rounds, treated likewise,
predict the last third. One comes after: the interval holds the ceiling found without any one of the seeds.

No curve is followed further than to twice the rounds seen, but for those that have an end and are well on the way
there. That nothing new begins after that is the condition under which a ceiling is printed. One seed cannot tell its
swings from its curve, and has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlaif_lab.plateau.shapes import Shapes, families
from rlaif_lab.records import Floats
from rlaif_lab.statistics.intervals import Interval, t_interval

SLACK = 12.0
"""In units of the error's variance, by which a curve may fit worse than the best one and not be excluded."""
WIDEST = 0.08
"""Width of an interval that still says where a ceiling is, in quality."""
MOST_LEFT = 0.04
"""Gain to come, in quality, that an arm may be promised by a curve not excluded."""
MISFIT = 0.05
"""p value below which not even the best curve fits."""
LEAST_WALK = 0.02
"""Share of the variance of a round's gain that is taken to stay, at least."""
CAUTION = 1.5
"""Factor on the variance of swings that stay: it is estimated, and too small an estimate would exclude the truth."""
LEAST = 8
"""Rounds evaluated without which nothing is said."""
PREDICTED = 3.0
"""Standard errors by which the last third may lie outside of what the first two thirds predict."""


@dataclass(frozen=True)
class Curve:
    """One seed's quality by round: both (n,), finite, rounds increasing."""

    rounds: Floats
    quality: Floats

    def at(self, rounds: Floats) -> Curve:
        """Return the curve at these of its rounds only."""
        return Curve(rounds, self.quality[np.isin(self.rounds, rounds)])


@dataclass(frozen=True)
class Promise:
    """What the curves of one family that are not excluded say. level: where quality ends, or is at twice the rounds.
    remaining: that minus the fitted level now. Both nan where the whole family is excluded. misfit: of its best curve,
    minus that of the best of all; excluded from SLACK on."""

    family: str
    level: Interval
    remaining: Interval
    misfit: float

    @property
    def excluded(self) -> bool:
        return self.misfit > SLACK


@dataclass(frozen=True)
class Saturation:
    """What an arm's curves say about where they end.

    identified: whether every family not excluded promises much the same; where not, ``reason`` says why, and ceiling
    and remaining are nan: none is reported anywhere. condition: what a printed ceiling supposes.
    ceiling: the best curve's level, within the union over all curves not excluded. remaining: gain to come, likewise.
    exhausted: whether every curve not excluded promises less than delta either way. delta: in quality.
    last_gain: mean gain per round over the last quarter of the rounds, over seeds. promises: by family, the best fit
    first; empty where nothing could be fitted. rounds: the last round.
    """

    identified: bool
    reason: str
    condition: str
    ceiling: Interval
    remaining: Interval
    exhausted: bool
    last_gain: Interval
    promises: tuple[Promise, ...]
    seeds: int
    rounds: int
    delta: float


UNDEFINED = Interval(math.nan, math.nan, math.nan)


def saturation(
    curves: Mapping[int, Curve], delta: float, doubt: str = "", kl: Mapping[int, Floats] | None = None
) -> Saturation:
    """Return the ceiling that ``curves`` speak for, if they do. Pure, and the same whatever the order of the seeds.

    Args:
        curves: Seed -> its curve.
        delta: Gain that counts, in quality.
        doubt: A reason from elsewhere not to believe in a ceiling, such as a trend that falls.
        kl: Seed -> KL to the initial policy at the rounds of its curve, nats; where all have it, for the hump.
    """
    seeds = sorted(curves)
    last = int(max((curves[seed].rounds[-1] for seed in seeds), default=0))

    def unidentified(reason: str, gain: Interval = UNDEFINED, promises: tuple[Promise, ...] = ()) -> Saturation:
        return Saturation(
            False,
            reason,
            "",
            ceiling=UNDEFINED,
            remaining=UNDEFINED,
            exhausted=False,
            last_gain=gain,
            promises=promises,
            seeds=len(seeds),
            rounds=last,
            delta=delta,
        )

    if not seeds:
        return unidentified("no whole run with gold quality")
    rounds = common_rounds([curves[seed] for seed in seeds])
    if len(rounds) < LEAST:
        return unidentified(f"a ceiling needs at least {LEAST} evaluated rounds that all seeds have")
    # (seeds, rounds): rounds that all seeds have, so that their mean is one curve.
    levels = np.stack([curves[seed].at(rounds).quality for seed in seeds])
    quarter = max(2, math.ceil(len(rounds) / 4))
    # Gain per round over the last quarter, of each seed.
    steps = (levels[:, -1] - levels[:, -1 - quarter]) / (rounds[-1] - rounds[-1 - quarter])
    gain = t_interval(steps.tolist())
    if len(seeds) == 1:
        return unidentified("one seed cannot tell its swings from its curve", gain)
    # Means of quarters: a single round may be a swing.
    change = t_interval((levels[:, -quarter:].mean(1) - levels[:, :quarter].mean(1)).tolist())
    if change.low <= 0.0 <= change.high:
        return unidentified(
            f"no change from the first rounds to the last that the seeds agree on: {signed(change)}", gain
        )
    if change.high < 0.0:
        return unidentified(f"quality falls from the first rounds to the last: {signed(change)}", gain)
    mean_kl = None
    if kl is not None and all(seed in kl for seed in seeds):
        mean_kl = np.mean([kl[seed][np.isin(curves[seed].rounds, rounds)] for seed in seeds], axis=0)
    shapes = families(rounds, mean_kl)
    covariance = of_the_mean(levels, rounds)
    found = compare(levels.mean(0), covariance, shapes)
    promises, level, remaining = found.promises(), found.level(), found.remaining()
    # Reasons in the order of what they take to find out: the cheap ones first.
    reason = doubt or _doubts(found, level, remaining, len(rounds))
    if not reason and not _predicts(levels.mean(0), covariance, shapes):
        reason = "the first two thirds of the rounds do not predict the last third"
    if not reason:
        reason = _without_each(levels, seeds, covariance, shapes, level)
    if reason:
        return unidentified(reason, gain, promises)
    return Saturation(
        True,
        "",
        f"if nothing new begins after round {2 * last}",
        # Quality lies in [0, 1], whatever a curve promises.
        ceiling=Interval(min(level.mean, 1.0), max(level.low, 0.0), min(level.high, 1.0)),
        remaining=remaining,
        # In both directions: a curve may promise a fall as well.
        exhausted=-delta < remaining.low and remaining.high < delta,
        last_gain=gain,
        promises=promises,
        seeds=len(seeds),
        rounds=last,
        delta=delta,
    )


# --- the noise --------------------------------------------------------------------------------------------------------
def of_the_mean(levels: Floats, rounds: Floats) -> Floats:
    """Return the covariance of the seeds' mean curve, (n, n), from the seeds' levels (seeds, n), at least two seeds."""
    seeds = len(levels)
    # Deviations from the seeds' mean curve are too small by (s - 1) / s.
    unbiased = seeds / (seeds - 1.0)
    steps = np.diff(levels, axis=1)
    # What all seeds do is the curve; what is left are swings.
    steps = steps - steps.mean(0)
    single = unbiased * float((steps**2).mean())
    # Covariances of steps that are one and two rounds apart.
    neighbours = unbiased * float((steps[:, 1:] * steps[:, :-1]).mean())
    second = unbiased * float((steps[:, 2:] * steps[:, :-2]).mean())
    # Level = random walk + independent error: neighbouring steps share an error with opposite signs, so their
    # covariance is its variance, negated.
    error = max(-neighbours, 0.0)
    # Over the whole run a walk adds up, and the error counts twice only.
    whole = float((levels[:, -1] - levels[:, 0]).var(ddof=1)) - 2.0 * error
    # Var(step) + 2 Cov is what stays of a step: the walk. With the second neighbour, for errors that are undone a round
    # late.
    near, nearer = single + 2.0 * neighbours + 2.0 * second, single + 2.0 * neighbours
    walk = CAUTION * max(near, nearer, whole / (len(rounds) - 1.0), LEAST_WALK * single)
    # Estimated per evaluated round, and needed per round of the loop.
    per_round = (len(rounds) - 1.0) / (rounds[-1] - rounds[0])
    # Cov of a walk at t and s: its variance times the smaller of both.
    inside = error * np.eye(len(rounds)) + walk * per_round * np.minimum.outer(rounds, rounds)
    # What seeds differ by throughout, beyond what walk and error explain.
    offset = max(0.0, float(levels.mean(1).var(ddof=1)) - float(inside.mean()))
    # For the mean curve: a seed's share of it.
    return (inside + offset + NEGLIGIBLE * np.eye(len(rounds))) / seeds


NEGLIGIBLE = 1e-8  # variance that even exact curves are granted, by rounding


# --- curves against the mean curve ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Fitted:
    """A family held against a curve. scales: of its columns (K, p). best: coefficients (K, p) of scaled columns.
    inverse: of the normal matrices, (K, p, p). error: weighted sum of squares (K,). at_last: columns in the last round.
    """

    shapes: Shapes
    scales: Floats
    best: Floats
    inverse: Floats
    error: Floats

    def reach(self, columns: Floats, bound: float) -> tuple[Floats, Floats, Floats]:
        """Return least, best and largest value of ``columns`` (K, p) times coefficients with an error up to ``bound``:
        for each shape that has any."""
        kept = self.error <= bound
        scaled = (columns / self.scales)[kept]
        # Over {coefficients: error <= bound}, an ellipsoid, a linear function's extremes are its middle plus and minus
        # this.
        middle = (scaled * self.best[kept]).sum(1)
        spread = np.einsum("kp,kpq,kq->k", scaled, self.inverse[kept], scaled)
        half = np.sqrt(np.maximum(bound - self.error[kept], 0.0) * np.maximum(spread, 0.0))
        return middle - half, middle, middle + half

    def rising(self, bound: float) -> npt.NDArray[np.bool_]:
        """Return which of the shapes kept rise, each column for itself."""
        kept = self.error <= bound
        columns = self.shapes.at[kept]
        if not self.shapes.rises:
            return np.zeros(int(kept.sum()), dtype=np.bool_)
        # A column that falls to its limit (exp(-t / tau)) rises with a negative coefficient: both signs count.
        moved: Floats = (columns[:, -1, 1:] - columns[:, 0, 1:]) / self.scales[kept][:, 1:] * self.best[kept][:, 1:]
        return np.all(moved >= 0.0, axis=1)


@dataclass(frozen=True)
class Comparison:
    """All families against one curve. bound: error from which on a curve is excluded; least: the best one's."""

    fits: tuple[Fitted, ...]
    least: float
    slack: float = SLACK

    @property
    def bound(self) -> float:
        return self.least + self.slack

    def level(self) -> Interval:
        return self._union(self.fits, minus_last=False)

    def remaining(self) -> Interval:
        return self._union(self.fits, minus_last=True)

    def promises(self) -> tuple[Promise, ...]:
        """Return what each family promises, the best fit first."""
        names = list(dict.fromkeys(fitted.shapes.name for fitted in self.fits))
        found = []
        for name in names:
            some = [fitted for fitted in self.fits if fitted.shapes.name == name]
            misfit = min(float(fitted.error.min()) for fitted in some) - self.least
            nothing = misfit > self.slack
            level = UNDEFINED if nothing else self._union(some, minus_last=False)
            left = UNDEFINED if nothing else self._union(some, minus_last=True)
            found.append(Promise(name, level, left, misfit))
        return tuple(sorted(found, key=lambda promise: promise.misfit))

    def _union(self, fits: Sequence[Fitted], *, minus_last: bool) -> Interval:
        """Return the union of what the curves promise at twice the rounds and at their end; less the level now."""
        low, high, middle, least = math.inf, -math.inf, math.nan, math.inf
        for fitted in fits:
            if not (fitted.error <= self.bound).any():
                continue
            now = fitted.shapes.at[:, -1]
            rising = fitted.rising(self.bound)
            # A rising curve promises at least what it has already reached.
            floor = np.zeros(len(rising)) if minus_last else fitted.reach(now, self.bound)[0]
            # At twice the rounds and at the end: curves that never end are asked for the first only.
            for columns in (fitted.shapes.twice, fitted.shapes.end):
                lows, middles, highs = fitted.reach(columns - now if minus_last else columns, self.bound)
                lows = np.where(rising, np.maximum(lows, floor), lows)
                low, high = min(low, float(lows.min())), max(high, float(highs.max()))
                # In the middle: what the best of all curves promises.
                if float(fitted.error.min()) < least:
                    least = float(fitted.error.min())
                    middle = float(middles[int(fitted.error[fitted.error <= self.bound].argmin())])
        # The best curve's promise may lie outside the union where the union is held to a floor.
        return Interval(min(max(middle, low), high), low, high)


def compare(mean: Floats, covariance: Floats, shapes: Sequence[Shapes], slack: float = SLACK) -> Comparison:
    """Return every family's generalised least squares fit to a mean curve (n,)."""
    # The covariance's inverse root turns generalised least squares into the ordinary kind.
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    target = whitening @ mean
    fits = []
    for family in shapes:
        columns = np.tensordot(whitening, family.at, (1, 1))  # (n, K, p)
        # Columns of one length, so that the normal matrices can be inverted without loss.
        scales: Floats = np.sqrt((columns**2).sum(0)) + 1e-12
        columns /= scales
        width = columns.shape[-1]
        normal = np.empty((columns.shape[1], width, width))
        # Entry by entry: at most 3 by 3, for thousands of shapes at once.
        for row in range(width):
            for column in range(width):
                normal[:, row, column] = (columns[:, :, row] * columns[:, :, column]).sum(0)
        # A ridge far below what matters, for columns that are all but collinear.
        inverse = np.asarray(np.linalg.inv(normal + 1e-10 * np.eye(width)), dtype=np.float64)
        explained: Floats = np.tensordot(target, columns, (0, 0))  # (K, p)
        best: Floats = (inverse * explained[:, None, :]).sum(-1)
        # |target|^2 - explained: the weighted sum of squares that is left.
        left: Floats = float(target @ target) - (best * explained).sum(-1)
        error = np.maximum(left, 0.0)
        fits.append(Fitted(family, scales, best, inverse, error))
    return Comparison(tuple(fits), min(float(fitted.error.min()) for fitted in fits), slack)


# --- checks -----------------------------------------------------------------------------------------------------------
def _doubts(found: Comparison, level: Interval, remaining: Interval, rounds: int) -> str:
    from scipy.special import chdtrc  # slow to import

    # Three coefficients are fitted at most; n - 3 degrees of freedom.
    if float(chdtrc(rounds - 3, found.least)) < MISFIT:
        return "no family of curves fits"
    left = [one for one in found.promises() if not one.excluded]
    names = ", ".join(one.family for one in left)
    span = f"{limited(level.low)} to {limited(level.high)}"
    # Two-sided: what is still to be gained, and what may yet be lost.
    if max(-remaining.low, remaining.high) > MOST_LEFT:
        most = max(left, key=lambda one: one.remaining.high)
        return (
            f"it may not have ended: of the families not excluded ({names}), {most.family} allows for "
            f"{min(most.remaining.high, 1.0):+.3f} more"
        )
    if min(level.high, 1.0) - max(level.low, 0.0) > WIDEST or level.low > 1.0:
        return f"the families not excluded ({names}) leave it open: {span}"
    return ""


def _predicts(mean: Floats, covariance: Floats, shapes: Sequence[Shapes]) -> bool:
    """Return whether curves not excluded by the first two thirds of the rounds allow for the mean of the last third."""
    seen = len(mean) - len(mean) // 3
    if seen < 4:
        return False
    # The last third's mean stands for the end: that is what the first two thirds have to allow for.
    part = [
        Shapes(one.name, one.at[:, :seen], one.at[:, seen:].mean(1), one.at[:, seen:].mean(1), one.rises)
        for one in shapes
    ]
    found = compare(mean[:seen], covariance[:seen, :seen], part)
    bounds = [
        fitted.reach(fitted.shapes.end, found.bound) for fitted in found.fits if (fitted.error <= found.bound).any()
    ]
    # The mean of the last third has an error of its own.
    error = PREDICTED * math.sqrt(float(covariance[seen:, seen:].mean()))
    low = min(float(lows.min()) for lows, _, _ in bounds) - error
    high = max(float(highs.max()) for _, _, highs in bounds) + error
    return low <= float(mean[seen:].mean()) <= high


def _without_each(
    levels: Floats, seeds: Sequence[int], covariance: Floats, shapes: Sequence[Shapes], level: Interval
) -> str:
    """Return a reason where the best curve without one of the seeds ends outside of the interval; "" if none does."""
    if len(seeds) < 3:
        return ""
    # A mean of one seed less is less certain.
    wider = covariance * len(seeds) / (len(seeds) - 1.0)
    for index, seed in enumerate(seeds):
        rest = np.delete(levels, index, axis=0).mean(0)
        found = compare(rest, wider, shapes).level()
        if not level.low <= found.mean <= level.high:
            return f"without seed {seed} it would be {found.mean:.3f}, outside of {level.low:.3f} to {level.high:.3f}"
    return ""


# --- pieces -----------------------------------------------------------------------------------------------------------
def common_rounds(curves: Sequence[Curve]) -> Floats:
    """Return those that every seed has: all, unless some ended early."""
    return np.array(sorted(set.intersection(*(set(curve.rounds.tolist()) for curve in curves))))


def limited(value: float) -> str:
    """Return a level as text, within [0, 1], where every quality lies."""
    return f"{min(max(value, 0.0), 1.0):.3f}"


def signed(interval: Interval) -> str:
    """Return ``+0.012 (-0.003 to +0.027)``."""
    return f"{interval.mean:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
