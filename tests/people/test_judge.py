"""People as a judge: labels become verdicts, budgets hold over kills, a run that may not wait ends and goes on."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import ScriptedJudge

from rlaif_lab.audit.bank import FileBank
from rlaif_lab.judges.asking import both_orders, debias
from rlaif_lab.judges.by_people import human_metrics
from rlaif_lab.judges.people import QUEUE, LabelsMissingError, PeopleJudge
from rlaif_lab.judges.wrappers.human_budget import HumanBudget
from rlaif_lab.metrics.catalogue import row_of
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.people.queue import Label, LabelQueue
from rlaif_lab.records import Comparison, Prompt, Verdict

PAIRS = [Comparison(Prompt(f"p{i}", f"q{i}"), f"x{i}", f"a{i}") for i in range(6)]


def attached(folder: Path, **settings: Any) -> PeopleJudge:
    judge = PeopleJudge(**{"wait": False, "usd_per_hour": 60.0, **settings})
    judge.attach(JudgeContext(0, None, None, None, folder))  # type: ignore[arg-type]
    return judge


def label_all(folder: Path, choice: str = "first", names: tuple[str, ...] = ("ada",)) -> int:
    queue, count = LabelQueue(folder / QUEUE), 0
    for name in names:
        while (item := queue.next_item(name)) is not None:
            queue.label(Label(item.id, name, choice, False, 30.0))  # type: ignore[arg-type]
            count += 1
    return count


def test_each_pair_is_asked_once_for_both_orders_and_paid_once(tmp_path: Path) -> None:
    judge = attached(tmp_path)
    with pytest.raises(LabelsMissingError, match=r"6 labels are missing.*rlaif-annotate"):
        both_orders(judge, PAIRS)
    assert label_all(tmp_path) == 6
    found = [debias(c, 0, 1, *orders) for c, orders in zip(PAIRS, both_orders(judge, PAIRS), strict=True)]
    # "first" is the lower text, which is the second of each comparison here.
    assert [j.prob_first_wins for j in found] == [0.0] * 6
    assert sum(j.cost_usd for j in found) == pytest.approx(6 * 30 / 3600 * 60)
    assert found[0].details is not None


def test_a_run_that_was_killed_asks_nothing_twice(tmp_path: Path) -> None:
    for _ in range(3):
        with pytest.raises(LabelsMissingError):
            attached(tmp_path).verdicts(PAIRS)
    assert LabelQueue(tmp_path / QUEUE).progress().items == 6
    label_all(tmp_path)
    first = attached(tmp_path).verdicts(PAIRS)
    assert attached(tmp_path).verdicts(PAIRS) == first, "a stage that is computed again gets the same"


def test_it_waits_until_the_labels_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("rlaif_lab.judges.people.POLL_S", 0.02)
    judge = attached(tmp_path, wait=True)
    threading.Thread(target=lambda: (time.sleep(0.3), label_all(tmp_path))).start()
    assert all(v.status == "ok" for v in judge.verdicts(PAIRS))
    assert "waiting: 6 labels are missing" in capsys.readouterr().out


def test_several_people_are_averaged_and_a_flag_is_a_refusal(tmp_path: Path) -> None:
    judge = attached(tmp_path, labels_per_item=2)
    with pytest.raises(LabelsMissingError):
        judge.verdicts(PAIRS[:2])
    queue = LabelQueue(tmp_path / QUEUE)
    one, two = queue.items()
    queue.label(Label(one.id, "ada", "first", False, 1.0))
    queue.label(Label(one.id, "ben", "tie", False, 1.0))
    queue.label(Label(two.id, "ada", "flag", False, 1.0, "nonsense"))
    said = judge.verdicts(PAIRS[:2])
    assert said[0].prob_first_wins == pytest.approx(0.25)
    assert (said[1].status, said[1].raw) == ("refused", "ada: nonsense")


@pytest.mark.parametrize(
    ("budget", "allowed"),
    [({"max_labels": 4}, 4), ({"max_minutes": 1.5}, 3), ({"max_usd": 2.0}, 4), ({}, 6)],
)
def test_budgets_hold_over_calls_and_kills(tmp_path: Path, budget: dict[str, Any], allowed: int) -> None:
    for some in (PAIRS[:2], PAIRS[:4], PAIRS):
        with pytest.raises(LabelsMissingError):
            attached(tmp_path, **budget).verdicts(some)
    assert label_all(tmp_path) == allowed
    said = attached(tmp_path, **budget).verdicts(PAIRS)
    assert [v.status for v in said].count("over_budget") == 6 - allowed


def test_people_are_not_asked_to_evaluate_unless_they_should(tmp_path: Path) -> None:
    assert {v.status for v in attached(tmp_path).evaluator().verdicts(PAIRS)} == {"over_budget"}
    judge = attached(tmp_path, evaluate=True)
    assert judge.evaluator() is judge


def test_a_budget_of_real_people_needs_no_gold_and_shows_what_the_ai_said(tmp_path: Path) -> None:
    ai = ScriptedJudge(lambda c: Verdict(0.9 if c.first < c.second else 0.1))
    judge = HumanBudget(ai, PeopleJudge(wait=False), share=0.5)
    assert not judge.sees_gold
    judge.attach(JudgeContext(0, None, None, None, tmp_path))  # type: ignore[arg-type]
    with pytest.raises(LabelsMissingError):
        judge.verdicts([*PAIRS, *(c.swapped() for c in PAIRS)])
    items = LabelQueue(tmp_path / "human" / QUEUE).items()
    assert len(items) == 3
    assert {item.ai for item in items} == {0.9}
    assert "real people" in judge.describe()


def test_a_budget_of_time_holds_when_people_are_slower_than_was_planned(tmp_path: Path) -> None:
    """Three were put into the queue; the first took all the time there was, so the others are not asked any more."""
    budget = {"max_minutes": 1.5, "seconds": 30.0}
    with pytest.raises(LabelsMissingError):
        attached(tmp_path, **budget).verdicts(PAIRS)
    queue = LabelQueue(tmp_path / QUEUE)
    first = queue.next_item("ada")
    assert first is not None
    queue.label(Label(first.id, "ada", "first", False, 95.0))
    assert queue.next_item("ada") is None
    said = attached(tmp_path, **budget).verdicts(PAIRS)
    assert sorted(v.status for v in said) == ["ok"] + ["over_budget"] * 5
    assert attached(tmp_path, **budget).verdicts(PAIRS) == said, "also after a kill"
    assert {v.status for v in attached(tmp_path, **budget).verdicts(PAIRS[::-1])} == {"ok", "over_budget"}


def test_the_line_that_waits_says_where_the_page_is(tmp_path: Path) -> None:
    judge = attached(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as page:
        judge.queue.note_page(f"http://127.0.0.1:{page.getsockname()[1]}")
        with pytest.raises(LabelsMissingError, match=r"the page at http://127.0.0.1:\d+ .*rlaif-annotate"):
            judge.verdicts(PAIRS)
    with pytest.raises(LabelsMissingError, match=r"6 labels are missing.*the page that this opens: rlaif-annotate"):
        judge.verdicts(PAIRS)  # it was killed


def test_checks_criteria_and_principles_come_with_the_judge(tmp_path: Path) -> None:
    file = tmp_path / "checks.jsonl"
    file.write_text('{"prompt": "2 + 2", "chosen": "4", "rejected": "5"}\n')
    judge = attached(tmp_path / "run", checks=FileBank(str(file)), criteria="correct", constitution="general")
    with pytest.raises(LabelsMissingError):
        judge.verdicts(PAIRS)
    items = judge.queue.items()
    assert [item.gold for item in items if item.gold] == ["first"]
    assert len({item.criteria for item in items}) == 1
    assert "Only correctness counts" in str(items[0].criteria)
    assert "truthful: " in str(judge.queue.limits().guidelines)
    assert attached(tmp_path / "run", checks=FileBank(str(file)), criteria="correct").queue.progress().items == 6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"labels_per_item": 0}, "judge.labels_per_item must be at least 1; got 0"),
        ({"max_labels": 0}, "judge.max_labels must be positive"),
        ({"usd_per_hour": float("nan")}, "judge.usd_per_hour must be finite"),
        ({"max_usd": 5.0, "usd_per_hour": 0.0}, "judge.max_usd needs judge.usd_per_hour"),
    ],
)
def test_settings_that_cannot_work(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PeopleJudge(**settings)


def test_without_a_run_labels_would_be_lost() -> None:
    with pytest.raises(ValueError, match="there is no run here"):
        PeopleJudge().attach(JudgeContext(0, None, None, None, None))  # type: ignore[arg-type]


def test_people_who_judge_alone_are_counted_and_measured(tmp_path: Path) -> None:
    """Two of them on each comparison; they disagree on one of six."""
    judge = attached(tmp_path, labels_per_item=2, evaluate=True)
    with pytest.raises(LabelsMissingError):
        both_orders(judge, PAIRS)
    for number, item in enumerate(judge.queue.items()):
        for name in ("ada", "ben"):
            choice = "second" if (number, name) == (0, "ben") else "first" if number < 4 else "second"
            judge.queue.label(Label(item.id, name, choice, False, 30.0))  # type: ignore[arg-type]
    orders = both_orders(judge, PAIRS)
    judged = [debias(c, 0, 1, *both) for c, both in zip(PAIRS, orders, strict=True)]
    found = human_metrics(judged)
    assert (found["cost/human_labels"], found["human/labels"], found["cost/human_minutes"]) == (6.0, 12.0, 6.0)
    assert found["human/label_error"] == pytest.approx(0.0917, abs=1e-4)  # (1 - sqrt(1 - 2 / 6)) / 2
    assert 0.5 < found["human/alpha"] < 1.0
    measured = judge.own_metrics(PAIRS, orders, identical=2)
    # "first" is the lower text, which is the second of each comparison: one tie, three losses, two wins, two equal.
    assert measured["human/win_rate_vs_round_0"] == pytest.approx((0.5 + 2 + 1) / 8)
    assert measured["human/win_rate_vs_round_0_low"] < 0.4375 < measured["human/win_rate_vs_round_0_high"]
    assert measured["human/evaluation_alpha"] == pytest.approx(found["human/alpha"])
    assert (measured["cost/evaluation_human_labels"], measured["cost/evaluation_usd"]) == (6.0, pytest.approx(6.0))
    assert attached(tmp_path / "other").own_metrics(PAIRS, orders, identical=2) == {}
    assert all(row_of(name) for name in found | measured)
