"""How far people agree with each other, with the attention checks and with the AI judge. Pure functions of labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif_lab.people.queue import LABELS, Item, Label

VALUES: Mapping[str, float] = {"first": 1.0, "tie": 0.5, "second": 0.0}
AI = "AI judge"


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


def alpha(ratings: Sequence[Mapping[str, float]]) -> float:
    """Return Krippendorff's alpha of nominal labels.

    Args:
        ratings: For each item, coder -> value.

    Returns:
        Alpha in (-inf, 1]; nan where no item has two labels; 1 where all labels are equal.
    """
    import krippendorff

    pairable = [r for r in ratings if len(r) > 1]
    if not pairable:
        return math.nan
    coders = sorted({coder for r in pairable for coder in r})
    table = np.array([[r.get(coder, np.nan) for r in pairable] for coder in coders])
    if len(np.unique(table[~np.isnan(table)])) == 1:
        return 1.0
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="nominal"))


def agreement(items: Sequence[Item], labels: Sequence[Label]) -> Agreement:
    """Return how far people agree; skips, flags and attention checks are left out."""
    asked = {item.id: item for item in items if item.gold is None}
    by_item: dict[str, dict[str, float]] = {}
    for label in labels:
        if label.item in asked and label.choice in LABELS:
            by_item.setdefault(label.item, {})[label.annotator] = VALUES[label.choice]
    with_ai = [
        {**ratings, **({} if ai is None else {AI: 0.5 if ai == 0.5 else float(ai > 0.5)})}
        for ratings, ai in ((ratings, asked[i].ai) for i, ratings in by_item.items())
    ]
    return Agreement(
        alpha=alpha(list(by_item.values())),
        alpha_with_ai=alpha(with_ai),
        items=sum(len(ratings) > 1 for ratings in by_item.values()),
    )


def checks(items: Sequence[Item], labels: Sequence[Label]) -> dict[str, tuple[int, int]]:
    """Return, for each person, how many attention checks they passed, of how many."""
    gold = {item.id: item.gold for item in items if item.gold is not None}
    found: dict[str, tuple[int, int]] = {}
    for label in labels:
        if label.item in gold and label.choice in LABELS:
            passed, of = found.get(label.annotator, (0, 0))
            found[label.annotator] = (passed + (label.choice == gold[label.item]), of + 1)
    return found


def disagreements(items: Sequence[Item], labels: Sequence[Label]) -> list[tuple[Item, list[Label]]]:
    """Return the items on which people said different things, with what they said."""
    by_item: dict[str, list[Label]] = {}
    for label in labels:
        if label.choice in LABELS:
            by_item.setdefault(label.item, []).append(label)
    return [
        (item, by_item[item.id])
        for item in items
        if item.gold is None and len({label.choice for label in by_item.get(item.id, [])}) > 1
    ]


def annotator_error(pairs: Sequence[tuple[float, float]]) -> float:
    """Estimate the error rate that two equally good annotators share, from how often they disagree.

    Two independent annotators with error rate e on a choice of two agree with probability 1 - 2 e (1 - e), so that
    e = (1 - sqrt(1 - 2 d)) / 2 for a rate of disagreement d.

    Args:
        pairs: Two people's values of each item that both labelled, ties left out.

    Returns:
        The rate in [0, 0.5]; nan without pairs.
    """
    if not pairs:
        return math.nan
    disagree = float(np.mean([a != b for a, b in pairs]))
    return (1.0 - math.sqrt(max(0.0, 1.0 - 2.0 * disagree))) / 2.0
