"""What the sample browser shows: a bounded choice of prompts with their responses, verdicts and gold, as compact JSON.

Of each arm one or two seeds, of each of their rounds some prompts. Half of them are chosen by the prompt's identity
alone, and all arms of a seed ask the same prompts, so the same ones are shown for every arm; the other half are prompts
on which the judge prefers an answer that gold calls worse, and examples of each kind of what is left, which would be
rare otherwise. Only the columns that are shown are read from the rounds' files.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rlaif_lab.plateau.cause import KINDS, what_is_left
from rlaif_lab.records import Prompt
from rlaif_lab.report.arms import Arm
from rlaif_lab.report.load import Run
from rlaif_lab.seeding import seed_for
from rlaif_lab.store.checksums import DamagedError, read_checked
from rlaif_lab.store.strangers import make
from rlaif_lab.tasks.base import Task
from rlaif_lab.tasks.reading import display, right_answer

Json = dict[str, Any]
T = TypeVar("T")
MOST_NOTES = 20


@dataclass(frozen=True)
class Bounds:
    """How much is read and shown.

    cells: (run, round)s whose files are read. seeds: per arm. candidates: prompts per cell that are looked at.
    prompts: of these shown, at most. samples: responses per prompt. text, words: characters of a response, and of the
    judge's own words. size: bytes of JSON in all.
    """

    cells: int = 160
    seeds: int = 2
    candidates: int = 48
    prompts: int = 12
    samples: int = 8
    text: int = 1500
    words: int = 300
    size: int = 1_500_000


@dataclass(frozen=True)
class Samples:
    """content: what the page's script reads. shown, disagreeing: prompts, and those among them where the judge
    disagrees with gold. notes: why something is not there."""

    content: Json
    shown: int
    disagreeing: int
    notes: list[str]


@dataclass(frozen=True)
class Cell:
    """One round of one run. items: those chosen by identity and those with a disagreement in turns, the first the most
    wanted."""

    arm: int
    seed: int
    round: int
    items: list[Json]


def samples(arms: Sequence[Arm], bounds: Bounds | None = None) -> Samples | None:
    """Return samples of the arms' runs; None where no round's files are there. arms: in the order in which the page
    names them."""
    bounds = bounds or Bounds()
    gold = Gold()
    cells = []
    for arm, run, index in chosen_cells(arms, bounds):
        assert run.path is not None
        items = read_cell(run.path / f"round_{index:03d}", gold, run, bounds)
        if items:
            cells.append(Cell(arm, run.seed, index, items))
    if not cells:
        return None
    kept = within(cells, bounds)
    rounds = [
        {"arm": cell.arm, "seed": cell.seed, "round": cell.round, "items": items}
        for cell, items in zip(cells, kept, strict=True)
        if items
    ]
    everything = [item for items in kept for item in items]
    content = {"arms": [arm.label for arm in arms], "cells": rounds}
    return Samples(content, len(everything), sum(disagrees(item) for item in everything), gold.notes)


# --- which rounds -----------------------------------------------------------------------------------------------
def chosen_cells(arms: Sequence[Arm], bounds: Bounds) -> Iterator[tuple[int, Run, int]]:
    """Return (position of the arm, run, round): as many seeds and rounds of every arm as the bounds allow, the first
    and the last round among them."""
    runs: dict[int, list[tuple[Run, list[int]]]] = {}
    for position, arm in enumerate(arms):
        stored = [(run, _stored_rounds(run.path)) for run in (arm.complete or arm.runs)[: bounds.seeds]]
        runs[position] = [(run, rounds) for run, rounds in stored if rounds]
    there = sum(bool(held) for held in runs.values())
    each = max(2, bounds.cells // max(1, there))  # cells per arm
    left = bounds.cells
    for position, held in runs.items():
        longest = max((len(rounds) for _, rounds in held), default=0)
        # Rather all rounds of one seed than some of two.
        held = held if 2 * longest <= each else held[:1]
        for run, rounds in held:
            for index in spread(rounds, each // len(held)):
                if left:
                    left -= 1
                    yield position, run, index


def _stored_rounds(folder: Path | None) -> list[int]:
    if folder is None:
        return []
    found = (path.parent.name.removeprefix("round_") for path in folder.glob("round_*/generations.parquet"))
    return sorted(int(number) for number in found if number.isdecimal())


def spread(values: Sequence[T], count: int) -> list[T]:
    """Return at most ``count`` of the values, evenly, the first and the last among them."""
    if len(values) <= count:
        return list(values)
    if count == 1:
        return [values[-1]]
    return [values[round(i * (len(values) - 1) / (count - 1))] for i in range(count)]


# --- one round ----------------------------------------------------------------------------------------------------
def read_cell(folder: Path, gold: Gold, run: Run, bounds: Bounds) -> list[Json]:
    """Return the items of a round, the most wanted first; none where a file is missing or broken, which is noted.

    An item is ``{id, prompt, responses: [[samples, text, gold, win rate]], verdicts: [[first, second, probability that
    first wins, that as shown first, that as shown second, status, words, 1 if gold disagrees]], left: kind of what is
    left (plateau/cause.py), where gold is known}``; samples that say the same are one response.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    def rows(name: str, columns: Sequence[str], ids: Sequence[str]) -> list[Json]:
        table = pq.read_table(held[name], columns=list(columns), use_threads=False)
        listed: list[Json] = table.filter(pc.is_in(table["prompt_id"], pa.array(ids))).to_pylist()
        return listed

    task = gold.task(run)
    try:
        held = {
            name: pa.BufferReader(read_checked(folder / f"{name}.parquet"))
            for name in ("generations", "judgements")
            if (folder / f"{name}.parquet").exists()
        }
        column = pq.read_table(held["generations"], columns=["prompt_id"], use_threads=False)["prompt_id"]
        ids = sorted(pc.unique(column).to_pylist(), key=lambda name: seed_for("report samples", name))
        ids = ids[: bounds.candidates]
        generated = rows("generations", ("prompt_id", "prompt", "turns", "sample", "response"), ids)
        judged = rows("judgements", ("prompt_id", *VERDICT), ids) if "judgements" in held else []
        return _items(ids, generated, judged, task=task, gold=gold, bounds=bounds)
    except DamagedError as error:
        gold.note(f"No samples of {run.name}, round {folder.name[6:]}: {error}")
    except Exception as error:  # Arrow's, and whatever comes of a table of something else
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        gold.note(f"No samples of {run.name}, round {folder.name[6:]}: {folder.name} is damaged ({reason}).")
    return []


def _items(
    ids: Sequence[str],
    generated: Sequence[Json],
    judged: Sequence[Json],
    task: Task | None,
    gold: Gold,
    bounds: Bounds,
) -> list[Json]:
    responses, verdicts = _by_prompt(generated), _by_prompt(judged)
    items = [_item(responses[name], verdicts.get(name, []), task, gold, bounds) for name in ids if name in responses]
    return in_turns(items, of_each_kind(items))[: bounds.prompts]


VERDICT = (
    "sample_first",
    "sample_second",
    "prob_first_wins",
    "prob_first_wins_shown_first",
    "prob_first_wins_shown_second",
    "status",
    "raw",
)


def _by_prompt(rows: Sequence[Json]) -> dict[str, list[Json]]:
    found: dict[str, list[Json]] = defaultdict(list)
    for row in rows:
        found[row["prompt_id"]].append(row)
    return found


def _item(responses: Sequence[Json], verdicts: Sequence[Json], task: Task | None, known: Gold, bounds: Bounds) -> Json:
    first = responses[0]
    turns = tuple((role, said) for role, said in json.loads(first["turns"] or "[]"))
    prompt = Prompt(first["prompt_id"], first["prompt"], turns)
    shown = [row for row in responses if row["sample"] < bounds.samples]
    gold = {row["sample"]: known.quality(task, prompt, row["response"]) for row in shown}
    wins: dict[int, list[float]] = defaultdict(list)
    listed = []
    for row in verdicts:
        one, other, probability = (row[name] for name in VERDICT[:3])
        if one not in gold or other not in gold:
            continue
        if probability is not None:
            wins[one].append(_decision(probability))
            wins[other].append(1.0 - _decision(probability))
        wrong = _against_gold(probability, gold[one], gold[other])
        numbers = [_short(row[name]) for name in VERDICT[2:5]]
        listed.append([one, other, *numbers, row["status"], _cut(row["raw"], bounds.words), int(wrong)])
    rates = {sample: _short(sum(won) / len(won)) for sample, won in wins.items()}
    same: dict[str, list[int]] = defaultdict(list)
    for row in shown:
        same[row["response"]].append(row["sample"])
    said = [
        [
            alike,
            _cut(text, bounds.text),
            _short(gold[alike[0]]),
            next((rates[sample] for sample in alike if sample in rates), None),
        ]
        for text, alike in same.items()
    ]
    asked = "\n\n".join(f"[{role}] {text}" for role, text in turns) or prompt.text
    item = {"id": prompt.id, "prompt": _cut(asked, bounds.text), "responses": said, "verdicts": listed}
    qualities = [value for value in gold.values() if value is not None]
    if len(qualities) == len(gold) > 0:
        # What is left goes by place among the samples shown, not by a sample's number.
        place = {sample: index for index, sample in enumerate(gold)}
        pairs = [(place[one], place[other], probability) for one, other, probability, *_ in listed]
        item["left"] = what_is_left(qualities, pairs).kind
    return item | readable(task, prompt, [text for text, _ in same.items()], bounds.text)


def _decision(probability: float) -> float:
    return 1.0 if probability > 0.5 else 0.0 if probability < 0.5 else 0.5


def _against_gold(probability: float | None, first: float | None, second: float | None) -> bool:
    """Return whether the judge prefers the one that gold calls worse."""
    if probability is None or first is None or second is None:
        return False
    return (probability - 0.5) * (first - second) < 0


def disagrees(item: Mapping[str, Any]) -> bool:
    return any(verdict[-1] for verdict in item["verdicts"])


# --- how much -------------------------------------------------------------------------------------------------------
def of_each_kind(items: Sequence[Json]) -> list[Json]:
    """Return the items in which the judge disagrees with gold, and those of each kind of what is left, by turns: so
    that there is an example of every kind that the round has."""
    groups = [[item for item in items if disagrees(item)]]
    groups += [[item for item in items if item.get("left") == kind] for kind in KINDS]
    longest = max(map(len, groups))
    return [group[place] for place in range(longest) for group in groups if place < len(group)]


def in_turns(some: Sequence[Json], others: Sequence[Json]) -> list[Json]:
    """Return the items of both lists in turns, each once."""
    found: dict[str, Json] = {}
    left, right = iter(some), iter(others)
    for _ in range(len(some)):
        for source in (left, right):
            item = next((item for item in source if item["id"] not in found), None)
            if item is not None:
                found[item["id"]] = item
    return list(found.values())


def within(cells: Sequence[Cell], bounds: Bounds) -> list[list[Json]]:
    """Return as many items of every cell as fit: first one of each, then a second, ..., until the size is used up."""
    kept: list[list[Json]] = [[] for _ in cells]
    left = bounds.size
    for place in range(bounds.prompts):
        for cell, items in zip(cells, kept, strict=True):
            if place < len(cell.items):
                size = len(to_json(cell.items[place]).encode())
                # Where a large one does not fit, a smaller one may.
                if size <= left:
                    left -= size
                    items.append(cell.items[place])
    return kept


def to_json(content: Any) -> str:
    """Return JSON that may stand in a ``<script>`` element: nothing in it can end the element or a line."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 3)


def _cut(text: str | None, length: int) -> str | None:
    if text is None or len(text) <= length:
        return text
    return f"{text[:length]} … ({len(text) - length} more characters)"


def readable(task: Task | None, prompt: Prompt, responses: Sequence[str], length: int) -> Json:
    """Return what a person needs beside the text as the policy sees it: ``shown`` (prompt and responses as one reads
    them) and ``right`` (the right answer), each only where there is one and it differs."""
    if task is None:
        return {}
    shown, right = display(task, prompt, responses), right_answer(task, prompt)
    found: Json = {}
    if shown != [prompt.text, *responses]:
        found["shown"] = [_cut(text, length) for text in shown]
    if right is not None:
        found["right"] = _cut(right, length)
    return found


# --- gold -----------------------------------------------------------------------------------------------------------
class Gold:
    """The tasks that the runs' configs describe, each built once. notes: what is not there, and why."""

    def __init__(self) -> None:
        self.built: dict[str, Task | None] = {}
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Note a problem, once each and not without end."""
        if text not in self.notes and len(self.notes) < MOST_NOTES:
            self.notes.append(text)

    def task(self, run: Run) -> Task | None:
        """Return the task, or None for one that cannot be built here."""
        content = run.config.get("task")
        name = json.dumps(content, sort_keys=True)
        if name not in self.built:
            self.built[name] = self._build(content) if isinstance(content, dict) else None
        return self.built[name]

    def _build(self, content: Mapping[str, Any]) -> Task | None:
        try:
            return make(content, Task, "task")  # type: ignore[type-abstract]
        except (ValueError, OSError) as error:  # of another version, a stranger's, or its file is not here
            reason = " ".join(str(error).split())[:300]
            self.note(f"The task of these runs cannot be built here, so there is no gold: {reason}")
            return None

    def quality(self, task: Task | None, prompt: Prompt, response: str) -> float | None:
        """Return the quality, or None without gold, and for a prompt that the task cannot read."""
        if task is None or not task.has_gold:
            return None
        try:
            return task.quality(prompt, response)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            self.note(f"The task cannot grade prompt {prompt.text!r:.120}, so it has no gold: {reason}")
            return None
