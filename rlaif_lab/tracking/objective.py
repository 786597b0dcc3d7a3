"""What a run is worth, in one number: what sweepers optimise."""

from __future__ import annotations

from rlaif_lab.store.rows import MetricRow

OBJECTIVES = {
    "quality/sampled": "quality",
    "heldout_judge/win_rate_vs_round_0": "held-out win rate",
    "judge/win_rate_vs_round_0": "win rate",
}
"""The first that a run has is what sweepers optimise: true quality; without gold, what the judges think."""


def objective(row: MetricRow) -> float:
    """Return the objective of a run's last row; nan where it has none of them."""
    return next((float(row[name]) for name in OBJECTIVES if row.get(name) is not None), float("nan"))


def objective_name(row: MetricRow) -> str:
    return next((title for name, title in OBJECTIVES.items() if row.get(name) is not None), "no objective")
