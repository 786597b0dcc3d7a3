"""A judge helped by people: whom is asked about what, what it costs, and what it is used for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ScriptedJudge, attached, generation
from scipy import stats

from rlaif_lab.judges.annotator import SimulatedAnnotator
from rlaif_lab.judges.asking import both_orders, judge_generations
from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.by_people import human_metrics
from rlaif_lab.judges.oracle import OracleJudge
from rlaif_lab.judges.people import PeopleJudge
from rlaif_lab.judges.wrappers.human_budget import HumanBudget
from rlaif_lab.metrics.judge import win_rate
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.records import Comparison, Prompt, Verdict
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.base import Skill


def pairs(n: int) -> list[Comparison]:
    return [Comparison(Prompt(f"p{i}", "21+43="), f"a{i}", f"b{i}") for i in range(n)]


def says(probability: Callable[[Comparison], float], tokens: int = 0) -> ScriptedJudge:
    """A judge without position bias: ``probability`` is of the text that sorts first."""

    def say(c: Comparison) -> Verdict:
        p = probability(c) if c.first < c.second else 1.0 - probability(c.swapped())
        return Verdict(p, "tie" if p == 0.5 else "ok", tokens=tokens)

    return ScriptedJudge(say)


def person(usd: float = 1.0) -> ScriptedJudge:
    """Always prefers the text that sorts last."""
    return ScriptedJudge(lambda c: Verdict(float(c.first > c.second), cost_usd=usd, details={"human_seconds": 30.0}))


def by(judge: Judge, comparisons: Sequence[Comparison]) -> list[str]:
    return ["/".join({v.details["by"] for v in orders}) for orders in both_orders(judge, comparisons)]  # type: ignore[index]


# --- whom is asked ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("share", [0.0, 0.01, 0.25, 0.5, 1.0])
def test_people_get_their_share_of_every_call_both_orders_together(share: float) -> None:
    judge = attached(HumanBudget(says(lambda c: 0.9), person(), share=share))
    whom = by(judge, pairs(200))
    assert whom.count("human") == 200 * share
    assert set(whom) <= {"human", "ai"}


def test_what_is_left_over_is_rounded_up_as_often_as_it_should_be() -> None:
    judge = attached(HumanBudget(says(lambda c: 0.9), person(), share=0.1))
    counts = [
        by(judge, [Comparison(Prompt(f"p{i}", ""), "a", f"b{j}") for j in range(3)]).count("human") for i in range(600)
    ]
    assert set(counts) == {0, 1}
    assert stats.binomtest(sum(counts), 600, 0.3).pvalue > 1e-3


def test_random_routing_is_by_pair_and_seed() -> None:
    first, again, other = (
        by(attached(HumanBudget(says(lambda c: 0.9), person(), share=0.3), seed=seed), pairs(100)) for seed in (0, 0, 1)
    )
    assert first == again != other


def test_uncertainty_is_of_both_orders_averaged_and_failures_come_first() -> None:
    def say(c: Comparison) -> Verdict:
        number = int(c.prompt.id[1:])
        if number == 7:
            return Verdict(None, "invalid")
        if number == 3:  # confident in both orders, for the slot: nothing is known of the texts
            return Verdict(0.99)
        p = 0.5 + 0.04 * (number + 1)
        return Verdict(p if c.first.startswith("a") else 1.0 - p)

    judge = attached(HumanBudget(ScriptedJudge(say), person(), share=0.3, routing="uncertainty"))
    whom = by(judge, pairs(10))
    assert {i for i, w in enumerate(whom) if w == "human"} == {7, 3, 0}


def test_disagreement_is_with_the_second_judge_whose_tokens_count() -> None:
    second = says(lambda c: 0.9 if int(c.prompt.id[1:]) != 4 else 0.1, tokens=5)
    judge = attached(HumanBudget(says(lambda c: 0.9, tokens=2), person(), second, share=0.1, routing="disagreement"))
    assert [i for i, w in enumerate(by(judge, pairs(10))) if w == "human"] == [4]
    assert {v.tokens for v in judge.verdicts(pairs(10))} == {7}


def test_a_confident_error_that_both_share_is_found_by_chance_alone() -> None:
    wrong = {f"p{i}" for i in range(0, 200, 10)}
    ai = says(lambda c: 0.999 if c.prompt.id in wrong else 0.6)
    for routing, most in (("uncertainty", 0), ("disagreement", 10), ("random", 20)):
        judge = attached(HumanBudget(ai, person(), ai, share=0.2, routing=routing))  # type: ignore[arg-type]
        found = sum(
            w == "human" for c, w in zip(pairs(200), by(judge, pairs(200)), strict=True) if c.prompt.id in wrong
        )
        assert found <= most


# --- what becomes of it -----------------------------------------------------------------------------------------------
def test_the_persons_verdict_replaces_the_ais_and_is_paid_once() -> None:
    judge = attached(HumanBudget(says(lambda c: 0.9, tokens=3), person(), share=0.5))
    judgements = judge_generations(judge, [generation(f"p{i}", "x", "y") for i in range(20)])
    people = [j for j in judgements if j.details["by"] == "human"]  # type: ignore[index]
    assert len(people) == 10
    assert all(j.prob_first_wins == 0.0 and j.cost_usd == 1.0 and j.tokens == 6 for j in people)
    assert all(j.details["overruled"] is True and j.details["ai_confidence"] == 0.9 for j in people)  # type: ignore[index]
    assert all(j.prob_first_wins == pytest.approx(0.9) and j.cost_usd == 0 for j in judgements if j not in people)
    metrics = human_metrics(judgements)
    assert metrics == {
        "cost/human_labels": 10,
        "cost/human_minutes": 5.0,
        "cost/per_accepted_label": 0.5,
        "human/overruled_rate": 1.0,
    }


def test_details_of_the_ai_judge_are_kept() -> None:
    ai = ScriptedJudge(lambda c: Verdict(0.9, details={"votes": 3}))
    (verdict,) = attached(HumanBudget(ai, person(), share=0.0)).verdicts(pairs(1))
    assert verdict.details == {"by": "ai", "of": {"votes": 3}}


def test_metrics_of_a_judge_without_people() -> None:
    judgements = judge_generations(attached(says(lambda c: 0.5)), [generation("p", "x", "y")])
    metrics = human_metrics(judgements)
    assert metrics["cost/human_labels"] == metrics["cost/human_minutes"] == 0.0
    assert math.isnan(metrics["cost/per_accepted_label"]) and math.isnan(metrics["human/overruled_rate"])


# --- measuring --------------------------------------------------------------------------------------------------------
def test_labels_to_evaluate_with_do_not_enter_training_and_the_other_way_round() -> None:
    human = person()
    judge = attached(HumanBudget(says(lambda c: 0.9), human, share=0.5, use="evaluate"))
    assert set(by(judge, pairs(50))) == {"ai"} and not human.asked
    assert judge.evaluator() is judge.of  # type: ignore[attr-defined]
    trained = attached(HumanBudget(says(lambda c: 0.9), human, share=0.5))
    assert trained.own_metrics(pairs(50), both_orders(trained.evaluator(), pairs(50)), 0) == {} and not human.asked


def test_people_rectify_the_win_rate_of_a_biased_judge() -> None:
    """AI: always for the first. People: for the first in three of four."""
    truth = {f"p{i}": i % 4 != 0 for i in range(400)}
    human = ScriptedJudge(
        lambda c: Verdict(
            float(truth[c.prompt.id] == c.first.startswith("a")), cost_usd=2.0, details={"human_seconds": 60.0}
        )
    )
    judge = attached(HumanBudget(says(lambda c: 0.9), human, share=0.25, use="evaluate", routing="uncertainty"))
    verdicts = both_orders(judge.evaluator(), pairs(400))
    metrics = judge.own_metrics(pairs(400), verdicts, identical=0)
    assert win_rate(verdicts) == 1.0
    assert metrics["ppi/win_rate_vs_round_0_low"] < 0.75 < metrics["ppi/win_rate_vs_round_0_high"]
    assert metrics["ppi/weight"] == 0.0, "a judge that always says the same helps nobody"
    assert metrics["ppi/win_rate_vs_round_0"] == metrics["human/win_rate_vs_round_0"]
    assert metrics["judge/bias_vs_human"] == pytest.approx(1 - metrics["human/win_rate_vs_round_0"])
    assert metrics["cost/evaluation_human_labels"] == metrics["cost/evaluation_human_minutes"] == 100
    assert metrics["cost/evaluation_usd"] == 200.0


def test_a_few_labels_too_few_are_nothing() -> None:
    judge = attached(HumanBudget(says(lambda c: 0.9), person(), share=0.0, use="both"))
    metrics = judge.own_metrics(pairs(5), both_orders(judge.evaluator(), pairs(5)), 3)
    assert math.isnan(metrics["ppi/win_rate_vs_round_0"]) and metrics["cost/evaluation_human_labels"] == 0


def test_what_training_changed_is_asked_of_a_random_share_and_equal_texts_are_free() -> None:
    """Every second text is the same before and after; people prefer the newer one, which sorts last."""
    human = person()
    judge = attached(HumanBudget(says(lambda c: 0.9), human, share=0.5, use="evaluate"))
    asked = [Comparison(c.prompt, c.second, c.second if i % 2 else c.first) for i, c in enumerate(pairs(400))]
    found = judge.own_changes(asked)
    assert len(found) == 200
    assert set(found) == {0.0, 1.0}
    assert found.count(1.0) == len(human.asked) == pytest.approx(100, abs=30)
    assert attached(HumanBudget(says(lambda c: 0.9), human, share=0.5)).own_changes(asked) == []


def test_several_peoples_noise_is_estimated_and_taken_out() -> None:
    """Two people who err in one of five: a true win rate of 0.8 looks like 0.5 + 0.3 * 0.6."""
    rng = np.random.default_rng(1)

    def say(c: Comparison) -> Verdict:
        right = int(c.prompt.id[1:]) % 5 != 0  # the first wins in four of five
        choices = ["first" if right ^ (rng.random() < 0.2) else "second" for _ in range(2)]
        share = choices.count("first") / 2
        labels = [[name, choice, False] for name, choice in zip("ab", choices, strict=True)]
        return Verdict(share if c.first < c.second else 1.0 - share, details={"labels": labels})

    judge = attached(HumanBudget(says(lambda c: 0.9), ScriptedJudge(say), share=1.0, use="evaluate"))
    metrics = judge.own_metrics(pairs(4000), both_orders(judge.evaluator(), pairs(4000)), identical=0)
    assert metrics["human/annotator_error"] == pytest.approx(0.2, abs=0.02)
    assert metrics["human/win_rate_vs_round_0"] == pytest.approx(0.68, abs=0.02)
    assert metrics["ppi/win_rate_without_noise"] == pytest.approx(0.8, abs=0.03)
    one = attached(HumanBudget(says(lambda c: 0.9), person(), share=1.0, use="evaluate"))
    alone = one.own_metrics(pairs(40), both_orders(one.evaluator(), pairs(40)), identical=0)
    assert math.isnan(alone["human/annotator_error"]) and math.isnan(alone["ppi/win_rate_without_noise"])


def test_the_labeller_that_counts_is_audited_where_people_are_at_hand() -> None:
    simulated = SimulatedAnnotator()
    assert (judge := HumanBudget(says(lambda c: 0.9), simulated)).auditor() is judge
    assert (judge := HumanBudget(says(lambda c: 0.9), simulated, use="evaluate")).auditor() is judge.of
    assert (judge := HumanBudget(says(lambda c: 0.9), PeopleJudge())).auditor() is judge.of
    assert (judge := HumanBudget(says(lambda c: 0.9), PeopleJudge(evaluate=True))).auditor() is judge


# --- coverage of errors -----------------------------------------------------------------------------------------------
def mixed(start: int, n: int) -> list[Comparison]:
    """The AI prefers the lower text: the longer one in every second pair, where people overrule it."""
    ids = range(start, start + n)
    return [Comparison(Prompt(f"p{i}", "q"), f"a{i}" + "x" * (9 if i % 2 else 0), f"b{i}xxxx") for i in ids]


def overruling(c: Comparison) -> Verdict:
    lower = min(c.first, c.second)
    lower_wins = len(lower) < len(max(c.first, c.second))
    return Verdict(float((c.first == lower) == lower_wins))


def longer(judge: Judge, asked: Sequence[Comparison]) -> float:
    """The share of what people got in which the AI prefers the longer text."""
    chosen = [c for c, who in zip(asked, by(judge, asked), strict=True) if who == "human"]
    return float(np.mean([len(c.first) > len(c.second) for c in chosen]))


def test_people_get_more_of_the_class_in_which_they_have_overruled_the_judge(tmp_path: Path) -> None:
    judge = HumanBudget(says(lambda c: 0.9), ScriptedJudge(overruling), share=0.2, routing="coverage_of_errors")
    judge.attach(JudgeContext(0, None, None, None, tmp_path))  # type: ignore[arg-type]
    first, later = longer(judge, mixed(0, 500)), longer(judge, mixed(500, 500))
    assert first == pytest.approx(0.5, abs=0.15), "nothing is known yet"
    assert 0.85 < later < 1.0, "and no class is left out"


def test_a_call_that_is_made_again_after_a_kill_asks_about_the_same(tmp_path: Path) -> None:
    def judge() -> HumanBudget:
        made = HumanBudget(says(lambda c: 0.9), ScriptedJudge(overruling), share=0.2, routing="coverage_of_errors")
        made.attach(JudgeContext(0, None, None, None, tmp_path))  # type: ignore[arg-type]
        return made

    calls = [mixed(0, 100), mixed(100, 100), mixed(200, 100)]
    once = [by(judge(), call) for call in calls]
    assert [by(judge(), call) for call in calls] == once
    known = json.loads((tmp_path / "errors_by_class.json").read_text())
    assert len(known) == 3


# --- settings ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 1.5}, "judge.share"),
        ({"routing": "doubt"}, "judge.routing must be one of random, uncertainty, disagreement"),
        ({"use": "test"}, "judge.use must be one of train, evaluate, both"),
        ({"routing": "disagreement"}, "needs a second judge"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HumanBudget(says(lambda c: 0.5), person(), **settings)


def test_gold_goes_to_the_annotator_alone(task: Addition, tmp_path: Path) -> None:
    ai = says(lambda c: 0.9)
    judge = HumanBudget(ai, SimulatedAnnotator())
    judge.attach(JudgeContext(0, None, None, task, tmp_path))  # type: ignore[arg-type]
    assert judge.sees_gold and ai.context is not None and ai.context.gold is None
    assert "simulated from gold" in judge.describe()
    with pytest.raises(ValueError, match="put the cache inside"):
        judge.identity()
    with pytest.raises(ValueError, match="no score of a single one"):
        judge.scores([])


# --- the simulated annotator ------------------------------------------------------------------------------------------
def test_an_annotator_without_noise_is_the_oracle_and_is_paid_per_comparison(task: Addition) -> None:
    comparisons = [Comparison(task.to_prompt(1234), a, b) for a, b in (("640", "641"), ("641", "642"))]
    annotator, oracle = attached(SimulatedAnnotator(flip=0.0), task), attached(OracleJudge(), task)
    said = annotator.verdicts([*comparisons, *(c.swapped() for c in comparisons)])
    expected = oracle.verdicts([*comparisons, *(c.swapped() for c in comparisons)])
    assert [v.prob_first_wins for v in said] == [v.prob_first_wins for v in expected]
    assert [v.cost_usd for v in said] == [0.67, 0.67, 0.0, 0.0]
    judgement = judge_generations(annotator, [generation("21+43=", "640", "641")])
    assert human_metrics(judgement)["cost/human_minutes"] == 0.5


def test_an_annotator_errs_at_its_rate(task: Addition) -> None:
    annotator = attached(SimulatedAnnotator(flip=0.25), task)
    asked = [task.to_prompt(i) for i in range(2000)]
    right = task.demonstrate(np.arange(2000), Skill(0.0, 0.0), np.random.default_rng())
    said = annotator.verdicts([Comparison(p, r, "x") for p, r in zip(asked, right, strict=True)])
    assert stats.binomtest(sum(v.prob_first_wins == 0.0 for v in said), 2000, 0.25).pvalue > 1e-3
    with pytest.raises(ValueError, match="must not be negative"):
        SimulatedAnnotator(usd=-1)
