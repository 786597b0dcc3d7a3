"""Do 95 % intervals between arms hold the truth 95 times in 100?"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from rlaif_lab.plateau.comparisons import all_differences, gap_recovered
from rlaif_lab.seeding import rng_for

Floats = npt.NDArray[np.float64]
RUNS = 1000


def near(covered: list[bool], nominal: float = 0.95) -> bool:
    """Within the binomial band that a true rate of ``nominal`` leaves once in a thousand."""
    spread = math.sqrt(nominal * (1 - nominal) / len(covered))
    return abs(float(np.mean(covered)) - nominal) < 3.3 * spread


@pytest.mark.parametrize("seeds", [5, 10])
def test_differences_and_gap_recovered_cover(seeds: int) -> None:
    """Final qualities of a floor, a run and a ceiling arm: .40, .55, .60; seeds share half of their variance."""
    rng = rng_for(0, "pgr", seeds)
    shared = 0.02 * rng.standard_normal((RUNS, 1, seeds))
    qualities = np.array([0.40, 0.55, 0.60])[:, None] + shared + 0.02 * rng.standard_normal((RUNS, 3, seeds))
    gaps, differences = [], []
    for run in qualities:
        floor, middle, ceiling = (dict(enumerate(arm.tolist())) for arm in run)
        pgr = gap_recovered(middle, ("floor", floor), ("ceiling", ceiling))
        assert not pgr.reason
        gaps.append(pgr.interval.low <= 0.75 <= pgr.interval.high)
        (difference,) = all_differences("final", {"run": middle, "floor": floor})
        differences.append(difference.interval.low <= 0.15 <= difference.interval.high)
    assert near(gaps)
    assert near(differences)


def test_gap_recovered_is_undefined_where_there_is_no_gap() -> None:
    """Floor and ceiling are equal: in 95 % of cases there is no ratio to speak of."""
    rng = rng_for(0, "no gap")
    undefined = []
    for run in rng.standard_normal((RUNS, 3, 5)):
        floor, middle, ceiling = (dict(enumerate(arm.tolist())) for arm in run)
        undefined.append(bool(gap_recovered(middle, ("floor", floor), ("ceiling", ceiling)).reason))
    assert near(undefined)
