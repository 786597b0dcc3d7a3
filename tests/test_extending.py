"""docs/extending.md holds what it promises: each of its files is written down as it stands, and each command runs."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

import rlaif_lab as rl
from rlaif_lab.cli import lab

PAGE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"
SMALL = (
    "policy.steps=20",
    "policy.width=32",
    "policy.layers=1",
    "policy.heads=2",
    "prompts_per_round=16",
    "rounds=1",
    "evaluation.prompts=8",
    "evaluation.samples=2",
    "evaluation.final_samples=0",
    "trainer.batch_size=8",
    "logger=none",
    "gate.force=true",
    "export=false",
    "bank=null",
)


def files() -> dict[str, str]:
    """The page's files: a line that names one, and the block behind it."""
    found = re.findall(r"^`([\w/.]+)`:\n\n```(?:python|yaml)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    return dict(found)


def commands() -> list[str]:
    return re.findall(r"^    (rlaif-lab .*)$", PAGE.read_text(), re.M)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RLAIF_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RLAIF_LAB_TRUST", "my_learners,my_tasks,my_feedback")  # to read the run
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def test_every_door_is_there() -> None:
    opened = {command.split()[-1].partition("=")[0] for command in commands()}
    assert opened == {"judge", "metrics", "learner", "task", "engine", "callbacks"}
    assert "learner=brief" in "\n".join(commands()), "a kind of feedback, through the learner that asks for it"


@pytest.mark.slow
@pytest.mark.parametrize("command", commands())
def test_its_command_runs(command: str, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = (*SMALL, *(() if "task=" in command else ("task.digits=2",)))
    monkeypatch.setattr(sys, "argv", [*shlex.split(command), *small, f"hydra.run.dir={study / 'run'}"])
    lab.main()
    run = rl.read_run(study / "run")
    assert json.loads((study / "run" / "finished.json").read_text())
    assert len(run.rows) == 2
    if "metrics=" in command:
        assert 0.0 <= run.rows[0]["mine/digits"] <= 1.0
