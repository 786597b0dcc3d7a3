"""Sweeps as users start them, under every launcher: a job that fails is told, and what is missing is run, no more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from end_to_end.lab import SMALL, environment, rows, weights
from omegaconf import OmegaConf

from rlaif_lab.report.arms import study
from rlaif_lab.report.load import load

MORTAL = (
    *(override for override in SMALL if override != "task.digits=2"),
    "task=pair_sum",  # even who knows next to nothing is right at times, so that runs differ in quality
    "policy.steps=60",
    "rounds=1",
    "judge=random",
    "judge._target_=end_to_end.mortal.MortalJudge",
)
TESTS = Path(__file__).resolve().parents[1]
RESUME = "from rlaif_lab.cli.lab import resume; resume()"


def started(cache: Path, sweep: Path, *command: str) -> subprocess.Popen[str]:
    """In a process group of its own. Judges of different sweeps die independently."""
    env = environment(cache) | {"SWEEP_UNDER_TEST": sweep.name, "RAY_AUTH_MODE": "disabled"}
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(TESTS))))
    pipe = subprocess.PIPE
    command = (sys.executable, *command)
    return subprocess.Popen(command, cwd=sweep.parent, env=env, stdout=pipe, stderr=pipe, text=True, process_group=0)


def ended(process: subprocess.Popen[str], code: int) -> tuple[str, list[str]]:
    """What it printed, and the lines it wrote to stderr."""
    out, errors = process.communicate(timeout=300)
    assert process.returncode == code, (out, errors)
    return out, errors.splitlines()


def sweep_of(cache: Path, sweep: Path, *overrides: str) -> subprocess.Popen[str]:
    # The folder is relative to where the sweep was started, as a user gives it.
    return started(cache, sweep, "-m", "rlaif_lab", "-m", *MORTAL, *overrides, f"hydra.sweep.dir={sweep.name}")


def jobs(sweep: Path) -> dict[str, Path]:
    """Folders by the override that tells a job from the others."""
    found = {}
    for file in sweep.glob("*/.hydra/overrides.yaml"):
        (override,) = (o for o in OmegaConf.to_container(OmegaConf.load(file)) if "dies" in o)
        found[override.partition("=")[2]] = file.parents[1]
    return found


def stamps(run: Path) -> dict[str, int]:
    """When each file of a run was last written, but for Hydra's record of how it was asked for."""
    return {str(f): f.stat().st_mtime_ns for f in run.rglob("*") if f.is_file() and ".hydra" not in f.parts}


LAUNCHERS = {
    "basic": ("hydra/launcher=basic",),
    "submitit": ("hydra/launcher=submitit_local",),
    "ray": ("hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_failed_job_ends_neither_the_sweep_nor_the_others(launcher: str, cache: Path, tmp_path: Path) -> None:
    sweep = tmp_path / launcher
    dies = ("killed", "raises", "never") if launcher == "basic" else ("killed", "never")
    arguments = (*LAUNCHERS[launcher], f"+judge.dies={','.join(dies)}")
    _, errors = ended(sweep_of(cache, sweep, *arguments), 1)
    if any("timed out during startup" in line for line in errors):
        pytest.skip("Ray's own processes did not start within its 30 seconds: the machine is too busy")
    found = jobs(sweep)
    assert set(found) == set(dies)
    assert [row["round"] for row in rows(found["never"])] == [0, 1]
    sampled = [found[how] / "round_000" / "generations.parquet" for how in ("killed", "never")]
    assert sampled[0].samefile(sampled[1]), "what the untrained policy writes is sampled once for all arms"
    told = next(line for line in reversed(errors) if line.startswith("rlaif-lab: "))
    assert f"{len(dies) - 1} of {len(dies)} jobs did not finish (" in told
    assert "+judge.dies=killed: its process was killed by SIGKILL" in told
    assert told.endswith(f"run what is missing with: rlaif-resume {launcher}")
    assert json.loads((found["killed"] / "failed.json").read_text())["error"] == "SIGKILL"
    if launcher != "basic":
        return

    assert "+judge.dies=raises: the judge has gone home" in told
    problems = {problem.name: problem.reason for problem in study(load(sweep), sweep.name).problems}
    assert set(problems) == {found["killed"].name, found["raises"].name}
    assert problems[found["raises"].name] == "failed: the judge has gone home: no round was logged"
    assert problems[found["killed"].name].startswith("failed: its process was killed by SIGKILL")


@pytest.mark.slow
def test_a_sweep_killed_anywhere_and_resumed_equals_a_straight_one(cache: Path, tmp_path: Path) -> None:
    """joblib, two at a time; in the straight one, the first job's process is killed and that job alone run again."""
    axes = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "+judge.dies=killed,never", "seed=0,1", "rounds=2")

    straight = tmp_path / "straight"
    ended(sweep_of(cache, straight, *axes), 1)
    whole = [file.parent for file in straight.glob("*/finished.json")]
    before = [stamps(run) for run in whole]
    out, _ = ended(started(cache, straight, "-c", RESUME, straight.name, "hydra/launcher=basic"), 0)
    assert "all 4 jobs finished" in out
    assert (out.count("finished before"), out.count("finished in")) == (3, 1)
    assert [stamps(run) for run in whole] == before
    assert not list(straight.glob("*/failed.json"))

    broken = tmp_path / "multirun" / "broken"
    broken.parent.mkdir()
    (cache / "broken killed").touch()  # its judges do not die
    process = sweep_of(cache, broken, *axes)
    while process.poll() is None and not list(broken.glob("*/finished.json")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    whole = [file.parent for file in broken.glob("*/finished.json")]
    assert 1 <= len(whole) < 4
    before = [stamps(run) for run in whole]
    out, _ = ended(started(cache, broken, "-c", RESUME, ".", "hydra/launcher=basic"), 0)
    assert f"going on with the newest sweep in {broken.parent}: broken" in out
    assert out.count("finished before") == len(whole)
    assert [stamps(run) for run in whole] == before
    for file in straight.glob("*/metrics.jsonl"):
        same = broken / file.parent.name
        assert rows(same) == rows(file.parent)
        assert weights(same) == weights(file.parent)


@pytest.mark.slow
def test_optuna_maximises_the_final_quality_and_outlives_a_failed_trial(cache: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "search"
    search = (
        "hydra/sweeper=search",
        "hydra.sweeper.n_trials=4",
        "hydra.sweeper.n_jobs=1",
        "+judge.dies=choice(never,raises)",
        "trainer.learning_rate=interval(1e-5,1e-4)",
        "seed=range(0,3)",  # what tells the qualities of so short runs apart
    )
    _, errors = ended(sweep_of(cache, sweep, *search), 1)
    finished = [file.parent for file in sweep.glob("*/finished.json")]
    assert len(finished) == 3  # of four: the judge dies once
    assert "1 of 4 jobs did not finish (" in errors[-1]
    qualities = [rows(run)[-1]["quality/sampled"] for run in finished]
    best = OmegaConf.load(sweep / "optimization_results.yaml")
    assert best.best_value == max(qualities)
