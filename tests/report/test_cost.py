from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif_lab.report.arms import Arm, study
from rlaif_lab.report.cost import cost, labels, stage_times, write_times
from rlaif_lab.report.load import load

WriteRun = Callable[..., Path]


@pytest.fixture
def arm(tmp_path: Path, write_run: WriteRun) -> Arm:
    """Round 0: 100 comparisons, a tenth tied, a tenth refused. Round 1: 50, all preferences. The last round is not
    judged."""
    extra = {
        "pairs/judged": [100, 50, None],
        "judge/tie_rate": [0.1, 0.0, None],
        "judge/refused_rate": [0.1, 0.0, None],
        "tokens/judging": [2000, 600, None],
        "cost/judging_usd": [0.2, 0.06, None],
        "time/sampling_s": [1.0, 3.0, None],
    }
    write_run("self", 0, [0.5, 0.6, 0.7], extra=extra)
    (found,) = study(load(tmp_path / "sweep"), "sweep").arms
    return found


def test_cost_of_a_run_by_hand(arm: Arm) -> None:
    found = cost(arm)
    assert labels(arm.runs[0]) == pytest.approx(80 + 50)
    assert found.calls.interval.mean == 300  # either order of 150 comparisons
    assert found.labels.interval.mean == pytest.approx(130)
    assert found.judge_tokens.interval.mean == 2600
    assert found.tokens_per_label.interval.mean == pytest.approx(20)
    assert found.usd_per_label.interval.mean == pytest.approx(0.002)
    assert found.human_minutes.n == 0, "not measured is not nothing"


def test_no_label_no_price(tmp_path: Path, write_run: WriteRun) -> None:
    write_run("self", 0, [0.5, 0.6], extra={"pairs/judged": [10, None], "judge/tie_rate": [1.0, None],
                                            "cost/judging_usd": [1.0, None]})  # fmt: skip
    (arm,) = study(load(tmp_path / "sweep"), "sweep").arms
    assert cost(arm).usd_per_label.n == 0
    assert cost(arm).usd.interval.mean == 1.0


def test_runs_without_a_judge(tmp_path: Path, write_run: WriteRun) -> None:
    write_run("self", 0, [0.5, 0.6])
    (arm,) = study(load(tmp_path / "sweep"), "sweep").arms
    assert math.isnan(labels(arm.runs[0]))
    assert cost(arm).labels.n == 0


def test_time_by_stage(arm: Arm, tmp_path: Path) -> None:
    """training_s is 1.5 in the two rounds that train; round_s is no stage."""
    (times,) = stage_times([arm])
    assert times.seconds == {"sampling": 4.0, "training": 3.0}
    assert times.total == 7.0
    write_times(tmp_path / "cost.csv", [times])
    with (tmp_path / "cost.csv").open(newline="") as file:
        assert next(csv.DictReader(file)) == {"arm": "self", "stage": "sampling", "seconds_per_run": "4.0"}
