"""Judging under principles: one per comparison or all of them, and what each of them says."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from chat_model import COMPARISONS
from chat_model import attached_to_chat as attached
from helpers import generation

from rlaif_lab.judges.asking import both_orders, judge_generations
from rlaif_lab.judges.prompted.constitution import ConstitutionJudge, principle_statistics
from rlaif_lab.judges.prompted.pairwise import PromptedJudge
from rlaif_lab.records import Comparison, Judgement, Prompt, Verdict


def judge(**settings: Any) -> ConstitutionJudge:
    return attached(ConstitutionJudge("live", minimum_mass=0.0, **settings))


def judgement(probability: float | None, by_principle: dict[str, float | None]) -> Judgement:
    """Without position bias: what is seen in one order is seen in the other."""
    turned = {name: None if p is None else 1 - p for name, p in by_principle.items()}
    details = {"shown_first": {"principles": by_principle}, "shown_second": {"principles": turned}}
    status = "invalid" if probability is None else "ok"
    return Judgement(
        Comparison(Prompt("p", "p"), "a", "b"), 0, 1, probability, None, None, status, 0.0, 0, None, 0.0, details
    )


def test_one_principle_is_drawn_per_pair_the_same_in_both_orders() -> None:
    pairs = [Comparison(Prompt(f"p{i}", "Say something."), "one", "two") for i in range(40)]
    drawn = [v.details["principle"] for order in both_orders(judge(), pairs) for v in order]
    assert drawn[::2] == drawn[1::2]
    assert len(Counter(drawn)) > 8
    by_order = both_orders(judge(), pairs[::-1])
    assert [first.details["principle"] for first, _ in by_order][::-1] == drawn[::2]
    other = attached(ConstitutionJudge("live", minimum_mass=0.0), seed=1)
    assert [v.details["principle"] for v in other.verdicts(pairs)] != drawn[::2]


def test_the_principle_is_put_to_the_model() -> None:
    under = judge()
    (verdict,) = under.verdicts(COMPARISONS[:1])
    (principle,) = under.principles_for(COMPARISONS[0])
    assert principle.compare in under.question(COMPARISONS[0], principle.compare).messages[-1][1]
    (alone,) = under.answered([under.question(COMPARISONS[0], principle.compare)])
    assert verdict.prob_first_wins == pytest.approx(alone.prob_first_wins, abs=1e-6)


def test_all_principles_are_averaged() -> None:
    under = judge(principles="all", constitution="checkable")
    for verdict, comparison in zip(under.verdicts(COMPARISONS[:4]), COMPARISONS, strict=False):
        by_principle = verdict.details["principles"]
        assert list(by_principle) == ["result", "digit_by_digit", "carries", "size", "form"]
        assert verdict.prob_first_wins == pytest.approx(sum(by_principle.values()) / 5)
        for principle in under.constitution.principles:
            (alone,) = under.answered([under.question(comparison, principle.compare)])
            assert by_principle[principle.id] == pytest.approx(alone.prob_first_wins, abs=1e-5)


def test_a_principle_without_a_verdict_is_left_out_of_the_mean() -> None:
    under = judge(principles="all", constitution="checkable")
    verdicts = dict(zip("abcde", under.answered([under.question(c, "Which?") for c in COMPARISONS[:5]]), strict=True))
    verdicts["b"] = Verdict(None, "invalid", raw="hm")
    combined = under._combined(verdicts)
    known = [v.prob_first_wins for name, v in verdicts.items() if name != "b"]
    assert combined.prob_first_wins == pytest.approx(sum(known) / 4)
    assert combined.details["principles"]["b"] is None
    failed = under._combined({"a": Verdict(None, "refused", raw="no"), "b": Verdict(None, "invalid", raw="hm")})
    assert (failed.prob_first_wins, failed.status, failed.raw) == (None, "invalid", "no\n---\nhm")


def test_identity_and_description() -> None:
    identities = [
        judge().identity(),
        judge(principles="all").identity(),
        judge(constitution="helpful").identity(),
        attached(ConstitutionJudge("live", minimum_mass=0.0), seed=1).identity(),
        attached(PromptedJudge("live", minimum_mass=0.0)).identity(),
    ]
    assert len(set(identities)) == 5
    of_all = attached(ConstitutionJudge("live", principles="all", minimum_mass=0.0), seed=1)
    assert of_all.identity() == judge(principles="all").identity()
    assert "16 principles of 'general', one drawn per comparison" in judge().describe()


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"principles": "some"}, r"judge\.principles must be one of drawn, all"),
        ({"template": "pairwise"}, r"has no \{principle\}"),
        ({"constitution": "nope"}, "no constitution 'nope'"),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        ConstitutionJudge("live", **settings)


# --- statistics -------------------------------------------------------------------------------------------------------
def test_statistics_by_hand() -> None:
    judgements = [
        judgement(0.8, {"x": 0.9, "y": 0.7}),
        judgement(0.4, {"x": 0.6, "y": 0.2}),
        judgement(0.7, {"x": 0.7, "y": None}),
        judgement(None, {"x": None, "y": None}),
        judgement(0.5, {"x": 0.5, "y": 0.5}),
    ]
    found = principle_statistics(judgements, better=[1.0, -1.0, -0.5, 1.0, 0.0])
    assert list(found) == ["x", "y"]
    x, y = found["x"], found["y"]
    assert (x.count, x.failed, y.count, y.failed) == (5, 1, 5, 2)
    assert x.preference == pytest.approx((0.8 + 0.2 + 0.4 + 0.0) / 4)
    assert x.disagreement == pytest.approx(1 / 3), "it differs from the whole on the second"
    assert x.agreement == pytest.approx(1 / 3), "right on the first only"
    assert (y.disagreement, y.agreement) == (0.0, 1.0)
    assert math.isnan(principle_statistics(judgements)["x"].agreement)
    assert principle_statistics([]) == {}


def test_statistics_of_judgements_as_they_come() -> None:
    """Both orders averaged, whether the details of the two are merged or apart."""
    generations = [generation(f"p{i}", "one", "two", "three") for i in range(3)]
    drawn = judge_generations(judge(), generations)
    found = principle_statistics(drawn)
    assert sum(s.count for s in found.values()) == len(drawn) == 9
    every = judge_generations(judge(principles="all", constitution="checkable"), generations)
    by_principle = principle_statistics(every, better=[1.0] * 9)
    assert [s.count for s in by_principle.values()] == [9] * 5
    first = every[0].details
    both = (first["shown_first"]["principles"]["size"] + 1 - first["shown_second"]["principles"]["size"]) / 2
    assert principle_statistics(every[:1])["size"].preference == pytest.approx(abs(2 * both - 1))
