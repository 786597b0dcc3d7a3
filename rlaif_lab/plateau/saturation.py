"""The saturation fit: how high the loop would get, how fast, and how much is left.

Each seed's curve is fitted by least squares to

    Q_t = Q_inf - (Q_inf - Q_0) exp(-t / tau)            t in rounds, Q in quality (0 to 1)

by variable projection (Golub and Pereyra 1973): for a given tau the model is linear in Q_inf and Q_0, so only tau is
searched, on a grid of log tau that is refined twice. The seed is the unit: what is reported is a Student t interval
over the seeds' estimates. Resampling the seeds would give too narrow an interval at 5 seeds
(tests/plateau/test_coverage.py).

tau is averaged on the log scale: it is positive, and its estimates are skewed to the right. t_90, the rounds until 90 %
of the gain is made, is tau ln 10, so its interval is that of tau times ln 10.

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
    for _ in range(2):
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


@dataclass(frozen=True)
class Saturation:
    """What an arm's curves say about where they end.

    identified: whether the data carry a ceiling; where not, ``reason`` says why, and all that would state a ceiling or
    a time to it is nan: none is reported anywhere.
    ceiling: Q_inf. gain: Q_inf - Q_0. tau, t_90: rounds, geometric means over seeds. remaining: Q_inf - Q_T, what more
    rounds would bring, geometric mean over seeds, with its sign.
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
    exhausted: bool
    exhausted_p: float
    ceilings: dict[int, float]
    seeds: int
    rounds: int
    delta: float


@dataclass(frozen=True)
class Curve:
    """One seed's quality by round: both (n,), finite, rounds increasing."""

    rounds: Floats
    quality: Floats


def saturation(curves: Mapping[int, Curve], delta: float, doubt: str = "", confidence: float = 0.95) -> Saturation:
    """The ceiling that ``curves`` (seed -> curve) speak for, if they do.

    doubt: a reason from elsewhere not to believe in a ceiling, such as another family of curves that fits better.
    Pure, and the same whatever the order of the seeds.
    """
    seeds = sorted(curves)
    last = int(max((curves[seed].rounds[-1] for seed in seeds), default=0))

    def unidentified(reason: str) -> Saturation:
        return _unidentified(reason, len(seeds), last, delta)

    if not seeds:
        return unidentified("no whole run with gold quality")
    if min(len(curves[seed].rounds) for seed in seeds) < MIN_ROUNDS + 1:
        return unidentified(f"a ceiling needs at least {MIN_ROUNDS + 1} evaluated rounds")
    if len(seeds) == 1:
        return _single(seeds[0], curves[seeds[0]], delta, doubt, confidence)
    change = t_interval([float(_end(curves[s]) - _beginning(curves[s])) for s in seeds], confidence)
    if change.low <= 0.0 <= change.high:
        return unidentified(f"no change from the first rounds to the last that the seeds agree on: {signed(change)}")
    fits = _fit_all([curves[seed] for seed in seeds])
    taus, ceilings, gains, remaining = fits.tau, fits.ceiling, fits.ceiling - fits.start, fits.remaining
    straight = [s for s, tau in zip(seeds, taus, strict=True) if tau >= 0.99 * LONGEST * curves[s].rounds[-1]]
    tau = exponential(t_interval(np.log(taus).tolist(), confidence))
    ceiling = t_interval(ceilings.tolist(), confidence)
    shortest_run = min(curves[s].rounds[-1] for s in seeds)
    if len(set(np.sign(gains))) > 1:
        return unidentified("some seeds rise and others fall")
    if straight:
        one = len(straight) == 1
        which = ", ".join(map(str, straight))
        return unidentified(f"seed {which} shows no curvature" if one else f"seeds {which} show no curvature")
    if tau.mean > shortest_run / 2:
        return unidentified(
            f"tau is about {tau.mean:.1f} rounds, more than half of the {shortest_run:.0f} that were run"
        )
    if tau.high / tau.mean > WIDEST:
        return unidentified(f"the seeds disagree on tau: {tau.low:.2g} to {tau.high:.2g} rounds")
    if not 0.0 <= ceiling.mean <= 1.0:
        return unidentified(f"the fitted ceiling, {ceiling.mean:.3f}, is no possible quality")
    if doubt:
        return unidentified(doubt)
    logs = np.log(np.maximum(np.abs(remaining), 1e-300))
    left = exponential(t_interval(logs.tolist(), confidence))
    p = equivalence(logs, math.log(delta))
    return Saturation(
        identified=True,
        reason="",
        ceiling=within(ceiling),
        gain=t_interval(gains.tolist(), confidence),
        tau=tau,
        t_90=Interval(*(LN_10 * value for value in tau)),
        remaining=left if gains[0] > 0 else Interval(-left.mean, -left.high, -left.low),
        exhausted=p < 0.05,
        exhausted_p=p,
        ceilings=dict(zip(seeds, ceilings.tolist(), strict=True)),
        seeds=len(seeds),
        rounds=last,
        delta=delta,
    )


def equivalence(logs: Floats, log_delta: float) -> float:
    """p value of TOST (Schuirmann 1987) for a remaining gain within (-delta, delta), from its logarithm in each seed.

    On the log scale since the estimates are skewed: on the raw scale the test is wrong up to twice as often as it says
    at 5 seeds. All seeds have the same sign here, so of the two one-sided tests the one against the other sign is
    settled, and the p value is that of ``mean of logs >= log_delta``. nan for fewer than 2 seeds.
    """
    from scipy.special import stdtr  # slow to import

    n = len(logs)
    if n < 2:
        return math.nan
    distance, error = float(logs.mean()) - log_delta, float(logs.std(ddof=1)) / math.sqrt(n)
    if error == 0.0:
        return float(distance >= 0.0)
    return float(stdtr(n - 1, distance / error))


# --- one seed ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Profile:
    """Profile likelihood intervals of one curve; the mean is the best fit. A limit is infinite where no tau up to
    LONGEST x T can be excluded."""

    ceiling: Interval
    gain: Interval
    tau: Interval
    remaining: Interval


def profile(curve: Curve, confidence: float = 0.95) -> Profile:
    """From the noise about one curve: all values for which some tau fits not significantly worse than the best does,
    by F(1, n - 3), since the size of the noise is estimated from the curve itself.

    For a given tau the model is linear, so the values allowed at that tau are an interval about its least-squares
    value, and the profile interval is the union of these over a grid of tau.
    """
    from scipy.special import fdtri

    rounds, quality = curve.rounds, curve.quality
    best = fit(rounds, quality[None])
    n, tau = len(rounds), float(best.tau[0])
    taus = np.unique(np.append(np.geomspace(SHORTEST, LONGEST * rounds[-1], 2001), tau))
    decay = np.exp(-rounds[:, None] / taus)  # (n, taus)
    mean = decay.mean(0)
    square = ((decay - mean) ** 2).sum(0)
    slope = quality @ (decay - mean) / square
    error = ((quality - quality.mean()) ** 2).sum() - slope**2 * square
    limit = float(best.error[0]) * (1.0 + fdtri(1, n - 3, confidence) / (n - 3))
    slack = limit - error
    allowed = slack >= 0.0
    allowed[np.searchsorted(taus, tau)] = True  # the best itself, whatever rounding says
    slack = np.sqrt(np.maximum(slack[allowed], 0.0))
    slope, mean, square, left = slope[allowed], mean[allowed], square[allowed], np.exp(-rounds[-1] / taus[allowed])
    unbounded = bool(allowed[-1])

    def union(middle: Floats, error: Floats, value: float) -> Interval:
        if unbounded:
            return Interval(value, -math.inf, math.inf)
        return Interval(value, float((middle - error).min()), float((middle + error).max()))

    return Profile(
        ceiling=union(
            quality.mean() - slope * mean, slack * np.sqrt(1.0 / n + mean**2 / square), float(best.ceiling[0])
        ),
        gain=union(-slope, slack / np.sqrt(square), float(best.ceiling[0] - best.start[0])),
        tau=Interval(tau, float(taus[allowed][0]), math.inf if unbounded else float(taus[allowed][-1])),
        remaining=union(-slope * left, slack * left / np.sqrt(square), float(best.remaining[0])),
    )


def _single(seed: int, curve: Curve, delta: float, doubt: str, confidence: float) -> Saturation:
    """``saturation`` of one seed."""
    from scipy.special import fdtrc

    last = int(curve.rounds[-1])
    best = fit(curve.rounds, curve.quality[None])
    n, error = len(curve.rounds), float(best.error[0])
    explained = float(((curve.quality - curve.quality.mean()) ** 2).sum()) - error
    found = profile(curve, confidence)
    if error <= 0.0 < explained:
        p = 0.0
    else:
        p = float(fdtrc(2, n - 3, explained / 2 / (error / (n - 3)))) if error > 0.0 else 1.0
    reason = ""
    if p > 1.0 - confidence:
        reason = "no change that stands out from the noise of the evaluations"
    elif found.tau.mean > last / 2:
        reason = f"tau is about {found.tau.mean:.1f} rounds, more than half of the {last} that were run"
    elif math.isinf(found.tau.high):
        reason = "a straight line fits as well"
    elif not 0.0 <= found.ceiling.mean <= 1.0:
        reason = f"the fitted ceiling, {found.ceiling.mean:.3f}, is no possible quality"
    elif doubt:
        reason = doubt
    if reason:
        return _unidentified(reason, 1, last, delta)
    return Saturation(
        identified=True,
        reason="",
        ceiling=within(found.ceiling),
        gain=found.gain,
        tau=found.tau,
        t_90=Interval(*(LN_10 * value for value in found.tau)),
        remaining=found.remaining,
        exhausted=-delta < found.remaining.low and found.remaining.high < delta,
        exhausted_p=math.nan,
        ceilings={seed: found.ceiling.mean},
        seeds=1,
        rounds=last,
        delta=delta,
    )


# --- pieces -----------------------------------------------------------------------------------------------------------
def _unidentified(reason: str, seeds: int, last: int, delta: float) -> Saturation:
    nothing = Interval(math.nan, math.nan, math.nan)
    return Saturation(
        False, reason, nothing, nothing, nothing, nothing, nothing, False, math.nan, {}, seeds, last, delta
    )


def _fit_all(curves: Sequence[Curve]) -> CurveFits:
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
