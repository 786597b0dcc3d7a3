"""Lengths and diversity."""

from __future__ import annotations

import numpy as np
import pytest

from rlaif_lab.metrics.text import distinct_n, text_metrics, unique_rate
from rlaif_lab.records import Generation, Prompt, Response


@pytest.mark.parametrize(
    ("rows", "n", "expected"),
    [
        ([[1, 2, 3]], 2, 1.0),
        ([[1, 2, 1, 2]], 2, 2 / 3),  # 12 21 12
        ([[1, 2], [1, 2], [1, 3]], 2, 2 / 3),
        ([[1, 1, 1, 1]], 1, 0.25),
        ([[1]], 2, 0.0),
        ([], 2, 0.0),
    ],
)
def test_distinct_n_by_hand(rows: list[list[int]], n: int, expected: float) -> None:
    assert distinct_n(rows, n) == pytest.approx(expected)


def test_no_ngram_reaches_across_responses() -> None:
    assert distinct_n([[1, 2], [3, 4]], 2) == 1.0
    assert distinct_n([[1], [2]], 2) == 0.0


@pytest.mark.parametrize(
    ("texts", "expected"), [(["a"], 1.0), (["a", "a", "a", "a"], 0.25), (["a", "b", "a", "c"], 0.75)]
)
def test_the_unique_rate_by_hand(texts: list[str], expected: float) -> None:
    assert unique_rate(texts) == expected


def test_text_metrics_by_hand() -> None:
    generations = [
        Generation(
            Prompt("p", "p"),
            (
                Response("ab", (5, 6, 2), (-1.0, -0.5, -0.25), True),
                Response("ab", (5, 6, 2), (-1.0, -0.5, -0.25), True),
            ),
        ),
        Generation(
            Prompt("q", "q"), (Response("", (2,), (-2.0,), True), Response("ccccc", (7,) * 5, (-0.1,) * 5, False))
        ),
    ]
    made = text_metrics(generations)
    assert made["text/mean_length"] == 3.0
    assert made["text/p95_length"] == pytest.approx(np.percentile([3, 3, 1, 5], 95))
    assert made["text/unfinished_rate"] == 0.25
    assert made["text/unique_rate"] == pytest.approx((0.5 + 1.0) / 2)
    assert made["text/distinct_2"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert made["text/sampled_nll"] == pytest.approx((1.75 + 1.75 + 2.0 + 0.5) / 4)
