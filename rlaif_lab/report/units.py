"""What stands beside a chart's y axis: the unit of a metric, as the catalogue says it."""

from __future__ import annotations

from rlaif_lab.metrics.catalogue import row_of


def unit_of(metric: str) -> str:
    """Return the unit of a metric, or of a family of metrics over k; "" where none is known, as of a user's own."""
    for name in (metric, f"{metric}_2"):
        try:
            return row_of(name).unit
        except KeyError:
            continue
    return ""
