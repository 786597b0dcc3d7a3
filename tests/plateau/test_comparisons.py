"""Differences, PGR and aggregates, against hand-computed cases and independent implementations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rlaif_lab.plateau.comparisons import (
    all_differences,
    fieller,
    gap_recovered,
    holm,
    interquartile_mean,
    stratified_bootstrap,
    t_test,
)
from rlaif_lab.seeding import rng_for

T2 = 4.302653  # t(.975, 2)


# --- differences --------------------------------------------------------------------------------------------------
def test_differences_are_paired_by_seed() -> None:
    """.1, .2, .3 over the seeds both have."""
    arms = {"a": {0: 0.6, 1: 0.8, 2: 1.0, 9: 0.0}, "b": {2: 0.7, 1: 0.6, 0: 0.5}, "c": {5: 0.1}}
    (found,) = all_differences("final", arms)
    half = T2 * 0.1 / math.sqrt(3)
    assert (found.quantity, found.first, found.second, found.seeds) == ("final", "a", "b", 3)
    assert found.interval == pytest.approx((0.2, 0.2 - half, 0.2 + half), abs=1e-6)
    assert found.p == pytest.approx(stats.ttest_1samp([0.1, 0.2, 0.3], 0.0).pvalue)
    assert found.p_holm == pytest.approx(found.p)


def test_every_pair_once() -> None:
    arms = {
        name: {seed: value + 0.01 * seed**index for seed in range(3)}
        for index, (name, value) in enumerate({"a": 0.1, "b": 0.3, "c": 0.35}.items())
    }
    found = all_differences("final", arms)
    assert [(d.first, d.second) for d in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [d.p_holm for d in found] == pytest.approx(holm([d.p for d in found]))


def test_one_seed_has_a_difference_and_no_p() -> None:
    (found,) = all_differences("final", {"a": {0: 0.6}, "b": {0: 0.5}})
    assert found.interval.mean == pytest.approx(0.1)
    assert math.isnan(found.interval.low)
    assert math.isnan(found.p)
    assert math.isnan(found.p_holm)


def test_equal_differences() -> None:
    assert t_test([0.0, 0.0]) == 1.0
    assert t_test([0.1, 0.1]) == 0.0


def test_holm_by_hand() -> None:
    """.01 x 4, .02 x 3, .03 x 2 (but not below .06), .5 x 1; nan counts for nothing."""
    assert holm([0.02, 0.5, 0.01, 0.03]) == pytest.approx([0.06, 0.5, 0.04, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    adjusted = holm([0.01, math.nan])
    assert adjusted[0] == pytest.approx(0.01)
    assert math.isnan(adjusted[1])


# --- PGR ----------------------------------------------------------------------------------------------------------
def test_fieller_is_the_inverted_t_test() -> None:
    """A ratio is in the interval if and only if the t test of numerator - ratio x denominator does not reject."""
    rng = rng_for(0, "fieller")
    a, b = 0.2 + 0.05 * rng.standard_normal(6), 0.3 + 0.05 * rng.standard_normal(6)
    found = fieller(a, b)
    assert found.mean == pytest.approx(a.mean() / b.mean())
    for limit in (found.low, found.high):
        assert stats.ttest_1samp(a - limit * b, 0.0).pvalue == pytest.approx(0.05, abs=1e-6)
    assert stats.ttest_1samp(a - found.mean * b, 0.0).pvalue > 0.05
    # The order of seeds and a common unit change nothing.
    order = np.array([3, 1, 5, 0, 2, 4])
    assert fieller(a[order], b[order]) == pytest.approx(found)
    assert fieller(100 * a, 100 * b) == pytest.approx(found)


def test_gap_recovered_by_hand() -> None:
    """Run - floor is half of ceiling - floor in every seed: no doubt about the ratio, however much the gap varies."""
    floor = {0: 0.4, 1: 0.5, 2: 0.3}
    ceiling = {0: 0.6, 1: 0.8, 2: 0.6}
    found = gap_recovered({0: 0.5, 1: 0.65, 2: 0.45, 3: 0.9}, ("self", floor), ("oracle", ceiling))
    assert found.interval == pytest.approx((0.5, 0.5, 0.5))
    assert (found.floor, found.ceiling, found.seeds, found.reason) == ("self", "oracle", 3, "")


def test_gap_recovered_is_undefined_without_a_gap() -> None:
    floor, ceiling = {0: 0.5, 1: 0.6, 2: 0.5}, {0: 0.6, 1: 0.5, 2: 0.6}
    found = gap_recovered({0: 0.5, 1: 0.6, 2: 0.5}, ("self", floor), ("oracle", ceiling))
    assert all(math.isnan(value) for value in found.interval)
    assert found.reason == "oracle is not shown to differ from self"
    alone = gap_recovered({0: 0.5}, ("self", floor), ("oracle", ceiling))
    assert alone.reason == "1 seed in common"
    assert math.isnan(alone.interval.mean)


# --- across tasks -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("n", [1, 3, 4, 10, 11])
def test_interquartile_mean(n: int) -> None:
    values = rng_for(0, "iqm", n).random((5, n))
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25, axis=1))


def test_stratified_bootstrap_keeps_the_tasks() -> None:
    """Runs do not vary within a task, tasks differ a lot: no doubt about the mean over these tasks."""
    tasks = [np.full(5, 0.2), np.full(5, 0.9)]
    assert stratified_bootstrap(tasks, lambda scores: scores.mean(-1)) == pytest.approx((0.55, 0.55, 0.55))


def test_stratified_bootstrap_of_one_task_is_as_wide_as_it_should_be() -> None:
    """The mean of 20 runs: about 1.96 standard errors either way, and the same every time."""
    scores = rng_for(0, "bootstrap").random(20)
    found = stratified_bootstrap([scores], lambda some: some.mean(-1))
    error = scores.std() / math.sqrt(20)
    assert found.mean == pytest.approx(scores.mean())
    assert (found.high - found.low) / (2 * 1.96 * error) == pytest.approx(1.0, abs=0.05)
    assert stratified_bootstrap([scores], lambda some: some.mean(-1)) == found
