"""The rows of metrics.jsonl."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif_lab.store.checksums import DamagedError, check, read_regular

MetricRow = Mapping[str, Any]
"""One line of metrics.jsonl: the name of a metric -> its value, None where undefined."""


def without_nan(row: MetricRow) -> dict[str, Any]:
    """Return the row with None for nan and inf, which JSON has not."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def whole_lines(content: bytes) -> bytes:
    """Return the content up to its last newline: what none ends was cut short by a crash."""
    return content[: content.rfind(b"\n") + 1]


FINISHED = "finished.json"
"""Beside the metrics of a run that is whole: when it finished, and what its metrics.jsonl was like then."""


def summary_of(path: Path) -> dict[str, Any] | None:
    """Return how many lines a metrics.jsonl has, and its checksum: what finished.json says of it."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    return {"lines": content.count(b"\n"), "sha256": hashlib.sha256(content).hexdigest()}


def _check_finished(path: Path, content: bytes) -> None:
    """Compare metrics with those that the run finished with: fewer whole lines are an earlier state of the file, which
    its checksums know too. Raises ValueError."""
    try:
        written = json.loads(read_regular(path.with_name(FINISHED)))["metrics"]
        lines, digest = int(written["lines"]), str(written["sha256"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return  # it has not finished, or did with an earlier version
    # Over all bytes, half lines included: what was appended since counts as damage.
    if hashlib.sha256(content).hexdigest() != digest:
        raise DamagedError(
            f"{str(path)!r} is corrupt: {FINISHED} says that it had {lines} lines and another checksum, and now it has "
            f"{content.count(bytes([10]))} lines; restore it from a copy"
        )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a metrics.jsonl, one per round (the later of two), sorted.

    Raises:
        ValueError: the file was damaged, or a line is no such row.
    """
    if not path.exists():
        _check_finished(path, b"")
        return []
    everything = read_regular(path)
    content = whole_lines(everything)
    rows: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(content.split(b"\n")[:-1], start=1):
        try:
            row = json.loads(line)
            index = row["round"]
            if not isinstance(index, int) or isinstance(index, bool):
                raise ValueError(f"'round' must be an integer; got {index!r}")
            # The later of two rows of a round: `append_row` replaces a last round's by a whole one.
            rows[index] = row
        except (ValueError, KeyError, TypeError, RecursionError) as error:  # not UTF-8, no JSON, no object, no round
            raise ValueError(f"{path}, line {number}: not a round's metrics in JSON ({error})") from None
    # First, since it can say how many lines there were.
    _check_finished(path, everything)
    if content:
        # Whole lines only: their checksum was noted, that of a half-written line was not.
        check(path, hashlib.sha256(content).hexdigest())
    return [rows[index] for index in sorted(rows)]
