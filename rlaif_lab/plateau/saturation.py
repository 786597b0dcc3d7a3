"""The saturation fit: how high the loop would get, how fast, and how much is left.

Each seed's curve is fitted by least squares to

    Q_t = Q_inf - (Q_inf - Q_s) exp(-(t - s) / tau)      t >= s in rounds, Q in quality (0 to 1)

by variable projection (Golub and Pereyra 1973): for a given tau the model is linear in Q_inf and Q_s, so only tau is
searched, on a grid of log tau that is refined. The seed is the unit: what is reported is a Student t interval
over the seeds' estimates. Resampling the seeds would give too narrow an interval: of the ceiling it holds the truth in
84 % of cases at 5 seeds and in 88 % at 10, where the t interval does in 94 to 95 % (tests/plateau/test_coverage.py).

The onset s is 0 where the whole curve is of this kind. Learning curves are often S-shaped (warm-up, and learning that
speeds up as the policy gets better), and an exponential laid through the slow beginning promises a ceiling that is too
high: by .01 to .04 in simulated loops of 12 to 20 rounds. So s is the first round from which a lack-of-fit test, with
the seeds as replicates, finds no fault with the exponential; one for all seeds, at most half way.

tau is averaged on the log scale, as is the remaining gain: both are positive, and their estimates skewed to the right.
t_90, the rounds from the onset until 90 % of the gain is made, is tau ln 10, so its interval is that of tau times that.

Q_inf is not held within [0, 1] while fitting: a bound would pull in just those seeds that overshoot, and both shift the
mean and narrow the interval. A ceiling cannot lie outside, though, so the *limits* of the interval are cut at 0 and 1,
which costs no coverage.

A ceiling is an extrapolation. `saturation` says "not identified", with the reason, where the data do not carry it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from rlaif_lab.report.statistics import Interval, t_interval

Floats = npt.NDArray[np.float64]

LN_10 = math.log(10.0)
SHORTEST = 0.2  # rounds: e^-5 is left after one, so that a smaller tau could not be told from this one
LONGEST = 10.0  # times the last round: the curve is straight as far as it was seen
GRID = 81
REFINED = 17
MIN_ROUNDS = 4  # points: one more than the parameters


@dataclass(frozen=True)
class CurveFits:
    """Least squares for a batch of curves, all arrays (B,). ceiling: Q_inf. start: Q_0. tau in rounds.
    last: the fitted value in the last round. error: sum of squared residuals."""

    ceiling: Floats
    start: Floats
    tau: Floats
    last: Floats
    error: Floats

    @property
    def remaining(self) -> Floats:
        """Q_inf minus the fitted value in the last round: what more rounds would bring."""
        return self.ceiling - self.last


def fit(rounds: Floats, quality: Floats) -> CurveFits:
    """The best curve for each row of ``quality`` (B, n) at ``rounds`` (n,), increasing. ValueError for fewer than 4
    rounds, or values that are not finite."""
    if len(rounds) < MIN_ROUNDS:
        raise ValueError(f"a saturation fit needs at least {MIN_ROUNDS} rounds; got {len(rounds)}")
    if not np.isfinite(quality).all():
        raise ValueError("a saturation fit needs finite qualities")
    lowest, highest = math.log(SHORTEST), math.log(LONGEST * rounds[-1])
    log_tau = np.broadcast_to(np.linspace(lowest, highest, GRID), (len(quality), GRID))
    step = (highest - lowest) / (GRID - 1)
    best = _best(rounds, quality, log_tau[:1], log_tau)
    for _ in range(3):
        offsets = np.linspace(-step, step, REFINED)
        around = np.clip(best[:, None] + offsets, lowest, highest)
        best = _best(rounds, quality, around, around)
        step *= 2.0 / (REFINED - 1)
    tau = np.exp(best)
    decay = np.exp(-rounds / tau[:, None])
    centred = decay - decay.mean(1, keepdims=True)
    slope = (centred * quality).sum(1) / (centred**2).sum(1)
    ceiling = quality.mean(1) - slope * decay.mean(1)
    fitted = ceiling[:, None] + slope[:, None] * decay
    start = ceiling + slope
    return CurveFits(ceiling, start, tau, fitted[:, -1], ((quality - fitted) ** 2).sum(1))


def _best(rounds: Floats, quality: Floats, shapes: Floats, candidates: Floats) -> Floats:
    """Of each row's candidate log taus (B, K) the one with the least error. shapes: candidates, or (1, K) where all
    rows share them."""
    decay = np.exp(-rounds[:, None] / np.exp(shapes)[:, None, :])  # (B or 1, n, K)
    decay -= decay.mean(1, keepdims=True)
    explained = np.einsum("bn,bnk->bk", quality, np.broadcast_to(decay, (len(quality), *decay.shape[1:]))) ** 2
    explained /= (decay**2).sum(1)
    chosen = explained.argmax(1)
    return np.take_along_axis(candidates, chosen[:, None], axis=1)[:, 0]


# --- what a set of seeds says -----------------------------------------------------------------------------------------
WIDEST = 4.0  # times either way: a tau that is known no better than this is not known
MISFITS, FITS = 0.05, 0.2
"""p of the lack-of-fit test below which an onset is not taken at all; and from which on a later one than 0 is."""
NEGLIGIBLE = 1e-4  # root mean square of a misfit, in quality, that is none
LEAST = MIN_ROUNDS + 1
"""Evaluated rounds from the onset on without which nothing is fitted."""


@dataclass(frozen=True)
class Curve:
    """One seed's quality by round: both (n,), finite, rounds increasing."""

    rounds: Floats
    quality: Floats

    def after(self, onset: float) -> Curve:
        """From ``onset`` on, and with rounds counted from there."""
        kept = self.rounds >= onset
        return Curve(self.rounds[kept] - onset, self.quality[kept])


@dataclass(frozen=True)
class Saturation:
    """What an arm's curves say about where they end.

    identified: whether the data carry a ceiling; where not, ``reason`` says why, and all that would state a ceiling or
    a time to it is nan: none is reported anywhere.
    ceiling: Q_inf. gain: Q_inf - Q_0, as evaluated. tau, t_90: rounds, geometric means over seeds.
    remaining: Q_inf - Q_T, what more rounds would bring, geometric mean over seeds.
    onset: s, the round from which the curves are fitted.
    exhausted: whether ``remaining`` is shown to be smaller than delta either way, by two one-sided tests at level .05
    (TOST), with their p value in ``exhausted_p``. delta: in quality.
    ceilings: seed -> Q_inf, for paired comparisons; empty where not identified.
    seeds: with one, intervals are over the noise of its evaluations only (profile likelihood), which says nothing
    about other seeds. rounds: the last round.
    """

    identified: bool
    reason: str
    ceiling: Interval
    gain: Interval
    tau: Interval
    t_90: Interval
    remaining: Interval
    onset: int
    exhausted: bool
    exhausted_p: float
    ceilings: dict[int, float]
    seeds: int
    rounds: int
    delta: float


def saturation(curves: Mapping[int, Curve], delta: float, doubt: str = "", confidence: float = 0.95) -> Saturation:
    """The ceiling that ``curves`` (seed -> curve) speak for, if they do.

    doubt: a reason from elsewhere not to believe in a ceiling, such as a detector that sees quality fall.
    Pure, and the same whatever the order of the seeds.
    """
    from rlaif_lab.plateau.profile import of_one_seed

    seeds = sorted(curves)
    last = int(max((curves[seed].rounds[-1] for seed in seeds), default=0))

    def unidentified(reason: str) -> Saturation:
        return not_identified(reason, len(seeds), last, delta)

    if not seeds:
        return unidentified("no whole run with gold quality")
    if min(len(curves[seed].rounds) for seed in seeds) < LEAST:
        return unidentified(f"a ceiling needs at least {LEAST} evaluated rounds")
    if doubt:
        return unidentified(doubt)
    if len(seeds) == 1:
        return of_one_seed(seeds[0], curves[seeds[0]], delta, confidence)
    whole = [curves[seed] for seed in seeds]
    change = t_interval([_end(curve) - _beginning(curve) for curve in whole], confidence)
    if change.high < 0.0:
        return unidentified(f"quality falls from the first rounds to the last: {signed(change)}")
    if change.low <= 0.0:
        return unidentified(f"no change from the first rounds to the last that the seeds agree on: {signed(change)}")
    onset = find_onset(whole)
    if onset is None:
        return unidentified("the curve bends in another way than a saturating exponential")
    fitted = [curve.after(onset) for curve in whole]
    fits = fit_all(fitted)
    tau = exponential(t_interval(np.log(fits.tau).tolist(), confidence))
    ceiling = t_interval(fits.ceiling.tolist(), confidence)
    risen = fits.ceiling - fits.start
    gains = fits.ceiling - [curve.quality[0] for curve in whole]
    length = min(float(curve.rounds[-1]) for curve in fitted)
    straight = [
        seed
        for seed, curve, value in zip(seeds, fitted, fits.tau, strict=True)
        if value >= 0.99 * LONGEST * curve.rounds[-1]
    ]
    reason = ""
    if (risen <= 0.0).all():
        reason = f"quality falls after round {onset}"
    elif (risen <= 0.0).any():
        reason = f"after round {onset} some seeds rise and others fall" if onset else "some seeds rise and others fall"
    elif straight:
        which = ", ".join(map(str, straight))
        reason = f"seed {which} shows no curvature" if len(straight) == 1 else f"seeds {which} show no curvature"
    elif tau.mean > length / 2:
        reason = too_slow(tau.mean, length, onset)
    elif tau.high / tau.mean > WIDEST:
        reason = f"the seeds disagree on tau: {tau.low:.2g} to {tau.high:.2g} rounds"
    elif not 0.0 <= ceiling.mean <= 1.0:
        reason = f"the fitted ceiling, {ceiling.mean:.3f}, is no possible quality"
    if reason:
        return unidentified(reason)
    logs = np.log(np.maximum(fits.remaining, 1e-300))  # of a gain that is over, and no longer told from 0
    p = equivalence(logs, math.log(delta))
    return Saturation(
        identified=True,
        reason="",
        ceiling=within(ceiling),
        gain=t_interval(gains.tolist(), confidence),
        tau=tau,
        t_90=Interval(*(LN_10 * value for value in tau)),
        remaining=exponential(t_interval(logs.tolist(), confidence)),
        onset=onset,
        exhausted=p < 0.05,
        exhausted_p=p,
        ceilings=dict(zip(seeds, fits.ceiling.tolist(), strict=True)),
        seeds=len(seeds),
        rounds=last,
        delta=delta,
    )


def find_onset(curves: Sequence[Curve]) -> int | None:
    """0 unless the whole curve is not exponential (p of `lack_of_fit` below .05). Then the first round from which it
    is, now asking for more (.2), since the beginning of an S fades slowly; failing that, the round from which it fits
    best, if that is above .05; else None. At most half way, and with 5 rounds left."""
    tried: dict[int, float] = {}
    for onset in onsets(min(curves, key=lambda curve: float(curve.rounds[-1]))):
        tried[onset] = lack_of_fit([curve.after(onset) for curve in curves])
        if tried[onset] > (FITS if onset else MISFITS):
            return onset
    best = max(tried, key=lambda onset: tried[onset])
    return best if tried[best] > MISFITS else None


def onsets(curve: Curve) -> list[int]:
    """The rounds that may be one."""
    return [int(t) for t in curve.rounds[: len(curve.rounds) - LEAST + 1] if t <= curve.rounds[-1] / 2]


def lack_of_fit(curves: Sequence[Curve]) -> float:
    """p value of the lack-of-fit F test of an exponential for each curve, with the seeds as replicates: whether the
    residuals' means by round differ from 0 by more than their spread over the seeds explains. 1 where the seeds cannot
    tell."""
    from scipy.special import fdtrc  # slow to import

    fits = fit_all(curves)
    rounds = np.unique(np.concatenate([curve.rounds for curve in curves]))
    seen = np.zeros((len(curves), len(rounds)), dtype=bool)
    residuals = np.zeros(seen.shape)
    for index, curve in enumerate(curves):
        at = np.searchsorted(rounds, curve.rounds)
        decay = np.exp(-curve.rounds / fits.tau[index])
        seen[index, at] = True
        residuals[index, at] = curve.quality - fits.ceiling[index] + (fits.ceiling[index] - fits.start[index]) * decay
    counts = seen.sum(0)
    means = residuals.sum(0) / counts
    between = float((counts * means**2).sum())
    within_rounds = float(((residuals - means) ** 2 * seen).sum())
    above = len(rounds) - 3  # three parameters of the mean curve, and of each seed's deviation from it
    below = int((counts - 1).sum()) - 3 * (len(curves) - 1)
    if above < 1 or below < 1 or between < counts.sum() * NEGLIGIBLE**2:
        return 1.0
    return float(fdtrc(above, below, between / above / (within_rounds / below))) if within_rounds > 0.0 else 0.0


def equivalence(logs: Floats, log_delta: float) -> float:
    """p value of TOST (Schuirmann 1987) for a remaining gain within (-delta, delta), from its logarithm in each seed.

    On the log scale since the estimates are skewed: on the raw scale the test errs up to twice as often as it says at
    5 seeds. All seeds rise here, so of the two one-sided tests the one against -delta is settled, and the p value is
    that of ``mean of logs >= log_delta``.
    """
    from scipy.special import stdtr

    n = len(logs)
    distance, error = float(logs.mean()) - log_delta, float(logs.std(ddof=1)) / math.sqrt(n)
    if error == 0.0:
        return float(distance >= 0.0)
    return float(stdtr(n - 1, distance / error))


# --- pieces -----------------------------------------------------------------------------------------------------------
def not_identified(reason: str, seeds: int, last: int, delta: float) -> Saturation:
    nothing = Interval(math.nan, math.nan, math.nan)
    return Saturation(
        False, reason, nothing, nothing, nothing, nothing, nothing, 0, False, math.nan, {}, seeds, last, delta
    )


def too_slow(tau: float, rounds: float, onset: int) -> str:
    """Why there is no ceiling where tau is more than half of ``rounds``, the number of them since ``onset``."""
    since = f" since round {onset}" if onset else ""
    return f"tau is about {tau:.1f} rounds, more than half of the {rounds:.0f} that were run{since}"


def fit_all(curves: Sequence[Curve]) -> CurveFits:
    """Of curves at any rounds, in their order; those at the same rounds are fitted together."""
    alike: dict[bytes, list[int]] = defaultdict(list)
    for index, curve in enumerate(curves):
        alike[curve.rounds.tobytes()].append(index)
    found = np.empty((len(fields(CurveFits)), len(curves)))
    for members in alike.values():
        fits = fit(curves[members[0]].rounds, np.stack([curves[index].quality for index in members]))
        found[:, members] = [getattr(fits, field.name) for field in fields(CurveFits)]
    return CurveFits(*found)


def _quarter(curve: Curve) -> int:
    return max(2, math.ceil(len(curve.rounds) / 4))


def _beginning(curve: Curve) -> float:
    return float(curve.quality[: _quarter(curve)].mean())


def _end(curve: Curve) -> float:
    return float(curve.quality[-_quarter(curve) :].mean())


def exponential(interval: Interval) -> Interval:
    """Of logarithms -> of what they are logarithms of; the mean becomes the geometric one."""
    return Interval(*(math.exp(value) for value in interval))


def within(interval: Interval) -> Interval:
    """Limits cut to [0, 1], where every quality lies."""
    return Interval(interval.mean, max(0.0, interval.low), min(1.0, interval.high))


def signed(interval: Interval) -> str:
    """``+0.012 (-0.003 to +0.027)``."""
    return f"{interval.mean:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"
