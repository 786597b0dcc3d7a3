from __future__ import annotations

import math

import pytest

from rlaif_lab.statistics.intervals import paired_difference, t_interval


def test_interval_by_hand() -> None:
    """1, 2, 3: mean 2, standard deviation 1, standard error 1 / sqrt(3), t(.975, 2) = 4.302653."""
    mean, low, high = t_interval([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)
    assert (mean, low, high) == pytest.approx((2.0, 2.0 - half, 2.0 + half), abs=1e-6)


def test_interval_of_two_at_another_confidence() -> None:
    """0, 1: standard error .5, t(.95, 1) = 6.313752."""
    assert t_interval([0.0, 1.0], 0.9) == pytest.approx((0.5, 0.5 - 3.156876, 0.5 + 3.156876), abs=1e-5)


def test_equal_values_have_an_interval_of_width_zero() -> None:
    assert t_interval([0.1, 0.1, 0.1]) == pytest.approx((0.1, 0.1, 0.1))


def test_one_value_has_no_interval_and_none_has_nothing() -> None:
    mean, low, high = t_interval([0.7])
    assert mean == 0.7
    assert math.isnan(low)
    assert math.isnan(high)
    assert all(math.isnan(value) for value in t_interval([]))


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="finite"):
        t_interval([1.0, math.nan])
    with pytest.raises(ValueError, match="confidence"):
        t_interval([1.0, 2.0], 95)


def test_paired_difference_takes_the_seeds_both_have() -> None:
    assert paired_difference({0: 5.0, 1: 7.0, 2: 1.0}, {2: 4.0, 0: 3.0, 9: 0.0}) == [2.0, -3.0]
