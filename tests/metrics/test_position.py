"""Position by hand, and of a judge whose bias is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlaif_lab.metrics.position import SlotChoices, slot_choices, slot_one_probability, stability

NAN = math.nan


def test_each_kind_of_comparison_by_hand() -> None:
    #           same  same  one  two  tie  failed
    shown_first = np.array([0.9, 0.2, 0.9, 0.3, 0.5, NAN])
    shown_second = np.array([0.8, 0.1, 0.4, 0.6, 0.9, 0.9])
    found = slot_choices(shown_first, shown_second)
    assert found == SlotChoices(same_response=2, slot_one=1, slot_two=1, undecided=1, failed=1)
    assert found.same_slot_rate == 0.5
    assert found.signed_preference == 0.0


def test_which_slot_draws() -> None:
    always_first = slot_choices(np.full(4, 0.9), np.full(4, 0.1))
    assert (always_first.same_slot_rate, always_first.signed_preference) == (1.0, 1.0)
    always_second = slot_choices(np.full(4, 0.1), np.full(4, 0.9))
    assert (always_second.same_slot_rate, always_second.signed_preference) == (1.0, -1.0)
    steady = slot_choices(np.full(4, 0.9), np.full(4, 0.9))
    assert steady.same_slot_rate == 0.0
    assert math.isnan(steady.signed_preference)
    assert math.isnan(slot_choices(np.array([0.5]), np.array([0.5])).same_slot_rate)


def test_a_lean_that_turns_no_verdict_round_shows_in_the_probability() -> None:
    assert slot_one_probability(np.array([0.9, 0.3]), np.array([0.7, 0.1])) == pytest.approx(0.6)
    assert slot_one_probability(np.array([0.8, NAN]), np.array([0.8, 0.1])) == pytest.approx(0.5)
    assert math.isnan(slot_one_probability(np.array([NAN]), np.array([0.5])))


def test_rates_of_a_judge_with_known_bias() -> None:
    """It knows the better response in 6 of 10 comparisons; else it takes slot one with probability .8."""
    rng = np.random.default_rng(0)
    n = 20_000
    knows, first_is_better = rng.random(n) < 0.6, rng.random(n) < 0.5
    one, two = rng.random((2, n)) < 0.8  # what it would take in each order, if it does not know
    shown_first = np.where(knows, first_is_better, one)
    shown_second = np.where(knows, first_is_better, ~two)
    found = slot_choices(shown_first.astype(float), shown_second.astype(float))
    # Not knowing, it takes one slot twice with .8^2 + .2^2 = .68; signed (.64 - .04) / .68.
    assert found.same_slot_rate == pytest.approx(0.4 * 0.68, abs=0.01)
    assert found.signed_preference == pytest.approx(0.6 / 0.68, abs=0.02)


def test_stability_by_hand() -> None:
    same = np.array([0.9, 0.1, 0.5, NAN])
    assert stability([same, same, same]) == 1.0
    other = np.array([0.8, 0.9, 0.5, 0.9])  # another probability, another verdict, the same tie, no failure now
    assert stability([same, other]) == 0.5
    # Three askings: pairs (1,2) and (2,3) agree on 2 of 4, (1,3) on all.
    assert stability([same, other, same]) == pytest.approx((0.5 + 0.5 + 1.0) / 3)
    assert math.isnan(stability([np.array([]), np.array([])]))
    with pytest.raises(ValueError, match="at least 2 repetitions; got 1"):
        stability([same])
