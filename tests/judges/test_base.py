"""From verdicts to judgements: both orders, averaged; duplicates dropped; failures kept."""

from __future__ import annotations

import pytest
from helpers import ScriptedJudge, generation

from rlaif_lab.judges.asking import comparisons_of, debias, judge_generations
from rlaif_lab.records import Comparison, Prompt, Verdict

COMPARISON = Comparison(Prompt("p", "1+1="), "a", "b")


def test_every_pair_of_different_texts_is_asked_once_by_first_occurrence() -> None:
    assert comparisons_of(generation("p", "x", "y", "x", "z", "y")) == [(0, 1), (0, 3), (1, 3)]
    assert comparisons_of(generation("p", "x", "x")) == []
    assert comparisons_of(generation("p", "x")) == []


def test_a_judge_is_asked_about_each_different_pair_in_both_orders_and_nothing_else() -> None:
    judge = ScriptedJudge(lambda c: Verdict(1.0 if c.first < c.second else 0.0))
    judgements = judge_generations(judge, [generation("p", "x", "y", "x"), generation("q", "w", "w", "w")])
    assert [(c.first, c.second) for c in judge.asked] == [("x", "y"), ("y", "x")]
    assert [(j.sample_first, j.sample_second, j.prob_first_wins, j.status) for j in judgements] == [(0, 1, 1.0, "ok")]


def test_a_judge_with_nothing_to_compare_is_not_asked() -> None:
    judge = ScriptedJudge(lambda c: Verdict(0.5, "tie"))
    assert judge_generations(judge, [generation("p", "x", "x")]) == []
    assert judge_generations(judge, []) == []
    assert judge.asked == []


@pytest.mark.parametrize(
    ("first", "second", "expected", "status"),
    [
        (0.9, 0.3, 0.8, "ok"),  # (0.9 + 0.7) / 2
        (0.9, 0.9, 0.5, "tie"),  # position alone
        (0.2, 0.6, 0.3, "ok"),
        (1.0, 0.0, 1.0, "ok"),
        (1.0, 1.0, 0.5, "tie"),
        (0.5, 0.5, 0.5, "tie"),
        (1.0, 0.5, 0.75, "ok"),
    ],
)
def test_two_orders_are_averaged(first: float, second: float, expected: float, status: str) -> None:
    j = debias(COMPARISON, 2, 5, Verdict(first, latency_s=0.25, tokens=3), Verdict(second, latency_s=0.5, tokens=4))
    assert j.prob_first_wins == pytest.approx(expected)
    assert j.prob_first_wins_shown_first == pytest.approx(first)
    assert j.prob_first_wins_shown_second == pytest.approx(1 - second)
    assert (j.status, j.sample_first, j.sample_second, j.latency_s, j.tokens) == (status, 2, 5, 0.75, 7)


@pytest.mark.parametrize("bias", [k / 97 for k in range(98)])
def test_a_judge_of_position_alone_ties_exactly(bias: float) -> None:
    """Whatever its favour for slot one, no rounding error may make a preference of it."""
    assert debias(COMPARISON, 0, 1, Verdict(bias), Verdict(bias)).status == "tie"


@pytest.mark.parametrize(
    ("first", "second", "status", "raw"),
    [
        (Verdict(None, "invalid", raw="I am not sure"), Verdict(0.9), "invalid", "I am not sure"),
        (Verdict(0.9, raw="A"), Verdict(None, "invalid", raw=""), "invalid", "A\n---\n"),
        (Verdict(None, "refused", raw="no"), Verdict(0.9, raw="B"), "refused", "no\n---\nB"),
        (Verdict(None, "refused"), Verdict(None, "invalid", raw="??"), "invalid", "??"),
        (Verdict(None, "refused"), Verdict(None, "refused"), "refused", None),
    ],
)
def test_one_failed_order_fails_the_judgement_and_its_words_are_kept(
    first: Verdict, second: Verdict, status: str, raw: str | None
) -> None:
    j = debias(COMPARISON, 0, 1, first, second)
    assert (j.prob_first_wins, j.status, j.raw) == (None, status, raw)
    assert (j.prob_first_wins_shown_first is None) == (first.prob_first_wins is None)
    assert (j.prob_first_wins_shown_second is None) == (second.prob_first_wins is None)


@pytest.mark.parametrize(
    ("probability", "status"),
    [(None, "ok"), (None, "tie"), (0.5, "invalid"), (0.5, "refused"), (1.5, "ok"), (-0.1, "ok")],
)
def test_a_verdict_cannot_contradict_itself(probability: float | None, status: str) -> None:
    with pytest.raises(ValueError, match=r"a Verdict('s| has a) prob_first_wins"):
        Verdict(probability, status)  # type: ignore[arg-type]
