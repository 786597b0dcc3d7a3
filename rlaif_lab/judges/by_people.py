"""What people did for a round's labels, how far they agree, what they say of the policy, and what they cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rlaif_lab.judges.asking import decisions
from rlaif_lab.people.agreement import agreement, noise
from rlaif_lab.people.queue import Said
from rlaif_lab.records import Judgement, Verdict
from rlaif_lab.statistics.ppi import Rectified, rectified_mean, with_known_ties


def human_metrics(judgements: Sequence[Judgement]) -> dict[str, float]:
    """Return ``cost/human_labels``: comparisons that a person judged; ``cost/human_minutes``: what they took;
    ``cost/per_accepted_label``: US dollars, the AI's included, per judgement that prefers one of the two (nan without
    any); ``human/overruled_rate``: how often a person preferred the other one than the AI, where both had a preference.
    With labels drawn at random that is the AI's rate of disagreement with people everywhere; with labels routed by
    uncertainty it is not. Where each label is known by itself, as of real people, also ``human/labels``: labels,
    several of one comparison included; ``human/alpha``: how far people agree (Krippendorff); ``human/label_error``: the
    error rate that they share; both nan unless several label one comparison."""
    # Either order's details may say that a person judged: both are one comparison.
    by_people = [d for d in (_orders(j.details) for j in judgements) if any(map(_is_human, d))]
    overruled = [d[0].get("overruled") for d in by_people]
    known = [o for o in overruled if o is not None]
    said = said_of(d[0] for d in by_people)
    accepted = sum(j.status == "ok" for j in judgements)
    spent = sum(j.cost_usd for j in judgements)
    return {
        "cost/human_labels": float(len(by_people)),
        # Both orders report the same time.
        "cost/human_minutes": sum(max(float(o.get("human_seconds", 0.0)) for o in d) for d in by_people) / 60.0,
        "cost/per_accepted_label": spent / accepted if accepted else float("nan"),
        "human/overruled_rate": float(np.mean(known)) if known else float("nan"),
        **(_of_each_label(said) if said else {}),
    }


def said_of(details: Iterable[Mapping[str, Any]]) -> list[Said]:
    """Return who said what of each comparison whose labels are known one by one; the others are left out."""
    choices = [[label[1] for label in found["labels"]] for found in details if "labels" in found]
    return [Said("", c.count("first"), c.count("tie"), second=c.count("second"), ai=None) for c in choices]


def _of_each_label(said: Sequence[Said]) -> dict[str, float]:
    return {
        "human/labels": float(count(said)),
        "human/alpha": agreement(said).alpha,
        "human/label_error": noise(said),
    }


def count(said: Iterable[Said]) -> int:
    """Return the number of labels."""
    return sum(one.first + one.tie + one.second for one in said)


def decided(orders: Sequence[tuple[Verdict, Verdict]]) -> np.ndarray:
    """Return 1, 0.5 or 0 for the first of each comparison, by the mean of both orders; nan where one failed: (N,)."""
    values = [
        math.nan
        if first.prob_first_wins is None or second.prob_first_wins is None
        else (first.prob_first_wins + 1.0 - second.prob_first_wins) / 2
        for first, second in orders
    ]
    return decisions(np.array(values, dtype=float))


def rate_by_people(
    orders: Sequence[tuple[Verdict, Verdict]], identical: int, *, different: int | None = None
) -> Rectified:
    """Return how often people prefer the first, with a 95 % interval. Where all texts are equal that is 0.5.

    The interval is Student's t over the labels with two wins and two losses added (Agresti and Coull), so that a few
    labels that all say the same are not taken for certainty.

    Args:
        orders: Verdicts of both orders of each comparison of different texts.
        identical: Comparisons of equal texts, which are ties by themselves.
        different: Comparisons of different texts, of which ``orders`` are a random share; None: these are all.
    """
    of = len(orders) if different is None else different
    found = decided(orders)
    labels = found[~np.isnan(found)]
    if not len(labels) and identical and not len(orders):
        return Rectified(0.5, 0.0, 0.5, high=0.5, labels=0, weight=0.0, effective_labels=math.nan)
    rate, wider = (
        with_known_ties(rectified_mean(y, np.zeros_like(y), [], weight=0.0), of, identical)
        for y in (labels, np.append(labels, [0.0, 0.0, 1.0, 1.0]))
    )
    if len(labels) < 2:
        return rate
    low, high = max(0.0, min(wider.low, rate.estimate)), min(1.0, max(wider.high, rate.estimate))
    return Rectified(
        rate.estimate, rate.stderr, low, high=high, labels=len(labels), weight=0.0, effective_labels=math.nan
    )


def evaluation_by_people(orders: Sequence[tuple[Verdict, Verdict]], identical: int) -> dict[str, float]:
    """Return ``human/win_rate_vs_round_0`` with ``_stderr``, ``_low`` and ``_high``, how far people agree, and what it
    took, from their verdicts on the policy's answer, which comes first, beside round 0's."""
    rate, said = rate_by_people(orders, identical), said_of(first.details or {} for first, _ in orders)
    name = "human/win_rate_vs_round_0"
    return {
        name: rate.estimate,
        f"{name}_stderr": rate.stderr,
        f"{name}_low": rate.low,
        f"{name}_high": rate.high,
        "human/evaluation_alpha": agreement(said).alpha,
        "human/annotator_error": noise(said),
        "cost/evaluation_human_labels": float(labelled(orders)),
        "cost/evaluation_human_minutes": minutes(orders),
        "cost/evaluation_usd": dollars(orders),
    }


def labelled(orders: Iterable[tuple[Verdict, Verdict]]) -> int:
    """Return how many comparisons people labelled."""
    return sum(_is_human(first.details or {}) for first, _ in orders)


def minutes(orders: Iterable[tuple[Verdict, Verdict]]) -> float:
    """Return what people took for them; both orders are one question."""
    return sum(float((first.details or {}).get("human_seconds", 0.0)) for first, _ in orders) / 60.0


def dollars(orders: Iterable[tuple[Verdict, Verdict]]) -> float:
    return sum(verdict.cost_usd for both in orders for verdict in both)


def _orders(details: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Return the details of each order; one where both say the same."""
    found = details or {}
    return [found["shown_first"], found["shown_second"]] if "shown_first" in found else [found]


def _is_human(details: Mapping[str, Any]) -> bool:
    return details.get("by") == "human" or "human_seconds" in details
