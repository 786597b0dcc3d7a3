"""The queue: a label is there for good, nobody does another's work, nothing is asked twice."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlaif_lab.people.queue import Item, Label, LabelQueue, item_of
from rlaif_lab.records import Comparison, Prompt


def items(count: int, needed: int = 1) -> list[Item]:
    made = (item_of(Comparison(Prompt(f"p{i}", f"question {i}"), f"a{i}", f"b{i}")) for i in range(count))
    return [replace(item, needed=needed) for item in made]


def say(item: Item, annotator: str, choice: str = "first") -> Label:
    return Label(item.id, annotator, choice, False, 1.5)  # type: ignore[arg-type]


def test_an_item_is_one_whatever_the_order_of_its_responses() -> None:
    comparison = Comparison(Prompt("p", "q"), "x", "y")
    assert item_of(comparison) == item_of(comparison.swapped())
    assert item_of(comparison, "criteria").id != item_of(comparison).id


def test_nothing_is_added_twice_and_labels_stay(tmp_path: Path) -> None:
    queue = LabelQueue(tmp_path / "q.sqlite")
    assert queue.add(items(3)) == 3
    first = queue.next_item("ada")
    assert first is not None
    queue.label(say(first, "ada"))
    assert queue.add(items(5)) == 2
    assert LabelQueue(tmp_path / "q.sqlite").labels() == [say(first, "ada")]
    assert queue.missing(item.id for item in items(5)) == 4


def test_two_people_never_get_the_same_item_unless_both_are_wanted(tmp_path: Path) -> None:
    queue = LabelQueue(tmp_path / "q.sqlite")
    queue.add(items(2))
    ada, ben = queue.next_item("ada"), queue.next_item("ben")
    assert ada is not None
    assert ben is not None
    assert ada.id != ben.id
    assert queue.next_item("cy") is None
    assert queue.next_item("ada") == ada, "who reloads gets the item they were at"
    twice = LabelQueue(tmp_path / "twice.sqlite")
    twice.add(items(1, needed=2))
    assert twice.next_item("ada") == twice.next_item("ben")
    assert twice.next_item("cy") is None


def test_the_same_label_again_changes_nothing_and_another_is_refused(tmp_path: Path) -> None:
    queue = LabelQueue(tmp_path / "q.sqlite")
    queue.add(items(1, needed=2))
    (item,) = queue.items()
    queue.label(say(item, "ada"))
    queue.label(say(item, "ada"))
    with pytest.raises(ValueError, match=r"ada said first of item .* before; undo it first"):
        queue.label(say(item, "ada", "second"))
    assert queue.missing([item.id]) == 1
    assert queue.undo("ada") == item.id
    queue.label(say(item, "ada", "second"))
    assert [label.choice for label in queue.labels()] == ["second"]


def test_skips_flags_and_used_items(tmp_path: Path) -> None:
    queue = LabelQueue(tmp_path / "q.sqlite")
    queue.add(items(2))
    one, two = queue.items()
    queue.label(say(one, "ada", "skip"))
    assert queue.missing([one.id]) == 1
    assert queue.next_item("ada") == two
    queue.label(say(two, "ada", "flag"))
    assert queue.missing([two.id]) == 0
    assert queue.progress().flagged == 1
    queue.label(say(one, "ben"))
    queue.close_items([one.id])
    assert queue.undo("ben") is None, "the run has used it"
    with pytest.raises(ValueError, match="is closed"):
        queue.label(say(one, "cy"))
    with pytest.raises(ValueError, match="is not in the queue"):
        queue.label(Label("nowhere", "ada", "first", False, 1.0))


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_a_time_that_is_none_is_refused(tmp_path: Path, seconds: float) -> None:
    queue = LabelQueue(tmp_path / "q.sqlite")
    queue.add(items(1))
    with pytest.raises(ValueError, match="finite"):
        queue.label(replace(say(queue.items()[0], "ada"), seconds=seconds))


def test_attention_checks_come_now_and_then_and_are_never_counted(tmp_path: Path) -> None:
    queue = LabelQueue(tmp_path / "q.sqlite")
    check = replace(item_of(Comparison(Prompt("check", "2 + 2"), "4", "5")), gold="first")
    queue.add([*items(20), check])
    seen = []
    while (item := queue.next_item("ada", check_every=10)) is not None:
        seen.append(item.id)
        queue.label(say(item, "ada"))
    assert seen.index(check.id) == 5
    assert seen.count(check.id) == 1
    assert queue.progress().items == queue.progress().labels == 20


@settings(max_examples=25, deadline=None)
@given(
    actions=st.lists(st.sampled_from(["first", "second", "tie", "skip", "flag", "undo"]), max_size=40),
    people=st.integers(1, 3),
    needed=st.integers(1, 2),
)
def test_counters_say_what_the_labels_say(
    tmp_path_factory: pytest.TempPathFactory, actions: list[str], people: int, needed: int
) -> None:
    queue = LabelQueue(tmp_path_factory.mktemp("q") / "q.sqlite")
    queue.add(items(4, needed))
    for turn, action in enumerate(actions):
        name = f"annotator {turn % people}"
        if action == "undo":
            queue.undo(name)
        elif (item := queue.next_item(name)) is not None:
            queue.label(say(item, name, action))
    counted = Counter(label.item for label in queue.labels() if label.choice in ("first", "second", "tie"))
    for item in queue.items():
        assert item.done == counted[item.id] <= item.needed
    each = Counter((label.item, label.annotator) for label in queue.labels())
    assert all(count == 1 for count in each.values())


WORKER = """
import sys
from pathlib import Path
from rlaif_lab.people.queue import Label, LabelQueue
queue, name = LabelQueue(Path(sys.argv[1])), sys.argv[2]
while (item := queue.next_item(name)) is not None:
    queue.label(Label(item.id, name, "first", False, 1.0))
    print(item.id, flush=True)
"""


def test_kills_lose_no_label_and_ask_nothing_twice(tmp_path: Path) -> None:
    """What a process has said is done is on disk, however it ends; the next one goes on behind it."""
    path = tmp_path / "q.sqlite"
    LabelQueue(path).add(items(150))
    rng, said, kills = random.Random(0), [], 0
    while True:
        process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(path), "ada"], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        said += [first.strip()] if first else []
        time.sleep(rng.random() * 0.02)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        said += [line for line in rest.split("\n")[:-1] if line]
        process.wait()
        kills += 1
        if not first or kills == 8:
            break
    queue = LabelQueue(path)
    held = Counter(label.item for label in queue.labels())
    assert set(said) <= set(held), "a label that was acknowledged is lost"
    assert max(held.values()) == 1
    assert queue.progress().labels == len(held)
    assert kills >= 2


def work(path: Path, name: str, done: multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    queue, mine = LabelQueue(path), 0
    while (item := queue.next_item(name)) is not None:
        queue.label(say(item, name))
        mine += 1
    done.put(mine)


def test_processes_share_a_queue_without_double_work(tmp_path: Path) -> None:
    path = tmp_path / "q.sqlite"
    LabelQueue(path).add(items(60))
    context = multiprocessing.get_context("fork")
    done = context.Queue()
    workers = [context.Process(target=work, args=(path, f"annotator {i}", done)) for i in range(3)]
    for worker in workers:
        worker.start()
    counts = [done.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(counts) == 60
    assert LabelQueue(path).progress().missing == 0


def test_another_file_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "q.sqlite").write_text("this is no database, and it is long enough to be seen as none at once")
    with pytest.raises(ValueError, match=r"q\.sqlite.*cannot be used"):
        LabelQueue(tmp_path / "q.sqlite")


def test_half_a_surrogate_pair_can_be_asked_about(tmp_path: Path) -> None:
    queue = LabelQueue(tmp_path / "q.sqlite")
    queue.add([item_of(Comparison(Prompt("p", "x\ud800"), "a\ud800", "b"))])
    (item,) = queue.items()
    queue.label(replace(say(item, "ada"), reason="\udfff"))
    assert item.first == "a?"
    assert queue.labels()[0].reason == "?"


@pytest.mark.parametrize(("far", "expected"), [(False, "wal"), (True, "delete")])
def test_a_queue_on_a_network_file_system_has_a_plain_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, far: bool, expected: str
) -> None:
    monkeypatch.setattr("rlaif_lab.people.queue.on_network", lambda folder: far)
    queue = LabelQueue(tmp_path / "queue.sqlite")
    assert queue._database.execute("PRAGMA journal_mode").fetchone()[0] == expected


def test_the_next_item_of_a_long_queue_is_found_without_going_through_it(tmp_path: Path) -> None:
    """Counted in steps of SQLite's machine, which no other process can slow down."""
    queue = LabelQueue(tmp_path / "labels.sqlite")
    queue.add(items(3000))
    for _ in range(20):
        item = queue.next_item("ada")
        assert item is not None
        queue.label(say(item, "ada"))
    steps = []
    queue._database.set_progress_handler(lambda: steps.append(100), 100)
    assert queue.next_item("ada") is not None
    assert sum(steps) < 3000, "fewer steps than items"
