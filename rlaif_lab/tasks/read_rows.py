"""The one reader of users' data: rows of a file, a saved data set or a data set of the hub, each with its place.

Prompts, pair banks and graded answers all come through here, so endings, encodings, long fields and messages about
mistakes are the same everywhere.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

FORMATS = (".jsonl", ".json", ".csv", ".parquet")
ZIPPED = ".gz"
"""May follow any ending but .parquet, which is compressed within."""

_LONGEST_FIELD = 2**31 - 1  # the csv module's own limit is 131,072 characters
_HALF = re.compile("[\ud800-\udfff]")


class FileRow(NamedTuple):
    """where: file and line (or item, or row), for messages. values: column -> value."""

    where: str
    values: dict[str, Any]


def ending(path: Path) -> str:
    """Return the ending that says how a file is read, in small letters and without .gz."""
    name = path.name.lower().removesuffix(ZIPPED)
    return Path(name).suffix


def read_rows(
    path: str | Path, split: str = "train", subset: str | None = None, *, limit: int | None = None, key: str = "path"
) -> Iterator[FileRow]:
    """Yield the rows of a file (JSON lines, JSON, CSV, Parquet), a folder or a data set of the hub.

    Half a surrogate pair, which is no character and which no tokenizer takes, becomes U+FFFD.

    Args:
        path: the file, the folder or the hub id (owner/name).
        split: split of a folder or of the hub; files have none.
        subset: configuration of a data set of the hub.
        limit: number of rows; None for all.
        key: name of the setting that gave the path, for messages.

    Raises:
        ValueError: with file and line, for what cannot be read.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return islice(_of_file(place, key), limit)
    return islice(_of_data_set(place if place.is_dir() else None, str(path), split, subset, key), limit)


# --- files ------------------------------------------------------------------------------------------------------------
def _of_file(place: Path, key: str) -> Iterator[FileRow]:
    reader = _READERS.get(ending(place))
    if reader is None:
        raise ValueError(wrong_ending(place, key))
    # Rows are read while they are asked for, so this is where errors come.
    try:
        yield from reader(place)
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not written in UTF-8 ({error.reason} at byte {error.start})") from None
    except (EOFError, gzip.BadGzipFile) as error:
        raise ValueError(f"{place} is not a whole gzip file ({error})") from None
    except OSError as error:
        raise ValueError(f"{place} cannot be read ({error.strerror or error})") from None


def wrong_ending(place: Path, key: str) -> str:
    """Return the sentence that refuses a file by its name."""
    hint = "; call a file of JSON lines .jsonl" if ending(place) in (".ndjson", ".jsonlines", ".jl") else ""
    return f"{key}: the name of a file must end in one of {', '.join(FORMATS)}; got {str(place)!r}{hint}"


def _text(place: Path) -> io.TextIOBase:
    """Open a text file, zipped or not. Its line ends stay as they are; a byte order mark is left out."""
    if place.name.lower().endswith(ZIPPED):
        return gzip.open(place, "rt", encoding="utf-8-sig", newline="")
    return place.open(encoding="utf-8-sig", newline="")


def _json_lines(place: Path) -> Iterator[FileRow]:
    with _text(place) as lines:
        yield from _objects_by_line(place, lines)


def _objects_by_line(place: Path, lines: io.TextIOBase) -> Iterator[FileRow]:
    # Unlike splitlines, a file ends its lines at CR and LF alone: U+2028 may stand within a text.
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{place}, line {number}"
            yield FileRow(where, _object(where, _parsed(where, line.strip())))


def _json(place: Path) -> Iterator[FileRow]:
    """Read a list of objects; or, since many call them so, JSON lines."""
    with _text(place) as file:
        text = file.read()
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        # A second value follows the first: JSON lines, if that is an object on one line.
        if _begins_with_an_object(text) and error.msg == "Extra data":
            yield from _objects_by_line(place, io.StringIO(text, newline=""))
            return
        raise ValueError(f"{place}, line {error.lineno}: not valid JSON ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place}: not valid JSON ({_reason(error)})") from None
    if not isinstance(rows, list):
        raise ValueError(f"{place} must hold a list of objects, or an object on each line; it holds a {_kind(rows)}")
    for number, row in enumerate(rows, start=1):
        where = f"{place}, item {number}"
        yield FileRow(where, _object(where, row))


def _begins_with_an_object(text: str) -> bool:
    first = next((line for line in io.StringIO(text, newline="") if line.strip()), "")
    try:
        return isinstance(json.loads(first), dict)
    except (ValueError, RecursionError):
        return False


def _parsed(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not valid JSON ({error.msg}, column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; thousands of brackets
        raise ValueError(f"{where}: not valid JSON ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error).split(";")[0]


def _object(where: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: must be an object of named columns; it is a {_kind(value)}")
    return {_whole(name): _whole(held) for name, held in value.items()}


def _kind(value: Any) -> str:
    return type(value).__name__


def _whole(value: Any) -> Any:
    """Replace halves of surrogate pairs in every text of a value."""
    if isinstance(value, str):
        return value if value.isascii() else _HALF.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(name): _whole(item) for name, item in value.items()}
    return value


def _csv(place: Path) -> Iterator[FileRow]:
    csv.field_size_limit(_LONGEST_FIELD)
    with _text(place) as lines:
        # strict: a quotation mark that is never closed would take in the rest of the file.
        reader = csv.reader(lines, strict=True)
        names: list[str] | None = None
        try:
            for cells in reader:
                if not cells:
                    continue
                where = f"{place}, line {reader.line_num}"
                if names is None:
                    names = cells
                    for name in names:
                        if names.count(name) > 1:
                            raise ValueError(f"{where}: two columns are called {name!r}")
                    continue
                if len(cells) != len(names):
                    raise ValueError(
                        f"{where}: {len(names)} columns are needed, as in the first line; there are {len(cells)}"
                    )
                yield FileRow(where, {name: _messages(cell) for name, cell in zip(names, cells, strict=True)})
        except csv.Error as error:
            raise ValueError(f"{place}, line {reader.line_num}: not valid CSV ({error})") from None


def _messages(cell: str) -> Any:
    """Return a list of chat messages where a cell is one written as JSON (CSV has no lists); else the cell."""
    if not cell.lstrip().startswith("[{"):
        return cell
    try:
        value = json.loads(cell)
    except (ValueError, RecursionError):
        return cell
    messages = all(isinstance(item, dict) and {"role", "content"} <= set(item) for item in value)
    return _whole(value) if messages else cell


def _parquet(place: Path) -> Iterator[FileRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        # In batches: a file may be larger than the memory.
        for batch in pq.ParquetFile(place).iter_batches(batch_size=256):
            for values in batch.to_pylist():
                number += 1
                yield FileRow(f"{place}, row {number}", values)
    except pa.ArrowException as error:
        raise ValueError(f"{place} is not a Parquet file ({' '.join(str(error).split())[:200]})") from None
    except UnicodeDecodeError:
        raise ValueError(f"{place}, after row {number}: a text is not written in UTF-8") from None


_READERS = {".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}


# --- data sets --------------------------------------------------------------------------------------------------------
def _of_data_set(folder: Path | None, path: str, split: str, subset: str | None, key: str) -> Iterator[FileRow]:
    for number, values in enumerate(_data_set(folder, path, split, subset, key), start=1):
        yield FileRow(f"{path}, split {split}, row {number}", values)


def _data_set(folder: Path | None, path: str, split: str, subset: str | None, key: str) -> Any:
    """Load by the datasets library: a folder that ``save_to_disk`` wrote, one with data files, or one of the hub."""
    import datasets

    datasets.disable_progress_bars()
    try:
        if folder is None or not any((folder / name).exists() for name in ("dataset_dict.json", "state.json")):
            return datasets.load_dataset(str(folder or path), subset, split=split)
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # the library raises many kinds
        reason = " ".join(str(error).split())[:400]
        raise ValueError(f"{key}: cannot load {path!r}, split {split!r}: {reason}") from error
    if not isinstance(saved, datasets.DatasetDict):
        return saved
    if split not in saved:
        raise ValueError(f"{key}: {path!r} has no split {split!r}; it has {', '.join(saved)}")
    return saved[split]
