"""True quality of samples: mean, pass@k, majority."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb

import numpy as np

from rlaif_lab.feedback.pairing import Floats


def pass_at_k(correct: int, n: int, k: int) -> float:
    """P(at least one of k draws is right), unbiased from ``correct`` of ``n`` samples (Chen et al. 2107.03374):
    1 - C(n - c, k) / C(n, k)."""
    assert 0 <= correct <= n and 1 <= k <= n, (correct, n, k)
    return 1.0 - comb(n - correct, k) / comb(n, k)


def mean_pass_at_k(qualities: Floats, k: int) -> float:
    """pass@k over prompts; a sample passes at quality 1. Shapes: (N, n) -> scalar."""
    n = qualities.shape[1]
    return float(np.mean([pass_at_k(int(c), n, k) for c in (qualities >= 1.0).sum(1)]))


def majority_quality(qualities: Floats, texts: Sequence[Sequence[str]]) -> float:
    """maj@k: quality of the most frequent answer; equally frequent ones share. Shapes: (N, k), N lists of k."""
    values = []
    for row, answers in zip(qualities, texts, strict=True):
        counts = Counter(answers)
        top = max(counts.values())
        winners = {answer: q for answer, q in zip(answers, row, strict=True) if counts[answer] == top}
        values.append(np.mean(list(winners.values())))
    return float(np.mean(values))
