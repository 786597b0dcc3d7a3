"""Whatever ends a run before it has finished: a code that is not 0, one sentence with the command that goes on, and the
reason in its folder."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from end_to_end.lab import SMALL, environment, rows, weights

LAB = (sys.executable, "-m", "rlaif_lab")
RESUME = (sys.executable, "-c", "from rlaif_lab.cli.lab import resume; resume()")


def start(cache: Path, cwd: Path, *command: str, **options: object) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=cwd, env=environment(cache), stdout=pipe, stderr=pipe, text=True, process_group=0, **options
    )


def once(process: subprocess.Popen[str], folder: Path, pattern: str) -> Path:
    """Waits until there is such a file, while the process lives."""
    end = time.monotonic() + 120
    while not (found := list(folder.glob(pattern))):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.02)
    return found[0]


@pytest.mark.slow
def test_every_signal_is_told_and_the_run_goes_on_as_if_there_had_been_none(cache: Path, tmp_path: Path) -> None:
    straight, run = tmp_path / "straight", tmp_path / "run"
    assert start(cache, tmp_path, *LAB, *SMALL, f"hydra.run.dir={straight}").wait(300) == 0
    first = (*LAB, *SMALL, "hydra.run.dir=run")
    places = {"SIGTERM": "round_000/pairs.parquet", "SIGINT": "round_001/generations.parquet", "SIGHUP": "round_002"}
    for name, file in places.items():
        process = start(cache, tmp_path, *(first if name == "SIGTERM" else (*RESUME, "run")))
        once(process, run, file)
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 128 + getattr(signal, name), errors
        assert errors.splitlines()[-1] == f"rlaif-lab: interrupted by {name}; continue with: rlaif-resume run"
        assert "Traceback" not in errors
        failed = json.loads((run / "failed.json").read_text())
        assert (failed["error"], failed["sentence"]) == (name, f"interrupted by {name}")
        assert not (run / "finished.json").exists()
    assert start(cache, tmp_path, *RESUME, "run").wait(300) == 0
    assert not (run / "failed.json").exists()
    assert rows(run) == rows(straight)
    assert weights(run) == weights(straight)
    assert names(run) == names(straight)


def names(run: Path) -> set[str]:
    return {str(file.relative_to(run)) for file in run.rglob("*")}


@pytest.mark.slow
def test_an_interrupted_sweep_counts_the_jobs_that_never_began(cache: Path, tmp_path: Path) -> None:
    swept = (*LAB, "-m", *SMALL, "seed=0,1,2,3", "hydra.sweep.dir=sweep")
    process = start(cache, tmp_path, *swept)
    once(process, tmp_path / "sweep", "*/round_000/generations.parquet")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert errors.splitlines()[-1] == (
        "rlaif-lab: 4 of 4 jobs did not finish (seed=0: interrupted by SIGINT; seed=1, seed=2, seed=3: never began); "
        "run what is missing with: rlaif-resume sweep"
    )


@pytest.mark.slow
def test_a_job_that_is_told_to_end_is_none_that_has_finished(cache: Path, tmp_path: Path) -> None:
    """SIGTERM ended Lightning without an exit code: the sweeper was told the quality of round 0."""
    search = (
        *(
            "hydra/sweeper=optuna",
            "hydra.sweeper.n_trials=1",
            "hydra.sweeper.n_jobs=1",
            "hydra.sweeper.direction=maximize",
        ),
        *("trainer.learning_rate=interval(1e-4,2e-4)", "hydra.sweep.dir=sweep"),
    )
    process = start(cache, tmp_path, *LAB, "-m", *SMALL, *search)
    begun = once(process, tmp_path / "sweep", "*/metrics.jsonl")
    (child,) = children(process.pid)
    os.kill(child, signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1, errors
    assert "1 of 1 jobs did not finish" in errors.splitlines()[-1]
    assert "interrupted by SIGTERM" in errors.splitlines()[-1]
    assert not (tmp_path / "sweep" / "optimization_results.yaml").exists()
    assert not (begun.parent / "finished.json").exists()


def children(pid: int) -> list[int]:
    """Processes whose parent this is, and that run Python."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(state[1]) == pid and state[0] != "Z" and b"rlaif_lab" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_a_file_that_may_not_grow_ends_the_run_in_one_sentence(cache: Path, tmp_path: Path) -> None:
    """EFBIG, as of a quota: the first checkpoint is larger than what is allowed."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    assert (cache / "organisms").is_dir(), "an earlier test has built the organisms"
    process = start(cache, tmp_path, *LAB, *SMALL, "hydra.run.dir=run", preexec_fn=limited)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2, errors
    (line,) = [line for line in errors.splitlines() if line.startswith("rlaif-lab: ")]
    assert "cannot write" in line and "File too large" in line and line.endswith("continue with: rlaif-resume run")
    assert "File too large" in json.loads((tmp_path / "run" / "failed.json").read_text())["sentence"]
    assert start(cache, tmp_path, *RESUME, "run").wait(300) == 0
