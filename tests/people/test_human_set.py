"""The fixed set that all arms of a sweep share: drawn once, frozen, labelled once, and each arm measured by it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rounds import make_round

from rlaif_lab.judges.annotator import SimulatedAnnotator
from rlaif_lab.judges.by_people import rate_by_people
from rlaif_lab.judges.oracle import OracleJudge, RandomJudge
from rlaif_lab.judges.people import QUEUE, LabelsMissingError, PeopleJudge
from rlaif_lab.loop.human_set import judge_agreement, judge_minus_people
from rlaif_lab.loop.round import Round
from rlaif_lab.metrics.catalogue import row_of
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.people.human_set import Entry, HumanSet, SharedSet
from rlaif_lab.people.queue import Label, LabelQueue
from rlaif_lab.records import Prompt, Verdict
from rlaif_lab.statistics.intervals import wilson
from rlaif_lab.tasks.arithmetic import Addition

ENTRIES = [Entry(Prompt("p0", "q"), "a", "b"), Entry(Prompt("p1", "q", (("user", "hi"),)), "\ud800", "\ud800")]


def shared(folder: Path, by: Any = None, **settings: Any) -> SharedSet:
    sizes = {"prompts": 6, "pairs": 4} | settings
    return SharedSet(HumanSet(by or PeopleJudge(wait=False), **sizes), folder / "human_set", "set")


def arm(folder: Path, name: str, judge: Any, organism: LanguageModel, task: Addition, **settings: Any) -> Round:
    """One arm of the sweep in ``folder``, as a process that begins (again) would have it."""
    return make_round(organism, task, folder / name, judge, human_set=shared(folder, **settings))


def label_all(folder: Path) -> int:
    queue, count = LabelQueue(folder / "human_set" / QUEUE), 0
    while (item := queue.next_item("ada")) is not None:
        queue.label(Label(item.id, "ada", "first", False, 6.0))
        count += 1
    return count


# --- the frozen set ---------------------------------------------------------------------------------------------------
def test_the_first_run_freezes_the_set_and_what_is_there_stays(tmp_path: Path) -> None:
    mine, theirs = shared(tmp_path, prompts=2, pairs=2), shared(tmp_path, prompts=2, pairs=2)
    assert mine.frozen() is None
    mine.freeze(ENTRIES)
    theirs.freeze(ENTRIES[::-1])
    assert theirs.frozen() == mine.frozen() == ENTRIES
    assert [file.name for file in mine.folder.iterdir()] == [mine.file.name], "nothing temporary is left"


@pytest.mark.parametrize("content", ["{", "[]\n[]\n", '{"prompt": {"id": "p"}}\n', ""])
def test_a_damaged_set_is_not_drawn_again_over_its_labels(tmp_path: Path, content: str) -> None:
    found = shared(tmp_path, prompts=2, pairs=2)
    found.freeze(ENTRIES)
    found.file.write_text(content)
    with pytest.raises(ValueError, match=r"set-.*\.jsonl' is damaged .*restore it from a copy"):
        found.frozen()


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"prompts": 3, "pairs": 4}, "human_set.pairs must be at most human_set.prompts, which is 3; got 4"),
        ({"by": RandomJudge()}, "human_set.by must be people, or an annotator simulated from gold"),
    ],
)
def test_settings_that_cannot_work(tmp_path: Path, chosen: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shared(tmp_path, **chosen)


# --- arms -------------------------------------------------------------------------------------------------------------
def test_arms_share_a_queue_and_what_both_ask_is_labelled_once(
    tmp_path: Path, organism: LanguageModel, task: Addition
) -> None:
    judges = {"a": OracleJudge(), "b": RandomJudge()}
    for _ in range(2):  # the second time as after a kill
        for name, judge in judges.items():
            with pytest.raises(LabelsMissingError, match="labels are missing"):
                arm(tmp_path, name, judge, organism, task).by_people(1, last=True)
    asked = label_all(tmp_path)
    assert 0 < asked <= 4, "the policy is the untrained one in both arms, so only the fixed pairs are asked, once"
    found = {name: arm(tmp_path, name, judge, organism, task).by_people(1, last=True) for name, judge in judges.items()}
    assert label_all(tmp_path) == 0
    for metrics in found.values():
        assert metrics["human_set/win_rate"] == 0.5 and metrics["human_set/identical"] == 1.0
        assert metrics["cost/human_set_labels"] == asked
        assert metrics["cost/human_set_minutes"] == pytest.approx(asked * 0.1)
        for name, value in metrics.items():
            row = row_of(name)
            assert math.isnan(value) or row.low <= value <= row.high, name
    again = arm(tmp_path, "a", OracleJudge(), organism, task).by_people(1)
    assert again == pytest.approx(found["a"], nan_ok=True), "once measured it is kept, also if it is not due any more"


def test_people_look_in_the_rounds_that_are_said(tmp_path: Path, organism: LanguageModel, task: Addition) -> None:
    by = SimulatedAnnotator(flip=0.0)
    seldom = arm(tmp_path, "a", OracleJudge(), organism, task, by=by, every=2)
    looked = {index: bool(seldom.by_people(index)) for index in range(4)}
    assert looked == {0: True, 1: False, 2: True, 3: False}
    assert seldom.by_people(3, last=True)["human_set/judge_agreement"] in (1.0, pytest.approx(math.nan, nan_ok=True))
    never = make_round(organism, task, tmp_path / "b", OracleJudge())
    assert never.by_people(3, last=True) == {}


def test_a_budget_holds_over_arms(tmp_path: Path, organism: LanguageModel, task: Addition) -> None:
    for name in ("a", "b"):
        people = PeopleJudge(wait=False, max_labels=1)
        with pytest.raises(LabelsMissingError, match="1 label is missing"):
            arm(tmp_path, name, OracleJudge(), organism, task, by=people).by_people(1, last=True)
    assert label_all(tmp_path) == 1


# --- numbers ----------------------------------------------------------------------------------------------------------
def said(*probabilities: float | None) -> list[tuple[Verdict, Verdict]]:
    return [
        (Verdict(None, "refused"), Verdict(None, "refused")) if p is None else (Verdict(p), Verdict(1.0 - p))
        for p in probabilities
    ]


def test_the_judge_is_held_against_people_where_both_prefer_one() -> None:
    people, judge = said(1.0, 0.0, 0.5, None, 1.0), said(0.9, 0.8, 0.9, 0.9, 0.6)
    found = judge_agreement(people, judge)
    assert found["human_set/judge_agreement"] == pytest.approx(2 / 3)
    assert found["human_set/judge_agreement_pairs"] == 3
    # The judge: 1, 1, 1, 1; people: 1, 0, 0.5, 1; and one pair of equal answers.
    assert judge_minus_people(people, judge, identical=1) == pytest.approx((4 - 2.5) / 5)
    assert math.isnan(judge_minus_people(said(None), said(0.9), identical=1))


def test_wilson_by_hand() -> None:
    found = wilson(8, 10)
    assert (found.low, found.high) == (pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert wilson(0, 5).low == 0.0 and wilson(5, 5).high == 1.0
    assert math.isnan(wilson(0, 0).mean)
    with pytest.raises(ValueError, match="successes must lie between 0 and 3"):
        wilson(4, 3)


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=30), st.integers(0, 20))
def test_an_interval_holds_its_rate_and_is_never_a_point(labels: list[float], identical: int) -> None:
    found = rate_by_people(said(*labels), identical)
    assert found.estimate == pytest.approx((sum(labels) + identical / 2) / (len(labels) + identical))
    assert 0.0 <= found.low <= found.estimate <= found.high <= 1.0
    assert found.high - found.low > 0.0


def test_the_interval_covers_what_it_should() -> None:
    rng = np.random.default_rng(0)
    for rate in (0.5, 0.8, 0.95):
        inside = 0
        for _ in range(300):
            found = rate_by_people(said(*(rng.random(25) < rate).astype(float)), 0)
            inside += found.low <= rate <= found.high
        assert inside / 300 > 0.92, rate
