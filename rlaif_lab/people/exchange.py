"""Labels in and out: CSV, JSON lines, Label Studio and Argilla. What comes in is held against the queue."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from rlaif_lab.people.queue import CHOICES, Choice, Item, Label, LabelQueue

Format = Literal["csv", "jsonl", "label_studio", "argilla"]
FORMATS: tuple[Format, ...] = get_args(Format)
COLUMNS = ("item", "prompt", "first", "second", "annotator", "choice", "seconds", "reason")
FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Imported:
    """Attributes:
    new: Labels that were added.
    known: Labels that were there already.
    refused: For each row that was not taken, where it stands and why.
    """

    new: int
    known: int
    refused: tuple[str, ...]


# --- out --------------------------------------------------------------------------------------------------------------
def export(queue: LabelQueue, form: Format) -> str:
    """Return the queue with its labels as text in this format. Attention checks are left out."""
    items = [item for item in queue.items() if item.gold is None]
    labels: dict[str, list[Label]] = {}
    for label in queue.labels():
        labels.setdefault(label.item, []).append(label)
    return _WRITERS[form](items, labels)


def _rows(items: Sequence[Item], labels: Mapping[str, Sequence[Label]]) -> Iterable[dict[str, Any]]:
    """Yield one row per label; one without a label for an item that has none yet."""
    for item in items:
        about = {"item": item.id, "prompt": item.prompt.text, "first": item.first, "second": item.second}
        for label in labels.get(item.id, ()):
            said = {"annotator": label.annotator, "choice": label.choice, "seconds": label.seconds}
            yield {**about, **said, "reason": label.reason}
        if not labels.get(item.id):
            yield {**about, "annotator": None, "choice": None, "seconds": None, "reason": None}


def _csv(items: Sequence[Item], labels: Mapping[str, Sequence[Label]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in _rows(items, labels):
        writer.writerow({key: _inert(value) for key, value in row.items()})
    return out.getvalue()


def _inert(value: Any) -> Any:
    """Return a text that a spreadsheet does not take for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _jsonl(items: Sequence[Item], labels: Mapping[str, Sequence[Label]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in _rows(items, labels))


def _label_studio(items: Sequence[Item], labels: Mapping[str, Sequence[Label]]) -> str:
    """Return Label Studio's tasks, each with its annotations, for a project with one ``Choices`` named ``choice``."""
    tasks = [
        {
            "data": {"item": item.id, "prompt": item.prompt.text, "first": item.first, "second": item.second},
            "annotations": [
                {
                    "completed_by": {"email": label.annotator},
                    "lead_time": label.seconds,
                    "result": [
                        {
                            "from_name": "choice",
                            "to_name": "prompt",
                            "type": "choices",
                            "value": {"choices": [label.choice]},
                        }
                    ],
                }
                for label in labels.get(item.id, ())
            ],
        }
        for item in items
    ]
    return json.dumps(tasks, indent=1)


def _argilla(items: Sequence[Item], labels: Mapping[str, Sequence[Label]]) -> str:
    """Return Argilla's records, for a data set with the fields prompt, first, second and a question ``choice``."""
    records = [
        {
            "id": item.id,
            "fields": {"prompt": item.prompt.text, "first": item.first, "second": item.second},
            "metadata": {},
            "responses": {
                "choice": [{"value": label.choice, "user_id": label.annotator} for label in labels.get(item.id, ())]
            },
        }
        for item in items
    ]
    return json.dumps(records, indent=1)


_WRITERS: Mapping[Format, Callable[[Sequence[Item], Mapping[str, Sequence[Label]]], str]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "label_studio": _label_studio,
    "argilla": _argilla,
}


# --- in ---------------------------------------------------------------------------------------------------------------
def load(queue: LabelQueue, path: Path, form: Format) -> Imported:
    """Add the labels of a file to the queue. What does not fit is told and left out; nothing that is there is lost.

    Raises:
        ValueError: for a file that is not of this format.
    """
    new = known = 0
    refused: list[str] = []
    before = {(label.item, label.annotator): label.choice for label in queue.labels()}
    for where, label in _labels(path, form):
        if isinstance(label, str):
            refused.append(f"{where}: {label}")
            continue
        if before.get((label.item, label.annotator)) == label.choice:
            known += 1
            continue
        try:
            queue.label(label)
        except ValueError as error:
            refused.append(f"{where}: {error}")
        else:
            before[label.item, label.annotator] = label.choice
            new += 1
    return Imported(new, known, tuple(refused))


def _labels(path: Path, form: Format) -> Iterable[tuple[str, Label | str]]:
    """Yield where each label stands, and the label or what is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = list(_READERS[form](text))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{str(path)!r} cannot be read as {form}: {error}") from error
    for number, row in enumerate(rows, start=1):
        if row.get("choice") in (None, ""):
            continue  # not labelled yet
        yield f"{path.name}, label {number}", _label(row)


def _label(row: Mapping[str, Any]) -> Label | str:
    choice, annotator, item = row["choice"], row.get("annotator"), row.get("item")
    if choice not in CHOICES:
        return f"a choice must be one of {', '.join(CHOICES)}; got {choice!r}"
    if not annotator or not item:
        return "a label needs an item and an annotator"
    try:
        seconds = float(row.get("seconds") or 0.0)
    except ValueError:
        return f"seconds must be a number; got {row.get('seconds')!r}"
    reason = row.get("reason")
    return Label(str(item), str(annotator), cast(Choice, choice), swapped=False, seconds=seconds, reason=reason or None)


def _read_csv(text: str) -> Iterable[Mapping[str, Any]]:
    reader = csv.DictReader(io.StringIO(text))
    lacking = {"item", "annotator", "choice"} - set(reader.fieldnames or ())
    if lacking:
        raise ValueError(f"the columns {', '.join(sorted(lacking))} are missing")
    return [{key: value.removeprefix("'") if value else value for key, value in row.items() if key} for row in reader]


def _read_jsonl(text: str) -> Iterable[Mapping[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _read_label_studio(text: str) -> Iterable[Mapping[str, Any]]:
    for task in json.loads(text):
        for annotation in task.get("annotations", ()):
            by = annotation.get("completed_by")
            chosen = [r["value"]["choices"][0] for r in annotation.get("result", ()) if r.get("type") == "choices"]
            yield {
                "item": task["data"]["item"],
                "annotator": by.get("email") if isinstance(by, dict) else by,
                "choice": chosen[0] if chosen else None,
                "seconds": annotation.get("lead_time"),
            }


def _read_argilla(text: str) -> Iterable[Mapping[str, Any]]:
    for record in json.loads(text):
        for response in record.get("responses", {}).get("choice", ()):
            yield {"item": record["id"], "annotator": response.get("user_id"), "choice": response.get("value")}


_READERS: Mapping[Format, Callable[[str], Iterable[Mapping[str, Any]]]] = {
    "csv": _read_csv,
    "jsonl": _read_jsonl,
    "label_studio": _read_label_studio,
    "argilla": _read_argilla,
}
