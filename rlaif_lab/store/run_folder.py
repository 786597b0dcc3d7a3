"""The round store: what each stage of each round computed, written atomically, found again after a crash.

run directory/
  run.json                                     fingerprint: which config this store belongs to
  checksums.txt                                of every file here that decides a number (checksums.py)
  metrics.jsonl                                one line per round, append-only: the truth that W&B mirrors
  round_003/{generations,judgements,pairs}.parquet
  round_003/{evaluated,baseline,ahead}.parquet, evaluation.json, changes.json
  checkpoints/                                 Lightning's, at round boundaries
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from rlaif_lab import ranks
from rlaif_lab.config import as_of_today
from rlaif_lab.records import Prompt
from rlaif_lab.store.checksums import CHECKSUMS, DamagedError, adopt, note, read_checked
from rlaif_lab.store.files import read_json_file, write_atomically, writing
from rlaif_lab.store.rows import read_metrics, whole_lines, without_nan
from rlaif_lab.store.tables import Stage

T = TypeVar("T")


S = TypeVar("S")


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
        """Return a round's folder. If it samples anew while it trains, each segment but the first has a folder of its
        own."""
        folder = self.directory / f"round_{round_index:03d}"
        return folder / f"sync_{segment:03d}" if segment else folder

    # --- which config this store belongs to -----------------------------------------------------------------
    def claim(self, fingerprint: dict[str, Any], resume: bool) -> None:
        """Tie the directory to a config. ValueError when it belongs to another one, or when it already holds a
        run and ``resume`` is off."""
        path = self.directory / "run.json"
        if not path.exists():
            with writing(self.directory / CHECKSUMS):
                self.directory.mkdir(parents=True, exist_ok=True)
                self.vouch()
            # Last: a folder with run.json has a list of checksums, or is of an earlier version.
            write_atomically(path, json.dumps(fingerprint, indent=2, sort_keys=True).encode())
            return
        content = read_json_file(path, "it is the run's identity: restore it from a copy, or use another directory")
        held = as_of_today({key: str(value) for key, value in content.items()})
        fingerprint = as_of_today(fingerprint)
        # Keys of both: a setting that only one of them has is a difference, too.
        differing = sorted(key for key in fingerprint.keys() | held.keys() if fingerprint.get(key) != held.get(key))
        if differing:
            changes = "; ".join(f"{key} was {held.get(key)!r}, is {fingerprint.get(key)!r}" for key in differing)
            raise ValueError(
                f"{str(self.directory)!r} holds a run with another config ({changes}); use another directory"
            )
        if not resume:
            raise ValueError(
                f"{str(self.directory)!r} already holds this run; pass resume=true to continue it, or use another "
                "directory"
            )
        with writing(self.directory / CHECKSUMS):
            self.vouch()

    def vouch(self) -> None:
        """Begin the list of checksums; of a run of an earlier version, with those of its files as they are now."""
        if not (self.directory / CHECKSUMS).exists() and adopt(self.directory, NUMBERS):
            print(
                f"{self.directory}: made before files had checksums; they are taken as they are, and checked from now "
                "on",
                flush=True,
            )

    def stage_file(self, round_index: int, stage: Stage[Any], segment: int = 0) -> Path:
        """Return where a stage's records are, once it is whole."""
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
        """Apply ``compute`` to ``items``, ``chunk`` at a time. Chunks worth more than ``part_seconds`` of computing are
        kept in part files until the stage is whole, so a killed stage goes on where it stopped."""
        whole = self.stage_file(round_index, stage, segment)
        directory = whole.parent
        # One look for all ranks: they must agree on where to go on.
        held, start = ranks.on_first(lambda: self._held(whole, stage, items))
        progress(start)
        # Whole already, so nothing is written; an empty stage is written all the same.
        if start == len(items) and ranks.on_first(whole.exists):
            return held
        records, seconds = held.records, held.seconds
        saved, saved_seconds = len(records), seconds
        while start < len(items):
            piece = items[start : start + chunk]
            begun = time.perf_counter()
            if stage.sampled:
                records += ranks.shared_out(piece, compute)
            else:
                # Rank 0 asks judges and people; the others get its answers.
                records += ranks.on_first(functools.partial(compute, piece))
            seconds += time.perf_counter() - begun
            start += len(piece)
            progress(len(piece))
            # By time, not by number of items: what a crash may cost is the same for quick and slow stages.
            if ranks.first() and start < len(items) and seconds - saved_seconds > self.part_seconds:
                unsaved = StageResult(records[saved:], seconds - saved_seconds)
                # Named by where it ends, with leading zeros, so that sorting puts parts in order.
                _write_stage(directory / f".{stage.name}.part_{start:09d}.parquet", stage, unsaved)
                saved, saved_seconds = len(records), seconds
        done = StageResult(records, seconds)
        # The whole file first, then the parts go: killed in between, the whole one counts.
        ranks.on_first(lambda: self._keep(whole, stage, done))
        return done

    def _held(self, whole: Path, stage: Stage[T], items: Sequence[Any]) -> tuple[StageResult[T], int]:
        """Return what is stored of a stage, whole or in parts, and how many items that are."""
        directory = whole.parent
        if whole.exists():
            stored = _read_stage(whole, stage)
            # It may have been copied from another run: its checksum would then be right and its content wrong.
            _check_prompts(whole, stored.records, items)
            return stored, len(items)
        with writing(directory):
            directory.mkdir(parents=True, exist_ok=True)
        records: list[T] = []
        seconds, start = 0.0, 0
        for part in sorted(directory.glob(f".{stage.name}.part_*.parquet")):  # named by where they end
            found = _read_stage(part, stage)
            _check_prompts(part, found.records, items)
            records += found.records
            seconds += found.seconds
            start = int(part.stem.rpartition("_")[2])
        return StageResult(records, seconds), start

    def _keep(self, whole: Path, stage: Stage[T], done: StageResult[T]) -> None:
        _write_stage(whole, stage, done)
        for part in whole.parent.glob(f".{stage.name}.part_*.parquet"):
            part.unlink()

    def read_stage(self, round_index: int, stage: Stage[T], segment: int = 0) -> list[T]:
        """Return a stage's records if it is whole, else none."""
        whole = self.stage_file(round_index, stage, segment)
        return _read_stage(whole, stage).records if whole.exists() else []

    def compute_once(self, round_index: int, name: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Return a JSON object, from its file if that is whole, else computed and written. Floats survive exactly."""
        path = self.round_directory(round_index) / f"{name}.json"

        def stored() -> dict[str, Any]:
            if not path.exists():
                value = compute()
                write_atomically(path, json.dumps(value, indent=1).encode())
            # Read back even when it was just computed, so that a resumed run sees the same: tuples as lists, floats as
            # written.
            return read_json_file(path)

        return ranks.on_first(stored)

    def read_json(self, round_index: int, name: str) -> dict[str, Any] | None:
        """Return what ``compute_once`` has computed; None where it has not."""
        path = self.round_directory(round_index) / f"{name}.json"
        return read_json_file(path) if path.exists() else None

    # --- metrics --------------------------------------------------------------------------------------------
    @property
    def metrics_file(self) -> Path:
        return self.directory / "metrics.jsonl"

    def rows(self) -> list[dict[str, Any]]:
        """Return all rounds logged so far, in order. A line cut short by a crash is left out."""
        return read_metrics(self.metrics_file)

    def append_row(self, row: dict[str, Any]) -> bool:
        """Add a round's row. A round that is already there (trained again after a crash) is left as it is, and False
        returned; only a last round, which was evaluated but not trained on, gives way to a whole one."""
        for held in self.rows():
            # A row with fewer metrics is that of a last round, which was not trained on.
            if held["round"] == row["round"] and len(held) >= len(row):
                return False
        # nan was replaced: JSON has none, and readers in other languages would refuse the file.
        line = json.dumps(without_nan(row), allow_nan=False).encode() + b"\n"
        file_path = self.metrics_file
        with writing(file_path):
            # Without what a crash cut short: the checksum is of whole lines.
            before = whole_lines(file_path.read_bytes()) if file_path.is_file() else b""
            note(file_path, before + line)  # before the line: a kill in between leaves a list that knows both states
            with file_path.open("rb+" if file_path.exists() else "wb+") as file:
                if file.seek(0, os.SEEK_END) > len(before):  # cut off what a crash left of a half-written line
                    file.truncate(len(before))
                    file.seek(len(before))
                file.write(line)
                file.flush()
                # On the disk before the checkpoint of the round, which is taken as a sign that the row is there.
                os.fsync(file.fileno())
        return True


def _write_stage(path: Path, stage: Stage[T], result: StageResult[T]) -> None:
    table = stage.encode(result.records).replace_schema_metadata({"seconds": repr(result.seconds)})
    sink = pa.BufferOutputStream()
    pq.write_table(
        table, sink, compression="lz4", write_page_checksum=True, use_dictionary=False, write_statistics=False
    )
    write_atomically(path, sink.getvalue().to_pybytes())


def _read_stage(path: Path, stage: Stage[T]) -> StageResult[T]:
    try:
        table = pq.read_table(pa.BufferReader(read_checked(path)), page_checksum_verification=True)
        return StageResult(stage.decode(table), float(table.schema.metadata[b"seconds"]))
    except DamagedError:
        # It says already what to do.
        raise
    except Exception as error:  # Arrow's, and whatever decoding makes of a table of something else
        raise DamagedError(
            f"{str(path)!r} is corrupt ({next(iter(str(error).splitlines()), type(error).__name__)}); delete that one "
            "file to have it computed again, everything else is kept"
        ) from error


def _check_prompts(path: Path, records: Sequence[Any], items: Sequence[Any]) -> None:
    """Check that a stage's file is not of another round or run, and so about other prompts. Raises DamagedError."""
    # Items that hold no prompt leave nothing to compare.
    asked = {prompt for item in items if (prompt := _prompt_of(item)) is not None}
    if not asked:
        return
    found = (_prompt_of(record) for record in records)
    strange = next((prompt for prompt in found if prompt is not None and prompt not in asked), None)
    if strange is not None:
        raise DamagedError(
            f"{str(path)!r} is corrupt (it holds prompt {strange.id!r}, which this round does not ask); delete that "
            "one file to have it computed again, everything else is kept"
        )


def _prompt_of(record: Any) -> Prompt | None:
    """Return the prompt of a prompt, a generation, a pair, a revision or a judgement; None of anything else."""
    if isinstance(record, Prompt):
        return record
    found = getattr(getattr(record, "comparison", record), "prompt", None)
    return found if isinstance(found, Prompt) else None


NUMBERS = (
    *("run.json", "config.json", "metrics.jsonl", "stopped.json", "finished.json"),
    *("round_*/*.parquet", "round_*/.*.parquet", "round_*/*.json", "round_*/policy.pt", "round_*/sync_*/*"),
    *("round_*/sync_*/.*.parquet", "checkpoints/*.ckpt", "judge/*.json"),
)
"""The files of a run that decide its numbers, as patterns within its folder."""


STOPPED = "stopped.json"
"""In the folder of a run that ended before its last round, and why."""


CHANGES = "changes"
"""Name of the JSON file with each prompt's change in quality through the last round's training."""
