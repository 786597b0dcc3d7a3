"""The round store: what each stage of each round computed, written atomically, found again after a crash.

run directory/
  run.json                                     fingerprint: which config this store belongs to
  metrics.jsonl                                one line per round, append-only: the truth that W&B mirrors
  round_003/{generations,judgements,pairs}.parquet
  round_003/{evaluated,ahead}.parquet, evaluation.json, changes.json
  checkpoints/                                 Lightning's, at round boundaries
"""

from __future__ import annotations

import errno
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif_lab.records import Comparison, Generation, Judgement, PreferencePair, Prompt, Response, Revision, Score

T = TypeVar("T")
S = TypeVar("S")


@dataclass(frozen=True)
class Stage(Generic[T]):
    """How a stage's records become a table and back."""

    name: str
    encode: Callable[[Sequence[T]], pa.Table]
    decode: Callable[[pa.Table], list[T]]


@dataclass(frozen=True)
class StageResult(Generic[T]):
    """seconds: wall time this stage took when it was computed, also when that was before a resume."""

    records: list[T]
    seconds: float


class RoundStore:
    """All files of one run. Idempotent: a stage whose file is whole is loaded, never computed again.

    part_seconds: how much computing within a stage a crash may cost at most, about.
    """

    def __init__(self, directory: Path, part_seconds: float = 5.0) -> None:
        self.directory = directory
        self.part_seconds = part_seconds

    def round_directory(self, round_index: int, segment: int = 0) -> Path:
        """Of a round that samples anew while it trains, each segment but the first has a folder of its own."""
        folder = self.directory / f"round_{round_index:03d}"
        return folder / f"sync_{segment:03d}" if segment else folder

    # --- which config this store belongs to -----------------------------------------------------------------
    def claim(self, fingerprint: dict[str, Any], resume: bool) -> None:
        """Ties the directory to a config. ValueError when it belongs to another one, or when it already holds a
        run and ``resume`` is off."""
        path = self.directory / "run.json"
        if not path.exists():
            write_atomically(path, json.dumps(fingerprint, indent=2, sort_keys=True).encode())
            return
        held = _read_json(path)
        differing = sorted(key for key in fingerprint.keys() | held.keys() if fingerprint.get(key) != held.get(key))
        if differing:
            changes = "; ".join(f"{key} was {held.get(key)!r}, is {fingerprint.get(key)!r}" for key in differing)
            raise ValueError(
                f"{str(self.directory)!r} holds a run with another config ({changes}); use another directory"
            )
        if not resume:
            raise ValueError(
                f"{str(self.directory)!r} already holds this run; pass resume=true to go on with it, or use another "
                "directory"
            )

    def stage_file(self, round_index: int, stage: Stage[Any], segment: int = 0) -> Path:
        """Where a stage's records are, once it is whole."""
        return self.round_directory(round_index, segment) / f"{stage.name}.parquet"

    # --- stages ---------------------------------------------------------------------------------------------
    def stage(
        self,
        round_index: int,
        stage: Stage[T],
        items: Sequence[S],
        compute: Callable[[Sequence[S]], list[T]],
        chunk: int,
        progress: Callable[[int], Any] = lambda count: None,
        segment: int = 0,
    ) -> StageResult[T]:
        """``compute`` over ``items``, ``chunk`` at a time. Chunks worth more than ``part_seconds`` of computing are
        kept in part files until the stage is whole, so a killed stage goes on where it stopped."""
        whole = self.stage_file(round_index, stage, segment)
        directory = whole.parent
        if whole.exists():
            progress(len(items))
            return _read_stage(whole, stage)
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
        records: list[T] = []
        seconds = 0.0
        start = 0  # items done
        for part in sorted(directory.glob(f".{stage.name}.part_*.parquet")):  # named by where they end
            found = _read_stage(part, stage)
            records += found.records
            seconds += found.seconds
            start = int(part.stem.rpartition("_")[2])
        progress(start)
        saved, saved_seconds = len(records), seconds
        while start < len(items):
            piece = items[start : start + chunk]
            begun = time.perf_counter()
            records += compute(piece)
            seconds += time.perf_counter() - begun
            start += len(piece)
            progress(len(piece))
            if start < len(items) and seconds - saved_seconds > self.part_seconds:
                unsaved = StageResult(records[saved:], seconds - saved_seconds)
                _write_stage(directory / f".{stage.name}.part_{start:09d}.parquet", stage, unsaved)
                saved, saved_seconds = len(records), seconds
        done = StageResult(records, seconds)
        _write_stage(whole, stage, done)
        for part in directory.glob(f".{stage.name}.part_*.parquet"):
            part.unlink()
        return done

    def stored(self, round_index: int, stage: Stage[T], segment: int = 0) -> list[T]:
        """A stage's records if it is whole, else none."""
        whole = self.stage_file(round_index, stage, segment)
        return _read_stage(whole, stage).records if whole.exists() else []

    def once(self, round_index: int, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A JSON object, from its file if that is whole, else computed and written. Floats survive exactly."""
        path = self.round_directory(round_index) / f"{name}.json"
        if not path.exists():
            value = compute()
            write_atomically(path, json.dumps(value, indent=1).encode())
        return _read_json(path)

    def held(self, round_index: int, name: str) -> dict[str, Any] | None:
        """What ``once`` has computed; None where it has not."""
        path = self.round_directory(round_index) / f"{name}.json"
        return _read_json(path) if path.exists() else None

    # --- metrics --------------------------------------------------------------------------------------------
    @property
    def metrics_file(self) -> Path:
        return self.directory / "metrics.jsonl"

    def rows(self) -> list[dict[str, Any]]:
        """All rounds logged so far, in order. A line cut short by a crash is left out."""
        return read_metrics(self.metrics_file)

    def append_row(self, row: dict[str, Any]) -> bool:
        """Adds a round's row. A round that is already there (trained again after a crash) is left as it is, and False
        returned; only a last round, which was evaluated but not trained on, gives way to a whole one."""
        for held in self.rows():
            if held["round"] == row["round"] and len(held) >= len(row):
                return False
        row = defined(row)
        with writing(self.metrics_file), self.metrics_file.open("rb+" if self.metrics_file.exists() else "wb+") as file:
            file.seek(0, os.SEEK_END)
            if file.tell():  # cut off what a crash left of a half-written line
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)
                file.seek(0, os.SEEK_END)
            file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return True


def defined(row: dict[str, Any]) -> dict[str, Any]:
    """The row with None for nan and inf, which JSON has not."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl, one per round (the later of two), sorted.

    ValueError for a line that is no such row.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]  # what no newline ends was cut short by a crash
    rows: dict[int, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows[row["round"]] = row
        except (ValueError, KeyError, TypeError) as error:  # not UTF-8, no JSON, no object, no round
            raise ValueError(f"{path}, line {number}: not a round's metrics in JSON ({error})") from None
    return [rows[index] for index in sorted(rows)]


DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


# --- files ----------------------------------------------------------------------------------------------------
def write_atomically(path: Path, content: bytes) -> None:
    """All or nothing: temporary file, fsync, rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a full or read-only disk into one clear sentence; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise DiskError(
            f"cannot write {str(path)!r}: {error.strerror or error}; what was computed before is kept, and the run "
            "goes on from there with resume=true"
        ) from error


class DiskError(ValueError):
    """The disk did not take a write."""


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(path.read_bytes())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{str(path)!r} is corrupt ({error}); delete it to have it computed again") from None
    return value


def _write_stage(path: Path, stage: Stage[T], result: StageResult[T]) -> None:
    table = stage.encode(result.records).replace_schema_metadata({"seconds": repr(result.seconds)})
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression="lz4", write_page_checksum=True, use_dictionary=False, write_statistics=False
    )
    write_atomically(path, sink.getvalue().to_pybytes())


def _read_stage(path: Path, stage: Stage[T]) -> StageResult[T]:
    try:
        table = pq.read_table(path, page_checksum_verification=True)
        return StageResult(stage.decode(table), float(table.schema.metadata[b"seconds"]))
    except (pa.ArrowException, OSError, KeyError, TypeError) as error:
        raise ValueError(
            f"{str(path)!r} is corrupt ({str(error).splitlines()[0]}); delete that one file to have it computed "
            "again, everything else is kept"
        ) from error


# --- tables of the stages ---------------------------------------------------------------------------------------
def _to_json(value: Any) -> str | None:
    return None if value is None else json.dumps(value, sort_keys=True)


def _from_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _prompt_columns(prompts: Sequence[Prompt]) -> dict[str, pa.Array]:
    return {
        "prompt_id": pa.array([p.id for p in prompts], pa.string()),
        "prompt": pa.array([p.text for p in prompts], pa.string()),
        "turns": pa.array([_to_json(p.turns) if p.turns else None for p in prompts], pa.string()),
    }


def _decode_prompts(table: pa.Table) -> list[Prompt]:
    """One per row; equal ones are one object."""
    known: dict[str, Prompt] = {}
    columns = (table[name].to_pylist() for name in ("prompt_id", "prompt", "turns"))
    for prompt_id, text, turns in zip(*columns, strict=True):
        if prompt_id not in known:
            known[prompt_id] = Prompt(prompt_id, text, tuple((role, said) for role, said in _from_json(turns) or ()))
    return [known[prompt_id] for prompt_id in table["prompt_id"].to_pylist()]


def _response_columns(responses: Sequence[Response], prefix: str = "") -> dict[str, pa.Array]:
    return {
        f"{prefix}response": pa.array([r.text for r in responses], pa.string()),
        f"{prefix}token_ids": pa.array([r.token_ids for r in responses], pa.list_(pa.int32())),
        f"{prefix}logps": pa.array([r.logps for r in responses], pa.list_(pa.float32())),
        f"{prefix}finished": pa.array([r.finished for r in responses], pa.bool_()),
    }


def _decode_responses(table: pa.Table, prefix: str = "") -> list[Response]:
    names = (f"{prefix}{name}" for name in ("response", "token_ids", "logps", "finished"))
    columns = (table[name].to_pylist() for name in names)
    return [Response(t, tuple(ids), tuple(logps), end) for t, ids, logps, end in zip(*columns, strict=True)]


def _encode_generations(generations: Sequence[Generation]) -> pa.Table:
    prompts = [g.prompt for g in generations for _ in g.responses]
    samples = pa.array([i for g in generations for i in range(len(g.responses))], pa.int32())
    responses = [r for g in generations for r in g.responses]
    return pa.table({**_prompt_columns(prompts), "sample": samples, **_response_columns(responses)})


def _decode_generations(table: pa.Table) -> list[Generation]:
    groups: dict[Prompt, list[Response]] = {}
    for prompt, response in zip(_decode_prompts(table), _decode_responses(table), strict=True):
        groups.setdefault(prompt, []).append(response)
    return [Generation(prompt, tuple(responses)) for prompt, responses in groups.items()]


def _encode_judgements(judgements: Sequence[Judgement]) -> pa.Table:
    columns = {
        **_prompt_columns([j.comparison.prompt for j in judgements]),
        "first": pa.array([j.comparison.first for j in judgements], pa.string()),
        "second": pa.array([j.comparison.second for j in judgements], pa.string()),
        "details": pa.array([_to_json(j.details) for j in judgements], pa.string()),
    }
    for name, kind in JUDGEMENT_COLUMNS.items():
        columns[name] = pa.array([getattr(j, name) for j in judgements], kind)
    return pa.table(columns)


JUDGEMENT_COLUMNS = {
    "sample_first": pa.int32(),
    "sample_second": pa.int32(),
    "prob_first_wins": pa.float64(),
    "prob_first_wins_shown_first": pa.float64(),
    "prob_first_wins_shown_second": pa.float64(),
    "status": pa.string(),
    "latency_s": pa.float64(),
    "tokens": pa.int32(),
    "raw": pa.string(),
    "cost_usd": pa.float64(),
}


def _decode_judgements(table: pa.Table) -> list[Judgement]:
    texts = zip(*(table[name].to_pylist() for name in ("first", "second", "details")), strict=True)
    values = zip(*(table[name].to_pylist() for name in JUDGEMENT_COLUMNS), strict=True)
    return [
        Judgement(
            comparison=Comparison(prompt, first, second),
            details=_from_json(details),
            **dict(zip(JUDGEMENT_COLUMNS, row, strict=True)),
        )
        for prompt, (first, second, details), row in zip(_decode_prompts(table), texts, values, strict=True)
    ]


def _encode_pairs(pairs: Sequence[PreferencePair]) -> pa.Table:
    return pa.table(
        {
            **_prompt_columns([p.prompt for p in pairs]),
            "sample_chosen": pa.array([p.sample_chosen for p in pairs], pa.int32()),
            "sample_rejected": pa.array([p.sample_rejected for p in pairs], pa.int32()),
            "prob_chosen_wins": pa.array([p.prob_chosen_wins for p in pairs], pa.float64()),
        }
    )


def _decode_pairs(table: pa.Table) -> list[PreferencePair]:
    columns = (table[name].to_pylist() for name in ("sample_chosen", "sample_rejected", "prob_chosen_wins"))
    return [PreferencePair(prompt, *row) for prompt, *row in zip(_decode_prompts(table), *columns, strict=True)]


def _encode_scores(scores: Sequence[Score]) -> pa.Table:
    columns = {
        name: pa.array([getattr(s, name) for s in scores], kind)
        for name, kind in (
            ("value", pa.float64()),
            ("status", pa.string()),
            ("latency_s", pa.float64()),
            ("tokens", pa.int32()),
            ("raw", pa.string()),
            ("cost_usd", pa.float64()),
        )
    }
    return pa.table({**columns, "details": pa.array([_to_json(s.details) for s in scores], pa.string())})


def _decode_scores(table: pa.Table) -> list[Score]:
    return [Score(**{**row, "details": _from_json(row["details"])}) for row in table.to_pylist()]


def _encode_revisions(revisions: Sequence[Revision]) -> pa.Table:
    return pa.table(
        {
            **_prompt_columns([r.prompt for r in revisions]),
            **_response_columns([r.original for r in revisions], "original_"),
            "steps": pa.array([_to_json(r.steps) for r in revisions], pa.string()),
            **_response_columns([r.revised for r in revisions], "revised_"),
        }
    )


def _decode_revisions(table: pa.Table) -> list[Revision]:
    columns = zip(
        _decode_prompts(table),
        _decode_responses(table, "original_"),
        table["steps"].to_pylist(),
        _decode_responses(table, "revised_"),
        strict=True,
    )
    return [
        Revision(prompt, original, tuple((p, c, t) for p, c, t in _from_json(steps)), revised)
        for prompt, original, steps, revised in columns
    ]


GENERATIONS = Stage("generations", _encode_generations, _decode_generations)
JUDGEMENTS = Stage("judgements", _encode_judgements, _decode_judgements)
PAIRS = Stage("pairs", _encode_pairs, _decode_pairs)
SCORES = Stage("scores", _encode_scores, _decode_scores)
"""The judge's direct score of every response, in the order of the generations and their samples."""
DEMONSTRATIONS = Stage("demonstrations", _encode_generations, _decode_generations)
"""The judge's own answers to the round's prompts, for a learner that is distilled from them."""
REVISIONS = Stage("revisions", _encode_revisions, _decode_revisions)
EVALUATED = Stage("evaluated", _encode_generations, _decode_generations)
"""The policy's samples on this round's evaluation prompts."""
AHEAD = Stage("ahead", _encode_generations, _decode_generations)
"""The policy's samples on the *next* round's evaluation prompts: before the training that lies between."""
COVERAGE = Stage("coverage", _encode_generations, _decode_generations)
"""Many samples of a few evaluation prompts, in round 0 and after the last."""
STOPPED = "stopped.json"
"""In the folder of a run that ended before its last round, and why."""
CHANGES = "changes"
"""Name of the JSON file with each prompt's change in quality through the last round's training."""
