"""The rows of metrics.jsonl."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """The row with None for nan and inf, which JSON has not."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, one per round (the later of two), sorted.

    ValueError for a line that is no such row.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what no newline ends was cut short by a crash
    rows: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows[row["round"]] = row
        except (ValueError, KeyError, TypeError) as error:  # not UTF-8, no JSON, no object, no round
            raise ValueError(f"{path}, line {number}: not a round's metrics in JSON ({error})") from None
    return [rows[index] for index in sorted(rows)]
