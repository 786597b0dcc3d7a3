"""D, I and eps of first and last rounds, on factors written by hand and on a real sweep."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlaif_lab.plateau.attribution import Factors, attribution


def arm(
    diversity: tuple[float, float], informativeness: tuple[float, float], gain: tuple[float, float], seeds: int = 3
) -> dict[int, Factors]:
    """Eight rounds on a straight line from the first number to the second; seeds differ by a percent."""
    made = {}
    for seed in range(seeds):
        scale = 1.0 + 0.01 * (seed - 1)
        d, i, g = (np.linspace(*ends, 8) for ends in (diversity, informativeness, gain))
        gap = d * i * scale
        made[seed] = Factors(d * scale, gap, gap - g * scale)
    return made


def test_windows_and_means_by_hand() -> None:
    """Eight judged rounds: the first and the last two. D .20, .19 and .09, .08."""
    diversity = np.array([0.20, 0.19, 0.17, 0.15, 0.13, 0.11, 0.09, 0.08])
    gap = diversity * 0.8
    found = attribution({0: Factors(diversity, gap, gap - 0.01)})
    assert found is not None
    assert (found.early, found.late) == ((0, 1), (6, 7))
    assert found.diversity.early.mean == pytest.approx(0.195)
    assert found.diversity.late.mean == pytest.approx(0.085)
    assert found.diversity.change.mean == pytest.approx(-0.11)
    assert found.informativeness.early.mean == pytest.approx(0.8)
    assert found.gap.late.mean == pytest.approx(0.068)
    assert found.update_loss.late.mean == pytest.approx(0.058)
    assert found.gain.late.mean == pytest.approx(0.01)
    assert math.isnan(found.gain.late.low)  # one seed


def test_nothing_to_choose_from() -> None:
    """Every answer the same: D is 0 and I is undefined, which is no fault of the judge."""
    zero = np.zeros(8)
    found = attribution({seed: Factors(zero, zero, zero) for seed in range(3)})
    assert found is not None
    assert "I is undefined" in found.sentence


def test_no_gold_no_attribution() -> None:
    unknown = np.full(8, np.nan)
    assert attribution({0: Factors(unknown, unknown, unknown)}) is None
    assert attribution({}) is None
    assert attribution({0: Factors(*[np.array([0.1])] * 3)}) is None  # one round has no first and last


def test_seeds_without_values_are_left_out() -> None:
    made = arm((0.20, 0.06), (0.85, 0.85), (0.05, 0.005))
    found = attribution(made | {9: Factors(*[np.full(8, np.nan)] * 3)})
    assert found == attribution(dict(reversed(made.items())))
    assert found is not None
    assert found.seeds == 3


def test_short_runs_compare_halves() -> None:
    found = attribution({0: Factors(np.array([0.2, 0.18, 0.1]), np.array([0.2, 0.18, 0.1]), np.zeros(3))})
    assert found is not None
    assert (found.early, found.late) == ((0, 0), (2, 2))


SELF_D = (
    (0.192, 0.1852, 0.1672, 0.1403, 0.118, 0.103, 0.0781, 0.0756),
    (0.1965, 0.1814, 0.1701, 0.1532, 0.1139, 0.0943, 0.0896, 0.0719),
    (0.1905, 0.187, 0.172, 0.1315, 0.1203, 0.1051, 0.0879, 0.0762),
)
SELF_GAP = (
    (0.1646, 0.1592, 0.1377, 0.1187, 0.0938, 0.0879, 0.0671, 0.0626),
    (0.1709, 0.1563, 0.1364, 0.1209, 0.0984, 0.0805, 0.0777, 0.0625),
    (0.1654, 0.1584, 0.1381, 0.1128, 0.1042, 0.0863, 0.0711, 0.0627),
)
SELF_EPS = (
    (0.1368, 0.1035, 0.0991, 0.1001, -0.0024, 0.1152, 0.0739, 0.0391),
    (0.1313, 0.1358, 0.0524, 0.0618, 0.0657, 0.0922, 0.0875, 0.021),
    (0.1405, 0.1027, 0.1103, 0.042, 0.0964, 0.0697, 0.057, 0.0475),
)
"""The self arm of a real sweep (experiments/plateau_self_vs_stronger at commit e9290f6): I stays high while D falls."""


def test_a_real_self_judge_in_words() -> None:
    seeds = {i: Factors(*(np.array(v[i]) for v in (SELF_D, SELF_GAP, SELF_EPS))) for i in range(3)}
    found = attribution(seeds)
    assert found is not None
    assert found.sentence == (
        "D fell from 0.19 to 0.080, I stayed near 0.84; of the +0.067 that best of two by this judge would still gain "
        "a round, the policy gains +0.013 (+0.003 to +0.023)"
    )
