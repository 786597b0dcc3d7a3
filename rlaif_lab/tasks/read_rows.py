"""Rows of a data file, a saved dataset or a dataset of the hub, with where each came from."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Located = tuple[str, Row]
"""Where a row stands, for messages (``prompts.jsonl, line 3``), and its columns."""

FORMATS = (".jsonl", ".json", ".csv", ".parquet")


def read_rows(path: str, split: str, subset: str | None) -> Iterator[Located]:
    """Rows of a file (JSON lines, JSON, CSV, Parquet), of a folder or of a dataset of the hub.

    split, subset: of a folder and of the hub; files have none. Raises ValueError, with file and line, for what cannot
    be read.
    """
    place = Path(path).expanduser()
    if place.is_file():
        try:
            yield from _READERS[place.suffix](place)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path!r} is not written in UTF-8 ({error})") from None
    else:
        for i, row in enumerate(_dataset(place if place.is_dir() else None, path, split, subset)):
            yield f"{path!r}, split {split!r}, row {i}", row


def _json_lines(file: Path) -> Iterator[Located]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                where = f"{str(file)!r}, line {number}"
                try:
                    row = json.loads(line.strip())
                except json.JSONDecodeError as error:
                    raise ValueError(f"{where}: not valid JSON ({error.msg}, column {error.colno})") from None
                yield where, _mapping(where, row)


def _json(file: Path) -> Iterator[Located]:
    try:
        rows = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{str(file)!r}, line {error.lineno}: not valid JSON ({error.msg}, column {error.colno}); if every line is "
            "an object of its own, call the file .jsonl"
        ) from None
    if not isinstance(rows, list):
        raise ValueError(f"{str(file)!r} must hold a list of objects; it holds a {type(rows).__name__}")
    for i, row in enumerate(rows):
        yield f"{str(file)!r}, item {i}", _mapping(f"{str(file)!r}, item {i}", row)


def _csv(file: Path) -> Iterator[Located]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            for row in reader:
                where = f"{str(file)!r}, line {reader.line_num}"
                if None in row:
                    raise ValueError(f"{where}: more values than the {len(reader.fieldnames or ())} columns")
                yield where, row
        except csv.Error as error:
            raise ValueError(f"{str(file)!r}, line {reader.line_num}: not valid CSV ({error})") from None


def _parquet(file: Path) -> Iterator[Located]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{str(file)!r} is not a Parquet file ({' '.join(str(error).split())})") from None
    for i, row in enumerate(table.to_pylist()):
        yield f"{str(file)!r}, row {i}", row


_READERS = {".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}


def _mapping(where: str, row: Any) -> Row:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: must be an object of named columns; it is a {type(row).__name__}")
    return row


def _dataset(folder: Path | None, path: str, split: str, subset: str | None) -> Any:
    """By the datasets library: a folder that ``save_to_disk`` wrote, one with data files, or a dataset of the hub."""
    import datasets

    datasets.disable_progress_bars()
    try:
        if folder is None or not any((folder / name).exists() for name in ("dataset_dict.json", "state.json")):
            return datasets.load_dataset(str(folder or path), subset, split=split)
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library raises many kinds
        raise ValueError(f"cannot load dataset {path!r}: {' '.join(str(error).split())[:400]}") from error
    if not isinstance(saved, datasets.DatasetDict):
        return saved
    if split not in saved:
        raise ValueError(f"dataset {path!r} has no split {split!r}; it has {', '.join(saved)}")
    return saved[split]
