"""W&B mirrors metrics.jsonl: every value, on the round axis, and nothing lost by a SIGKILL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from end_to_end.lab import SMALL, killed_lab

WITH_WANDB = tuple(o for o in SMALL if not o.startswith("logger"))


def part(run: Path, which: int) -> list[dict[str, Any]]:
    """The records of one of the run's offline folders (0 is the oldest), as W&B's own reader prints them."""
    file = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))[which]
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def of_type(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in records if record["type"] == kind]


@pytest.mark.slow
def test_every_value_reaches_wandb_also_after_a_kill(cache: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    overrides = (*WITH_WANDB, "experiment_name=ablation", "arm=an_arm", f"hydra.run.dir={run}")
    died = killed_lab(cache, "training", 16, *overrides, cwd=tmp_path)  # in round 2
    assert died.returncode == -signal.SIGKILL, died.stderr
    done = killed_lab(cache, "never", 0, *overrides, "resume=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    records = part(run, -1)
    logged = [record["item"] for record in of_type(records, "history")]
    ours = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["_step"] for row in logged] == [row["round"] for row in ours] == [0, 1, 2, 3]
    for theirs, mine in zip(logged, ours, strict=True):
        expected = {key: value for key, value in mine.items() if value is not None}
        assert {key: theirs[key] for key in expected} == expected
        assert {key.partition(".")[0] for key in theirs.keys() - expected.keys()} <= {
            "_runtime", "_step", "_timestamp", "samples", "pass_at_k_table", "reliability_table",
            "detector/changes",
        }  # fmt: skip

    # The x axis of every metric is the round, by its exact name.
    metrics = {metric["name"]: metric.get("step_metric") for metric in of_type(records, "metric") if "name" in metric}
    for name in {key for row in ours for key, value in row.items() if value is not None} - {"round"}:
        assert metrics[name] == "round", name

    # What it came to is in the summary, at the end of the run that was resumed as of any other.
    summary: dict[str, Any] = {}
    for record in of_type(records, "summary"):
        summary |= record["update"]
    assert summary["final_quality"] == ours[-1]["quality/sampled"]
    assert summary["gain"] == pytest.approx(ours[-1]["quality/sampled"] - ours[0]["quality/sampled"])
    assert summary["verdict"].split(" at ")[0] in ("improving", "plateaued", "degrading", "undecided")
    assert summary["why"]
    qualities = [row["quality/sampled"] for row in ours]
    assert summary["quality/sampled"] == {"last": qualities[-1], "max": max(qualities)}
    assert summary["alarm/unfinished"] == {"max": max(row["alarm/unfinished"] for row in ours)}
    plots = [record["update"] for record in of_type(records, "config")]
    assert {key for update in plots for key in update} == {"_wandb.visualize.pass_at_k", "_wandb.visualize.reliability"}

    # Arms compare at a glance; both parts are one run; the config is there.
    (opened,) = of_type(records, "run")
    assert (opened["run_group"], opened["job_type"], opened["project"]) == ("ablation", "an_arm", "rlaif_lab")
    assert opened["run_id"] == (run / "wandb_id").read_text()
    assert len(list(run.glob(f"wandb/offline-run-*-{opened['run_id']}"))) == 2
    assert opened["config"]["update"]["learner"]["name"] == "rloo"
    assert opened["config"]["update"]["versions"]["torch"]

    # Sampled generations with verdicts, of the rounds before the crash as well.
    tables = [json.loads(f.read_text()) for f in sorted(run.glob("wandb/*/files/media/table/samples_*.json"))]
    assert {row[0] for table in tables for row in table["data"]} == {0, 1, 2}
    assert tables[0]["columns"] == ["round", "prompt", "sample", "response", "right_answer", "win_rate", "gold_quality"]


@pytest.mark.slow
def test_offline_neither_asks_nor_waits_for_a_network(cache: Path, tmp_path: Path) -> None:
    """No terminal and no key: it must not matter."""
    done = killed_lab(cache, "never", 0, *WITH_WANDB, "rounds=1", f"hydra.run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "wandb" not in (done.stdout + done.stderr).replace("rlaif_lab.tracking.wandb_tracker.WandbTracker", "")


def test_online_without_a_key_is_one_sentence(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\nfrom rlaif_lab.tracking.wandb_tracker import WandbTracker\n"
        "try: WandbTracker(mode='online').begin(pathlib.Path(sys.argv[1]), {}, 'group', 'arm', [])\n"
        "except ValueError as error: print(error)"
    )
    outside = {k: v for k, v in os.environ.items() if not k.startswith("WANDB")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        capture_output=True,
        text=True,
        env={**outside, "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
    )
    (line,) = done.stdout.splitlines()
    assert line.startswith("logger.mode=online: W&B did not take the run: "), done.stderr
    assert "wandb login" in line
