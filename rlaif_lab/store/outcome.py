"""How a run ended, as its folder says it: finished.json, or failed.json with the reason.

Neither of the two: it is being worked on (which its lock tells), or was killed. Light, so that reports read it.
"""

from __future__ import annotations

import errno
import json
import os
import shlex
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlaif_lab.progress import LOG, to_log
from rlaif_lab.store.checksums import read_regular
from rlaif_lab.store.files import DISK_ERRORS, TryLaterError, write_atomically, writing
from rlaif_lab.store.interrupts import Interrupted
from rlaif_lab.store.locks import locked, try_lock
from rlaif_lab.store.rows import FINISHED, read_metrics, summary_of
from rlaif_lab.store.run_folder import STOPPED

FAILED, LOCK = "failed.json", ".lock"


@dataclass(frozen=True)
class Failure:
    """error: name of the exception, or of the signal that killed the process. time: when, UTC, ISO 8601. traceback:
    empty for user errors, where the sentence says all. waits: "yes" where nothing failed: the run waits for somebody or
    something else, such as people's labels."""

    error: str
    sentence: str
    time: str
    traceback: str = ""
    waits: str = ""


def failure(error: BaseException) -> Failure:
    """Build a Failure from the exception that is being handled."""
    text = " ".join(str(error).split())
    name = type(error).__name__
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        # KeyboardInterrupt is what Python makes of a SIGINT that came before signals were turned into exceptions.
        name = getattr(error, "signal_name", "SIGINT")
        return Failure(name, f"interrupted by {name}", now())
    if isinstance(error, OSError) and error.errno in DISK_ERRORS and error.filename:
        return Failure(name, f"cannot read or write {str(error.filename)!r}: {error.strerror}", now())
    if isinstance(error, SystemExit):
        return Failure(name, f"its process ended with exit code {error.code or 0} before the run was finished", now())
    # ValueErrors are for users, and their sentence says all; anything else is a fault of the lab, whose place counts.
    known = isinstance(error, ValueError)
    trace = "" if known else traceback.format_exc()
    waits = "yes" if isinstance(error, TryLaterError) else ""
    return Failure(name, text if known and text else f"{name}: {text}", now(), trace, waits)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_failure(folder: Path, failure: Failure) -> None:
    """Write it down as well as the disk allows: it may be what failed."""
    if (folder / LOG).exists():
        to_log(f"{'waiting' if failure.waits else 'failed'}: {failure.sentence}\n{failure.traceback}", folder / LOG)
    # Writing here must not hide the error that is being reported.
    with suppress(OSError, ValueError):
        write_atomically(folder / FAILED, json.dumps(asdict(failure), indent=1).encode())


def read_failure(folder: Path) -> Failure | None:
    content = _read(folder / FAILED)
    fields = Failure.__dataclass_fields__
    return Failure(**{k: str(v) for k, v in content.items() if k in fields}) if "sentence" in content else None


def write_finished(folder: Path, rounds: int, result: Mapping[str, Any] | None = None) -> None:
    """Say that the run is whole, its policy and exports included, and how many rows it has logged. result: what it came
    to (verdict, quality, ...)."""
    metrics = summary_of(folder / "metrics.jsonl")
    content = {"rounds": rounds, "time": now(), "metrics": metrics, **({"result": dict(result)} if result else {})}
    write_atomically(folder / FINISHED, json.dumps(content, indent=1).encode())
    # Only once the other file is there: there is no moment at which the folder says neither.
    (folder / FAILED).unlink(missing_ok=True)


class Shell:
    """Where the user types commands, if the process has gone to another folder, and which one that is."""

    folder: Path | None = None
    gone_to: Path | None = None


def shown_path(folder: Path) -> str:
    """Return a folder as the user would type it."""
    here = Shell.folder if Shell.folder is not None and Path.cwd() == Shell.gone_to else Path.cwd()
    place = folder.absolute()
    return os.path.relpath(place, here) if place.is_relative_to(here) else str(place)


def resume_command(folder: Path) -> str:
    """Return what to type to go on with the run or the sweep in this folder, from the folder one is in."""
    return f"rlaif-resume {shlex.quote(shown_path(folder))}"


def finished_rounds(folder: Path) -> int | None:
    """Return the last round of a run that finished; None for any other."""
    rounds = _read(folder / FINISHED).get("rounds")
    return rounds if isinstance(rounds, int) and not isinstance(rounds, bool) else None


def is_whole(folder: Path) -> bool:
    """Tell whether the run ended as it should: as it says, or, of older runs, as its metrics tell. False where they
    cannot be read."""
    if finished_rounds(folder) is not None:
        return True
    try:
        rows = read_metrics(folder / "metrics.jsonl")
    except ValueError:
        return False
    # A run of an earlier version has no finished.json: it is whole if its last row is of the last round.
    planned = _read(folder / STOPPED).get("round", _read(folder / "config.json").get("rounds"))
    return bool(rows) and rows[-1]["round"] == planned


def read_outcome(folder: Path) -> str:
    """Return why a run that is not whole is not; empty where its folder does not tell."""
    if failed := read_failure(folder):
        return f"{'waiting' if failed.waits else 'failed'}: {failed.sentence}"
    if being_worked_on(folder):
        return "a process is still working on it"
    return "interrupted or killed" if (folder / LOCK).exists() else ""


@contextmanager
def exclusive_access(folder: Path) -> Iterator[None]:
    """Make sure that no other process works in this run's folder meanwhile. ValueError when one does already."""
    with ExitStack() as stack:
        with writing(folder / LOCK):
            mine = stack.enter_context(try_lock(folder / LOCK))
        if not mine:
            raise ValueError(f"another process is working on the run in {str(folder)!r}: wait for it, or end it")
        # Under the lock: what was said before is void as soon as somebody goes on.
        for ending in (FINISHED, FAILED):  # of what was before
            with writing(folder / ending):
                # `unlink` would say "is a directory" or "not permitted", as systems differ.
                if (folder / ending).is_dir():
                    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
                (folder / ending).unlink(missing_ok=True)
        yield


def being_worked_on(folder: Path) -> bool:
    """Return whether a process works on the run. It is told by a lock, so for processes of this machine, or of one that
    shares its file system's locks."""
    return locked(folder / LOCK)


def _read(path: Path) -> dict[str, Any]:
    """Return the file's content; empty where there is no such file, or nobody can read it."""
    try:
        content = json.loads(read_regular(path))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
