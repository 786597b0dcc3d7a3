"""What W&B is told: its environment variables count unless the configuration says otherwise, and names say what
differs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import wandb

from rlaif_lab.tracking.naming import run_name
from rlaif_lab.tracking.wandb_files import as_runs, offline_runs
from rlaif_lab.tracking.wandb_tracker import WandbTracker

CONFIG = {"arm": "self", "seed": 3}
VARIABLES = {
    "WANDB_MODE": "online",
    "WANDB_PROJECT": "p",
    "WANDB_ENTITY": "e",
    "WANDB_TAGS": "a, b",
    "WANDB_RUN_GROUP": "g",
    "WANDB_NAME": "n",
    "WANDB_NOTES": "read this",
    "WANDB_JOB_TYPE": "j",
    "WANDB_RUN_ID": "abc123",
}


class OpenedError(Exception):
    """W&B was asked to open a run, with these settings."""


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**settings: Any) -> None:
        raise OpenedError(settings)

    monkeypatch.setattr(wandb, "init", init)
    for name in (*VARIABLES, "WANDB_DIR", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)


def told(folder: Path, **settings: Any) -> dict[str, Any]:
    with pytest.raises(OpenedError) as caught:
        WandbTracker(**settings).begin(folder, CONFIG, "experiment", "self", [])
    found: dict[str, Any] = caught.value.args[0]
    return found


def test_without_variables_the_labs_own_names(tmp_path: Path) -> None:
    found = told(tmp_path)
    wanted = {"mode": "offline", "project": "rlaif_lab", "entity": None, "tags": [], "group": "experiment"}
    wanted |= {"name": "self_s3", "job_type": "self", "dir": str(tmp_path), "notes": None}
    assert {key: found[key] for key in wanted} == wanted


def test_every_variable_has_its_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (VARIABLES | {"WANDB_DIR": str(tmp_path / "elsewhere")}).items():
        monkeypatch.setenv(name, value)
    found = told(tmp_path)
    wanted = {"mode": "online", "project": "p", "entity": "e", "tags": ["a", "b"], "group": "g", "name": "n"}
    wanted |= {"notes": "read this", "job_type": "j", "id": "abc123", "dir": str(tmp_path / "elsewhere")}
    assert {key: found[key] for key in wanted} == wanted


def test_the_command_line_says_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    mine = {"mode": "offline", "project": "p2", "entity": "e2", "tags": ["c"], "group": "g2", "name": "n2"}
    mine |= {"notes": "no", "job_type": "j2", "dir": str(tmp_path / "d")}
    found = told(tmp_path, **mine)
    assert {key: found[key] for key in mine} == mine


def test_one_id_and_one_name_do_not_make_one_run_of_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    monkeypatch.setenv("WANDB_NAME", "mine")
    (tmp_path / "multirun.yaml").write_text("hydra: {overrides: {task: ['seed=0,1', rounds=3]}}")
    found = []
    for seed in (0, 1):
        job = tmp_path / str(seed)
        (job / ".hydra").mkdir(parents=True)
        (job / ".hydra" / "overrides.yaml").write_text(f"- seed={seed}\n- rounds=3\n")
        found.append(told(job))
    assert len({settings["id"] for settings in found} | {"abc123"}) == 3
    assert told(tmp_path / "0")["id"] == found[0]["id"], "resumed, it goes on"
    assert found[0]["name"] == "mine self_s3"


@pytest.mark.parametrize(("name", "value"), [("WANDB_MODE", "disabled"), ("WANDB_DISABLED", "true")])
def test_disabled_is_disabled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    tracker = WandbTracker()
    tracker.begin(tmp_path, CONFIG, "experiment", "self", [])
    tracker.log({"round": 0, "quality/sampled": 0.5}, [])
    tracker.end(None)
    assert list(tmp_path.iterdir()) == []


def test_a_mode_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "ofline")
    with pytest.raises(ValueError, match="WANDB_MODE must be one of offline, online, disabled"):
        WandbTracker()
    with pytest.raises(ValueError, match=r"logger\.mode must be one of"):
        WandbTracker(mode="dryrun")  # type: ignore[arg-type]


def test_a_name_says_what_was_swept_and_nothing_else(tmp_path: Path) -> None:
    task = "['judge=self,oracle', 'learner.beta=0.1,0.2', 'seed=0,1', rounds=3, experiment=x]"
    (tmp_path / "multirun.yaml").write_text(f"hydra: {{overrides: {{task: {task}}}}}")
    job = tmp_path / "job"
    (job / ".hydra").mkdir(parents=True)
    (job / ".hydra" / "overrides.yaml").write_text("[judge=self, learner.beta=0.1, seed=3, rounds=3, experiment=x]")
    assert run_name(job, CONFIG) == "self_s3_beta=0.1"
    (job / ".hydra" / "overrides.yaml").write_text("{")
    assert run_name(job, CONFIG) == "self_s3"


@pytest.mark.parametrize("content", [b"", b":W&B\xe1\xbe\x00", b"nothing of W&B's", b":W&B\xe1\xbe\x00" + bytes(100)])
def test_a_job_that_was_killed_is_named_and_the_reader_goes_on(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "job" / "wandb" / "offline-run-20260101_000000-abc" / "run-abc.wandb"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    (run,) = offline_runs(tmp_path)
    assert run.name == "job"
    assert str(file) in run.problem
    with pytest.raises(ValueError, match="no round of a loop was logged"):
        as_runs([run])
