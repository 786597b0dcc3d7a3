"""What W&B makes charts of, read from an offline run: the headlines, and failures once there were some."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from rlaif_lab.metrics.catalogue import headlines, is_failure, rows
from rlaif_lab.tracking.wandb_files import read_run, records
from rlaif_lab.tracking.wandb_tracker import WandbTracker

NAMES = [row.name.replace("{role}", "judge") for row in rows()]
CONFIG = {"arm": "self", "seed": 3}


def logged(round_index: int, **some: float) -> dict[str, Any]:
    """Return a round's row, in which whatever counts failures is 0."""
    row = {name: 0.0 if is_failure(name, 1.0) else 0.5 for name in NAMES if "{" not in name}
    return row | {"mine/digits": 0.3, "round": round_index} | some


def written(folder: Path) -> Path:
    """Return the run's file, once W&B's own process has written its end."""
    for _ in range(600):
        found = list(folder.glob("**/offline-run-*/run-*.wandb"))
        if found and any(record.WhichOneof("record_type") == "exit" for record in records(found[0])):
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no whole run in {folder}")


def charts(folder: Path) -> set[str]:
    """Return the names that W&B draws a chart of, as its own code merges definitions: hidden stays, unless it is
    overwritten."""
    hidden: dict[str, bool] = {}
    seen: set[str] = set()
    for record in records(written(folder)):
        kind = record.WhichOneof("record_type")
        if kind == "metric" and record.metric.name:
            metric = record.metric
            before = hidden.get(metric.name, False) and not metric._control.overwrite
            hidden[metric.name] = metric.options.hidden or before
        elif kind == "history":
            seen |= {item.key or item.nested_key[0] for item in record.history.item}
    return {name for name in seen if not hidden.get(name, False) and not name.startswith("_")} - {"round"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WandbTracker:
    for name in ("WANDB_MODE", "WANDB_DISABLED", "WANDB_DIR", "WANDB_PROJECT", "WANDB_NAME", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    tracker = WandbTracker(mode="offline")
    tracker.begin(tmp_path, CONFIG, "experiment", "self", [])
    return tracker


def test_some_twenty_headlines_and_what_failed_and_what_a_user_added(run: WandbTracker, tmp_path: Path) -> None:
    run.log(logged(0), [])
    run.log(logged(1, **{"judge/refused_rate": 0.1}), [])
    run.log(logged(2), [])
    run.end(None)
    drawn = charts(tmp_path)
    expected = set(headlines(logged(0))) - {"round"}
    assert 15 <= len(expected) <= 25
    assert drawn == expected | {"judge/refused_rate", "mine/digits"}


def test_every_value_is_there_whether_it_has_a_chart_or_not(run: WandbTracker, tmp_path: Path) -> None:
    run.log(logged(0), [])
    run.end(None)
    read = read_run(written(tmp_path))
    assert {name: value for name, value in read.history[0].items() if name in logged(0)} == logged(0)
