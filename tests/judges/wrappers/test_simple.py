"""Judges made of other judges: noise, bias, one order, ties, length, panels."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ScriptedJudge, generation, plain_logps
from scipy import stats

from rlaif_lab.judges.asking import both_orders, debias, judge_generations
from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.oracle import OracleJudge, RandomJudge
from rlaif_lab.judges.wrappers.base import Wrapper, logit
from rlaif_lab.judges.wrappers.length_control import LengthControl, LengthEffect, length_effect
from rlaif_lab.judges.wrappers.noise import BiasedJudge, NoisyJudge
from rlaif_lab.judges.wrappers.order import ShorterOnTie, SingleOrderJudge
from rlaif_lab.judges.wrappers.panel import Panel
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Comparison, Prompt, Score, Verdict
from rlaif_lab.seeding import rng_for
from rlaif_lab.tasks.arithmetic import Addition

PROMPT = Prompt("p", "Say something.")
PAIRS = [Comparison(Prompt(f"p{i}", "Say something."), "x" * (i % 7 + 1), "y" * (i % 5 + 2)) for i in range(60)]


def attach(judge: Judge, seed: int = 0, directory: Path | None = None, gold: Any = None) -> Any:
    def nothing(_: Any) -> Any:
        raise AssertionError("these judges need no model")

    judge.attach(JudgeContext(seed, nothing, nothing, gold, directory))
    return judge


def says(probability: float | Callable[[Comparison], float], name: str = "scripted") -> ScriptedJudge:
    judge = ScriptedJudge(lambda c: Verdict(probability(c) if callable(probability) else probability))
    judge.name = name
    judge.identity = lambda: f"says {name}"  # type: ignore[method-assign]
    return judge


def fails(status: Any = "invalid") -> ScriptedJudge:
    return ScriptedJudge(lambda c: Verdict(None, status, raw="hm"))


def debiased(judge: Judge, pair: Comparison) -> float | None:
    return debias(pair, 0, 1, *both_orders(judge, [pair])[0]).prob_first_wins


class Gifted(ScriptedJudge):
    """Has everything that a wrapper has to pass on."""

    sees_gold, gives_scores, writes = True, True, True

    def __init__(self) -> None:
        super().__init__(lambda c: Verdict(0.7), sees_gold=True)

    def sources(self) -> list[Any]:
        return ["a source"]

    def needs_previous_policy(self) -> bool:
        return True

    def scores(self, responses: Any) -> list[Score]:
        return [Score(float(len(text))) for _, text in responses]

    def language_model(self) -> Any:
        return "a model"

    def identity(self) -> str:
        return "gifted"


WRAPPERS: list[Callable[[Judge], Wrapper]] = [NoisyJudge, BiasedJudge, SingleOrderJudge, ShorterOnTie, LengthControl]


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapper_is_in_all_else_the_judge_it_wraps(wrap: Callable[[Judge], Wrapper]) -> None:
    inner = Gifted()
    judge = wrap(inner)
    assert (judge.sees_gold, judge.gives_scores, judge.writes) == (True, True, True)
    assert judge.sources() == ["a source"] and judge.needs_previous_policy()
    assert judge.language_model() == "a model"
    assert [s.value for s in judge.scores([(PROMPT, "four")])] == [4.0]
    attach(judge, gold=Addition(digits=2))
    assert inner.context is not None and inner.context.gold is not None
    assert "scripted" in judge.describe()
    if not isinstance(judge, LengthControl):
        assert "gifted" in judge.identity()
    plain = wrap(says(0.7))
    assert (plain.sees_gold, plain.gives_scores, plain.writes) == (False, False, False)


@pytest.mark.parametrize("wrap", WRAPPERS)
@pytest.mark.parametrize("status", ["invalid", "refused", "timed_out", "over_budget"])
def test_a_wrapper_leaves_failures_as_they_are(wrap: Callable[[Judge], Wrapper], status: Any) -> None:
    judge = attach(wrap(fails(status)))
    assert {(v.prob_first_wins, v.status, v.raw) for v in judge.verdicts(PAIRS)} == {(None, status, "hm")}


# --- noise ------------------------------------------------------------------------------------------------------------
def test_noise_flips_its_share_by_pair_in_both_orders() -> None:
    pairs = [Comparison(Prompt(f"p{i}", ""), "a", "b") for i in range(4000)]
    judge = attach(NoisyJudge(says(lambda c: 0.8 if c.first == "a" else 0.2), flip=0.3))
    orders = both_orders(judge, pairs)
    flipped = [first.prob_first_wins < 0.5 for first, _ in orders]
    assert stats.binomtest(sum(flipped), 4000, 0.3).pvalue > 0.001
    assert all(first.prob_first_wins == pytest.approx(1 - second.prob_first_wins) for first, second in orders)
    assert [v.prob_first_wins < 0.5 for v in judge.verdicts(pairs)] == flipped
    other = attach(NoisyJudge(says(lambda c: 0.8), flip=0.3), seed=1)
    assert [v.prob_first_wins < 0.5 for v in other.verdicts(pairs)] != flipped
    assert other.identity() != attach(NoisyJudge(says(lambda c: 0.8), flip=0.3)).identity()


def test_no_noise_changes_nothing_and_a_coin_is_a_coin() -> None:
    assert attach(NoisyJudge(says(0.8), flip=0.0)).verdicts(PAIRS) == [Verdict(0.8)] * 60
    pairs = [Comparison(Prompt(f"p{i}", ""), "a", "b") for i in range(2000)]
    wins = sum(v.prob_first_wins > 0.5 for v in attach(NoisyJudge(says(0.8), flip=0.5)).verdicts(pairs))
    assert stats.binomtest(wins, 2000, 0.5).pvalue > 0.001


# --- bias -------------------------------------------------------------------------------------------------------------
def test_biases_are_added_to_the_log_odds() -> None:
    judge = attach(BiasedJudge(says(0.6), position=0.5, length=2.0, length_scale=10.0))
    pair = Comparison(PROMPT, "x" * 15, "y" * 5)
    expected = logit(0.6) + 0.5 + 2.0 * math.tanh(1.0)
    (verdict,) = judge.verdicts([pair])
    assert logit(verdict.prob_first_wins) == pytest.approx(expected)
    (swapped,) = judge.verdicts([pair.swapped()])
    assert logit(swapped.prob_first_wins) == pytest.approx(logit(0.6) + 0.5 - 2.0 * math.tanh(1.0))


def test_a_position_bias_is_gone_once_both_orders_are_averaged_and_a_length_bias_is_not() -> None:
    pair = Comparison(PROMPT, "x" * 15, "y" * 5)
    assert debiased(attach(BiasedJudge(says(0.5), position=3.0)), pair) == pytest.approx(0.5)
    assert debiased(attach(BiasedJudge(says(0.5), length=3.0, length_scale=10.0)), pair) > 0.85


def test_self_preference_is_for_what_the_policy_found_likelier_at_first(
    organism: LanguageModel, untrained: LanguageModel
) -> None:
    judge = BiasedJudge(says(0.6), self_preference=2.0)
    weights = {"initial": organism, "live": untrained}
    judge.attach(JudgeContext(0, weights.__getitem__, lambda source: untrained, None))
    pair = Comparison(Prompt("q", "12+34="), "460", "5")
    (prompt,) = organism.encode_prompts([pair.prompt])
    likely = [plain_logps(organism.network, prompt, row).mean() for row in organism.encode_responses(["460", "5"])]
    (verdict,), (swapped,) = judge.verdicts([pair]), judge.verdicts([pair.swapped()])
    assert logit(verdict.prob_first_wins) == pytest.approx(logit(0.6) + 2.0 * float(likely[0] - likely[1]), abs=1e-4)
    assert logit(swapped.prob_first_wins) == pytest.approx(logit(0.6) - 2.0 * float(likely[0] - likely[1]), abs=1e-4)
    assert organism.weights_hash() in judge.identity()
    assert judge.verdicts([]) == []


def test_no_bias_changes_nothing() -> None:
    assert attach(BiasedJudge(says(1.0))).verdicts(PAIRS) == [Verdict(1.0)] * 60


# --- one order --------------------------------------------------------------------------------------------------------
def test_one_order_is_asked_and_stands_for_both() -> None:
    inner = says(0.9)  # nothing but position
    judge = attach(SingleOrderJudge(inner))
    judgements = judge_generations(judge, [generation(f"p{i}", "one", "two", "three") for i in range(50)])
    assert len(inner.asked) == 150
    for j in judgements:
        assert j.prob_first_wins_shown_first == pytest.approx(j.prob_first_wins_shown_second)
    first_wins = sum(j.prob_first_wins > 0.5 for j in judgements)
    assert stats.binomtest(first_wins, 150, 0.5).pvalue > 0.001, "which order is asked is decided by the pair"
    assert {round(j.prob_first_wins, 6) for j in judgements} == {0.9, 0.1}


def test_one_order_is_paid_once() -> None:
    inner = ScriptedJudge(lambda c: Verdict(0.9, latency_s=1.0, tokens=10, cost_usd=0.5))
    (order,) = both_orders(attach(SingleOrderJudge(inner)), PAIRS[:1])
    assert sum(v.tokens for v in order) == 10
    assert sum(v.cost_usd for v in order) == 0.5


# --- ties -------------------------------------------------------------------------------------------------------------
def test_the_shorter_wins_where_there_is_no_clear_preference() -> None:
    def quality(c: Comparison) -> float:
        return 0.7 if c.first == "good" else 0.3 if c.second == "good" else 0.9  # else nothing but position

    judge = attach(ShorterOnTie(says(quality), margin=0.1, preference=0.8))
    assert debiased(judge, Comparison(PROMPT, "good", "x")) == pytest.approx(0.7)
    assert debiased(judge, Comparison(PROMPT, "long answer", "short")) == pytest.approx(0.2)
    assert debiased(judge, Comparison(PROMPT, "abc", "xyz")) == 0.5
    (alone,) = judge.verdicts([Comparison(PROMPT, "long answer", "short")])
    assert alone.prob_first_wins == pytest.approx(0.2), "the same when only one order is asked for"


def test_asking_both_orders_costs_nothing_when_both_are_wanted_anyway() -> None:
    inner = says(0.5)
    both_orders(attach(ShorterOnTie(inner)), PAIRS)
    assert len(inner.asked) == 2 * len(set(PAIRS))


# --- length control ---------------------------------------------------------------------------------------------------
def lengthy(
    count: int, slope: float, position: float, seed: int = 0
) -> tuple[list[Comparison], dict[Comparison, float]]:
    """Pairs of random lengths and the verdicts of a judge with these effects, and some noise."""
    rng = rng_for(seed, "lengths")
    lengths = rng.integers(1, 200, size=(count, 2)).tolist()
    pairs = [Comparison(Prompt(f"p{i}", ""), "x" * a, "y" * b) for i, (a, b) in enumerate(lengths)]
    pairs += [pair.swapped() for pair in pairs]
    differences = np.array([len(c.first) - len(c.second) for c in pairs])
    odds = position + slope * np.tanh(differences / differences.std()) + rng.normal(0, 0.3, len(pairs))
    return pairs, dict(zip(pairs, (1 / (1 + np.exp(-odds))).tolist(), strict=True))


def test_the_length_effect_is_the_least_squares_slope() -> None:
    pairs, said = lengthy(200, slope=1.5, position=0.4)
    effect = length_effect(pairs, list(said.values()))
    x = np.array([math.tanh((len(c.first) - len(c.second)) / effect.scale) for c in pairs])
    y = np.array([logit(p) for p in said.values()])
    intercept, slope = np.linalg.lstsq(np.stack([np.ones_like(x), x], 1), y, rcond=None)[0]
    assert effect.coefficient == pytest.approx(slope)
    assert intercept == pytest.approx(0.4, abs=0.1)
    assert effect.coefficient == pytest.approx(1.5, abs=0.15)
    assert effect.scale == pytest.approx(np.std([len(c.first) - len(c.second) for c in pairs]))
    assert effect.comparisons == 400


def test_length_control_takes_the_effect_off_and_leaves_the_rest() -> None:
    pairs, said = lengthy(200, slope=1.5, position=0.4)
    judge = attach(LengthControl(says(said.__getitem__)))
    corrected = [v.prob_first_wins for v in judge.verdicts(pairs)]
    assert length_effect(pairs, corrected).coefficient == pytest.approx(0.0, abs=1e-9)
    assert np.mean([logit(p) for p in corrected]) == pytest.approx(np.mean([logit(p) for p in said.values()]))
    for pair, p in zip(pairs, corrected, strict=True):
        length = judge.effect.coefficient * math.tanh((len(pair.first) - len(pair.second)) / judge.effect.scale)
        assert logit(p) == pytest.approx(logit(said[pair]) - length)


def test_the_effect_is_estimated_once_and_kept_with_the_run(tmp_path: Path) -> None:
    pairs, said = lengthy(200, slope=1.5, position=0.0)
    steeper, said_later = lengthy(200, slope=4.0, position=0.0, seed=1)
    judge = attach(LengthControl(says(lambda c: (said | said_later)[c])), directory=tmp_path)
    few = judge.verdicts(pairs[:50])
    assert [v.prob_first_wins for v in few] == [said[c] for c in pairs[:50]], "too few to estimate it from"
    whole = judge.verdicts(pairs)
    effect = judge.effect
    judge.verdicts(steeper)
    assert judge.effect == effect
    assert json.loads((tmp_path / "length_control.json").read_text())["comparisons"] == 400
    resumed = attach(LengthControl(says(lambda c: (said | said_later)[c])), directory=tmp_path)
    assert resumed.verdicts(pairs[7:9]) == whole[7:9], "what is judged with it does not matter any more"
    assert resumed.identity() == judge.identity()


def test_a_length_effect_may_be_given() -> None:
    judge = attach(LengthControl(says(0.7), coefficient=2.0, scale=10.0))
    (verdict,) = judge.verdicts([Comparison(PROMPT, "x" * 15, "y" * 5)])
    assert logit(verdict.prob_first_wins) == pytest.approx(logit(0.7) - 2.0 * math.tanh(1.0))
    assert judge.effect == LengthEffect(2.0, 10.0, 0)
    assert "says" in judge.identity()
    with pytest.raises(ValueError, match="has not estimated the length effect yet"):
        attach(LengthControl(says(0.7))).identity()


def test_equal_lengths_have_no_effect() -> None:
    same = [Comparison(Prompt(f"p{i}", ""), "abc", "xyz") for i in range(100)]
    assert attach(LengthControl(says(0.7))).verdicts(same) == [Verdict(0.7)] * 100


# --- panels -----------------------------------------------------------------------------------------------------------
def panel(*probabilities: float | None, **settings: Any) -> Any:
    members = {f"m{i}": fails() if p is None else says(p, f"m{i}") for i, p in enumerate(probabilities)}
    return attach(Panel(members, **settings))


@pytest.mark.parametrize(
    ("settings", "probabilities", "expected"),
    [
        ({}, (0.9, 0.6, 0.3), 0.6),
        ({"importance": {"m0": 2.0, "m1": 1.0, "m2": 1.0}}, (0.9, 0.6, 0.3), 0.675),
        ({"combine": "majority"}, (0.9, 0.6, 0.3), 1.0),
        ({"combine": "majority"}, (0.9, 0.3), 0.5),
        ({"combine": "majority"}, (0.9, 0.5, 0.5), 1.0),
        ({"combine": "majority", "importance": {"m0": 1.0, "m1": 1.0, "m2": 3.0}}, (0.9, 0.6, 0.3), 0.0),
        ({"quorum": 2}, (0.9, None, 0.3), 0.6),
    ],
)
def test_a_panel_by_hand(settings: dict[str, Any], probabilities: tuple[float | None, ...], expected: float) -> None:
    (verdict,) = panel(*probabilities, **settings).verdicts(PAIRS[:1])
    assert verdict.prob_first_wins == pytest.approx(expected)
    assert verdict.status == ("tie" if expected == 0.5 else "ok")
    known = {f"m{i}": p for i, p in enumerate(probabilities) if p is not None}
    assert verdict.details["members"] == known
    assert verdict.details["disagreement"] == pytest.approx(np.std(list(known.values())))


def test_a_panel_without_its_quorum_fails_and_says_who_did() -> None:
    (verdict,) = panel(0.9, None, 0.3).verdicts(PAIRS[:1])
    assert (verdict.prob_first_wins, verdict.status, verdict.raw) == (None, "invalid", "[m1] hm")
    assert verdict.details["failed"] == {"m1": "invalid"}
    members = {"a": says(0.9), "b": fails("timed_out"), "c": fails("refused")}
    assert attach(Panel(members)).verdicts(PAIRS[:1])[0].status == "refused"


def test_a_panel_adds_up_what_its_members_cost() -> None:
    paid = [ScriptedJudge(lambda c: Verdict(0.9, latency_s=1.0, tokens=10, cost_usd=0.5)) for _ in range(2)]
    (verdict,) = attach(Panel(dict(zip("ab", paid, strict=True)))).verdicts(PAIRS[:1])
    assert (verdict.latency_s, verdict.tokens, verdict.cost_usd) == (2.0, 20, 1.0)


def test_only_members_that_may_see_gold_are_given_it() -> None:
    innocent = says(0.9)
    judge = Panel({"oracle": OracleJudge(), "innocent": innocent})
    assert judge.sees_gold and not Panel({"innocent": innocent}).sees_gold
    attach(judge, gold=Addition(digits=2))
    assert innocent.context is not None and innocent.context.gold is None


def test_a_panel_of_one_is_that_one_and_identity_is_its_members() -> None:
    one = attach(RandomJudge())
    pairs = [Comparison(Prompt(f"p{i}", ""), "a", "b") for i in range(20)]
    alone = [v.prob_first_wins for v in one.verdicts(pairs)]
    assert [v.prob_first_wins for v in attach(Panel({"r": RandomJudge()})).verdicts(pairs)] == alone
    assert panel(0.9, 0.6).identity() != panel(0.9, 0.6, combine="majority").identity()
    assert panel(0.9, 0.6).identity() == panel(0.9, 0.6, name="other").identity()
    assert "m1 x 1" in panel(0.9, 0.6).describe()


# --- what cannot work -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda: NoisyJudge(says(0.5), flip=1.5), r"judge\.flip"),
        (lambda: BiasedJudge(says(0.5), length_scale=0), r"judge\.length_scale"),
        (lambda: ShorterOnTie(says(0.5), margin=0.5), r"judge\.margin"),
        (lambda: ShorterOnTie(says(0.5), preference=0.5), r"judge\.preference"),
        (lambda: LengthControl(says(0.5), scale=0), r"judge\.scale"),
        (lambda: LengthControl(says(0.5), minimum=1), r"judge\.minimum"),
        (lambda: Panel({}), r"judge\.members is empty"),
        (lambda: Panel({"a": says(0.5)}, combine="sum"), r"judge\.combine must be one of mean, majority"),
        (lambda: Panel({"a": says(0.5)}, importance={"b": 1}), r"judge\.importance must name every member, a"),
        (lambda: Panel({"a": says(0.5)}, importance={"a": 0}), r"judge\.importance must be positive"),
        (lambda: Panel({"a": says(0.5)}, quorum=2), r"judge\.quorum"),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(make: Callable[[], Any], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        make()
