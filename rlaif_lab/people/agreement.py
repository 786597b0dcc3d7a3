"""How far people agree with each other, with the attention checks and with the AI judge. Pure functions of labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlaif_lab.people.queue import Said

VALUES: Mapping[str, float] = {"first": 1.0, "tie": 0.5, "second": 0.0}


@dataclass(frozen=True)
class Agreement:
    """Attributes:
    alpha: Krippendorff's alpha (nominal) among people; 1 perfect, 0 chance; nan where no item has two labels.
    alpha_with_ai: The same with the AI judge as one more coder.
    items: Items that two or more people labelled.
    """

    alpha: float
    alpha_with_ai: float
    items: int


def alpha(counts: npt.ArrayLike) -> float:
    """Return Krippendorff's alpha of nominal labels.

    Args:
        counts: How many people made each choice of each item: (items, choices).

    Returns:
        Alpha in (-inf, 1]; nan where no item has two labels; 1 where all labels are equal.
    """
    table = np.asarray(counts, dtype=np.int64).reshape(-1, len(VALUES))
    # One label alone says nothing of agreement.
    pairable = table[table.sum(1) > 1]
    if not len(pairable):
        return math.nan
    # By chance all would agree as well, and alpha would be 0 / 0.
    if (pairable.sum(0) > 0).sum() == 1:
        return 1.0
    import krippendorff

    return float(krippendorff.alpha(value_counts=pairable, level_of_measurement="nominal"))


def agreement(said: Sequence[Said]) -> Agreement:
    """Return how far people agree with each other, and with the AI judge. Skips, flags and attention checks are left
    out."""
    counts = np.array([[s.first, s.tie, s.second] for s in said], dtype=np.int64).reshape(-1, 3)
    with_ai = counts.copy()
    for row, s in zip(with_ai, said, strict=True):
        if s.ai is not None:
            row[1 if s.ai == 0.5 else 0 if s.ai > 0.5 else 2] += 1
    return Agreement(alpha(counts), alpha(with_ai), items=int((counts.sum(1) > 1).sum()))


def disagreements(said: Sequence[Said]) -> list[str]:
    """Return the items on which people said different things."""
    return [s.item for s in said if (s.first > 0) + (s.tie > 0) + (s.second > 0) > 1]


def noise(said: Sequence[Said]) -> float:
    """Return the error rate that people share, by how often two of them disagree on an item; see `error_of`.

    Of an item with more than two labels every pair of people counts, each item as one. Ties are left out.
    """
    # first * second pairs disagree, of all pairs of people who took a side.
    rates = [s.first * s.second / math.comb(s.first + s.second, 2) for s in said if s.first + s.second > 1]
    return error_of(float(np.mean(rates))) if rates else math.nan


def error_of(disagreement: float) -> float:
    """Return the error rate e that two equally good annotators share, from how often they disagree.

    Two independent annotators agree on a choice of two with probability 1 - 2 e (1 - e), so that
    e = (1 - sqrt(1 - 2 d)) / 2 for a rate of disagreement d; 0.5 from d = 0.5 on.
    """
    return (1.0 - math.sqrt(max(0.0, 1.0 - 2.0 * disagreement))) / 2.0
