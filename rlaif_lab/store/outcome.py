"""How a run ended, as its folder says it: finished.json, or failed.json with the reason.

Neither of the two: it is being worked on (which its lock tells), or was killed. Light, so that reports read it.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlaif_lab.store.files import write_atomically, writing
from rlaif_lab.store.locks import locked, try_lock
from rlaif_lab.store.rows import read_metrics
from rlaif_lab.store.run_folder import STOPPED

FINISHED, FAILED, LOCK = "finished.json", "failed.json", ".lock"


@dataclass(frozen=True)
class Failure:
    """error: name of the exception, or of the signal that killed the process. time: when, UTC, ISO 8601. traceback:
    empty for what is the user's to mend, where the sentence says all."""

    error: str
    sentence: str
    time: str
    traceback: str = ""


def failure(error: Exception) -> Failure:
    """Of an exception that is being handled."""
    known = isinstance(error, ValueError)
    text = " ".join(str(error).split())
    name = type(error).__name__
    trace = "" if known else traceback.format_exc()
    return Failure(name, text if known and text else f"{name}: {text}", now(), trace)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_failure(folder: Path, failure: Failure) -> None:
    """As well as the disk allows: it may be what failed."""
    with suppress(OSError, ValueError):
        write_atomically(folder / FAILED, json.dumps(asdict(failure), indent=1).encode())


def read_failure(folder: Path) -> Failure | None:
    content = _read(folder / FAILED)
    fields = Failure.__dataclass_fields__
    return Failure(**{k: str(v) for k, v in content.items() if k in fields}) if "sentence" in content else None


def write_finished(folder: Path, rounds: int) -> None:
    """The run is whole, its policy and exports included."""
    write_atomically(folder / FINISHED, json.dumps({"rounds": rounds, "time": now()}).encode())
    (folder / FAILED).unlink(missing_ok=True)


def finished_rounds(folder: Path) -> int | None:
    """The last round of a run that finished; None for any other."""
    rounds = _read(folder / FINISHED).get("rounds")
    return rounds if isinstance(rounds, int) else None


def is_whole(folder: Path) -> bool:
    """Whether the run ended as it should: as it says, or, of older runs, as its metrics tell."""
    if finished_rounds(folder) is not None:
        return True
    rows = read_metrics(folder / "metrics.jsonl")
    planned = _read(folder / STOPPED).get("round", _read(folder / "config.json").get("rounds"))
    return bool(rows) and rows[-1]["round"] == planned


def ending(folder: Path) -> str:
    """Why a run that is not whole is not; empty where its folder does not tell."""
    if failed := read_failure(folder):
        return f"failed: {failed.sentence}"
    if being_worked_on(folder):
        return "a process is still working on it"
    return "interrupted or killed" if (folder / LOCK).exists() else ""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """No other process works in this run's folder meanwhile. ValueError when one does already."""
    with ExitStack() as stack:
        with writing(folder / LOCK):
            mine = stack.enter_context(try_lock(folder / LOCK))
        if not mine:
            raise ValueError(f"another process is working on the run in {str(folder)!r}: wait for it, or end it")
        for ending in (FINISHED, FAILED):  # of what was before
            with writing(folder / ending):
                (folder / ending).unlink(missing_ok=True)
        yield


def being_worked_on(folder: Path) -> bool:
    """Told by a lock, so for processes of this machine, or of one that shares its file system's locks."""
    return locked(folder / LOCK)


def _read(path: Path) -> dict[str, Any]:
    """Empty where there is no such file, or nobody can read it."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
