"""The example of the docs: its table follows from the committed labels, and the page shows that table."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rlaif_lab.people.exchange import LABEL_CONFIG, load
from rlaif_lab.people.queue import LabelQueue

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "experiments" / "people"


def test_the_table_of_the_example_follows_from_its_labels(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("worked_example", FOLDER / "worked_example.py")
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    queue = LabelQueue(tmp_path / "labels.sqlite")
    queue.add(example.items())
    found = load([queue], FOLDER / "labels.jsonl", "jsonl")
    assert (found.new, found.refused) == (400, ())
    assert example.report(queue) == (FOLDER / "example.md").read_text()


def test_the_page_shows_the_table_and_says_that_the_annotators_are_scripts() -> None:
    page = (ROOT / "docs" / "people_example.md").read_text()
    assert (FOLDER / "example.md").read_text() in page
    assert "No person labelled anything" in page


def test_the_docs_show_the_labelling_interface_as_it_is_checked() -> None:
    assert LABEL_CONFIG in (ROOT / "docs" / "people.md").read_text()
