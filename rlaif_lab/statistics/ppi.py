"""Prediction-powered inference: a mean from a few people's labels and many of an AI judge.

The judge's mean over everything is precise and biased; people's over a random few is unbiased and imprecise. Taking
from the judge only what people's labels confirm is unbiased however bad the judge is, and the better it is, the more
precise (Angelopoulos et al. 2301.09633).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Rectified:
    """estimate, stderr, low, high: of the mean label, in its unit. labels: how many people gave.
    weight: lambda in [0, 1], how much of the judge is used. effective_labels: how many labels alone would have this
    standard error. nan where undefined: everything without two labels, effective_labels without spread."""

    estimate: float
    stderr: float
    low: float
    high: float
    labels: int
    weight: float
    effective_labels: float


def rectified_mean(
    labels: npt.ArrayLike,
    judged: npt.ArrayLike,
    judged_unlabelled: npt.ArrayLike,
    confidence: float = 0.95,
    weight: float | None = None,
) -> Rectified:
    """Return the mean of people's labels Y over everything, from n labelled and N other items.

        estimate = weight mean_N(f) + mean_n(Y - weight f)
        variance = weight^2 var(f) / N + var(Y - weight f) / n
        weight   = cov(Y, f) / ((1 + n/N) var(f)), within [0, 1]       (PPI++, Angelopoulos et al. 2311.01453)

    labels, judged: Y and the judge's f of the same items, (n,) each, **drawn at random** from all items: labels drawn
    by the judge's uncertainty, or seen in training, void it. judged_unlabelled: f of the others, (N,). weight: given
    (0: people alone, 1: plain PPI) in place of tuned. var(f) is over all items, the interval Student's t with n - 1
    degrees of freedom. The weight is tuned on the same labels, which with less than about 20 makes intervals a little
    too short. Raises ValueError for shapes that do not fit.
    """
    y, f, others = (np.asarray(values, dtype=float) for values in (labels, judged, judged_unlabelled))
    if y.ndim != 1 or y.shape != f.shape or others.ndim != 1:
        raise ValueError(f"labels and judged must be of one length, (n,); got {y.shape} and {f.shape}")
    n, rest = len(y), len(others)
    if n < 2:
        return Rectified(
            math.nan, math.nan, math.nan, high=math.nan, labels=n, weight=math.nan, effective_labels=math.nan
        )
    # Over all N + n items: the judge's variance is known from everything that it has judged.
    spread = float(np.var(np.concatenate([f, others]), ddof=1))
    if not rest or spread == 0.0:
        weight = 0.0  # nothing to be had from the judge
    elif weight is None:
        covariance = float(np.cov(y, f)[0, 1])
        # Within [0, 1]: below 0 the judge misleads, and people alone do better; above 1 it would be trusted more than
        # they are.
        weight = min(1.0, max(0.0, covariance / ((1.0 + n / rest) * spread)))
    estimate = float(np.mean(y - weight * f)) + (weight * float(np.mean(others)) if rest else 0.0)
    # The two terms are independent: the judge's mean over the unlabelled items, and people's correction of it.
    variance = float(np.var(y - weight * f, ddof=1)) / n + (weight**2 * spread / rest if rest else 0.0)
    return _rectified(
        estimate, variance, n, weight=weight, label_variance=float(np.var(y, ddof=1)), confidence=confidence
    )


def labels_for(delta: float, spread: float = 1.0, alpha: float = 0.05, power: float = 0.8) -> int:
    """Return how many labels tell a mean of ``delta`` from 0: two-sided at ``alpha``, with probability ``power``.

    n = ((z_(1 - alpha/2) + z_power) spread / delta)^2. spread: standard deviation of one label; 1 is the largest that a
    preference in [-1, 1] can have. Raises ValueError for a delta that is not positive.
    """
    from statistics import NormalDist

    if not delta > 0.0:
        raise ValueError(f"delta must be positive; got {delta}")
    z = NormalDist().inv_cdf(1.0 - alpha / 2.0) + NormalDist().inv_cdf(power)
    return math.ceil((z * spread / delta) ** 2)


def with_known_ties(of: Rectified, different: int, identical: int, confidence: float = 0.95) -> Rectified:
    """Return a win rate over ``different`` comparisons, of which it is an estimate, and ``identical`` ones that are
    ties by themselves: their 0.5 is known, and the share of each kind is as random as the prompts are."""
    total = different + identical
    if not identical or math.isnan(of.estimate):
        return of
    share = different / total
    estimate = 0.5 + share * (of.estimate - 0.5)
    # Two independent sources: the estimate itself, and how many of the comparisons happen to be of equal texts.
    variance = share**2 * of.stderr**2 + (of.estimate - 0.5) ** 2 * share * (1.0 - share) / total
    half = _half(math.sqrt(variance), of.labels, confidence)
    return replace(of, estimate=estimate, stderr=math.sqrt(variance), low=estimate - half, high=estimate + half)


def _rectified(
    estimate: float, variance: float, n: int, weight: float, label_variance: float, confidence: float
) -> Rectified:
    stderr = math.sqrt(variance)
    half = _half(stderr, n, confidence)
    # How many labels alone have this variance: var(Y) / variance.
    effective = label_variance / variance if variance > 0 else math.nan
    return Rectified(
        estimate, stderr, estimate - half, high=estimate + half, labels=n, weight=weight, effective_labels=effective
    )


def _half(stderr: float, n: int, confidence: float) -> float:
    from rlaif_lab.statistics.intervals import t_quantile

    return t_quantile(n - 1, confidence) * stderr
