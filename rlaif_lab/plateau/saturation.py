"""The saturation fit: how high the loop would get, how fast, and how much is left.

The mean curve of the seeds is fitted by least squares to

    Q_t = Q_inf - (Q_inf - Q_s) exp(-(t - s) / tau)      t >= s in rounds, Q in quality (0 to 1)

by variable projection (Golub and Pereyra 1973): for a given tau the model is linear in Q_inf and Q_s, so only tau is
searched, on a grid of log tau that is refined. The seed is the unit: the fit is repeated without each of the seeds, and
what is reported is the Student t interval over the jackknife's pseudo-values (Tukey 1958).

Measured in simulation (tests/plateau/test_coverage.py; 5 and 10 seeds, evaluations as noisy as ours): these intervals
hold the truth in 93 to 96 % of cases. A fit for each seed and a t interval over the fits does so as well, but as soon
as training itself wanders (.02 a round) its ceilings are too high by .01 to .02, its intervals wider by a tenth to a
third, and it finds no ceiling three times as often, since single curves may look straight. Resampling the seeds
(percentile bootstrap) covers in 84 % at 5 seeds and in 88 % at 10.

The onset s is 0 where the whole curve is of this kind. Learning curves are often S-shaped (warm-up, and learning that
speeds up as the policy gets better), and an exponential laid through the slow beginning promises a ceiling that is too
high: by .01 to .04 in simulated loops of 12 to 20 rounds. So s is the first round from which a lack-of-fit test, with
the seeds as replicates, finds no fault with the exponential; at most half way.

tau is averaged on the log scale, as is the remaining gain: both are positive, and their estimates skewed to the right.
t_90, the rounds from the onset until 90 % of the gain is made, is tau ln 10, so its interval is that of tau times that.

Q_inf is not held within [0, 1] while fitting: a bound would pull in just those fits that overshoot, and both shift the
mean and narrow the interval. A ceiling cannot lie outside, though, so the *limits* of the interval are cut at 0 and 1,
which costs no coverage.

A ceiling is an extrapolation. `saturation` says "not identified", with the reason, where the data do not carry it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlaif_lab.statistics.intervals import Interval, t_interval

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

    def at(self, rounds: Floats) -> Curve:
        """At these of its rounds only."""
        return Curve(rounds, self.quality[np.isin(self.rounds, rounds)])


@dataclass(frozen=True)
class Saturation:
    """What an arm's curves say about where they end.

    identified: whether the data carry a ceiling; where not, ``reason`` says why, and all that would state a ceiling or
    a time to it is nan: none is reported anywhere.
    ceiling: Q_inf. gain: Q_inf - Q_0, as evaluated. tau, t_90: rounds. remaining: Q_inf - Q_T, what more rounds would
    bring. onset: s, the round from which the curve is fitted.
    exhausted: whether ``remaining`` is shown to be smaller than delta either way, by two one-sided tests at level .05
    (TOST), with their p value in ``exhausted_p``. delta: in quality.
    ceilings: seed -> its pseudo-value of Q_inf, for paired comparisons of arms; empty where not identified.
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
    rounds = common_rounds([curves[seed] for seed in seeds])
    if len(rounds) < LEAST:
        return unidentified(f"the seeds have only {len(rounds)} evaluated rounds in common")
    whole = [curves[seed].at(rounds) for seed in seeds]
    change = t_interval([_end(curve) - _beginning(curve) for curve in whole], confidence)
    if change.high < 0.0:
        return unidentified(f"quality falls from the first rounds to the last: {signed(change)}")
    if change.low <= 0.0:
        return unidentified(f"no change from the first rounds to the last that the seeds agree on: {signed(change)}")
    onset = find_onset(whole)
    if onset is None:
        return unidentified("the curve bends in another way than a saturating exponential")
    fits = jackknife([curve.after(onset) for curve in whole])
    length = float(rounds[-1]) - onset
    log_tau = pseudo_values(np.log(fits.tau))
    ceilings = pseudo_values(fits.ceiling)
    tau = exponential(_around(np.log(fits.tau[0]), log_tau, confidence))
    ceiling = _around(fits.ceiling[0], ceilings, confidence)
    straight = [seed for seed, value in zip(seeds, fits.tau[1:], strict=True) if value >= 0.99 * LONGEST * length]
    reason = ""
    if fits.ceiling[0] <= fits.start[0]:
        reason = f"quality falls after round {onset}"
    elif tau.mean > rounds[-1] / 2:
        reason = too_slow(tau.mean, int(rounds[-1]))
    elif straight or (fits.ceiling <= fits.start).any():
        which = ", ".join(map(str, straight)) or "one"
        reason = f"without seed {which} the curve shows no curvature"
    elif tau.high / tau.mean > WIDEST:
        reason = f"the seeds disagree on tau: {tau.low:.2g} to {tau.high:.2g} rounds"
    elif not 0.0 <= ceiling.mean <= 1.0:
        reason = f"the fitted ceiling, {ceiling.mean:.3f}, is no possible quality"
    if reason:
        return unidentified(reason)
    log_left = np.log(np.maximum(fits.remaining, 1e-300))  # of a gain that is over, and no longer told from 0
    p = equivalence(log_left[0], pseudo_values(log_left), math.log(delta))
    begun = np.array([curve.quality[0] for curve in whole])
    return Saturation(
        identified=True,
        reason="",
        ceiling=within(ceiling),
        gain=_around(fits.ceiling[0] - begun.mean(), ceilings - begun, confidence),
        tau=tau,
        t_90=Interval(*(LN_10 * value for value in tau)),
        remaining=exponential(_around(log_left[0], pseudo_values(log_left), confidence)),
        onset=onset,
        exhausted=p < 0.05,
        exhausted_p=p,
        ceilings=dict(zip(seeds, ceilings.tolist(), strict=True)),
        seeds=len(seeds),
        rounds=last,
        delta=delta,
    )


def jackknife(curves: Sequence[Curve]) -> CurveFits:
    """Fits of the mean curve of all seeds, then without the first, without the second, ...; all at the same rounds."""
    quality = np.stack([curve.quality for curve in curves])
    without = (quality.sum(0) - quality) / (len(curves) - 1)
    return fit(curves[0].rounds, np.concatenate([quality.mean(0)[None], without]))


def pseudo_values(estimates: Floats) -> Floats:
    """n x (of all) - (n - 1) x (of all but one), for each one: (1 + n,) -> (n,)."""
    n = len(estimates) - 1
    return n * estimates[0] - (n - 1) * estimates[1:]


def _around(value: float, pseudo: Floats, confidence: float) -> Interval:
    """The t interval of pseudo-values, about the estimate itself: their mean, corrected for bias, has more variance."""
    mean, low, high = t_interval(pseudo.tolist(), confidence)
    return Interval(float(value), float(value) + low - mean, float(value) + high - mean)


def find_onset(curves: Sequence[Curve]) -> int | None:
    """0 unless the whole curve is not exponential (p of `lack_of_fit` below .05). Then the first round from which it
    is, now asking for more (.2), since the beginning of an S fades slowly; failing that, the round from which it fits
    best, if that is above .05; else None. At most half way, and with 5 rounds left."""
    tried: dict[int, float] = {}
    for onset in onsets(curves[0]):
        tried[onset] = lack_of_fit([curve.after(onset) for curve in curves])
        if tried[onset] > (FITS if onset else MISFITS):
            return onset
    best = max(tried, key=lambda onset: tried[onset])
    return best if tried[best] > MISFITS else None


def onsets(curve: Curve) -> list[int]:
    """The rounds that may be one."""
    return [int(t) for t in curve.rounds[: len(curve.rounds) - LEAST + 1] if t <= curve.rounds[-1] / 2]


def lack_of_fit(curves: Sequence[Curve]) -> float:
    """p value of the lack-of-fit F test of an exponential, with the seeds as replicates: whether the mean over seeds of
    the residuals from each seed's own fit differs from 0 by more than their spread explains. All at the same rounds."""
    from scipy.special import fdtrc  # slow to import

    rounds, quality = curves[0].rounds, np.stack([curve.quality for curve in curves])
    fits = fit(rounds, quality)
    decay = np.exp(-rounds / fits.tau[:, None])
    residuals = quality - fits.ceiling[:, None] + (fits.ceiling - fits.start)[:, None] * decay
    n, means = len(curves), residuals.mean(0)
    if n * float((means**2).sum()) < residuals.size * NEGLIGIBLE**2:
        return 1.0
    above = len(rounds) - 3  # three parameters of the mean curve, and of each seed's deviation from it
    between = n * float((means**2).sum()) / above
    inside = float(((residuals - means) ** 2).sum()) / (above * (n - 1))
    return float(fdtrc(above, above * (n - 1), between / inside)) if inside > 0.0 else 0.0


def equivalence(log_value: float, pseudo: Floats, log_delta: float) -> float:
    """p value of TOST (Schuirmann 1987) for a remaining gain within (-delta, delta), from its logarithm and the
    pseudo-values of that.

    On the log scale since estimates are skewed: on the raw scale the test errs up to twice as often as it says at 5
    seeds. The curve rises here, so of the two one-sided tests the one against -delta is settled, and the p value is
    that of ``logarithm >= log_delta``.
    """
    from scipy.special import stdtr

    n = len(pseudo)
    distance, error = float(log_value) - log_delta, float(pseudo.std(ddof=1)) / math.sqrt(n)
    if error == 0.0:
        return float(distance >= 0.0)
    return float(stdtr(n - 1, distance / error))


# --- pieces -----------------------------------------------------------------------------------------------------------
def not_identified(reason: str, seeds: int, last: int, delta: float) -> Saturation:
    nothing = Interval(math.nan, math.nan, math.nan)
    return Saturation(
        False, reason, nothing, nothing, nothing, nothing, nothing, 0, False, math.nan, {}, seeds, last, delta
    )


def too_slow(tau: float, last: int) -> str:
    """Why there is no ceiling where tau is more than half of the ``last`` rounds."""
    if tau > 2 * last:
        return "the curve is nearly a straight line, with no end in sight"
    return f"tau is about {tau:.1f} rounds, more than half of the {last} that were run"


def common_rounds(curves: Sequence[Curve]) -> Floats:
    """Those that every seed has: all, unless some ended early."""
    return np.array(sorted(set.intersection(*(set(curve.rounds.tolist()) for curve in curves))))


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
