"""The lab from Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rlaif_lab as rl

SMALL = [
    "task.digits=2",
    "policy.steps=30",
    "policy.width=32",
    "policy.layers=2",
    "policy.heads=2",
    "prompts_per_round=32",
    "rounds=2",
    "evaluation.prompts=8",
    "evaluation.samples=2",
    "evaluation.final_samples=0",
    "trainer.batch_size=16",
    "logger=none",
    "gate.force=true",
    "export=false",
    "bank=null",
]


def test_importing_it_is_quick_and_loads_nothing_heavy() -> None:
    code = "import sys, rlaif_lab; print([m for m in ('torch', 'hydra', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_every_name_is_there() -> None:
    for name in dir(rl):
        assert getattr(rl, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = rl.nothing


def test_a_mistake_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="rounds must be at least 1; got 0"):
        rl.compose(["rounds=0"])
    with pytest.raises(ValueError, match=r"judge=strongr: no such choice \(did you mean 'stronger'\?\)"):
        rl.compose(["judge=strongr"])
    with pytest.raises(ValueError, match=r"unknown key 'judge\.wieghts'"):
        rl.compose(["judge.wieghts=live"])


def test_a_run_in_process_is_read_back(tmp_path: Path) -> None:
    run = rl.run(rl.compose(SMALL), tmp_path / "run")
    assert isinstance(run, type(rl.read_run(tmp_path / "run")))
    assert (tmp_path / "run" / "finished.json").is_file()


@pytest.mark.slow
def test_a_sweep_comes_back_as_its_results_and_what_is_there_is_not_run_again(tmp_path: Path) -> None:
    overrides = [*SMALL, "rounds=1", "judge=self,random", "seed=0"]
    found = rl.sweep(overrides, tmp_path / "sweep", baseline="random")
    assert {arm["arm"] for arm in found.arms()} == {"self", "random"}
    finished = {file: file.stat().st_mtime_ns for file in (tmp_path / "sweep").glob("*/finished.json")}
    assert len(finished) == 2
    rl.sweep(overrides, tmp_path / "sweep")
    assert {file: file.stat().st_mtime_ns for file in finished} == finished


def test_a_sweep_that_did_not_finish_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command: subprocess.CompletedProcess(command, 1))
    with pytest.raises(ValueError, match="ended with exit code 1; continue with rlaif-resume"):
        rl.sweep(["rounds=0"], tmp_path)
