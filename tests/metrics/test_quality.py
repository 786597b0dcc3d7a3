"""pass@k and the majority."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from rlaif_lab.metrics.quality import majority_quality, mean_pass_at_k, pass_at_k


@pytest.mark.parametrize(
    ("correct", "n", "k", "expected"),
    [
        (0, 4, 4, 0.0),
        (4, 4, 1, 1.0),
        (1, 4, 1, 0.25),
        (1, 4, 4, 1.0),
        (2, 4, 2, 5 / 6),
        (3, 4, 2, 1.0),
        (5, 10, 3, 11 / 12),
    ],
)
def test_pass_at_k_by_hand(correct: int, n: int, k: int, expected: float) -> None:
    assert pass_at_k(correct, n, k) == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_pass_at_k_is_the_share_of_all_choices_with_a_right_one(k: int) -> None:
    for correct in range(6):
        choices = list(combinations([True] * correct + [False] * (5 - correct), k))
        assert pass_at_k(correct, 5, k) == pytest.approx(np.mean([any(c) for c in choices]))


def test_pass_at_64_of_many_samples_does_not_overflow() -> None:
    assert pass_at_k(10, 2000, 64) == pytest.approx(1 - np.prod([(1990 - i) / (2000 - i) for i in range(64)]))


def test_mean_pass_at_k_counts_only_full_quality() -> None:
    qualities = np.array([[1.0, 0.99, 0.0, 0.0], [0.5, 0.5, 0.5, 0.5], [1.0, 1.0, 1.0, 1.0]])
    assert mean_pass_at_k(qualities, 1) == pytest.approx((0.25 + 0 + 1) / 3)
    assert mean_pass_at_k(qualities, 2) == pytest.approx((0.5 + 0 + 1) / 3)


def test_the_majority_by_hand() -> None:
    texts = [["a", "b", "a", "c"], ["a", "b", "b", "a"], ["a", "b", "c", "d"]]
    qualities = np.array([[0.0, 1, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1]])
    # a wrong majority; two answers share, one of them right; four share, one right
    assert majority_quality(qualities, texts) == pytest.approx((0 + 0.5 + 0.25) / 3)
