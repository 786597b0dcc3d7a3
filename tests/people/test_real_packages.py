"""Exports and imports held against Argilla and the SDK of Label Studio themselves, where these are installed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from people.test_exchange import label_all, queue_of
from rlaif_lab.people.exchange import LABEL_CONFIG, export, load

TEXTS = ["plain", "=HYPERLINK()", 'two\nlines, "quoted"', "العربية"]


def test_argilla_takes_the_records_and_what_it_writes_comes_in(tmp_path: Path) -> None:
    rg = pytest.importorskip("argilla", reason="argilla is not installed: its formats were not checked")
    here, there = queue_of(tmp_path / "here", TEXTS), queue_of(tmp_path / "there", TEXTS)
    label_all(here)
    client = MagicMock()  # no server is asked
    rg.Argilla._default_client = client
    settings = rg.Settings(
        fields=[rg.ChatField("prompt"), rg.TextField("first"), rg.TextField("second")],
        questions=[
            rg.LabelQuestion("choice", labels=["first", "second", "tie", "skip", "flag"]),
            rg.TextQuestion("reason", required=False),
        ],
        metadata=[rg.TermsMetadataProperty("labels")],
    )
    settings.validate()
    dataset = rg.Dataset(name="comparisons", settings=settings, client=client)
    exported = json.loads(export([here], "argilla"))
    records = [rg.Record.from_dict(row, dataset=dataset) for row in exported]
    for record, row in zip(records, exported, strict=True):
        assert set(record.fields.to_dict()) == {field.name for field in settings.fields} == set(row["fields"])
        sent = json.loads(record.api_model().model_dump_json())  # what goes to its server, checked by pydantic
        assert (sent["external_id"], sent["fields"]) == (row["id"], row["fields"])
        assert {answer["status"] for answer in sent["responses"]} <= {"submitted"}
    file = tmp_path / "records.json"

    importlib.import_module("argilla.records._io").JsonIO.to_json(records, file)  # what its data sets write
    found = load([there], file, "argilla")
    assert (found.new, found.refused) == (4, ())
    assert there.labels() == here.labels()


def test_label_studio_takes_the_tasks_and_annotations(tmp_path: Path) -> None:
    interface: Any = pytest.importorskip(
        "label_studio_sdk.label_interface", reason="label-studio-sdk is not installed: its formats were not checked"
    )

    here, there = queue_of(tmp_path / "here", TEXTS), queue_of(tmp_path / "there", TEXTS)
    label_all(here)
    config = interface.LabelInterface(LABEL_CONFIG)
    config.validate()
    tasks = json.loads(export([here], "label_studio"))
    assert not config.validate_task({"data": {"item": "x"}}), "it does look"
    for task in tasks:
        assert config.validate_task({"data": task["data"]})
        for annotation in task["annotations"]:
            assert config.validate_annotation(annotation)
    # What its converter, which is behind its own export, makes of them: the choice is what it reads.
    folder = tmp_path / "tasks"
    folder.mkdir()
    for number, task in enumerate(tasks):
        (folder / f"{number}.json").write_text(json.dumps({"id": number, **task}))
    converter = importlib.import_module("label_studio_sdk.converter").Converter
    converter(LABEL_CONFIG, str(tmp_path)).convert_to_json_min(str(folder), str(tmp_path / "out"))
    read = json.loads((tmp_path / "out" / "result.json").read_text())
    assert sorted(row["choice"] for row in read) == sorted(label.choice for label in here.labels())
    # What its server exports has more keys, and people by number or by mail.
    exported = [
        {
            "id": number,
            **task,
            "predictions": [],
            "annotations": [{"id": 1, "was_cancelled": False, **a} for a in task["annotations"]],
        }
        for number, task in enumerate(tasks)
    ]
    file = tmp_path / "export.json"
    file.write_text(json.dumps(exported))
    found = load([there], file, "label_studio")
    assert (found.new, found.refused) == (4, ())
    assert [(x.choice, x.seconds, x.reason) for x in there.labels()] == [
        (x.choice, x.seconds, x.reason) for x in here.labels()
    ]
