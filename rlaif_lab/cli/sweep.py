"""Sweeps: every job in a process of its own, what became of them, and going on with one.

A job that fails, or is killed, ends neither the sweep nor the jobs after it, whatever launches them: Hydra's basic
sweeper would give up at the first exception, and a pool of workers when one of them dies.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from rlaif_lab import ranks
from rlaif_lab.cli.origin import origin_of
from rlaif_lab.cli.trust import remember
from rlaif_lab.config import check, plain
from rlaif_lab.progress import Terminal, printable
from rlaif_lab.store.children import die_with, end
from rlaif_lab.store.files import MULTIRUN, TryLaterError
from rlaif_lab.store.interrupts import Interrupted, ignore, interruptible
from rlaif_lab.store.outcome import (
    Failure,
    being_worked_on,
    exclusive_access,
    failure,
    finished_rounds,
    is_whole,
    now,
    read_failure,
    resume_command,
    write_failure,
)
from rlaif_lab.store.rows import read_metrics
from rlaif_lab.store.sweep_cache import SHARED

LEFT_OUT = "hydra.job.config.override_dirname.exclude_keys"
OVERRIDES = Path(".hydra") / "overrides.yaml"  # and of a job


class NoObjectiveError(Exception):
    """What an optimising sweeper is told of a job without an objective: nan would end its study."""


# --- one job ----------------------------------------------------------------------------------------------------------
def run_job(cfg: DictConfig, folder: Path) -> float:
    """Return the final true quality of one job of a sweep, nan where it failed. What has finished before is not run
    again."""
    label, start = f"{cfg.arm}, seed {cfg.seed}", time.perf_counter()
    Terminal.sweep = True
    # Bars of several jobs would overwrite each other.
    Terminal.bars = str(HydraConfig.get().launcher._target_).endswith(".BasicLauncher")  # one job after the other
    cfg.resume = cfg.resume or not swept_through()  # a trial that is asked for twice is answered by the first
    noted(folder)
    # The sweep too: it may be resumed as a whole.
    noted(Path(str(HydraConfig.get().sweep.dir)).absolute())
    try:
        check(cfg)
        if ranks.started_from_outside() is not None:
            raise ValueError("a sweep starts its jobs itself: use torchrun or srun with several tasks for single runs")
        from rlaif_lab.loop.run import Run

        # What jobs have in common lies in the sweep's folder.
        loop = Run(cfg, folder, Path(str(HydraConfig.get().sweep.dir)).absolute() / SHARED)
        if loop.finished():
            print(f"{label}: finished before, {loop.result()}", flush=True)
            return report_objective(loop.objective())
        # Before the fork: the child inherits them, and does not import them again.
        import_libraries()
        # Signals first, then the GPUs, then the lock: what is taken last is given back first.
        with interruptible(), own_gpus(cfg), exclusive_access(folder):
            code = in_own_process(loop.fit, folder)
    # The sweep is to end, not this job alone.
    except Interrupted as error:
        print(printable(f"{label}: {error}"), file=sys.stderr, flush=True)
        raise
    # One job's failure is not the sweep's: it is written down, and the next one runs.
    except Exception as error:
        problem = failure(error)
        write_failure(folder, problem)
        if problem.traceback:
            print(printable(problem.traceback), file=sys.stderr)
    else:
        # Both: a child may end with 0 without having finished (a library that calls exit).
        if not code and finished_rounds(folder) is not None:
            Terminal.named = True
            print(f"{label}: finished in {time.perf_counter() - start:.0f} s, {loop.result()}", flush=True)
            return report_objective(loop.objective())
        # The child has said why, if it could; a kill leaves nothing but its signal.
        problem = read_failure(folder) or killed(code)
        write_failure(folder, problem)
    how = "waiting" if problem.waits else "failed"
    print(printable(f"{label}: {how}: {problem.sentence}"), file=sys.stderr, flush=True)
    return report_objective(float("nan"), problem.sentence)


def own_gpus(cfg: DictConfig) -> AbstractContextManager[Any]:
    """Return the lease of a job's GPUs, where several jobs run on this machine at a time; Ray and Slurm give each of
    theirs some by themselves."""
    from rlaif_lab.cli.gpus import leased, visible

    together = "joblib" in str(HydraConfig.get().launcher._target_).lower()
    if not together or cfg.trainer.get("accelerator", "cpu") not in ("gpu", "cuda", "auto"):
        return nullcontext()
    gpus, count = visible(), int(cfg.trainer.get("devices", 1))
    # Fewer than a job asks for: the check of devices says so in its own words.
    return leased(count, gpus) if len(gpus) >= count else nullcontext()


def import_libraries() -> None:
    """Import what every job needs and takes seconds to import: once for all jobs of this process."""
    from transformers import AutoModelForCausalLM, LlamaForCausalLM  # noqa: F401

    import rlaif_lab.loop.fit  # noqa: F401


def swept_through() -> bool:
    """Return whether this sweep tries every combination once, with no use for an objective."""
    return str(HydraConfig.get().sweeper._target_).endswith(".BasicSweeper")


def report_objective(objective: float, problem: str = "") -> float:
    """Return the objective, in the way that the sweeper can take it."""
    if swept_through() or not math.isnan(objective):
        return objective
    # An optimiser would take nan for a value; the exception makes it a failed trial.
    raise NoObjectiveError(problem or "no objective: the task has no gold, and no judge gave a win rate")


def in_own_process(work: Callable[[], Any], folder: Path) -> int:
    """Run ``work`` in a child process, which ends with this one. Returns its exit code, negative for a signal; an
    exception of ``work`` is kept in the folder, and gives 1.

    By fork: the libraries are loaded already, and nothing has been computed, or asked of a GPU, in this process.
    """
    child = multiprocessing.get_context("fork").Process(target=_child, args=(work, folder, os.getpid()))
    child.start()
    try:
        child.join()
    except BaseException as error:
        # The child is told to end and waited for: it writes down how far it came.
        end(child)
        # Unless it has said so itself.
        if finished_rounds(folder) is None and read_failure(folder) is None:
            write_failure(folder, failure(error))
        raise
    assert child.exitcode is not None
    return child.exitcode


def _child(work: Callable[[], Any], folder: Path, parent: int) -> None:
    die_with(parent)
    code = 0
    try:
        with interruptible():
            work()
    except BaseException as error:  # SystemExit too, which some library may raise in place of an error
        ignore()  # the sweep that was interrupted as well asks its job to end, too
        problem = failure(error)
        # It has finished: an interruption that came later takes nothing away.
        if finished_rounds(folder) is None:
            own = error.code if isinstance(error, (Interrupted, SystemExit, TryLaterError)) else 1
            code = own if isinstance(own, int) and own else 1
            write_failure(folder, problem)
        if problem.traceback:
            print(printable(problem.traceback), file=sys.stderr)
    # Nothing can interrupt the exit code any more.
    ignore()
    sys.exit(code)


def killed(code: int) -> Failure:
    """Return the failure of a process that could not say itself why it ended."""
    if code >= 0:
        return Failure("exit", f"its process ended with exit code {code} before the run was finished", now())
    name = signal.Signals(-code).name
    hint = "; if you did not do it, the machine was short of memory" if name == "SIGKILL" else ""
    return Failure(name, f"its process was killed by {name}{hint}", now())


# --- the whole sweep --------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Planned:
    """The jobs that a sweep is made of. overrides: of each, where they are known before; count: 0 where unknown."""

    count: int = 0
    overrides: tuple[tuple[str, ...], ...] = ()


class Sweep(Callback):
    """Hydra's hook: where the sweep that this process runs lies, since when, and what jobs it is made of."""

    current: tuple[Path, str] | None = None
    plan = Planned()

    def on_run_start(self, config: DictConfig, config_name: str | None = None, **_: Any) -> None:
        """Check the config while Hydra has not written anything. (A job of a sweep is checked when its turn comes.)"""
        from rlaif_lab.audit.config import check as check_audit
        from rlaif_lab.cli.command import before_writing

        before_writing(config, check_audit if config_name == "audit" else check)

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        from rlaif_lab.cli.command import before_writing
        from rlaif_lab.config.secrets import check_config

        # Jobs are checked one by one; of the whole sweep, keys in the wrong place.
        before_writing(config, lambda cfg: check_config(plain(cfg, resolve=False)))
        folder = Path(str(config.hydra.sweep.dir)).absolute()
        Sweep.current, Sweep.plan = (folder, now()), planned(config)
        name_by_all_that_is_swept(config)
        folder.mkdir(parents=True, exist_ok=True)
        # Without it nothing could be resumed.
        OmegaConf.save(config, folder / MULTIRUN)  # which not every sweeper does


def name_by_all_that_is_swept(config: DictConfig) -> None:
    """Let the names of jobs' folders tell keys that they leave out as a rule (rounds, ...) where these are swept."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    swept = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    try:
        parsed = OverridesParser.create().parse_overrides([*swept, *_strings(config.hydra.overrides.task)])
    except Exception:  # an interface of another version
        return
    # Keys that are swept over must tell folders apart, whatever is left out by default.
    keys = {override.key_or_group for override in parsed if override.is_sweep_override()}
    left_out = list(config.hydra.job.config.override_dirname.exclude_keys)
    if keys.isdisjoint(left_out):
        return
    kept = ",".join(key for key in left_out if key not in keys)
    with read_write(config), open_dict(config):  # each job is composed anew, with these
        config.hydra.overrides.hydra.append(f"{LEFT_OUT}=[{kept}]")


def planned(config: DictConfig) -> Planned:
    """Return the jobs that Hydra's sweeper is going to launch."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    sweeper = config.hydra.sweeper
    if not str(sweeper._target_).endswith(".BasicSweeper"):
        # An optimiser decides job by job; only their number is known.
        return Planned(int(sweeper.get("n_trials") or 0))
    swept = [f"{key}={value}" for key, value in (sweeper.get("params") or {}).items()]
    try:
        parsed = OverridesParser.create().parse_overrides([*swept, *_strings(config.hydra.overrides.task)])
        # As Hydra itself splits them, so that names and order are the same.
        batches = BasicSweeper.split_arguments(parsed, None)
    except Exception:  # a glob over choices, or an interface of another version: then they are not known
        return Planned()
    found = tuple(tuple(job) for batch in batches for job in batch)
    return Planned(len(found), found)


def finish(broken_off: bool) -> int:
    """Say what became of the jobs of the sweep that this process has run, if it has. Returns the exit code.

    broken_off: sweeper or launcher gave up, so that there may be jobs that have not even a folder."""
    if Sweep.current is None:
        return 0
    from rlaif_lab.report.load import run_folders

    folder, since = Sweep.current
    jobs = sorted(run_folders(folder))
    names = job_names(folder, jobs)
    missing = {name: reason for name, job in zip(names, jobs, strict=True) if (reason := why_missing(job, since))}
    # Jobs without a folder: the sweep broke off before their turn.
    unborn = never_began(Sweep.plan, jobs)
    missing |= dict.fromkeys(unborn, "never began")
    total = max(len(jobs) + len(unborn), Sweep.plan.count)
    command = resume_command(folder)
    if not missing and not broken_off:
        # Nobody needs it any more; the jobs' own files are links to the same content.
        shutil.rmtree(folder / SHARED, ignore_errors=True)
        print(f"all {total} jobs finished; see them with: rlaif-report {command.partition(' ')[2]}", flush=True)
        return 0
    if not missing:
        told = f"the sweep broke off, with {len(jobs)} jobs finished"
    else:
        finished = len(jobs) + len(unborn) - len(missing)
        # Nothing failed: the code says that it can be started again later.
        waiting = not unborn and all(waits(job, since) for job in jobs if why_missing(job, since))
        how = "wait" if waiting else "did not finish"
        told = f"{total - finished} of {total} jobs {how} ({_grouped(missing)})"
        if waiting and not broken_off:
            print(printable(f"rlaif-lab: {told}; continue with: {command}"), file=sys.stderr, flush=True)
            return TryLaterError.code
    print(printable(f"rlaif-lab: {told}; run what is missing with: {command}"), file=sys.stderr, flush=True)
    return 1


def never_began(plan: Planned, jobs: list[Path]) -> list[str]:
    """Return the names of planned jobs that have no folder."""
    if not plan.overrides:
        return [f"{plan.count - len(jobs)} more"] * (plan.count > len(jobs))
    # By overrides, not by names: folders of earlier versions are named otherwise.
    begun = [set(overrides_of(job)) for job in jobs]
    unborn = [overrides for overrides in plan.overrides if set(overrides) not in begun]
    # What all jobs share tells none of them.
    common = set.intersection(*map(set, plan.overrides))
    return [" ".join(o for o in overrides if o not in common) or " ".join(overrides) for overrides in unborn]


def _grouped(missing: dict[str, str], shown: int = 5) -> str:
    """Return the names of jobs by the reason that they have in common."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in missing.items():
        by_reason.setdefault(reason, []).append(name)
    return "; ".join(
        ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "") + f": {reason}"
        for reason, names in by_reason.items()
    )


def job_names(sweep: Path, jobs: list[Path]) -> list[str]:
    """Return the name of each job: its overrides that not all of them have, or its folder where those tell nothing."""
    given = [overrides_of(job) for job in jobs]
    planned = Sweep.plan.overrides if Sweep.current else ()  # one job of many has something of its own, too
    common = set.intersection(*map(set, [*given, *planned])) if given else set()
    own = [" ".join(o for o in overrides if o not in common) for overrides in given]
    return [name or str(job.relative_to(sweep)) for name, job in zip(own, jobs, strict=True)]


def why_missing(job: Path, since: str) -> str:
    """Return why a job of a sweep that began at ``since`` has no result of it; empty for one that has."""
    failed = read_failure(job)
    # From this sweep: what an earlier one wrote is reported only where nothing newer is known.
    if failed and failed.time >= since:
        return failed.sentence
    if is_whole(job):
        # Finished, and its numbers are as they were written.
        return damage(job)
    if being_worked_on(job):
        return "another process is still working on it"
    return failed.sentence if failed else "it was killed before it could say why"


def waits(job: Path, since: str) -> bool:
    """Return whether a job has not failed in the sweep that began at ``since``, but waits for somebody or something."""
    failed = read_failure(job)
    return failed is not None and failed.time >= since and bool(failed.waits)


def damage(job: Path) -> str:
    """Return what is wrong with the numbers of a job that has finished; empty for nothing."""
    try:
        if not read_metrics(job / "metrics.jsonl"):
            return f"{str(job / 'metrics.jsonl')!r} is missing or empty"
    except ValueError as error:
        return str(error)
    return ""


# --- going on ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Recorded:
    """What a folder says that started it. sweep: its multirun.yaml, None for a single run."""

    folder: Path
    overrides: list[str]
    sweep: Path | None = None


def recorded(folder: Path) -> Recorded | None:
    """Return what started the run or the sweep in ``folder``, or the newest sweep in it; None where there is none."""
    if (folder / OVERRIDES).is_file():
        return Recorded(folder, given_overrides(folder))
    sweeps = [folder / MULTIRUN] if (folder / MULTIRUN).is_file() else list(folder.glob(f"*/{MULTIRUN}"))
    if not sweeps:
        return None
    # By time: the newest is what was interrupted last.
    newest = max(sweeps, key=lambda file: file.stat().st_mtime)
    try:
        overrides: Any = OmegaConf.to_container(OmegaConf.load(newest).hydra.overrides)
        given = [*_strings(overrides["task"]), *_strings(overrides["hydra"])]
    except Exception as error:  # YAML's and OmegaConf's, of many kinds
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{str(newest)!r} is corrupt ({reason}): start the sweep again, with the same folder"
        ) from None
    return Recorded(newest.parent, given, newest)


def resumed(found: Recorded, changes: list[str]) -> list[str]:
    """Return the command line that goes on. changes: overrides that come after those it was started with."""
    if found.sweep is None:
        # RUN even where the command was a sweep's: one of its jobs is resumed by itself.
        own = ["hydra.mode=RUN", f"hydra.run.dir={_quoted(found.folder)}", "resume=true"]
        return [*found.overrides, *own, *changes]
    replaced = ["resume=", "hydra.mode=", "hydra.sweep.dir="]
    if any(change.startswith("hydra/launcher=") for change in changes):  # with settings of its own
        replaced += ["hydra/launcher=", "hydra.launcher."]
    kept = [override for override in found.overrides if not override.lstrip("+").startswith(tuple(replaced))]
    if "job_folder:" in found.sweep.read_text(encoding="utf-8"):  # an earlier version's, whose jobs have other names
        kept.append("hydra.sweep.subdir=${job_folder:${hydra:job.override_dirname}}")
    return ["--multirun", *kept, f"hydra.sweep.dir={_quoted(found.folder)}", "resume=true", *changes]


def noted(folder: Path) -> None:
    """Remember that whoever runs this has started the run or the sweep in ``folder``: its resumption is trusted."""
    try:
        # About this very folder: a sweep within another one has its own record.
        if (found := recorded(folder)) is not None and found.folder == folder:
            remember(found.overrides, origin_of(folder))
    except ValueError:
        return  # a broken record is told when it is resumed


def overrides_of(job: Path) -> list[str]:
    """Return the overrides that a job was started with; none where the file is missing or broken."""
    try:
        return given_overrides(job)
    except ValueError:
        return []


def given_overrides(job: Path) -> list[str]:
    """Return the overrides that a job was started with. ValueError where Hydra's record of them is broken."""
    file = job / OVERRIDES
    if not file.is_file():
        return []
    try:
        listed = OmegaConf.to_container(OmegaConf.load(file))
    except Exception as error:  # YAML's and OmegaConf's, of many kinds
        reason = " ".join(str(error).split())
        raise ValueError(f"{str(file)!r} is corrupt ({reason}): give the overrides again, with resume=true") from None
    if not isinstance(listed, list) or not all(isinstance(override, str) for override in listed):
        raise ValueError(f"{str(file)!r} is corrupt (no list of overrides): give them again, with resume=true")
    return _strings(listed)


def _strings(overrides: Any) -> list[str]:
    return [override for override in overrides or [] if isinstance(override, str)]


def _quoted(path: Path) -> str:
    """Return a path as a value in Hydra's override grammar, in which = and , mean something."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"
