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
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlaif_lab.report.statistics import Interval

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
    start = ceiling + slope * np.exp(-0.0 / tau)
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


# --- over seeds -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Saturation:
    """What an arm's curves say about where they end. Intervals are over seeds, at ``confidence``.

    identified: whether the data carry a ceiling; where not, ``reason`` says why, and ceiling, tau, t_90 and remaining
    are nan throughout: no ceiling is reported anywhere.
    ceiling: Q_inf. gain: Q_inf - Q_0. tau, t_90: rounds, geometric means over seeds.
    remaining: Q_inf - Q_T, geometric mean over seeds (with its sign); exhausted: whether TOST shows it to be
    smaller than delta either way, with its p value in ``exhausted_p``. delta: in quality.
    ceilings: per seed, for paired comparisons; empty where not identified. rounds: T, the last round.
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
