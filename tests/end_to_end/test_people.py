"""People in a sweep of real processes: one queue for all arms, labels that survive SIGKILL, and are used by each."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from end_to_end.lab import SMALL, environment, rows

from rlaif_lab.people.queue import Label, LabelQueue

RESUME = "from rlaif_lab.cli.lab import resume; resume()"
SWEEP = (
    *(override for override in SMALL if override != "task.digits=2"),
    "task=pair_sum",
    "policy.steps=60",
    "rounds=1",
    "evaluation.final_samples=0",
    "judge=random,oracle",
    "human_set=people",
    "human_set.prompts=12",
    "human_set.pairs=6",
    "human_set.by.wait=false",
    "hydra.sweep.dir=sweep",
)


def label(queue: LabelQueue, most: int) -> int:
    count = 0
    while count < most and (item := queue.next_item("ada")) is not None:
        queue.label(Label(item.id, "ada", "first", False, 10.0))
        count += 1
    return count


@pytest.mark.slow
def test_arms_share_people_through_a_kill(cache: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rlaif_lab", "-m", *SWEEP]
    with (tmp_path / "out.txt").open("w") as out:
        sweep = subprocess.Popen(command, cwd=tmp_path, env=environment(cache), stdout=out, stderr=out, process_group=0)
    file = tmp_path / "sweep" / "human_set" / "labels.sqlite"
    until = time.monotonic() + 240.0
    while not (file.exists() and LabelQueue(file).progress().items):
        assert sweep.poll() is None and time.monotonic() < until, (tmp_path / "out.txt").read_text()
        time.sleep(0.5)
    queue = LabelQueue(file)
    assert label(queue, 2) == 2
    os.killpg(sweep.pid, signal.SIGKILL)  # the first arm has ended, or is about to; the second has not
    sweep.wait()

    def resumed(code: int) -> str:
        command, env = [sys.executable, "-c", RESUME, "sweep"], environment(cache)
        done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stderr

    told = resumed(75)
    assert "2 of 2 jobs wait" in told and "labels are missing" in told
    assert len(queue.labels()) == 2, "none is lost"
    items = queue.progress().items
    assert label(queue, 100) == items - 2
    resumed(0)
    assert (queue.progress().items, len(queue.labels())) == (items, items), "nothing was asked twice"
    found = [rows(run.parent)[-1] for run in (tmp_path / "sweep").glob("*/metrics.jsonl")]
    assert len(found) == 2
    for row in found:
        assert row["human_set/win_rate_low"] <= row["human_set/win_rate"] <= row["human_set/win_rate_high"]
        assert 0.0 <= row["human_set/judge_agreement"] <= 1.0
    assert sum(row["cost/human_set_labels"] for row in found) > items, "both used what was labelled once"
