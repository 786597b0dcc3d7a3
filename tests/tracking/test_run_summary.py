"""What a run came to, by hand: from rows of metrics.jsonl, and from what W&B holds of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlaif_lab.results import read_run, read_wandb
from rlaif_lab.tracking.run_summary import RESULTS, pass_at_k, result_values
from rlaif_lab.tracking.wandb_files import REPORT, WandbRun, as_runs

CONFIG: dict[str, Any] = {"arm": "self", "seed": 0, "rounds": 4, "detector": {"delta": 0.01, "alpha": 0.05}}


def rows(qualities: list[float | None], plateau: int | None = None) -> list[dict[str, Any]]:
    """Rounds 0, 1, ... with a detector that raises a plateau alarm in round ``plateau``."""
    found = []
    for index, quality in enumerate(qualities):
        row: dict[str, Any] = {"round": index, "quality/sampled": quality}
        for name in ("plateau", "improving", "degrading"):
            alarm = name == "plateau" and index == plateau
            row |= {f"detector/{name}_evidence": 200.0 if alarm else 1.0, f"detector/{name}_alarm": float(alarm)}
        found.append(row | {"detector/plateau_threshold": 100.0, "detector/mirror_threshold": 300.0})
    return found


def test_a_plateau_is_in_the_summary_with_its_round() -> None:
    """A single run whose rounds after the first gain exactly nothing: the trend's verdict, whatever the e-detector
    says of its single rounds."""
    found = result_values(CONFIG, rows([0.5] + [0.6] * 20, plateau=3))
    assert found["verdict"] == f"plateaued at round {found['plateau_round']}"
    assert 3 < int(found["plateau_round"]) <= 20
    assert found["final_quality"] == 0.6
    assert found["gain"] == pytest.approx(0.1)
    assert set(found) <= set(RESULTS)
    early = result_values(CONFIG, rows([0.5, 0.6, 0.6, 0.6, 0.6], plateau=3))
    assert early["verdict"] == "undecided"
    assert "would decide" in str(early["outlook"])


def test_without_a_verdict_there_is_no_plateau_round_and_without_gold_no_quality() -> None:
    found = result_values(CONFIG, rows([0.5, 0.6, 0.7, 0.8, 0.9]))
    assert found["verdict"] == "undecided"
    assert "plateau_round" not in found
    found = result_values(CONFIG, rows([None] * 5))
    assert {"final_quality", "gain", "ceiling"}.isdisjoint(found)
    assert found["why"]


def test_pass_at_k_of_the_first_and_the_last_round_by_increasing_k() -> None:
    logged = [
        {"round": 0, "coverage/pass_at_10": 0.5, "coverage/pass_at_2": 0.3, "coverage/pass_at_4": None},
        {"round": 1, "quality/pass_at_2": 0.4},
        {"round": 2, "coverage/pass_at_2": 0.6},
    ]
    assert pass_at_k(logged).rows == [[0, 2, 0.3], [0, 10, 0.5], [2, 2, 0.6]]
    assert pass_at_k([{"round": 0}]).rows == []


def wandb_run(name: str, history: int, summary: dict[str, Any], arm: str = "self", seed: int = 0) -> WandbRun:
    items = [{"round": index, "quality/sampled": 0.5, "samples": {"path": "x"}} for index in range(history)]
    return WandbRun(name, name, "tiny", arm, CONFIG | {"seed": seed}, items, summary)


def test_runs_of_wandb_become_runs_of_the_report() -> None:
    whole = wandb_run("whole", 5, {"verdict": "undecided"})
    stopped = wandb_run("stopped", 3, {"verdict": "plateaued at round 2"}, seed=1)
    killed = wandb_run("killed", 3, {}, seed=2)
    empty = wandb_run("empty", 0, {}, seed=3)
    found = as_runs([whole, stopped, killed, empty, wandb_run("a report", 0, {}, arm=REPORT)])
    assert [(run.name, run.complete, run.last_round) for run in found.runs] == [
        ("killed", False, 4),
        ("stopped", True, 2),
        ("whole", True, 4),
    ]
    assert found.runs[0].rows[2] == {"quality/sampled": 0.5}
    assert [problem.name for problem in found.failed] == ["empty"]
    with pytest.raises(ValueError, match="no round of a loop was logged in any of 1 runs"):
        as_runs([empty])


def test_what_cannot_be_read_is_said_in_one_sentence(tmp_path: Path) -> None:
    for source in ("nowhere", "a/b/c/d"):
        with pytest.raises(ValueError, match="neither a folder, nor entity/project or entity/project/group"):
            read_wandb(source)
    with pytest.raises(ValueError, match="no offline run of W&B in"):
        read_wandb(tmp_path)
    with pytest.raises(ValueError, match="does not hold a run"):
        read_run(tmp_path)
    folder = tmp_path / "offline-run-20260101_000000-x"
    folder.mkdir()
    (folder / "run-x.wandb").write_bytes(b"something else")
    with pytest.raises(ValueError, match="is no file of W&B"):
        read_wandb(tmp_path)
    (folder / "run-x.wandb").write_bytes(b":W&B\xe1\xbe\x00")
    with pytest.raises(ValueError, match="holds no run"):
        read_wandb(tmp_path)
