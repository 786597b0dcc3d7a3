"""The saturation fit of a single run, for which there are no other seeds to tell what is noise.

Intervals come from the noise about its own curve (profile likelihood), and so cover its own ceiling, not that of the
arm. An S-shape is looked for in the order of the residuals, which shows less than seeds do: simulated runs of 12 to 30
rounds with one have their ceiling within the interval in 80 to 92 % of cases, and nothing is said in 8 to 18 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlaif_lab.plateau.saturation import (
    LN_10,
    LONGEST,
    SHORTEST,
    Curve,
    Saturation,
    fit,
    not_identified,
    onsets,
    too_slow,
    within,
)
from rlaif_lab.statistics.intervals import Interval

Floats = npt.NDArray[np.float64]
INDEPENDENT = 2.0
"""The von Neumann ratio of independent residuals; those of a wrong curve follow one another and have a smaller one."""


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


def von_neumann(curve: Curve) -> float:
    """Sum of squared steps from residual to residual over the sum of their squares; 2 where nothing is left."""
    found = fit(curve.rounds, curve.quality[None])
    decay = np.exp(-curve.rounds / found.tau[0])
    residuals = curve.quality - found.ceiling[0] + (found.ceiling[0] - found.start[0]) * decay
    square = float((residuals**2).sum())
    return float((np.diff(residuals) ** 2).sum()) / square if square > 1e-12 else INDEPENDENT


def of_one_seed(seed: int, whole: Curve, delta: float, confidence: float) -> Saturation:
    """``saturation`` of one seed."""
    last = int(whole.rounds[-1])

    def unidentified(reason: str) -> Saturation:
        return not_identified(reason, 1, last, delta)

    if not changes_at_all(whole, confidence):
        return unidentified("no change that stands out from the noise of the evaluations")
    onset = next((t for t in onsets(whole) if von_neumann(whole.after(t)) >= INDEPENDENT), None)
    if onset is None:
        return unidentified("the curve bends in another way than a saturating exponential")
    found = profile(whole.after(onset), confidence)
    if found.gain.mean <= 0.0:
        return unidentified(f"quality falls after round {onset}" if onset else "quality falls")
    if found.tau.mean > last / 2:
        return unidentified(too_slow(found.tau.mean, last))
    if math.isinf(found.tau.high):
        return unidentified("a straight line fits as well")
    if not 0.0 <= found.ceiling.mean <= 1.0:
        return unidentified(f"the fitted ceiling, {found.ceiling.mean:.3f}, is no possible quality")
    return Saturation(
        identified=True,
        reason="",
        ceiling=within(found.ceiling),
        gain=Interval(*(value - float(whole.quality[0]) for value in found.ceiling)) if onset else found.gain,
        tau=found.tau,
        t_90=Interval(*(LN_10 * value for value in found.tau)),
        remaining=found.remaining,
        onset=onset,
        exhausted=-delta < found.remaining.low and found.remaining.high < delta,
        exhausted_p=math.nan,
        ceilings={seed: found.ceiling.mean},
        seeds=1,
        rounds=last,
        delta=delta,
    )


def changes_at_all(curve: Curve, confidence: float) -> bool:
    """Whether the exponential explains more than a constant does, by F(2, n - 3)."""
    from scipy.special import fdtrc  # slow to import

    n = len(curve.rounds)
    left = float(fit(curve.rounds, curve.quality[None]).error[0])
    explained = float(((curve.quality - curve.quality.mean()) ** 2).sum()) - left
    if left < 1e-12:
        return explained > 1e-12
    return float(fdtrc(2, n - 3, explained / 2 / (left / (n - 3)))) < 1.0 - confidence
