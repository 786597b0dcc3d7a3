"""Plateau attribution: the identity gap = D (2a - 1), and cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlaif_lab.metrics.gap import best_of_k_gap, pairwise_gap

NAN = np.nan


def verdicts(rng: np.random.Generator, n: int, k: int, hard: bool) -> np.ndarray:
    upper = np.triu(rng.integers(0, 3, (n, k, k)) / 2 if hard else rng.random((n, k, k)), 1)
    return upper + np.tril(1 - upper.transpose(0, 2, 1), -1) + 0.5 * np.eye(k)


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("k", [2, 3, 6])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_for_binary_quality_the_gap_is_exactly_diversity_times_informativeness(
    hard: bool, k: int, share: float
) -> None:
    """With ties of the judge too: they count one half."""
    rng = np.random.default_rng(k)
    qualities = (rng.random((200, k)) < share).astype(float)
    made = pairwise_gap(qualities, verdicts(rng, 200, k, hard))
    assert made.gap == pytest.approx(made.diversity * (2 * made.accuracy - 1), abs=1e-12)
    assert made.informativeness == pytest.approx(2 * made.accuracy - 1, abs=1e-12)
    assert made.discordant_rate == pytest.approx(2 * made.diversity)


def test_diversity_is_the_unbiased_estimate_of_p_times_1_minus_p() -> None:
    """Per prompt, c of k right: c (k - c) of its k (k - 1) / 2 pairs differ; half of that share is the diversity."""
    qualities = np.array([[1.0, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    made = pairwise_gap(qualities, np.full((3, 4, 4), 0.5))
    assert made.diversity == pytest.approx((4 / 12 + 3 / 12 + 0) / 3)
    assert (made.accuracy, made.gap, made.informativeness) == (0.5, 0.0, 0.0)


def test_best_of_two_by_hand() -> None:
    qualities = np.array([[1.0, 0.0], [0.2, 0.8], [0.5, 0.5]])
    beats = np.array([[[0.5, p], [1 - p, 0.5]] for p in (0.9, 0.7, 0.6)])
    made = pairwise_gap(qualities, beats)
    # right (1 - .5), wrong (.2 - .5), no difference
    assert made.gap == pytest.approx((0.5 - 0.3 + 0.0) / 3)
    assert made.accuracy == 0.5
    assert made.discordant_rate == pytest.approx(2 / 3)
    assert made.diversity == pytest.approx((1.0 + 0.6 + 0.0) / 3 / 2)
    assert made.informativeness == pytest.approx(0.2 / 3 / (1.6 / 6))


def test_the_gap_is_the_gain_of_selecting_by_the_judge() -> None:
    rng = np.random.default_rng(0)
    qualities, beats = rng.random((300, 2)), verdicts(rng, 300, 2, hard=True)
    picks = np.where(
        beats[:, 0, 1] == 0.5, qualities.mean(1), np.where(beats[:, 0, 1] > 0.5, qualities[:, 0], qualities[:, 1])
    )
    assert pairwise_gap(qualities, beats).gap == pytest.approx(picks.mean() - qualities.mean(), abs=1e-12)


def test_missing_verdicts_gain_nothing_and_are_not_counted_as_errors() -> None:
    qualities = np.array([[1.0, 0.0], [1.0, 0.0]])
    beats = np.array([[[0.5, 0.9], [0.1, 0.5]], [[0.5, NAN], [NAN, 0.5]]])
    made = pairwise_gap(qualities, beats)
    assert (made.accuracy, made.gap, made.diversity) == (1.0, 0.25, 0.5)
    assert math.isnan(pairwise_gap(qualities[:1], np.full((1, 2, 2), NAN)).accuracy)


def test_without_diversity_nothing_can_be_told_of_the_judge() -> None:
    made = pairwise_gap(np.ones((3, 4)), verdicts(np.random.default_rng(0), 3, 4, hard=False))
    assert (made.gap, made.diversity, made.discordant_rate) == (0.0, 0.0, 0.0)
    assert math.isnan(made.accuracy)
    assert math.isnan(made.informativeness)


# --- best of k ------------------------------------------------------------------------------------------------------
def ordered(*scores: float) -> list[list[float]]:
    """A judge that ranks by these scores."""
    return [[0.5 + 0.5 * np.sign(a - b) for b in scores] for a in scores]


def test_best_of_k_by_hand() -> None:
    qualities = np.array([[1.0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 1, 0]])
    beats = np.array([ordered(4, 3, 2, 1), ordered(1, 2, 3, 4), ordered(1, 2, 3, 4), ordered(5, 5, 1, 1)])
    # picks a right one (1 - .25); a wrong one (0 - .5); nothing to gain; a tie of a wrong and a right one (.5 - .5)
    absolute, relative = best_of_k_gap(qualities, beats)
    assert absolute == pytest.approx((0.75 - 0.5 + 0.0 + 0.0) / 4)
    assert relative == pytest.approx((1.0 - 1.0 + 0.0 + 0.0) / 4)


def test_a_perfect_judge_gains_all_there_is_and_a_silent_one_nothing() -> None:
    qualities = np.random.default_rng(0).random((50, 5))
    absolute, relative = best_of_k_gap(qualities, np.array([ordered(*row) for row in qualities]))
    assert absolute == pytest.approx((qualities.max(1) - qualities.mean(1)).mean())
    assert relative == pytest.approx(1.0)
    for silence in (0.5, NAN):
        assert best_of_k_gap(qualities, np.full((50, 5, 5), silence)) == pytest.approx((0.0, 0.0))


def test_a_sample_without_any_verdict_is_never_the_pick() -> None:
    beats = np.array([[[0.5, NAN, NAN], [NAN, 0.5, 0.0], [NAN, 1.0, 0.5]]])
    assert best_of_k_gap(np.array([[1.0, 1.0, 0.0]]), beats)[0] == pytest.approx(0.0 - 2 / 3)


def test_with_two_samples_both_gaps_are_one_number() -> None:
    rng = np.random.default_rng(0)
    qualities, beats = rng.random((100, 2)), verdicts(rng, 100, 2, hard=True)
    assert best_of_k_gap(qualities, beats)[0] == pytest.approx(pairwise_gap(qualities, beats).gap)
