"""Lightning's loggers hold the rows of metrics.jsonl, also after a run was resumed; what is missing is told at once."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from rlaif_lab.config import build, config_dir
from rlaif_lab.store.rows import MetricRow
from rlaif_lab.tracking import lightning
from rlaif_lab.tracking.base import Tracker

ROWS: list[MetricRow] = [
    {"round": 0, "quality/sampled": 0.25, "judge/accuracy": None, "coverage/pass_at_8": 0.5},
    {"round": 1, "quality/sampled": 0.375, "judge/accuracy": 0.625, "tokens/sampling": 1234},
    {"round": 2, "quality/sampled": 0.4375},
]


def read_csv(run: Path) -> list[MetricRow]:
    with (run / "csv" / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    return [{name: float(value) for name, value in line.items() if value and name != "step"} for line in lines]


def read_tensorboard(run: Path) -> list[MetricRow]:
    loaded = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = loaded.EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    found: dict[int, MetricRow] = {}
    for name in events.Tags()["scalars"]:
        for event in events.Scalars(name):
            assert name not in found.setdefault(event.step, {}), "twice in one round"
            found[event.step][name] = event.value
    return [found[step] for step in sorted(found)]


def read_mlflow(run: Path) -> list[MetricRow]:
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(f"file:{run / 'mlflow'}")
    run_id = (run / "mlflow_run_id").read_text()
    found: dict[int, MetricRow] = {}
    for name in client.get_run(run_id).data.metrics:
        for point in client.get_metric_history(run_id, name):
            assert name not in found.setdefault(point.step, {}), "twice in one round"
            found[point.step][name] = point.value
    return [found[step] for step in sorted(found)]


LOGGERS: dict[str, Callable[[Path], list[MetricRow]]] = {
    "csv": read_csv,
    "tensorboard": read_tensorboard,
    "mlflow": read_mlflow,
}


def tracker(name: str) -> Tracker:
    node: Any = OmegaConf.load(Path(config_dir()) / "logger" / f"{name}.yaml")
    made: Tracker = build(OmegaConf.merge({"logger": node}, {"experiment_name": "study"}).logger, "logger")
    return made


@pytest.mark.parametrize("name", LOGGERS)
def test_they_hold_the_rows_of_metrics_jsonl(name: str, tmp_path: Path) -> None:
    """A run that was killed after its first row, which its logger may have lost, and resumed."""
    if name != "csv":
        pytest.importorskip(name)
    killed = tracker(name)
    killed.begin(tmp_path, {"seed": 0}, "study", "self", [])
    killed.log(ROWS[0], [])
    resumed = tracker(name)
    resumed.begin(tmp_path, {"seed": 0}, "study", "self", [(ROWS[0], [])])
    for row in ROWS[1:]:
        resumed.log(row, [])
    resumed.end(None)
    expected = [{k: float(v) for k, v in row.items() if v is not None} for row in ROWS]
    assert LOGGERS[name](tmp_path) == expected
    assert all(math.isfinite(value) for row in expected for value in row.values())


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_package_that_is_missing_is_told_before_anything_else(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lightning, "find_spec", lambda package: None)
    with pytest.raises(ValueError, match=rf"^logger={name} needs {name}: pip install 'rlaif-lab\[loggers\]'$"):
        tracker(name)
