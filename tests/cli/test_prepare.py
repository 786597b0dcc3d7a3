"""``rlaif-prepare`` builds what a sweep's jobs lack, once, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import rlaif_lab.models.organism.cache as cache
from rlaif_lab.cli import prepare

TINY = ["task.digits=1", "policy.steps=1", "policy.width=8", "policy.layers=1", "policy.heads=1", "policy.batch_size=2"]


def run(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["rlaif-prepare", *arguments])
    prepare.main()


def test_every_organism_of_a_sweep_is_built_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RLAIF_LAB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    small = ["rounds=1", "prompts_per_round=4", "evaluation.prompts=4", "bank.pairs=4", *TINY]
    run([*small, "judge=self,random", "policy.seed=0,1"], monkeypatch)
    built = sorted(path.name for path in (tmp_path / "organisms").iterdir() if path.is_dir())
    assert len(built) == 2
    assert capsys.readouterr().out.count("models") == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["organisms"], "no run folder is left"

    monkeypatch.setattr(cache, "_build", lambda *_: pytest.fail("they are there"))
    run([*small, "policy.seed=0,1"], monkeypatch)


def test_a_mistake_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run(["rounds=0"], monkeypatch)
    assert ended.value.code == 2
    assert "rounds must be at least 1" in capsys.readouterr().err


def test_help() -> None:
    done = subprocess.run([sys.executable, "-m", "rlaif_lab.cli.prepare", "--help"], capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("rlaif-prepare builds")
