"""What stands beside a chart's y axis: the unit of a metric."""

from __future__ import annotations

from fnmatch import fnmatchcase

UNITS = (
    ("quality/gold_nll", "nats per token"),
    ("*win_rate_minus_gold", "difference of win rates"),
    ("*win_rate_vs_round_0", "win rate"),
    ("*self_preference", "difference of rates"),
    ("quality/change", "change in quality"),
    ("gap/informativeness_I", "share of D"),
    ("gap/*", "quality"),
    ("quality/*", "quality"),
    ("coverage/pass_at*", "quality of the best of k"),
    ("*accuracy*", "accuracy"),
    ("audit/kappa_*", "kappa"),
    ("audit/ece_*", "probability"),
    ("audit/brier_*", "squared error"),
    ("audit/b_*", "log-odds"),
    ("audit/length_amplification", "ratio"),
    ("detector/*_evidence", "evidence"),
    ("*_rate", "share"),
    ("*stability*", "share"),
    ("entropy/per_sequence", "nats per answer"),
    ("kl/per_sequence", "nats per answer"),
    ("text/mean_length", "tokens"),
    ("time/*", "seconds"),
    ("tokens/*", "tokens"),
    ("cost/*_usd", "USD"),
)
"""The first pattern that fits a metric's name says its unit."""


def unit_of(metric: str) -> str:
    """Return the unit of a metric in words; "" for one that has none."""
    return next((unit for pattern, unit in UNITS if fnmatchcase(metric, pattern)), "")
