"""The rows of metrics.jsonl."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from rlaif_lab.store.checksums import check, read_regular


def without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with None for nan and inf, which JSON has not."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def whole_lines(content: bytes) -> bytes:
    """Return the content up to its last newline: what none ends was cut short by a crash."""
    return content[: content.rfind(b"\n") + 1]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl, one per round (the later of two), sorted.

    Raises:
        ValueError: the file was damaged, or a line is no such row.
    """
    if not path.exists():
        return []
    content = whole_lines(read_regular(path))
    rows: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            index = row["round"]
            if not isinstance(index, int) or isinstance(index, bool):
                raise ValueError(f"'round' must be an integer; got {index!r}")
            rows[index] = row
        except (ValueError, KeyError, TypeError, RecursionError) as error:  # not UTF-8, no JSON, no object, no round
            raise ValueError(f"{path}, line {number}: not a round's metrics in JSON ({error})") from None
    if content:
        check(path, hashlib.sha256(content).hexdigest())
    return [rows[index] for index in sorted(rows)]
