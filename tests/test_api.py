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


def test_a_run_in_process_is_read_back(tmp_path: Path) -> None:
    run = rl.run(rl.compose(SMALL), tmp_path / "run")
    assert isinstance(run, type(rl.read_run(tmp_path / "run")))
    assert (tmp_path / "run" / "finished.json").is_file()
