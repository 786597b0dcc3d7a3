"""Offline runs of W&B, read back: the ``.wandb`` files of a folder as the records that the report is made from.

Nothing here goes over a network. A ``.wandb`` file is a log in LevelDB's format: blocks of 32 KiB, in them records of
checksum, length, kind and protobuf content, a long one cut into pieces. W&B's own reader is a command of its newest
versions (``wandb leet``) that takes a second for each file, so the log is read here; what a record holds is defined by
W&B's own package.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlaif_lab.report.load import Problem, Run, Runs
from rlaif_lab.tracking.wandb_tracker import CHANGES_METRIC

FILE_HEADER = b":W&B\xe1\xbe\x00"
BLOCK = 32 * 1024
RECORD_HEADER = struct.Struct("<IHB")  # checksum, length, kind
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
REPORT = "report"
"""Job type of a run that shows a report on other runs."""


@dataclass(frozen=True)
class WandbRun:
    """One run as W&B holds it.

    group: the experiment. job_type: the arm, or REPORT. config: as logged. history: one item per logged step, W&B's own
    columns (which start with _) left out. summary: nested where a metric has several aggregates, such as
    {"max": .8, "last": .7}. tables: name -> its rows, the latest table of each name. media: name -> file, likewise.
    problem: why it could not be read; empty for a run that could.
    """

    id: str
    name: str
    group: str
    job_type: str
    config: dict[str, Any]
    history: list[dict[str, Any]]
    summary: dict[str, Any]
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    media: dict[str, Path] = field(default_factory=dict)
    problem: str = ""


def offline_runs(directory: Path) -> list[WandbRun]:
    """Return every run below ``directory``, sorted by group, job type and name. Of a resumed run the newest folder,
    which holds the whole curve, or the one before where that was stopped too early to hold anything. A run of which no
    file can be read is there with its ``problem``, and the others are read.

    Raises:
        ValueError: there is no run at all, in one sentence.
    """
    found: dict[str, list[Path]] = {}
    # By folder, whose name holds the time: the newest comes last.
    for file in sorted(directory.glob("**/offline-run-*/run-*.wandb"), key=lambda file: file.parent.name):
        found.setdefault(file.name, []).append(file)
    if not found:
        raise ValueError(f"no offline run of W&B in {str(directory)!r}: no folder in it is called offline-run-*")
    runs = [_newest_readable(files) for files in found.values()]
    return sorted(runs, key=lambda run: (run.group, run.job_type, run.name))


def _newest_readable(files: Sequence[Path]) -> WandbRun:
    """Return the newest that can be read. files: of one run, the oldest first."""
    problem = ""
    # From the newest: what was stopped too early to hold anything falls back to the one before.
    for file in reversed(files):
        try:
            return read_run(file)
        except ValueError as error:
            problem = problem or str(error)
        except Exception as error:  # protobuf's, JSON's and whatever comes of a file of something else
            problem = problem or f"{str(file)!r} is corrupt ({type(error).__name__}: {' '.join(str(error).split())})"
    file = files[-1]
    # The run's folder, where W&B wrote into it; otherwise W&B's own folder at least has a name.
    name = file.parents[2].name if file.parents[1].name == "wandb" else file.parent.name
    return WandbRun(
        file.stem.removeprefix("run-"), name, "", job_type="", config={}, history=[], summary={}, problem=problem
    )


def read_run(file: Path) -> WandbRun:
    """Read one ``.wandb`` file; of one that a killed run left, as far as it goes. ValueError where it holds no run."""
    opened: Any = None
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    # Later records change earlier ones, as W&B applies them.
    for record in records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            opened = record.run
            put_all(config, record.run.config.update)
        elif kind == "config":
            put_all(config, record.config.update)
        elif kind == "summary":
            put_all(summary, record.summary.update)
        elif kind == "history":
            history.append(own(put_all({}, record.history.item)))
    if opened is None:
        raise ValueError(f"{str(file)!r} holds no run: W&B was stopped before it wrote one")
    tables, media = files_of(history, file.parent / "files")
    return WandbRun(
        opened.run_id,
        opened.display_name,
        opened.run_group,
        job_type=opened.job_type,
        config=own(config),
        history=history,
        summary=own(summary),
        tables=tables,
        media=media,
    )


def as_runs(runs: Sequence[WandbRun]) -> Runs:
    """Return the records that ``report.arms.study`` groups into arms, the same as from run folders. Runs of job type
    REPORT are none of the loop's. ValueError where no run has logged a round."""
    found: list[Run] = []
    failed: list[Problem] = []
    for run in runs:
        if run.job_type == REPORT:
            continue
        if run.problem:
            failed.append(Problem(run.name, f"damaged: {run.problem}"))
        elif rows := rows_of(run.history):
            missing = [key for key in ("arm", "seed", "rounds") if key not in run.config]
            if missing:
                failed.append(Problem(run.name, f"no run of this lab: its config has no {', '.join(missing)}"))
                continue
            arm, seed, rounds = (run.config[key] for key in ("arm", "seed", "rounds"))
            last = max(rows)
            # A run that came to its end has a verdict: before its last round only if its detector stopped it.
            stopped = last if "verdict" in run.summary and last < rounds else None
            changes = {int(item["round"]): item[CHANGES_METRIC] for item in run.history if CHANGES_METRIC in item}
            found.append(
                Run(run.name, arm, seed, rounds=rounds, config=run.config, rows=rows, stopped=stopped, changes=changes)
            )
        else:
            failed.append(Problem(run.name, "failed, or still in its first round: no round was logged"))
    if not found:
        problems = sorted({run.problem for run in runs if run.problem})
        why = f" ({'; '.join(problems[:3])})" if problems else ""
        raise ValueError(f"no round of a loop was logged in any of {len(runs)} runs in W&B{why}")
    return Runs(sorted(found, key=lambda run: run.name), failed, [])


def rows_of(history: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Return round -> metrics, of the items that have a round. What was undefined was not logged."""
    return {
        int(item["round"]): {
            name: float(value) for name, value in item.items() if name != "round" and isinstance(value, (int, float))
        }
        for item in history
        if item.get("round") is not None
    }


# --- the file ---------------------------------------------------------------------------------------------------------
def records(file: Path) -> Iterator[Any]:
    """Yield W&B's protobuf records in the order in which they were written, up to the first that is not whole."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = file.read_bytes()
    if not content.startswith(FILE_HEADER):
        raise ValueError(f"{str(file)!r} is no file of W&B, or of a version of it that is not known here")
    at, parts = len(FILE_HEADER), b""
    while at + RECORD_HEADER.size <= len(content):
        left = BLOCK - at % BLOCK
        if left < RECORD_HEADER.size:  # too little for another header: zeros up to the next block
            at += left
            continue
        checksum, length, kind = RECORD_HEADER.unpack_from(content, at)
        piece = content[at + RECORD_HEADER.size : at + RECORD_HEADER.size + length]
        # Cut off by a kill, or reserved zeros: what follows cannot be trusted.
        if kind not in (WHOLE, FIRST, MIDDLE, LAST) or zlib.crc32(bytes([kind]) + piece) != checksum:
            return
        at += RECORD_HEADER.size + length
        parts = piece if kind in (WHOLE, FIRST) else parts + piece
        # A record is whole with its last piece.
        if kind in (WHOLE, LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record


def put_all(into: dict[str, Any], items: Any) -> dict[str, Any]:
    """Put the items of a history, config or summary record: a name, or a path of names, and a value as JSON."""
    for item in items:
        *parents, last = item.nested_key or [item.key]
        node = into
        for name in parents:
            if not isinstance(node.get(name), dict):
                node[name] = {}
            node = node[name]
        node[last] = json.loads(item.value_json)
    return into


def own(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the items without W&B's own entries."""
    return {name: value for name, value in values.items() if not name.startswith("_")}


def files_of(
    history: Sequence[Mapping[str, Any]], folder: Path
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Path]]:
    """Return tables and other files, of the last item that has each."""
    tables: dict[str, list[dict[str, Any]]] = {}
    media: dict[str, Path] = {}
    for item in history:
        for name, value in item.items():
            # Files are named relative to the run's folder; tables are among them.
            path = folder / value["path"] if isinstance(value, dict) and "path" in value else None
            if path is None or not path.is_file():
                continue
            if value.get("_type") == "table-file":
                content = json.loads(path.read_text(encoding="utf-8"))
                tables[name] = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
            else:
                media[name] = path
    return tables, media
