"""Numbers that are not finite decide nothing: whatever computes them, the verdict is invalid."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from chat_model import COMPARISONS, PROMPTS, attached_to_chat, chat_model, trained
from hypothesis import given
from hypothesis import strategies as st

from rlaif_lab.judges.asking import both_orders
from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.logprob import ModelJudge
from rlaif_lab.judges.oracle import NoisyOracleJudge, OracleJudge
from rlaif_lab.judges.prompted.constitution import ConstitutionJudge
from rlaif_lab.judges.prompted.pairwise import PromptedJudge
from rlaif_lab.judges.prompted.pointwise import PointwiseJudge
from rlaif_lab.judges.wrappers.length_control import LengthControl
from rlaif_lab.judges.wrappers.noise import BiasedJudge, NoisyJudge
from rlaif_lab.judges.wrappers.order import ShorterOnTie, SingleOrderJudge
from rlaif_lab.judges.wrappers.panel import Panel
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Comparison, Score, Verdict

BAD = [math.nan, math.inf, -math.inf]


def broken(value: float, all_weights: bool = False) -> LanguageModel:
    """The trained chat model with one weight (or a whole matrix) that is no number."""
    network = copy.deepcopy(trained().network)
    with torch.no_grad():
        weight = network.model.layers[-1].mlp.down_proj.weight
        if all_weights:
            weight.fill_(value)
        else:
            weight[3, 3] = value
    return replace(trained(), network=network)


JUDGES: dict[str, Any] = {
    "mean_logp": lambda: ModelJudge("live"),
    "sum_logp": lambda: ModelJudge("live", reads="sum_logp"),
    "probabilities": lambda: PromptedJudge("live", minimum_mass=0.0),
    "tie label": lambda: PromptedJudge("live", template="pairwise_tie", minimum_mass=0.0),
    "grades": lambda: PointwiseJudge("live", minimum_mass=0.0),
    "constitution": lambda: ConstitutionJudge("live", principles="all", minimum_mass=0.0),
}
WRAPPED: dict[str, Any] = {
    "noisy": lambda judge: NoisyJudge(judge, flip=1.0),
    "biased": lambda judge: BiasedJudge(judge, position=1.0, length=1.0, self_preference=1.0),
    "length": lambda judge: LengthControl(judge, coefficient=1.0),
    "one order": SingleOrderJudge,
    "shorter": ShorterOnTie,
    "panel": lambda judge: Panel({"a": judge}),
    "majority": lambda judge: Panel({"a": judge}, combine="majority"),
}


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", JUDGES)
def test_a_model_with_a_weight_that_is_no_number_has_no_verdicts(name: str, value: float) -> None:
    judge = attached_to_chat(JUDGES[name](), broken(value))
    for orders in both_orders(judge, COMPARISONS[:3]):
        assert [(v.prob_first_wins, v.status) for v in orders] == [(None, "invalid")] * 2
        json.dumps([v.details for v in orders], allow_nan=False)
    if judge.gives_scores:
        assert {s.status for s in judge.scores([(p, "an answer") for p in PROMPTS])} == {"invalid"}


@pytest.mark.parametrize("wrap", WRAPPED)
def test_no_wrapper_makes_a_verdict_of_it(wrap: str) -> None:
    judge = attached_to_chat(WRAPPED[wrap](ModelJudge("live")), broken(math.nan))
    assert {v.status for v in judge.verdicts(COMPARISONS[:3])} == {"invalid"}


def test_a_bias_that_is_no_number_leaves_no_verdict() -> None:
    judge = BiasedJudge(PromptedJudge("live", minimum_mass=0.0), self_preference=1.0)
    judge.attach(
        JudgeContext(0, lambda w: broken(math.nan) if w == "initial" else chat_model(), lambda s: trained(), None)
    )
    assert {v.status for v in judge.verdicts(COMPARISONS[:3])} == {"invalid"}


@pytest.mark.parametrize("make", [OracleJudge, lambda: NoisyOracleJudge(flip=1.0)])
@pytest.mark.parametrize("value", BAD)
def test_gold_that_is_no_number_is_no_preference(make: Any, value: float) -> None:
    class Gold:
        name = "gold"

        def quality(self, prompt: Any, response: str) -> float:
            return value if response == "bad" else 1.0

        misconceived_quality = quality

    judge: Judge = make()
    judge.attach(JudgeContext(0, trained, trained, Gold()))  # type: ignore[arg-type]
    for pair in (("bad", "good"), ("good", "bad"), ("bad", "bad")):
        assert judge.verdicts([Comparison(PROMPTS[0], *pair)])[0].status == "invalid"
    assert OracleJudge.scores(judge, [(PROMPTS[0], "bad")])[0].status == "invalid"  # type: ignore[arg-type]


@given(st.floats(), st.text(max_size=5))
def test_a_verdict_is_a_probability_or_invalid(value: float, raw: str) -> None:
    for verdict in (Verdict.of(value, raw=raw, details={"x": value}), Verdict.of_log_odds(value)):
        if verdict.prob_first_wins is None:
            assert verdict.status == "invalid" and verdict.raw
            json.dumps(verdict.details, allow_nan=False)
        else:
            assert 0.0 <= verdict.prob_first_wins <= 1.0 and math.isfinite(value)
            assert (verdict.status == "tie") == (verdict.prob_first_wins == 0.5)
    score = Score.of(value, raw=raw)
    assert (score.value is None) == (not math.isfinite(value)) == (score.status == "invalid")
