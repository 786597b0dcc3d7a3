"""What people did for a round's labels, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlaif_lab.records import Judgement


def human_metrics(judgements: Sequence[Judgement]) -> dict[str, float]:
    """Return ``cost/human_labels``: comparisons that a person judged; ``cost/human_minutes``: what they took;
    ``cost/per_accepted_label``: US dollars, the AI's included, per judgement that prefers one of the two (nan without
    any); ``human/overruled_rate``: how often a person preferred the other one than the AI, where both had a preference.
    With labels drawn at random that is the AI's rate of disagreement with people everywhere; with labels routed by
    uncertainty it is not."""
    # Either order's details may say that a person judged: both are one comparison.
    by_people = [d for d in (_orders(j.details) for j in judgements) if any(map(_is_human, d))]
    overruled = [d[0].get("overruled") for d in by_people]
    decided = [o for o in overruled if o is not None]
    accepted = sum(j.status == "ok" for j in judgements)
    spent = sum(j.cost_usd for j in judgements)
    return {
        "cost/human_labels": float(len(by_people)),
        # Both orders report the same time.
        "cost/human_minutes": sum(max(float(o.get("human_seconds", 0.0)) for o in d) for d in by_people) / 60.0,
        "cost/per_accepted_label": spent / accepted if accepted else float("nan"),
        "human/overruled_rate": float(np.mean(decided)) if decided else float("nan"),
    }


def _orders(details: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Return the details of each order; one where both say the same."""
    found = details or {}
    return [found["shown_first"], found["shown_second"]] if "shown_first" in found else [found]


def _is_human(details: Mapping[str, Any]) -> bool:
    return details.get("by") == "human" or "human_seconds" in details
