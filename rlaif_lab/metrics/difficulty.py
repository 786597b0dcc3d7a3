"""True quality by the level of difficulty, where a task has levels."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from rlaif_lab.records import Floats, Generation
from rlaif_lab.tasks.base import Task

MOST_LEVELS = 12
"""With more than so many there are too few prompts of each for a number to mean anything."""


def difficulty_metrics(task: Task, sampled: Sequence[Generation], qualities: Floats) -> dict[str, float]:
    """Return ``quality/difficulty_{level}``: mean gold quality of the samples to the prompts of each level.

    Args:
        task: says the levels; a task without any gives no metrics.
        sampled: N generations of k samples.
        qualities: their gold quality, (N, k).
    """
    levels: dict[str, list[float]] = defaultdict(list)
    for generation, row in zip(sampled, qualities, strict=True):
        level = task.difficulty(generation.prompt)
        if level is not None:
            levels[metric_name(level)].append(float(row.mean()))
    # A number of three prompts would say nothing.
    if len(levels) > MOST_LEVELS:
        return {}
    return {f"quality/difficulty_{level}": sum(found) / len(found) for level, found in sorted(levels.items())}


def metric_name(level: str) -> str:
    """Return a level as a part of a metric's name."""
    return re.sub(r"[^a-z0-9]+", "_", level.lower()).strip("_") or "unnamed"
