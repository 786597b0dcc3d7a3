"""Run folders as records. Reads metrics.jsonl, config.json and the overrides only, so that 100 runs take seconds."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlaif_lab.config import FAMILIES
from rlaif_lab.store.files import read_json_file
from rlaif_lab.store.outcome import read_outcome
from rlaif_lab.store.rows import read_metrics

INSIDE_A_RUN = re.compile(r"round_\d+|checkpoints|policy|wandb|\.hydra")
"""Subfolders of a run folder that hold no further runs."""


@dataclass(frozen=True)
class Run:
    """One run that has logged at least one round.

    name: its folder, relative to the folder reported on. rounds: as configured; a whole run logs rounds 0 .. rounds.
    rows: metric -> value per round, nan where undefined; every row has the int ``round`` left out of it.
    overrides: what was given on the command line. path: the folder itself; None for rows that come from elsewhere.
    stopped: the round at which the detector ended the run (stopped.json); such a run is whole with rounds 0 .. stopped.
    changes: round -> each prompt's change in quality, of a run without a folder to read them from.
    """

    name: str
    arm: str
    seed: int
    rounds: int
    config: dict[str, Any]
    rows: dict[int, dict[str, float]]
    overrides: tuple[str, ...] = ()
    path: Path | None = None
    stopped: int | None = None
    changes: Mapping[int, Sequence[float]] = field(default_factory=dict)

    @property
    def last_round(self) -> int:
        """Return the round after all training: as configured, or where the detector ended the run."""
        return self.rounds if self.stopped is None else self.stopped

    @property
    def missing_rounds(self) -> list[int]:
        return [index for index in range(self.last_round + 1) if index not in self.rows]

    @property
    def complete(self) -> bool:
        return not self.missing_rounds

    def value(self, metric: str, round_index: int) -> float:
        """Return a metric's value; nan where it was not logged, or is undefined."""
        return self.rows.get(round_index, {}).get(metric, float("nan"))


@dataclass(frozen=True)
class Problem:
    """A run folder that is not, or not wholly, in the numbers, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Runs:
    """What a folder holds. runs: sorted by name. failed: folders without a single round. commands: what was typed,
    one line for each sweep or single run."""

    runs: list[Run]
    failed: list[Problem]
    commands: list[str]


def load(directory: Path) -> Runs:
    """Return all runs below ``directory``, itself included. A run whose files cannot be understood, or are not what was
    written, is among the failed ones, with the reason, and the others are read.

    Raises:
        ValueError: there is nothing to report on, in one sentence.
    """
    if not directory.is_dir():
        raise ValueError(
            f"{str(directory)!r} is not a folder" if directory.exists() else f"no folder {str(directory)!r}"
        )
    runs: list[Run] = []
    failed: list[Problem] = []
    folders = sorted(run_folders(directory))
    if not folders:
        raise ValueError(f"no run in {str(directory)!r}: a run folder holds metrics.jsonl or .hydra/")
    for folder in folders:
        name = str(folder.relative_to(directory))
        try:
            rows = _rows(folder / "metrics.jsonl")
            if rows:
                runs.append(_run(folder, name, rows))
            else:
                reason = read_outcome(folder) or "failed, or still in its first round"
                failed.append(Problem(name, f"{reason}: no round was logged"))
        except ValueError as error:
            failed.append(Problem(name, f"damaged: {error}"))
    # A single run was asked for: its own sentence says it all.
    if not runs and len(failed) == 1 and failed[0].reason.startswith("damaged: "):
        raise ValueError(failed[0].reason.removeprefix("damaged: "))
    if not runs and any(problem.reason.startswith("damaged: ") for problem in failed):
        listed = "; ".join(f"{problem.name}: {problem.reason}" for problem in failed[:3])
        raise ValueError(f"no run in {str(directory)!r} can be reported on: {listed}{'; ...' * (len(failed) > 3)}")
    if not runs:
        names = ", ".join(problem.name for problem in failed[:3]) + (", ..." if len(failed) > 3 else "")
        raise ValueError(f"no run in {str(directory)!r} has finished a round; {len(failed)} without one: {names}")
    return Runs(runs, failed, _commands(directory, folders))


def run_folders(directory: Path) -> Iterator[Path]:
    """Return the folders at any depth that a run has written to, or at least started in."""
    for path, folders, files in os.walk(directory):
        if "metrics.jsonl" in files or "run.json" in files or ".hydra" in folders:
            yield Path(path)
            # In place, so that os.walk does not go into them.
            folders[:] = [folder for folder in folders if not INSIDE_A_RUN.fullmatch(folder)]


def _rows(path: Path) -> dict[int, dict[str, float]]:
    rows: dict[int, dict[str, float]] = {}
    for row in read_metrics(path):
        index = row["round"]
        if not 0 <= index <= MOST_ROUNDS:
            raise ValueError(f"{path}: 'round' must be 0 to {MOST_ROUNDS}; got {index}")
        for metric, value in row.items():
            if not isinstance(value, (int, float, type(None))):
                raise ValueError(f"{path}, round {index}: {metric!r} is not a number but {str(value)[:80]!r}")
        try:
            # In JSON an integer may have any length.
            rows[index] = {
                metric: float("nan") if value is None else float(value)
                for metric, value in row.items()
                if metric != "round"
            }
        except OverflowError:
            raise ValueError(f"{path}, round {index}: a number is too large") from None
    return rows


MOST_ROUNDS = 1_000_000
"""More is damage, and would fill the memory with rounds that are missing."""


def _run(folder: Path, name: str, rows: dict[int, dict[str, float]]) -> Run:
    path = folder / "config.json"
    if not path.exists():
        raise ValueError(f"{str(folder)!r} has metrics.jsonl but no config.json")
    config = read_json_file(path, "restore it from a copy, or run rlaif-resume on the folder, which writes it anew")
    for key, kind in (("arm", str), ("seed", int), ("rounds", int)):
        value = config.get(key)
        # True would pass as an int.
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{path}: {key!r} must be of type {kind.__name__}; got {value!r}")
    if not 0 <= config["rounds"] <= MOST_ROUNDS:
        raise ValueError(f"{path}: 'rounds' must be 0 to {MOST_ROUNDS}; got {config['rounds']}")
    for family in FAMILIES:
        if not isinstance(config.get(family), (dict, type(None))):
            raise ValueError(f"{path}: {family!r} must be an object; got {config[family]!r:.80}")
    stopped = _stopped(folder / "stopped.json")
    for index in rows:
        _check_changes(folder / f"round_{index:03d}" / "changes.json")
    return Run(
        name,
        config["arm"],
        config["seed"],
        rounds=config["rounds"],
        config=config,
        rows=rows,
        overrides=_overrides(folder),
        path=folder,
        stopped=stopped,
    )


def _stopped(path: Path) -> int | None:
    if not path.exists():
        return None
    index = read_json_file(path, "delete it to have the run go on to its last round").get("round")
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index <= MOST_ROUNDS:
        raise ValueError(f"{path}: not a JSON object with an integer 'round'")
    return index


def _check_changes(path: Path) -> None:
    """Check the changes that a verdict is pooled from: a run in which they are damaged has none. Raises ValueError."""
    if not path.exists():
        return
    listed = read_json_file(path).get("changes")
    if not isinstance(listed, list) or not all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) for value in listed
    ):
        raise ValueError(f"{path}: not a JSON object with a list of numbers, 'changes'")


# --- what was typed ---------------------------------------------------------------------------------------------------
def _overrides(folder: Path) -> tuple[str, ...]:
    listed = _yaml(folder / ".hydra" / "overrides.yaml")
    return tuple(str(override) for override in listed) if isinstance(listed, list) else ()


def _commands(directory: Path, folders: Sequence[Path]) -> list[str]:
    """Return the commands: a sweep's stands in multirun.yaml beside its runs, a run outside any sweep has its own."""
    commands: list[str] = []
    sweeps: set[Path] = set()
    for folder in folders:
        # A job's folder may lie several levels below its sweep's: override_dirname can contain slashes.
        within = [parent for parent in (folder, *folder.parents) if parent == directory or directory in parent.parents]
        within.append(directory.parent)  # DIR may be a single job of a sweep
        sweep = next((parent for parent in within if (parent / "multirun.yaml").is_file()), None)
        if sweep is None:
            commands.append(_command([], _overrides(folder)))
        elif sweep not in sweeps:
            sweeps.add(sweep)
            content = _yaml(sweep / "multirun.yaml")
            hydra = content.get("hydra") if isinstance(content, dict) else None
            overrides = hydra.get("overrides") if isinstance(hydra, dict) else None
            if isinstance(overrides, dict):
                # Hydra's own note of -m, which is there already.
                of_hydra = [o for o in overrides.get("hydra") or [] if o != "hydra.mode=MULTIRUN"]
                commands.append(_command(["-m"], [*(overrides.get("task") or []), *of_hydra]))
    return list(dict.fromkeys(commands))


def _command(flags: Sequence[str], overrides: Sequence[str]) -> str:
    return shlex.join(["rlaif-lab", *flags, *(str(override) for override in overrides)])


def _yaml(path: Path) -> Any:
    """Return the content of a file of Hydra's, None where it is missing or broken: it only tells what was typed."""
    from omegaconf import OmegaConf

    if not path.is_file():
        return None
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except Exception:  # of many kinds; a broken file costs the report the command line, nothing else
        return None
