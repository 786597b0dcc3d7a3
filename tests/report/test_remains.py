"""What is left of a run, from the rounds that it stored."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import judgement, response

from rlaif_lab.records import Comparison, Generation, Prompt
from rlaif_lab.report.load import Run
from rlaif_lab.report.remains import MOST_PROMPTS, misconceived, round_left, seed_left
from rlaif_lab.report.samples import Gold
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.store.tables import GENERATIONS, JUDGEMENTS
from rlaif_lab.tasks.arithmetic import Addition

TASK = {"_target_": "rlaif_lab.tasks.arithmetic.Addition", "digits": 2}
PROMPT = Prompt("addition2/64+43=", "64+43=")


def write(folder: Path, index: int) -> None:
    """Sample 0 is right, 1 forgets to carry, 2 is wrong otherwise; the judge prefers 1 to 0, and 0 to 2."""
    task = Addition(digits=2)
    right, error = task.gold_answer(PROMPT), misconceived_answer(task)
    given = Generation(PROMPT, (response(right), response(error), response("999")))
    said = [(0, 1, right, error, 0.2), (0, 2, right, "999", 0.9), (1, 2, error, "999", 0.9)]
    verdicts = [judgement(Comparison(PROMPT, one, two), i, j, p) for i, j, one, two, p in said]
    store = RoundStore(folder)
    store.stage(index, GENERATIONS, [given], list, 1)
    store.stage(index, JUDGEMENTS, [given], lambda _: verdicts, 1)


def misconceived_answer(task: Addition) -> str:
    candidates = (f"{number:03d}"[::-1] for number in range(200))
    return next(a for a in candidates if task.misconceived_quality(PROMPT, a) == 1.0 and task.quality(PROMPT, a) == 0.0)


def run_of(folder: Path) -> Run:
    rows = {index: {"quality/sampled": 0.3 + 0.01 * index} for index in range(3)}
    return Run("self", "self", 0, rounds=2, config={"task": TASK}, rows=rows, path=folder)


def test_a_round_by_hand(tmp_path: Path) -> None:
    write(tmp_path, 0)
    (left,) = round_left(tmp_path / "round_000", Addition(digits=2), Gold())
    assert left.left == pytest.approx(2 / 3)
    assert left.beyond == 0.0
    assert left.preference == pytest.approx(0.0), "once wrong, once right"
    assert left.misconceived == pytest.approx(1 / 3)
    assert left.between == (1, -1)


def test_a_run_by_hand(tmp_path: Path) -> None:
    for index in (0, 1):
        write(tmp_path, index)
    gold = Gold()
    left = seed_left(run_of(tmp_path), gold)
    assert left is not None
    assert (left.left, left.misconceived, left.for_right) == (pytest.approx(2 / 3), pytest.approx(0.5), -1.0)
    assert left.gain == pytest.approx(0.01)
    assert gold.notes == []


def test_nothing_is_known_without_rounds_gold_or_whole_files(tmp_path: Path) -> None:
    assert seed_left(run_of(tmp_path), Gold()) is None
    write(tmp_path, 0)
    stranger = Run("self", "self", 0, rounds=2, config={"task": None}, rows={}, path=tmp_path)
    assert seed_left(stranger, Gold()) is None
    (tmp_path / "round_000" / "judgements.parquet").write_bytes(b"damaged")
    gold = Gold()
    assert seed_left(run_of(tmp_path), gold) is None
    assert len(gold.notes) == 1
    assert gold.notes[0].startswith("What is left of self is not known: ")
    assert json.dumps(gold.notes)


def test_a_task_without_a_misconception_has_none() -> None:
    class Plain(Addition):
        from rlaif_lab.tasks.base import Task

        misconceived_quality = Task.misconceived_quality

    assert misconceived(Plain(digits=2), PROMPT, [{"response": "1"}]) is None
    assert MOST_PROMPTS > 1
