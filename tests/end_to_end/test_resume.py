"""A run that is killed anywhere and resumed ends with the same weights and the same metrics, bit for bit."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from end_to_end.lab import SMALL, environment, killed_lab, lab, rows, weights

EVERYWHERE = (
    ("sampling to evaluate", 1),  # round 0, the coverage
    ("sampling to evaluate", 0),  # round 0, the next round's prompts
    ("generating", 1),  # round 0, second chunk of three
    ("judging", 1),
    ("training", 2),
    ("writing metrics", 0),  # the row is on disk, the checkpoint is not
    ("generating", 2),  # round 1, after its last chunk but before the stage is whole
    ("evaluating", 0),  # end of round 1
    ("training", 3),
)
SETTINGS = {
    "self": (("judge=self",), EVERYWHERE),
    "previous weights judge, initial reference": (
        ("judge=self", "judge.weights=previous", "learner.reference=initial"),
        (("training", 8), ("judging", 1)),
    ),
    "dpo": (("judge=random", "learner=dpo", "pairing.budget=40"), (("training", 4),)),
    "a critic, a reward model, replay, an adaptive KL, samples anew within a round": (
        (
            "judge=self",
            "learner=ppo",
            "learner.reward=reward_model",
            "learner.kl_weight=0.05",
            "learner.target_kl=0.5",
            "reward_model=bradley_terry",
            "reward_model.members=2",
            "reward_model.data=all",
            "replay.window=2",
            "sync_every=3",
            "judge.weights=previous",
        ),
        (("generating", 4), ("training", 3), ("judging", 2), ("training", 9)),
    ),
    "nothing to learn from": (("judge=oracle", "learner=no_update", "policy.steps=1"), (("judging", 1),)),
}
"""Overrides, and where the run dies, one process after the other."""


def optimizer_state(run: Path) -> dict:
    """Of the newest checkpoint; empty for a run that never took a step, of which there is none."""
    checkpoints = sorted((run / "checkpoints").glob("*.ckpt"))
    return torch.load(checkpoints[-1], weights_only=False)["optimizer_states"][0] if checkpoints else {}


def detector_state(run: Path) -> list:
    """The evidence in the newest checkpoint."""
    newest = sorted((run / "checkpoints").glob("*.ckpt"))[-1:]
    return [torch.load(file, weights_only=False)["callbacks"]["PlateauDetector"]["held"] for file in newest]


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "deaths"), SETTINGS.values(), ids=SETTINGS)
def test_killed_and_resumed_equals_straight(
    setting: tuple[str, ...], deaths: tuple[tuple[str, int], ...], cache: Path, tmp_path: Path
) -> None:
    straight = tmp_path / "straight"
    done = killed_lab(cache, "never", 0, *SMALL, *setting, f"hydra.run.dir={straight}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr

    run = tmp_path / "killed"
    for stage, call in deaths:
        died = killed_lab(cache, stage, call, *SMALL, *setting, f"hydra.run.dir={run}", "resume=true", cwd=tmp_path)
        assert died.returncode == -signal.SIGKILL, (stage, died.stderr)
    resumed = killed_lab(cache, "never", 0, *SMALL, *setting, f"hydra.run.dir={run}", "resume=true", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr

    assert rows(run) == rows(straight)
    assert weights(run) == weights(straight)
    torch.testing.assert_close(optimizer_state(run), optimizer_state(straight), rtol=0, atol=0)
    assert detector_state(run) == detector_state(straight)
    assert not list(run.glob("round_*/.*")), "part files are gone once their stage is whole"


@pytest.mark.slow
def test_rlaif_resume_command_and_two_runs_same_bytes(cache: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "it's a=second, folder"
    assert lab(cache, *SMALL, f"hydra.run.dir={first}", cwd=tmp_path).returncode == 0
    command = [sys.executable, "-m", "rlaif_lab", *SMALL, f'hydra.run.dir="{second}"']
    with subprocess.Popen(command, cwd=tmp_path, env=environment(cache), stderr=subprocess.PIPE) as process:
        while process.poll() is None and not (second / "round_001" / "generations.parquet").exists():
            time.sleep(0.01)
        process.kill()  # from outside, wherever it happens to be
    assert process.returncode == -signal.SIGKILL
    command = [sys.executable, "-c", "from rlaif_lab.cli.lab import resume; resume()", str(second)]
    done = subprocess.run(command, cwd=tmp_path, env=environment(cache), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert weights(first) == weights(second)
    assert rows(first) == rows(second)


@pytest.mark.slow
def test_more_rounds_extend_a_finished_run(cache: Path, tmp_path: Path) -> None:
    long, extended = tmp_path / "long", tmp_path / "extended"
    assert lab(cache, *SMALL, f"hydra.run.dir={long}", cwd=tmp_path).returncode == 0
    assert lab(cache, *SMALL, "rounds=2", f"hydra.run.dir={extended}", cwd=tmp_path).returncode == 0
    assert lab(cache, *SMALL, f"hydra.run.dir={extended}", "resume=true", cwd=tmp_path).returncode == 0
    assert weights(long) == weights(extended)
    by_round = {row["round"]: row for row in rows(extended)}
    assert list(by_round.values()) == rows(long)
    assert detector_state(extended) == detector_state(long) != []

    files = {file: file.read_bytes() for file in long.rglob("*") if file.is_file() and file.suffix != ".yaml"}
    assert lab(cache, *SMALL, f"hydra.run.dir={long}", "resume=true", cwd=tmp_path).returncode == 0
    del files[long / "config.json"]  # tells resume=true
    assert {file: file.read_bytes() for file in files} == files, "a finished run, resumed, stays as it is"
    assert not (long / "round_003" / "generations.parquet").exists()


@pytest.mark.slow
def test_a_run_that_stops_on_its_plateau_is_whole_and_goes_no_further_when_resumed(cache: Path, tmp_path: Path) -> None:
    """This policy learns nothing in a round, least of all 0.3; one run needs some rounds to say so of the trend."""
    run = tmp_path / "run"
    stop = ("detector.delta=0.3", "detector.stop_on_plateau=true", "rounds=16", f"hydra.run.dir={run}")
    died = killed_lab(cache, "writing metrics", 0, *SMALL, *stop, cwd=tmp_path)
    assert died.returncode == -signal.SIGKILL
    for _ in range(2):
        done = lab(cache, *SMALL, *stop, "resume=true", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        logged = rows(run)
        last = logged[-1]["round"]
        assert [row["round"] for row in logged] == list(range(last + 1))
        assert last < 16
        assert logged[-1]["trend/plateau_alarm"] == 1.0
        assert logged[-1]["trend/plateau_evidence"] >= logged[-1]["trend/plateau_threshold"]
        assert "coverage/pass_at_8" in logged[-1]
        assert json.loads((run / "stopped.json").read_text())["round"] == last
        assert (run / "policy" / "model.safetensors").exists()
