"""What a reward model's metrics say of pairs whose label is known: values by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlaif_lab.reward.validation import validate


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_by_hand() -> None:
    """Two members whose means are 1, -1 and 0; one pair is right, one wrong, one undecided."""
    found = validate(np.array([[2.0, -1.0, 1.0], [0.0, -1.0, -1.0]]), np.array([1.0, 0.8, 0.6]))
    assert found.accuracy == pytest.approx(0.5)
    losses = (-math.log(sigmoid(1)), -0.8 * math.log(sigmoid(-1)) - 0.2 * math.log(sigmoid(1)), math.log(2))
    assert found.loss == pytest.approx(sum(losses) / 3)
    assert found.brier == pytest.approx(((1 - sigmoid(1)) ** 2 + (0.8 - sigmoid(-1)) ** 2 + 0.1**2) / 3)
    assert found.disagreement == pytest.approx((1 + 0 + 1) / 3)


def test_ece_sees_every_pair_in_both_orders() -> None:
    """Certain of every pair and right in three of four: what is said as 1 holds .75, what is said as 0 holds .25."""
    found = validate(np.array([[50.0, 50.0, 50.0, -50.0]]), np.ones(4))
    assert found.accuracy == 0.75
    assert found.ece == pytest.approx(0.25)
    calibrated = math.log(0.75 / 0.25)
    assert validate(np.array([[calibrated] * 3 + [-calibrated]]), np.ones(4)).ece == pytest.approx(0.0, abs=1e-12)


def test_one_member_agrees_with_itself() -> None:
    assert validate(np.array([[1.0, 2.0]]), np.ones(2)).disagreement == 0.0


def test_nothing_to_validate_on_is_nan() -> None:
    assert all(math.isnan(value) for value in vars(validate(np.empty((2, 0)), np.empty(0))).values())
