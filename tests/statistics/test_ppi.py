"""Prediction-powered inference: by hand, against people alone, and how often its intervals hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlaif_lab.statistics.intervals import t_interval
from rlaif_lab.statistics.ppi import Rectified, labels_for, rectified_mean, with_known_ties


def test_by_hand() -> None:
    labels, judged, others = [1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 1.0, 1.0, 1.0, 0.0]
    found = rectified_mean(labels, judged, others, weight=1.0)
    # mean of f over the others 4/6; people minus judge: 0, -1, 0, 1 -> 0
    assert found.estimate == pytest.approx(4 / 6)
    spread = 7 / 10 * 3 / 10 * 10 / 9  # of all ten f, of which seven are 1
    assert found.stderr**2 == pytest.approx(spread / 6 + (2 / 3) / 4)
    assert found.effective_labels == pytest.approx((1 / 4) / found.stderr**2)
    tuned = rectified_mean(labels, judged, others)
    assert tuned.weight == 0.0, "here the judge goes against people: covariance -1/12"
    assert tuned.estimate == pytest.approx(0.75)


def test_the_tuned_weight_by_hand() -> None:
    labels, judged, others = [1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0]
    spread = 6 / 8 * 2 / 8 * 8 / 7
    assert rectified_mean(labels, judged, others).weight == pytest.approx((1 / 6) / (2 * spread))


def test_without_weight_it_is_the_t_interval_of_the_labels() -> None:
    labels = [1.0, 0.0, 0.5, 1.0, 1.0, 0.0]
    found = rectified_mean(labels, [0.0] * 6, [1.0] * 9, weight=0.0)
    assert (found.estimate, found.low, found.high) == pytest.approx(tuple(t_interval(labels)))
    assert found.effective_labels == pytest.approx(6)


@pytest.mark.parametrize("labels", [[], [1.0]])
def test_without_two_labels_nothing_is_known(labels: list[float]) -> None:
    found = rectified_mean(labels, labels, [1.0, 0.0])
    assert math.isnan(found.estimate) and math.isnan(found.stderr) and found.labels == len(labels)


def test_a_judge_without_spread_and_a_census_fall_back_on_people() -> None:
    assert rectified_mean([1.0, 0.0], [0.5, 0.5], [0.5] * 8).weight == 0.0
    assert rectified_mean([1.0, 0.0], [1.0, 0.0], []).estimate == 0.5


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match="one length"):
        rectified_mean([1.0, 0.0], [1.0], [0.5])


def test_known_ties_pull_to_one_half_and_add_their_own_spread() -> None:
    found = with_known_ties(Rectified(0.8, 0.1, 0.6, 1.0, 30, 1.0, 40.0), different=60, identical=20)
    assert found.estimate == pytest.approx(0.5 + 0.75 * 0.3)
    assert found.stderr**2 == pytest.approx(0.75**2 * 0.01 + 0.09 * 0.75 * 0.25 / 80)
    assert with_known_ties(Rectified(0.8, 0.1, 0.6, 1.0, 30, 1.0, 40.0), 60, 0).estimate == 0.8


@pytest.mark.parametrize("agreement", [0.95, 0.8, 0.5])
def test_intervals_hold_the_truth_and_a_good_judge_is_worth_labels(agreement: float) -> None:
    """A judge that is right about wins more often than about losses, so that its own win rate is biased. With the best
    weight the variance of n labels falls to 1 - rho^2 N / (n + N) of theirs alone, rho their correlation."""
    rng = np.random.default_rng(0)
    runs, n, total, truth = 1500, 50, 500, 0.6
    covered, widths, alone, biases = 0, [], [], []
    for _ in range(runs):
        y = (rng.random(total) < truth).astype(float)
        right = rng.random(total) < np.where(y == 1.0, agreement, agreement - 0.05)
        f = np.where(right, y, 1.0 - y)
        found = rectified_mean(y[:n], f[:n], f[n:])
        covered += found.low <= truth <= found.high
        widths.append(found.stderr**2)
        alone.append(rectified_mean(y[:n], f[:n], f[n:], weight=0.0).stderr ** 2)
        biases.append(found.estimate - truth)
    assert 0.93 <= covered / runs <= 0.97
    assert abs(np.mean(biases)) < 3.5 * np.std(biases) / math.sqrt(runs) + 0.002
    wins = truth * agreement + (1 - truth) * (1.05 - agreement)
    covariance = truth * agreement - truth * wins
    rho2 = covariance**2 / (truth * (1 - truth) * wins * (1 - wins))
    assert np.mean(widths) / np.mean(alone) == pytest.approx(1 - rho2 * (total - n) / total, abs=0.04)


def test_how_many_labels_tell_a_gain_from_none() -> None:
    """(1.96 + 0.84)^2 / delta^2 at a spread of 1; half the spread needs a quarter."""
    assert labels_for(0.1) == 785
    assert labels_for(0.1, spread=0.5) == 197
    with pytest.raises(ValueError, match="delta must be positive"):
        labels_for(0.0)
