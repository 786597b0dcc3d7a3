"""Labels in and out: what goes out comes in again, and what does not fit is told."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_lab.people.exchange import FORMATS, FORMULA, Format, export, load
from rlaif_lab.people.queue import Label, LabelQueue, item_of
from rlaif_lab.records import Comparison, Prompt

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"))


def queue_of(folder: Path, texts: list[str]) -> LabelQueue:
    queue = LabelQueue(folder / "labels.sqlite")
    turns = (("user", "before"), ("assistant", "indeed"))
    prompts = [Prompt(f"p{i}", text, (*turns, ("user", text))) for i, text in enumerate(texts)]
    queue.add([item_of(Comparison(prompt, prompt.text, f"other {i}")) for i, prompt in enumerate(prompts)])
    return queue


def label_all(queue: LabelQueue, name: str = "ada@example.org") -> None:
    for item, choice in zip(queue.items(), ("first", "second", "tie", "skip"), strict=False):
        queue.label(Label(item.id, name, choice, choice != "tie", 2.0, "why\nnot"))  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMATS)
def test_what_goes_out_comes_in_again(tmp_path: Path, form: Format) -> None:
    texts = ["plain", "=HYPERLINK()", 'two\nlines, "quoted"', "العربية"]
    here, there = queue_of(tmp_path / "here", texts), queue_of(tmp_path / "there", texts)
    label_all(here)
    file = tmp_path / f"labels.{form}"
    file.write_text(export([here], form))
    assert "indeed" in file.read_text(), "earlier turns of a conversation go out, too"
    found = load([there], file, form)
    assert (found.new, found.known, found.refused) == (4, 0, ())
    # Label Studio has no place for the order in which the two were shown, so it is not known after it.
    order = (lambda label: replace(label, swapped=None)) if form == "label_studio" else (lambda label: label)
    assert there.labels() == [order(label) for label in here.labels()]
    again = load([there], file, form)
    assert (again.new, again.known) == (0, 4)


@pytest.mark.parametrize("form", FORMATS)
def test_the_queues_of_a_sweep_are_one_file_and_what_they_share_is_labelled_once(tmp_path: Path, form: Format) -> None:
    one, two = queue_of(tmp_path / "one", ["a", "b"]), queue_of(tmp_path / "two", ["a", "c", "d"])
    label_all(one)
    file = tmp_path / "labels"
    file.write_text(export([one, two], form))
    if form in ("label_studio", "argilla"):
        assert len(json.loads(file.read_text())) == 4
    elif form == "csv":
        assert file.read_text().count("item,conversation") == 1
    found = load([one, two], file, form)
    assert (found.new, found.known, found.refused) == (1, 1, ()), "the shared one goes to the run that lacks it"
    assert len(two.labels()) == 1


def test_an_order_that_is_not_known_is_not_made_up(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, ["a"])
    file = tmp_path / "labels.jsonl"
    file.write_text(json.dumps({"item": queue.items()[0].id, "annotator": "ben", "choice": "first"}) + "\n")
    load([queue], file, "jsonl")
    assert [label.swapped for label in queue.labels()] == [None]


def test_a_response_of_a_megabyte_goes_out_and_in(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, ["x" * 1_000_000])
    label_all(queue)
    file = tmp_path / "labels.csv"
    file.write_text(export([queue], "csv"))
    assert load([queue], file, "csv").known == 1


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
    found = load([queue], file, "jsonl")
    assert (found.new, len(found.refused)) == (1, 5)
    for line, words in zip(found.refused, ("not in the queue", "before", "best", "annotator", "soon"), strict=True):
        assert words in line
    assert queue.labels()[: len(before)] == before


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_of_another_kind_is_refused_in_one_sentence(tmp_path: Path, form: Format) -> None:
    file = tmp_path / "labels"
    file.write_text("{]")
    with pytest.raises(ValueError, match=f"cannot be read as {form}"):
        load([queue_of(tmp_path, ["a"])], file, form)


@settings(max_examples=40, deadline=None)
@given(st.lists(TEXTS | st.sampled_from(["'ada", "''", "'=1", "=1", "'"]), min_size=1, max_size=4, unique=True))
def test_any_text_survives_csv(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    """And no cell of a text begins as a formula does."""
    folder = tmp_path_factory.mktemp("q")
    queue, there = queue_of(folder / "here", texts), queue_of(folder / "there", texts)
    for item, text in zip(queue.items(), texts, strict=True):
        queue.label(Label(item.id, f"x{text}", "first", None, 1.0, text or None))
        queue.label(Label(item.id, text or "nobody", "flag", None, 1.0))
    file = folder / "labels.csv"
    with file.open("w", newline="") as out:
        out.write(export([queue], "csv"))
    assert not [cell for row in csv.reader(file.open(newline="")) for cell in row if cell.startswith(FORMULA)]
    assert load([there], file, "csv").refused == ()
    assert there.labels() == queue.labels()


ODD = {
    "two choices": ("label_studio", '[{"data": {"item": "ID"}, "annotations": [{"completed_by": "eve", "result": '
                    '[{"type": "choices", "from_name": "choice", "value": {"choices": ["first", "second"]}}]}]}]'),
    "no choice": ("label_studio", '[{"data": {"item": "ID"}, "annotations": [{"completed_by": "eve", "result": []}]}]'),
    "a draft": ("argilla", '[{"id": "ID", "responses": {"choice": [{"value": "first", "user_id": "eve", '
                '"status": "draft"}]}}]'),
}  # fmt: skip


@pytest.mark.parametrize("what", ODD)
def test_what_is_no_label_is_told(tmp_path: Path, what: str) -> None:
    queue = queue_of(tmp_path, ["one"])
    form, text = ODD[what]
    file = tmp_path / "odd"
    file.write_text(text.replace("ID", queue.items()[0].id))
    found = load([queue], file, form)  # type: ignore[arg-type]
    assert (found.new, found.known, len(found.refused)) == (0, 0, 1)
    assert queue.labels() == []


def test_only_our_question_counts_where_a_project_asks_several(tmp_path: Path) -> None:
    queue = queue_of(tmp_path, ["one"])
    regions = [
        {"type": "choices", "from_name": "tone", "value": {"choices": ["second"]}},
        {"type": "choices", "from_name": "choice", "value": {"choices": ["first"]}},
    ]
    tasks = [
        {"data": {"item": queue.items()[0].id}, "annotations": [{"completed_by": "eve", "result": regions}]},
        {"data": {"item": queue.items()[0].id}, "annotations": None},
    ]
    file = tmp_path / "tasks.json"
    file.write_text(json.dumps(tasks))
    assert load([queue], file, "label_studio").new == 1
    assert [label.choice for label in queue.labels()] == ["first"]


@pytest.mark.parametrize(
    ("form", "text", "message"),
    [
        ("csv", "item,annotator,choice,choice\n", "the column choice is there twice"),
        ("label_studio", "{}", "it must hold a list; got a dict"),
        ("argilla", '"text"', "it must hold a list; got a str"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, form: Format, text: str, message: str) -> None:
    file = tmp_path / "file"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load([queue_of(tmp_path, ["one"])], file, form)
