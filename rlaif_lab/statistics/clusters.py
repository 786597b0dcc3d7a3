"""The standard error of a mean whose values come in groups, as answers to one and the same question do."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt


def stderr_of_mean(values: npt.NDArray[np.float64], groups: Sequence[Hashable]) -> float:
    """Return the standard error of the mean, clustered by group.

    Args:
        values: (N,).
        groups: N keys; values of equal keys may depend on each other. Where all keys differ this is the usual
            deviation over the root of N.

    Returns:
        The standard error, in the unit of the values; nan where fewer than two groups leave nothing to judge it by.
    """
    assert len(values) == len(groups)
    n, count = len(values), len(set(groups))
    # A single group varies with nothing that could be seen.
    if count < 2:
        return math.nan
    # The plain formula, so that the result equals the one without groups to the last bit.
    if count == n:
        return float(values.std(ddof=1) / np.sqrt(n))
    # Sandwich estimator (Liang and Zeger 1986): residuals add up within a group before they are squared.
    sums: dict[Hashable, float] = defaultdict(float)
    for value, group in zip((values - values.mean()).tolist(), groups, strict=True):
        sums[group] += value
    # count / (count - 1): the usual correction for few groups, so that groups of one give the plain formula.
    return math.sqrt(count / (count - 1) * math.fsum(total**2 for total in sums.values())) / n
