"""Labels in and out: CSV, JSON lines, Label Studio and Argilla. What comes in is held against the queue."""

from __future__ import annotations

import csv
import io
import json
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from rlaif_lab.people.queue import CHOICES, Choice, Item, Label, LabelQueue
from rlaif_lab.store.spreadsheets import FORMULA

Format = Literal["csv", "jsonl", "label_studio", "argilla"]
FORMATS: tuple[Format, ...] = get_args(Format)
COLUMNS = ("item", "conversation", "first", "second", "annotator", "choice", "swapped", "seconds", "reason")
USERS = uuid.UUID("5d3b1f0a-6f0e-5c3e-9b51-2f8f6a1c7d11")
"""Namespace of the ids under which Argilla, which takes no names, knows annotators."""

LABEL_CONFIG = """<View>
  <Text name="prompt" value="$conversation"/>
  <Text name="first" value="$first"/>
  <Text name="second" value="$second"/>
  <Choices name="choice" toName="prompt" choice="single" required="true">
    <Choice value="first"/>
    <Choice value="second"/>
    <Choice value="tie"/>
    <Choice value="skip"/>
    <Choice value="flag"/>
  </Choices>
  <TextArea name="reason" toName="prompt"/>
</View>
"""
"""The labelling interface of a Label Studio project that takes the tasks, and gives annotations that come in again."""

Labelled = Mapping[str, Sequence[Label]]


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
def export(queues: Sequence[LabelQueue], form: Format) -> str:
    """Return the queues with their labels as one text in this format. Attention checks are left out.

    A comparison that stands in several queues, as where runs of a sweep share it, is written once.
    """
    items: dict[str, Item] = {}
    labels: dict[str, dict[str, Label]] = {}
    for queue in queues:
        items |= {item.id: item for item in queue.items() if item.gold is None and item.id not in items}
        for label in queue.labels():
            labels.setdefault(label.item, {}).setdefault(label.annotator, label)
    return _WRITERS[form](list(items.values()), {item: list(by.values()) for item, by in labels.items()})


def messages(item: Item) -> list[dict[str, str]]:
    """Return the whole conversation that the two responses answer, earlier turns included."""
    return [{"role": role, "content": text} for role, text in item.prompt.turns or (("user", item.prompt.text),)]


def conversation(item: Item) -> str:
    """Return the same as one text; a single question stands by itself."""
    turns = messages(item)
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def _rows(items: Sequence[Item], labels: Labelled) -> Iterator[dict[str, Any]]:
    """Yield one row per label; one without a label for an item that has none yet."""
    nobody = dict.fromkeys(("annotator", "choice", "swapped", "seconds", "reason"))
    for item in items:
        about = {"item": item.id, "conversation": conversation(item), "first": item.first, "second": item.second}
        said = [{key: getattr(label, key) for key in nobody} for label in labels.get(item.id, ())]
        for row in said or [nobody]:
            yield about | row


def _csv(items: Sequence[Item], labels: Labelled) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in _rows(items, labels):
        writer.writerow({key: _inert(value) for key, value in row.items()})
    return out.getvalue()


def _inert(value: Any) -> Any:
    """Return a text that a spreadsheet does not take for a formula: behind an apostrophe, as is one that begins with
    one, so that `_active` gets either back."""
    return f"'{value}" if isinstance(value, str) and value.startswith((*FORMULA, "'")) else value


def _active(value: str | None) -> str | None:
    """Return what `_inert` was given. An apostrophe that it cannot have put there stays."""
    return value[1:] if value and value[0] == "'" and value[1:].startswith((*FORMULA, "'")) else value


def _jsonl(items: Sequence[Item], labels: Labelled) -> str:
    turns = {item.id: messages(item) for item in items}
    return "".join(json.dumps({**row, "conversation": turns[row["item"]]}) + "\n" for row in _rows(items, labels))


def _label_studio(items: Sequence[Item], labels: Labelled) -> str:
    """Return Label Studio's tasks, each with its annotations, for a project with LABEL_CONFIG."""
    return json.dumps(
        [
            {
                "data": {
                    "item": item.id,
                    "conversation": conversation(item),
                    "first": item.first,
                    "second": item.second,
                },
                "annotations": [_annotation(label) for label in labels.get(item.id, ())],
            }
            for item in items
        ],
        indent=1,
    )


def _annotation(label: Label) -> dict[str, Any]:
    said = [{"from_name": "choice", "type": "choices", "value": {"choices": [label.choice]}}]
    if label.reason:
        said.append({"from_name": "reason", "type": "textarea", "value": {"text": [label.reason]}})
    result = [{"id": f"{label.item}-{region['type']}", "to_name": "prompt", **region} for region in said]
    return {"completed_by": {"email": label.annotator}, "lead_time": label.seconds, "result": result}


def _argilla(items: Sequence[Item], labels: Labelled) -> str:
    """Return Argilla's records, for a data set with the fields prompt (chat), first, second, the questions ``choice``
    and ``reason``, and the metadata ``labels``: what Argilla has no place for, by the annotator's id."""
    records = []
    for item in items:
        said = labels.get(item.id, ())
        kept = {
            _user(label.annotator): {"name": label.annotator, "seconds": label.seconds, "swapped": label.swapped}
            for label in said
        }
        reasons = [_response(label, label.reason) for label in said if label.reason]
        responses = {"choice": [_response(label, label.choice) for label in said]}
        records.append(
            {
                "id": item.id,
                "fields": {"prompt": messages(item), "first": item.first, "second": item.second},
                "metadata": {"labels": json.dumps(kept)} if kept else {},
                "responses": (responses | ({"reason": reasons} if reasons else {})) if said else {},
            }
        )
    return json.dumps(records, indent=1)


def _response(label: Label, value: str) -> dict[str, str]:
    return {"value": value, "user_id": _user(label.annotator), "status": "submitted"}


def _user(annotator: str) -> str:
    """Return the id of an annotator; one that came from Argilla has its own."""
    try:
        return str(uuid.UUID(annotator))
    except ValueError:
        return str(uuid.uuid5(USERS, annotator))


_WRITERS: Mapping[Format, Callable[[Sequence[Item], Labelled], str]] = {
    "csv": _csv,
    "jsonl": _jsonl,
    "label_studio": _label_studio,
    "argilla": _argilla,
}


# --- in ---------------------------------------------------------------------------------------------------------------
def load(queues: Sequence[LabelQueue], path: Path, form: Format) -> Imported:
    """Add the labels of a file to the queues that hold their items. What does not fit is told and left out; nothing
    that is there is lost.

    Raises:
        ValueError: for a file that is not of this format.
    """
    new = known = 0
    refused: list[str] = []
    # Read once, since a file may hold thousands of labels.
    held = [{item.id for item in queue.items()} for queue in queues]
    before = [{(label.item, label.annotator): label for label in queue.labels()} for queue in queues]
    for where, label in _labels(path, form):
        if isinstance(label, str):
            refused.append(f"{where}: {label}")
            continue
        # In every queue that holds it: runs of a sweep may share a comparison.
        places = [index for index, ids in enumerate(held) if label.item in ids]
        if not places:
            refused.append(f"{where}: item {label.item!r} is not in the queue")
            continue
        key, added = (label.item, label.annotator), False
        try:
            for index in places:
                there = before[index].get(key)
                # The same choice is there already; another one the queue refuses.
                if there is None or there.choice != label.choice:
                    queues[index].label(label)
                    before[index][key], added = label, True
        except ValueError as error:
            refused.append(f"{where}: {error}")
        else:
            new, known = new + added, known + (not added)
    return Imported(new, known, tuple(refused))


def _labels(path: Path, form: Format) -> Iterator[tuple[str, Label | str]]:
    """Yield where each label stands, and the label or what is wrong with it."""
    try:
        # A spreadsheet writes a byte order mark first.
        with path.open(encoding="utf-8-sig", newline="") as file:
            text = file.read()
        # To the end before the first label is taken: a file that breaks off must add nothing.
        rows = list(_READERS[form](text))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, csv.Error) as error:
        raise ValueError(f"{str(path)!r} cannot be read as {form}: {error}") from error
    for number, row in enumerate(rows, start=1):
        if "problem" not in row and row.get("choice") in (None, ""):
            continue  # not labelled yet
        yield f"{path.name}, label {number}", _label(row)


def _label(row: Mapping[str, Any]) -> Label | str:
    choice, annotator, item = row.get("choice"), row.get("annotator"), row.get("item")
    if "problem" in row:
        return str(row["problem"])
    if choice not in CHOICES:
        return f"a choice must be one of {', '.join(CHOICES)}; got {choice!r}"
    if not annotator or not item:
        return "a label needs an item and an annotator"
    try:
        seconds = float(row.get("seconds") or 0.0)
    except (TypeError, ValueError):
        return f"seconds must be a number; got {row.get('seconds')!r}"
    # CSV has True as a text, JSON as itself; 1 and 0 equal them.
    known: dict[Any, bool | None] = {None: None, "": None, True: True, False: False, "True": True, "False": False}
    shown = row.get("swapped")
    # These cannot be looked up in a dict.
    if isinstance(shown, (list, dict)) or shown not in known:
        return f"swapped must be True, False or empty; got {shown!r}"
    reason = row.get("reason")
    return Label(
        str(item),
        str(annotator),
        cast(Choice, choice),
        swapped=known[shown],
        seconds=seconds,
        reason=str(reason) if reason else None,
    )


def _read_csv(text: str) -> Iterable[Mapping[str, Any]]:
    before = csv.field_size_limit(sys.maxsize)  # a response may be long
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""))
        names = list(reader.fieldnames or ())
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the column {twice[0]} is there twice")
        lacking = {"item", "annotator", "choice"} - set(names)
        if lacking:
            raise ValueError(f"the columns {', '.join(sorted(lacking))} are missing")
        # Cells beyond the header's come under None.
        return [{key: _active(value) for key, value in row.items() if key} for row in reader]
    finally:
        csv.field_size_limit(before)


def _read_jsonl(text: str) -> Iterable[Mapping[str, Any]]:
    # Not splitlines, which would end a line at U+2028 within a text.
    rows = [json.loads(line) for line in text.split("\n") if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("every line must be a JSON object")
    return rows


def _list(text: str) -> list[Any]:
    found = json.loads(text)
    if not isinstance(found, list):
        raise ValueError(f"it must hold a list; got a {type(found).__name__}")
    return found


def _read_label_studio(text: str) -> Iterator[Mapping[str, Any]]:
    for task in _list(text):
        for annotation in task.get("annotations") or ():
            if annotation.get("was_cancelled"):
                continue  # skipped there
            by = annotation.get("completed_by")
            annotator = by.get("email") if isinstance(by, dict) else by
            result = annotation.get("result") or ()
            chosen = _chosen(result)
            if len(chosen) != 1:
                yield {
                    "annotator": annotator,
                    "problem": f"an annotation must hold one choice; {annotator} gave {len(chosen)} for item "
                    f"{task['data']['item']!r}",
                }
                continue
            written = [text for r in result if r.get("type") == "textarea" for text in r["value"]["text"]]
            yield {
                "item": task["data"]["item"],
                "annotator": annotator,
                "choice": chosen[0],
                "seconds": annotation.get("lead_time"),
                "reason": "\n".join(written) or None,
            }


def _chosen(result: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Return what was chosen under the name that the labelling interface says, whatever else a project asks for."""
    regions = [region for region in result if region.get("type") == "choices"]
    ours = [region for region in regions if region.get("from_name") == "choice"] or regions
    return [choice for region in ours for choice in region["value"]["choices"]]


def _read_argilla(text: str) -> Iterator[Mapping[str, Any]]:
    for record in _list(text):
        kept = json.loads((record.get("metadata") or {}).get("labels") or "{}")
        responses = record.get("responses") or {}
        reasons = {said.get("user_id"): said.get("value") for said in responses.get("reason") or ()}
        for said in responses.get("choice") or ():
            user = said.get("user_id")
            about = kept.get(user, {})
            annotator, status = about.get("name", user), said.get("status", "submitted")
            if status != "submitted":
                problem = f"a response must be submitted; {annotator}'s to item {record['id']!r} is {status}"
                yield {"annotator": annotator, "problem": problem}
                continue
            yield {
                "item": record["id"],
                "annotator": annotator,
                "choice": said.get("value"),
                "swapped": about.get("swapped"),
                "seconds": about.get("seconds"),
                "reason": reasons.get(user),
            }


_READERS: Mapping[Format, Callable[[str], Iterable[Mapping[str, Any]]]] = {
    "csv": _read_csv,
    "jsonl": _read_jsonl,
    "label_studio": _read_label_studio,
    "argilla": _read_argilla,
}
