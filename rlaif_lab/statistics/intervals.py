"""Intervals over seeds. Pure functions; the seed is the unit, so n is the number of seeds."""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple, TypeVar

K = TypeVar("K", bound=Hashable)


class Interval(NamedTuple):
    """A mean and its confidence limits, in the unit of the values; nan where undefined."""

    mean: float
    low: float
    high: float


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Return the mean and two-sided Student t interval of independent ``values``.

    No value: all nan. One value: itself, with nan limits, since one seed says nothing about spread.
    ValueError for a value that is not finite, or a confidence outside (0, 1).
    """
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1; got {confidence}")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"an interval needs finite values; got {list(values)}")
    n = len(values)
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    # fsum, so that the order of the seeds does not decide the last bit.
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, math.nan, math.nan)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = t_quantile(n - 1, confidence) * math.sqrt(variance / n)
    return Interval(mean, mean - half, mean + half)


def wilson(successes: float, of: int, confidence: float = 0.95) -> Interval:
    """Return a share and Wilson's score interval; nan where there is nothing.

    Raises:
        ValueError: if there are fewer than no successes, or more than there is in all.
    """
    if not 0.0 <= successes <= of:
        raise ValueError(f"successes must lie between 0 and {of}; got {successes}")
    if of == 0:
        return Interval(math.nan, math.nan, math.nan)
    z, share = NormalDist().inv_cdf((1.0 + confidence) / 2.0), successes / of
    centre = (share + z * z / (2 * of)) / (1.0 + z * z / of)
    half = z / (1.0 + z * z / of) * math.sqrt(share * (1.0 - share) / of + z * z / (4 * of * of))
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def paired_difference(first: Mapping[K, float], second: Mapping[K, float]) -> list[float]:
    """Return ``first`` minus ``second`` for every key (seed) that both have, in the order of ``first``."""
    return [value - second[key] for key, value in first.items() if key in second]


@functools.cache
def t_quantile(degrees: int, confidence: float) -> float:
    """Return how many standard errors the two-sided interval reaches on either side."""
    from scipy.stats import t  # slow to import

    return float(t.ppf((1.0 + confidence) / 2.0, degrees))
