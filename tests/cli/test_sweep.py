"""How a job ended, as its folder says it, and the command lines that go on with a sweep."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from rlaif_lab.cli.sweep import (
    LEFT_OUT,
    Planned,
    Sweep,
    finish,
    in_own_process,
    job_names,
    killed,
    name_by_all_that_is_swept,
    planned,
    recorded,
    resumed,
)
from rlaif_lab.config import config_dir, job_folder
from rlaif_lab.store.files import TryLaterError
from rlaif_lab.store.outcome import (
    Failure,
    being_worked_on,
    exclusive_access,
    failure,
    finished_rounds,
    is_whole,
    read_failure,
    read_outcome,
    write_failure,
    write_finished,
)


def job(folder: Path, *overrides: str, rounds: int | None = None, failed: Failure | None = None) -> Path:
    """A job's folder; rounds: it finished with so many."""
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(list(overrides), folder / ".hydra" / "overrides.yaml")
    if rounds is not None:
        write_finished(folder, rounds)
        (folder / "metrics.jsonl").write_text(f'{{"round": {rounds}}}\n')
    if failed is not None:
        write_failure(folder, failed)
    return folder


# --- how it ended -----------------------------------------------------------------------------------------------------
def test_a_run_is_alone_in_its_folder_and_begins_with_a_clean_one(tmp_path: Path) -> None:
    write_finished(tmp_path, 2)
    write_failure(tmp_path, Failure("X", "it broke", "2026-01-01T00:00:00+00:00"))
    assert not being_worked_on(tmp_path)
    assert read_outcome(tmp_path) == "failed: it broke"
    with exclusive_access(tmp_path):
        assert (finished_rounds(tmp_path), read_failure(tmp_path)) == (None, None)
        assert being_worked_on(tmp_path)
        assert read_outcome(tmp_path) == "a process is still working on it"
        with pytest.raises(ValueError, match="another process is working on the run"), exclusive_access(tmp_path):
            pytest.fail("there were two")
    assert not being_worked_on(tmp_path)
    assert read_outcome(tmp_path) == "interrupted or killed"


def test_a_lock_goes_with_the_process_that_held_it(tmp_path: Path) -> None:
    def hold(ready: object) -> None:
        with exclusive_access(tmp_path):
            ready.set()  # type: ignore[attr-defined]
            signal.pause()

    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=hold, args=(ready,))
    holder.start()
    assert ready.wait(30)
    assert being_worked_on(tmp_path)
    holder.kill()
    holder.join()
    assert not being_worked_on(tmp_path)


def test_a_failure_says_what_the_user_can_mend_in_a_sentence_and_all_else_with_its_traceback(tmp_path: Path) -> None:
    for error, sentence, traced in (
        (ValueError("rounds must be\n  at least 1"), "rounds must be at least 1", False),
        (ValueError(), "ValueError: ", False),
        (KeyError("x"), "KeyError: 'x'", True),
    ):
        try:
            raise error
        except Exception as caught:
            write_failure(tmp_path, failure(caught))
        found = read_failure(tmp_path)
        assert found is not None
        assert (found.sentence, bool(found.traceback)) == (sentence, traced)
    (tmp_path / "failed.json").write_text('{"half')
    assert read_failure(tmp_path) is None


def test_a_run_of_before_is_whole_by_its_metrics(tmp_path: Path) -> None:
    def log(*rounds: int) -> None:
        (tmp_path / "metrics.jsonl").write_text("".join(f'{{"round": {i}}}\n' for i in rounds))

    assert not is_whole(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"rounds": 3}))
    log(0, 1, 2)
    assert not is_whole(tmp_path)
    log(0, 1, 2, 3)
    assert is_whole(tmp_path)
    log(0, 1)
    (tmp_path / "stopped.json").write_text(json.dumps({"round": 1}))  # by the detector
    assert is_whole(tmp_path)


@pytest.mark.parametrize(
    ("how", "code"), [("fine", 0), ("raises", 1), ("killed", -9), ("exits", 7), ("ends without a word", 1)]
)
def test_work_in_a_process_of_its_own(tmp_path: Path, how: str, code: int) -> None:
    def work() -> None:
        if how == "raises":
            raise ValueError("no more")
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how in ("exits", "ends without a word"):
            sys.exit(7 if how == "exits" else 0)

    assert in_own_process(work, tmp_path) == code
    found = read_failure(tmp_path)
    sentences = {
        "raises": "no more",
        "exits": "its process ended with exit code 7 before the run was finished",
        "ends without a word": "its process ended with exit code 0 before the run was finished",
    }
    assert (None if found is None else found.sentence) == sentences.get(how)
    if how == "killed":
        assert killed(code).error == "SIGKILL"
        assert "short of memory" in killed(code).sentence


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_a_job_ends_with_the_sweep_that_started_it(tmp_path: Path) -> None:
    code = (
        "import time\nfrom pathlib import Path\nfrom rlaif_lab.cli.sweep import in_own_process\n"
        "def work():\n    print('working', flush=True)\n    time.sleep(600)\n"
        f"in_own_process(work, Path({str(tmp_path)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "working\n"
        parent.kill()
        assert parent.stdout.read() == ""  # the pipe's other end is closed, so both have ended


# --- what became of the jobs ------------------------------------------------------------------------------------------
def test_jobs_are_named_by_what_tells_them_apart(tmp_path: Path) -> None:
    jobs = [job(tmp_path / f"of {judge}", f"judge={judge}", "seed=0", "rounds=3") for judge in "ab"]
    assert job_names(tmp_path, jobs) == ["judge=a", "judge=b"]
    assert job_names(tmp_path, jobs[:1]) == ["of a"]


def test_a_sweep_ends_with_a_line_that_names_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my sweep"
    job(folder / "0", "seed=0", rounds=3)
    monkeypatch.setattr(Sweep, "current", (folder, "2026-02-01T00:00:00.000+00:00"))
    assert finish(broken_off=False) == 0
    assert capsys.readouterr().out == "all 1 jobs finished; see them with: rlaif-report 'my sweep'\n"
    assert finish(broken_off=True) == 1
    assert "the sweep broke off, with 1 jobs finished; run what is missing with" in capsys.readouterr().err

    later = "2026-02-02T00:00:00.000+00:00"
    for seed in (1, 2):
        job(folder / str(seed), f"seed={seed}", failed=Failure("ValueError", "no disk", later))
    job(folder / "3", "seed=3")
    # This sweep could not have its folder, which holds another run; what failed in an earlier sweep is whole by now.
    job(folder / "4", "seed=4", rounds=3, failed=Failure("ValueError", "taken", later))
    job(folder / "5", "seed=5", rounds=3, failed=Failure("ValueError", "old", "2026-01-02T00:00:00.000+00:00"))
    assert finish(broken_off=False) == 1
    assert capsys.readouterr().err == (
        "rlaif-lab: 4 of 6 jobs did not finish (seed=1, seed=2: no disk; seed=3: it was killed before it could say "
        "why; seed=4: taken); run what is missing with: rlaif-resume 'my sweep'\n"
    )


def test_a_sweep_whose_jobs_only_wait_has_not_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    later = "2026-02-02T00:00:00.000+00:00"
    job(tmp_path / "s" / "0", "seed=0", rounds=3)
    try:
        raise TryLaterError("3 labels are missing")
    except TryLaterError as error:
        problem = replace(failure(error), time=later)
    job(tmp_path / "s" / "1", "seed=1", failed=problem)
    assert read_outcome(tmp_path / "s" / "1") == "waiting: 3 labels are missing"
    monkeypatch.setattr(Sweep, "current", (tmp_path / "s", "2026-02-01T00:00:00.000+00:00"))
    assert finish(broken_off=False) == 75
    assert capsys.readouterr().err == (
        "rlaif-lab: 1 of 2 jobs wait (seed=1: 3 labels are missing); continue with: rlaif-resume s\n"
    )
    job(tmp_path / "s" / "2", "seed=2", failed=Failure("ValueError", "no disk", later))
    assert finish(broken_off=False) == 1, "one that failed is more than one that waits"


def test_jobs_that_never_began_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = OmegaConf.create(
        {
            "hydra": {
                "sweeper": {"_target_": "hydra._internal.BasicSweeper", "params": {"judge": "a,b"}},
                "overrides": {"task": ["seed=0,1", "rounds=3"]},
            }
        }
    )
    plan = planned(config)
    assert plan.count == 4
    assert plan.overrides[1] == ("judge=a", "seed=1", "rounds=3")
    job(tmp_path / "sweep" / "0", *plan.overrides[0], rounds=3)
    monkeypatch.setattr(Sweep, "current", (tmp_path / "sweep", ""))
    monkeypatch.setattr(Sweep, "plan", plan)
    assert finish(broken_off=True) == 1
    assert "3 of 4 jobs did not finish (judge=a seed=1, judge=b seed=0, judge=b seed=1: never began)" in (
        capsys.readouterr().err
    )
    monkeypatch.setattr(Sweep, "plan", Planned(5))  # a search: how many, but not which
    assert finish(broken_off=True) == 1
    assert "4 of 5 jobs did not finish (4 more: never began)" in capsys.readouterr().err


def test_a_finished_job_whose_numbers_are_damaged_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        job(tmp_path / str(seed), f"seed={seed}", rounds=3)
        (tmp_path / str(seed) / "finished.json").write_text('{"rounds": 3}')
    (tmp_path / "1" / "metrics.jsonl").write_bytes(bytes(100) + b"\n")
    monkeypatch.setattr(Sweep, "current", (tmp_path, ""))
    assert finish(broken_off=False) == 1
    assert "1 of 2 jobs did not finish (seed=1: " in (said := capsys.readouterr().err)
    assert "metrics.jsonl, line 1" in said


def test_no_sweep_no_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Sweep, "current", None)
    assert finish(broken_off=True) == 0
    assert capsys.readouterr() == ("", "")


# --- going on ---------------------------------------------------------------------------------------------------------
def record(folder: Path, task: list[str], hydra: list[str]) -> Path:
    folder.mkdir(parents=True)
    OmegaConf.save({"hydra": {"overrides": {"task": task, "hydra": hydra}}}, folder / "multirun.yaml")
    return folder


def test_a_sweep_goes_on_with_all_that_it_was_started_with(tmp_path: Path) -> None:
    started = ["experiment=x", "judge=self,oracle", "resume=true"], ["hydra.mode=MULTIRUN", "hydra.launcher.n_jobs=4"]
    folder = record(tmp_path / "it's, a=sweep", *started)
    place = f"hydra.sweep.dir='{tmp_path}/it\\'s, a=sweep'"
    whole = ["--multirun", "experiment=x", "judge=self,oracle", "hydra.launcher.n_jobs=4", place, "resume=true"]
    found = recorded(folder)
    assert found is not None
    assert resumed(found, []) == whole
    assert resumed(found, ["seed=0,1"]) == [*whole, "seed=0,1"]
    other = resumed(found, ["hydra/launcher=basic"])
    assert "hydra.launcher.n_jobs=4" not in other, "which only the first launcher knows"


def test_the_newest_sweep_of_a_folder(tmp_path: Path) -> None:
    for age, name in enumerate(("new", "old")):
        record(tmp_path / name, [f"seed={age}"], [])
        os.utime(tmp_path / name / "multirun.yaml", (1000 - age, 1000 - age))
    found = recorded(tmp_path)
    assert found is not None
    assert "seed=0" in resumed(found, [])
    assert f"hydra.sweep.dir='{tmp_path}/new'" in resumed(found, [])
    assert recorded(tmp_path / "nowhere") is None


@pytest.mark.parametrize("content", ["- a\n b: {", "{}", "- 3", ""])
def test_a_broken_record_of_the_overrides_is_one_sentence(tmp_path: Path, content: str) -> None:
    run = job(tmp_path / "run", "seed=1")
    (run / ".hydra" / "overrides.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"overrides\.yaml' is corrupt"):
        recorded(run)
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").write_text(content)
    with pytest.raises(ValueError, match=r"multirun\.yaml' is corrupt"):
        recorded(tmp_path / "sweep")


def test_a_run_goes_on_by_itself(tmp_path: Path) -> None:
    run = job(tmp_path / "run", "judge=self", "seed=1")
    found = recorded(run)
    assert found is not None
    assert resumed(found, ["rounds=9"]) == [
        "judge=self",
        "seed=1",
        "hydra.mode=RUN",
        f"hydra.run.dir='{run}'",
        "resume=true",
        "rounds=9",
    ]


# --- where a job lies -------------------------------------------------------------------------------------------------
def test_a_jobs_folder_is_named_by_its_overrides_alone() -> None:
    assert job_folder("judge-self_seed-0") == "judge-self_seed-0"
    long = "_".join(f"task.key{i}-{i}" for i in range(40))
    name = job_folder(long)
    assert name == job_folder(long)
    assert len(name.encode()) <= 255
    assert name != job_folder(long + "0")
    assert name.startswith("task.key0-0_task.key1-1")


@pytest.mark.parametrize(
    ("swept", "left_out"),
    [
        (["rounds=1,2"], "[experiment,resume,prompts_per_round]"),
        (["experiment=learners,real_lm", "prompts_per_round=choice(8,16)"], "[resume,rounds]"),
        (["rounds=range(1,3)"], "[experiment,resume,prompts_per_round]"),
        (["rounds=2", "seed=0,1"], None),
    ],
)
def test_what_a_sweep_varies_is_in_the_names_of_its_folders(swept: list[str], left_out: str | None) -> None:
    with initialize_config_dir(config_dir(), version_base="1.3"):
        cfg = compose("config", overrides=["hydra.mode=MULTIRUN"], return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.overrides.task = swept
        cfg.hydra.overrides.hydra = []
    name_by_all_that_is_swept(cfg)
    assert list(cfg.hydra.overrides.hydra) == ([f"{LEFT_OUT}={left_out}"] if left_out else [])
