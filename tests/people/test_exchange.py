"""Labels in and out: what goes out comes in again, and what does not fit is told."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_lab.people.exchange import FORMATS, Format, export, load
from rlaif_lab.people.queue import Label, LabelQueue, item_of
from rlaif_lab.records import Comparison, Prompt

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"))


def queue_of(folder: Path, texts: list[str]) -> LabelQueue:
    queue = LabelQueue(folder / "labels.sqlite")
    queue.add([item_of(Comparison(Prompt(f"p{i}", text), text, f"other {i}")) for i, text in enumerate(texts)])
    return queue


def label_all(queue: LabelQueue, name: str = "ada@example.org") -> None:
    for item, choice in zip(queue.items(), ("first", "second", "tie", "skip"), strict=False):
        queue.label(Label(item.id, name, choice, False, 2.0, "why not"))  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMATS)
def test_what_goes_out_comes_in_again(tmp_path: Path, form: Format) -> None:
    texts = ["plain", "=HYPERLINK()", 'two\nlines, "quoted"', "العربية"]
    here, there = queue_of(tmp_path / "here", texts), queue_of(tmp_path / "there", texts)
    label_all(here)
    file = tmp_path / f"labels.{form}"
    file.write_text(export(here, form))
    found = load(there, file, form)
    assert (found.new, found.known, found.refused) == (4, 0, ())
    assert {(x.item, x.annotator, x.choice) for x in there.labels()} == {
        (x.item, x.annotator, x.choice) for x in here.labels()
    }
    again = load(there, file, form)
    assert (again.new, again.known) == (0, 4)


def test_unknown_conflicting_and_senseless_labels_are_told_and_nothing_is_lost(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, ["a", "b"])
    label_all(queue, "ada")
    one, two = (item.id for item in queue.items())
    rows = [
        {"item": "nowhere", "annotator": "ben", "choice": "first"},
        {"item": one, "annotator": "ada", "choice": "second"},
        {"item": one, "annotator": "ben", "choice": "best"},
        {"item": two, "annotator": "", "choice": "first"},
        {"item": two, "annotator": "ben", "choice": "first", "seconds": "soon"},
        {"item": two, "annotator": "ben", "choice": "tie"},
        {"item": two, "annotator": "cy", "choice": None},
    ]
    file = tmp_path / "labels.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = queue.labels()
    found = load(queue, file, "jsonl")
    assert (found.new, len(found.refused)) == (1, 5)
    for line, words in zip(found.refused, ("not in the queue", "before", "best", "annotator", "soon"), strict=True):
        assert words in line
    assert queue.labels()[: len(before)] == before


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_of_another_kind_is_refused_in_one_sentence(tmp_path: Path, form: Format) -> None:
    file = tmp_path / "labels"
    file.write_text("{]")
    with pytest.raises(ValueError, match=f"cannot be read as {form}"):
        load(queue_of(tmp_path, ["a"]), file, form)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0")),
        min_size=1,
        max_size=4,
        unique=True,
    )
)
def test_any_text_survives_csv(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    queue = queue_of(tmp_path_factory.mktemp("q"), texts)
    rows = list(csv.DictReader(io.StringIO(export(queue, "csv"), newline="")))
    assert [row["prompt"].removeprefix("'") for row in rows] == [text.removeprefix("'") for text in texts]
