"""Calibration: by hand, and by drawing outcomes from known probabilities."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlaif_lab.statistics.calibration import ReliabilityBin, brier, ece, ece_if_calibrated, reliability_bins


def test_brier_by_hand() -> None:
    assert brier([0.9, 0.2, 0.5], [1, 0, 1]) == pytest.approx((0.01 + 0.04 + 0.25) / 3)
    assert brier([1.0, 0.0], [1, 0]) == 0.0
    assert brier([1.0, 0.0], [0, 1]) == 1.0
    assert brier([0.5, 0.5], [0, 1]) == 0.25
    assert brier([0.5], [0.5]) == 0.0  # rightly undecided between equals


def test_ece_by_hand_in_two_bins_of_two() -> None:
    probabilities, outcomes = [0.9, 0.1, 0.7, 0.3], [1, 0, 0, 0]
    # (.1, .3 | 0, 0): .2 stated, 0 happened. (.7, .9 | 0, 1): .8 stated, .5 happened.
    assert reliability_bins(probabilities, outcomes, bins=2) == [
        ReliabilityBin(pytest.approx(0.2), 0.0, 2),
        ReliabilityBin(pytest.approx(0.8), 0.5, 2),
    ]
    assert ece(probabilities, outcomes, bins=2) == pytest.approx((2 * 0.2 + 2 * 0.3) / 4)
    # In one bin errors cancel: .5 stated, .25 happened.
    assert ece(probabilities, outcomes, bins=1) == pytest.approx(0.25)
    # One bin each: the mean distance.
    assert ece(probabilities, outcomes, bins=4) == pytest.approx((0.1 + 0.1 + 0.7 + 0.3) / 4)


def test_bins_have_equal_mass_however_skewed() -> None:
    probabilities = np.linspace(0, 1, 100) ** 8
    assert [b.count for b in reliability_bins(probabilities, np.zeros(100), bins=10)] == [10] * 10


def test_equal_probabilities_share_a_bin_so_order_does_not_matter() -> None:
    probabilities, outcomes = np.repeat([0.2, 0.8], [3, 7]), np.array([1, 0, 0, 1, 1, 1, 1, 1, 0, 1])
    expected = (3 * abs(0.2 - 1 / 3) + 7 * abs(0.8 - 6 / 7)) / 10
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(10)
        assert ece(probabilities[order], outcomes[order]) == pytest.approx(expected)
    assert [b.count for b in reliability_bins(probabilities, outcomes)] == [3, 7]


def test_a_calibrated_forecaster_gets_what_the_null_predicts() -> None:
    rng = np.random.default_rng(0)
    probabilities = rng.random(300)
    measured = [ece(probabilities, rng.random(300) < probabilities) for _ in range(200)]
    assert ece_if_calibrated(probabilities) == pytest.approx(np.mean(measured), rel=0.1)
    overconfident = np.where(probabilities > 0.5, 0.99, 0.01)
    assert ece(overconfident, rng.random(300) < probabilities) > 3 * ece_if_calibrated(overconfident)


def test_nothing_gives_nothing() -> None:
    assert math.isnan(brier([], []))
    assert math.isnan(ece([], []))
    assert math.isnan(ece_if_calibrated([]))
    assert reliability_bins([], []) == []


@pytest.mark.parametrize(
    ("probabilities", "outcomes", "message"),
    [
        ([0.5, 1.5], [0, 1], "probabilities must lie in [0, 1]; got 1.5"),
        ([0.5, math.nan], [0, 1], "probabilities must lie in [0, 1]; got nan"),
        ([0.5, 0.5], [0, 2], "outcomes must lie in [0, 1]; got 2"),
        ([0.5], [0, 1], "two lists of one length"),
    ],
)
def test_what_is_no_probability_is_refused(probabilities: list[float], outcomes: list[float], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        brier(probabilities, outcomes)
    assert message in str(caught.value)
    with pytest.raises(ValueError, match="bins must be at least 1; got 0"):
        ece([0.5], [1], bins=0)
