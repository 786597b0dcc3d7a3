"""Files of labelled pairs, told apart by their columns.

labelled    prompt, first, second, label             label: first | second | tie, A | B, 1 | 2, or P(first): 1 | 0 | 0.5
preference  prompt, chosen, rejected                 RewardBench's too; chosen and rejected may be chat messages (then
                                                     also without a prompt), or lists of responses (RewardBench 2)
judgebench  question, response_A, response_B, label  label: A>B | B>A | A=B

Optional everywhere: subset (or source), system. labelled: author_first, author_second. preference: chosen_model,
rejected_model, and scores (score_chosen, score_rejected, or the words the other way round), where equal scores are a
tie. A prompt is a text or a list of chat messages. Two responses of the same text are a tie, whatever the label.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from rlaif_lab.audit.pairs import LabelledPair, better_and_worse
from rlaif_lab.config import did_you_mean
from rlaif_lab.records import Comparison, Prompt

Format = Literal["auto", "labelled", "preference", "judgebench"]
ENDINGS = (".jsonl", ".json", ".parquet", ".csv")

REQUIRED: dict[str, tuple[str, ...]] = {
    "labelled": ("prompt", "first", "second", "label"),
    "judgebench": ("question", "response_A", "response_B", "label"),
    "preference": ("chosen", "rejected"),
}


class Row(NamedTuple):
    """where: file and line (or row), for messages. values: column -> value."""

    where: str
    values: dict[str, Any]


# --- files to rows ------------------------------------------------------------------------------------------------
def read_rows(path: Path, limit: int | None = None) -> list[Row]:
    """The rows of a .jsonl, .json (a list of objects), .parquet or .csv file, at most ``limit``.

    ValueError, with the line, for another kind of file or one that cannot be read.
    """
    readers: dict[str, Callable[[Path], Iterator[Row]]] = dict(
        zip(ENDINGS, (_read_jsonl, _read_json, _read_parquet, _read_csv), strict=True)
    )
    if path.suffix.lower() not in readers:
        raise ValueError(f"pair bank {str(path)!r}: the name must end in one of {', '.join(ENDINGS)}")
    rows = []
    try:
        for row in readers[path.suffix.lower()](path):
            rows.append(row)
            if len(rows) == limit:
                break
    except UnicodeDecodeError as error:
        raise ValueError(f"pair bank {str(path)!r} is not UTF-8 text ({error})") from None
    except OSError as error:
        raise ValueError(f"pair bank {str(path)!r} cannot be read ({error.strerror})") from None
    return rows


def _read_jsonl(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                where = f"{path}, line {number}"
                yield Row(where, _object(where, line))


def _object(where: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not valid JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{where}: a JSON object with columns is needed; got {_short(value)}")
    return value


def _read_json(path: Path) -> Iterator[Row]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not valid JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise ValueError(f"{path}: a list of JSON objects is needed")
    for number, value in enumerate(values, 1):
        yield Row(f"{path}, item {number}", value)


def _read_csv(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        for values in reader:
            where = f"{path}, line {reader.line_num}"
            if None in values or None in values.values():
                raise ValueError(f"{where}: {len(reader.fieldnames or [])} columns are needed, as in the first line")
            yield Row(where, dict(values))


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        number = 0
        for batch in file.iter_batches(batch_size=256):
            for values in batch.to_pylist():
                number += 1
                yield Row(f"{path}, row {number}", values)
    except pa.ArrowException as error:
        raise ValueError(f"{path}: not a readable Parquet file ({' '.join(str(error).split())})") from None


# --- rows to pairs ------------------------------------------------------------------------------------------------
def parse(rows: Sequence[Row], form: str, columns: Mapping[str, str], bank: str) -> list[LabelledPair]:
    """Rows of one format as pairs. Equal prompts share an id. columns: our name -> the file's, where they differ.

    ValueError, with file and line, for a row that is not as the format says, and for a bank without pairs.
    """
    if not rows:
        raise ValueError(f"bank {bank!r} holds no pairs")
    held = list(rows[0].values)
    for ours, theirs in columns.items():
        if theirs not in held:
            hint = did_you_mean(theirs, held)
            raise ValueError(
                f"bank.columns.{ours}: {rows[0].where} has no column {theirs!r}{hint}; it has {_names(held)}"
            )
    back = {theirs: ours for ours, theirs in columns.items()}
    renamed = [Row(where, {back.get(key, key): value for key, value in values.items()}) for where, values in rows]
    form = detect(renamed[0]) if form == "auto" else form
    parsers = {"labelled": _labelled, "preference": _preference, "judgebench": _judgebench}
    return [pair for row in renamed for pair in parsers[form](_complete(row, form), bank)]


def detect(row: Row) -> str:
    """The format that a row's columns belong to."""
    for form, needed in REQUIRED.items():
        if all(column in row.values for column in needed):
            return form
    known = "; ".join(f"{form}: {', '.join(needed)}" for form, needed in REQUIRED.items())
    raise ValueError(
        f"{row.where}: the columns {_names(list(row.values))} belong to no known format ({known}); map them with "
        "bank.columns"
    )


def _complete(row: Row, form: str) -> Row:
    for column in REQUIRED[form]:
        if row.values.get(column) is None:
            held = list(row.values)
            hint = did_you_mean(column, held)
            raise ValueError(f"{row.where}: column {column!r} of format {form} is missing{hint}; it has {_names(held)}")
    return row


def _labelled(row: Row, bank: str) -> list[LabelledPair]:
    labels = {"first": 1.0, "a": 1.0, "1": 1.0, "1.0": 1.0}
    labels |= {"second": 0.0, "b": 0.0, "2": 0.0, "0": 0.0, "0.0": 0.0} | {"tie": 0.5, "0.5": 0.5}
    label = labels.get(str(row.values["label"]).strip().lower())
    if label is None:
        raise ValueError(
            f"{row.where}: label must be first, second or tie (or A, B; 1, 2; or 1, 0, 0.5 as the probability that the "
            f"first is better); got {_short(row.values['label'])}"
        )
    comparison = Comparison(_prompt(row, "prompt", bank), _text(row, "first"), _text(row, "second"))
    authors = (_optional(row, "author_first"), _optional(row, "author_second"))
    return [_as_tie(LabelledPair(comparison, label, _subset(row), *authors, row.where))]


def _judgebench(row: Row, bank: str) -> list[LabelledPair]:
    label = {"A>B": 1.0, "B>A": 0.0, "A=B": 0.5}.get(str(row.values["label"]).replace(" ", ""))
    if label is None:
        raise ValueError(f"{row.where}: label must be A>B, B>A or A=B; got {_short(row.values['label'])}")
    comparison = Comparison(_prompt(row, "question", bank), _text(row, "response_A"), _text(row, "response_B"))
    author = _optional(row, "response_model")  # one model wrote both
    return [_as_tie(LabelledPair(comparison, label, _subset(row), author, author, row.where))]


def _preference(row: Row, bank: str) -> list[LabelledPair]:
    chosen, rejected = _maybe_json(row.values["chosen"]), _maybe_json(row.values["rejected"])
    if row.values.get("prompt") is not None:
        prompt = _prompt(row, "prompt", bank)
    elif _is_chat(chosen) and _is_chat(rejected):
        prompt = _as_prompt(row, "chosen", chosen[:-1], bank)
    else:
        raise ValueError(f"{row.where}: column 'prompt' is missing, which only chat messages can do without")
    scores = _scores(row)
    authors = (_optional(row, "chosen_model"), _optional(row, "rejected_model"))
    return [
        _as_tie(better_and_worse(prompt, good, bad, _subset(row), *authors, row.where, scores == 0))
        for good in _responses(row, "chosen")
        for bad in _responses(row, "rejected")
    ]


def _scores(row: Row) -> float:
    """Score of the chosen minus that of the rejected; 1 where there are none."""
    for pattern in ("score_{}", "{}_score"):
        names = [pattern.format(which) for which in ("chosen", "rejected")]
        values = [row.values.get(name) for name in names]
        if any(value is None or value == "" for value in values):
            continue
        try:
            difference = float(values[0]) - float(values[1])  # type: ignore[arg-type]
        except (TypeError, ValueError):
            raise ValueError(f"{row.where}: {names[0]} and {names[1]} must be numbers; got {_short(values)}") from None
        if not difference >= 0:
            raise ValueError(f"{row.where}: {names[0]} is {values[0]}, less than {names[1]}, which is {values[1]}")
        return difference
    return 1.0


# --- values -------------------------------------------------------------------------------------------------------
def _prompt(row: Row, column: str, bank: str) -> Prompt:
    value = _maybe_json(row.values[column])
    if _is_chat(value):
        return _as_prompt(row, column, value, bank)
    text = _text(row, column)
    system = _optional(row, "system")
    turns = (("system", system), ("user", text)) if system else ()
    return Prompt(_id(bank, text, turns), text, turns)


def _as_prompt(row: Row, column: str, messages: Sequence[Any], bank: str) -> Prompt:
    turns = tuple((str(message["role"]), str(message["content"])) for message in messages)
    asked = [content for role, content in turns if role == "user"]
    if not asked or turns[-1][0] != "user":
        raise ValueError(f"{row.where}: the messages of {column!r} must end the prompt with a user's turn")
    return Prompt(_id(bank, asked[-1], turns), asked[-1], () if len(turns) == 1 else turns)


def _responses(row: Row, column: str) -> list[str]:
    """One text; of chat messages the last, which must be the assistant's; of a list of texts each."""
    value = _maybe_json(row.values[column])
    if _is_chat(value):
        if value[-1]["role"] != "assistant":
            raise ValueError(f"{row.where}: the messages of {column!r} must end with the assistant's turn")
        return [str(value[-1]["content"])]
    if isinstance(value, list) and value and all(isinstance(text, str) for text in value):
        return value
    return [_text(row, column)]


def _text(row: Row, column: str) -> str:
    value = row.values[column]
    if not isinstance(value, str):
        raise ValueError(f"{row.where}: {column} must be a text or chat messages; got {_short(value)}")
    return value


def _optional(row: Row, column: str) -> str | None:
    value = row.values.get(column)
    return None if value is None or value == "" else str(value)


def _subset(row: Row) -> str:
    return _optional(row, "subset") or _optional(row, "source") or ""


def _as_tie(pair: LabelledPair) -> LabelledPair:
    """A pair of one and the same text has no better response, whatever the file says."""
    same = pair.comparison.first == pair.comparison.second
    return replace(pair, prob_first_is_better=0.5) if same else pair


def _is_chat(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(message, dict) and {"role", "content"} <= set(message) for message in value)
    )


def _maybe_json(value: Any) -> Any:
    """CSV has no lists: a text that is a JSON list of messages or texts is read as one."""
    if isinstance(value, str) and value.lstrip().startswith(("[{", '["')):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _id(bank: str, text: str, turns: tuple[tuple[str, str], ...]) -> str:
    return f"{bank}/{hashlib.blake2b(repr((text, turns)).encode(), digest_size=6).hexdigest()}"


def _names(columns: Sequence[str]) -> str:
    return ", ".join(columns) or "none"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


assert set(REQUIRED) | {"auto"} == set(get_args(Format))
