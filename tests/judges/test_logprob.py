"""A language model as judge: its probabilities by hand, and whose weights they are."""

from __future__ import annotations

import copy
import math
from itertools import combinations
from typing import Any

import pytest
import torch
from helpers import RAGGED_PROMPTS, plain_logps, prompts_of

from rlaif_lab.judges.asking import both_orders, debias
from rlaif_lab.judges.logprob import SHORT, ModelJudge, length_class
from rlaif_lab.judges.oracle import ReversedJudge
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Comparison, Prompt, Verdict

READINGS = ("mean_logp", "sum_logp", "verdict")
TEXTS = ("080", "", "1", "12345", "090")


def judge_with(
    model: LanguageModel, reads: str = "mean_logp", weights: Any = "live", **others: LanguageModel
) -> ModelJudge:
    """``others``: the policy's weights by name, where they differ from ``model``."""
    judge = ModelJudge(weights, reads=reads)  # type: ignore[arg-type]
    judge.attach(JudgeContext(0, lambda name: others.get(name, model), lambda source: others["loaded"], None))
    return judge


def changed(model: LanguageModel, seed: int) -> LanguageModel:
    network = copy.deepcopy(model.network)
    noise = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=noise)
    return LanguageModel(network, model.tokenizer, f"changed {seed}")


def by_hand(model: LanguageModel, reads: str, c: Comparison) -> float:
    """sigmoid of the difference of the two scores, from unpadded forward passes."""
    prompt = model.encode_prompts([c.prompt.text])[0]
    rows = model.encode_responses([c.first, c.second])
    if reads == "verdict":
        ask, true, false = (model.tokenizer.convert_tokens_to_ids(sign) for sign in "?TF")
        said = [model.network(torch.tensor([[*prompt, *row, ask]])).logits[0, -1] for row in rows]
        scores = [float(logits[true] - logits[false]) for logits in said]
        difference = scores[0] - scores[1]
    else:
        sums = [float(plain_logps(model.network, prompt, row).sum()) for row in rows]
        if reads == "sum_logp":
            difference = sums[0] - sums[1]
        else:
            lengths = [len(row) for row in rows]
            difference = sum(lengths) / 2 * (sums[0] / lengths[0] - sums[1] / lengths[1])
    return 1 / (1 + math.exp(-difference))


@pytest.mark.parametrize("reads", READINGS)
@pytest.mark.parametrize("which", ["organism", "untrained"])
def test_probabilities_equal_those_worked_out_by_hand(which: str, reads: str, request: pytest.FixtureRequest) -> None:
    model: LanguageModel = request.getfixturevalue(which)
    comparisons = [Comparison(p, a, b) for p in prompts_of(RAGGED_PROMPTS) for a, b in combinations(TEXTS, 2)]
    verdicts = judge_with(model, reads).verdicts(comparisons)
    for comparison, verdict in zip(comparisons, verdicts, strict=True):
        assert verdict.prob_first_wins == pytest.approx(by_hand(model, reads, comparison), abs=1e-5)
        assert verdict.status == "ok"


@pytest.mark.parametrize("reads", READINGS)
def test_swapping_flips_the_probability_exactly_and_twins_tie(untrained: LanguageModel, reads: str) -> None:
    judge = judge_with(untrained, reads)
    for prompt in prompts_of(RAGGED_PROMPTS):
        for a, b in combinations(TEXTS, 2):
            one, other = Comparison(prompt, a, b), Comparison(prompt, b, a)
            asked = both_orders(judge, [one, other, Comparison(prompt, a, a)])
            p, q, twins = (debias(c, 0, 1, *v) for c, v in zip((one, other, one), asked, strict=True))
            assert p.prob_first_wins is not None
            assert q.prob_first_wins == pytest.approx(1 - p.prob_first_wins, abs=1e-15)
            assert (twins.prob_first_wins, twins.status) == (0.5, "tie")
            assert p.prob_first_wins_shown_first == pytest.approx(p.prob_first_wins_shown_second, abs=1e-15)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_company_does_not_change_a_verdict(untrained: LanguageModel, batch_size: int) -> None:
    comparisons = [Comparison(p, a, b) for p in prompts_of(RAGGED_PROMPTS) for a, b in combinations(TEXTS, 2)]
    judge = judge_with(untrained)
    judge.batch_size = batch_size
    together = judge.verdicts(comparisons)
    for comparison, verdict in zip(comparisons, together, strict=True):
        assert verdict.prob_first_wins == pytest.approx(judge.verdicts([comparison])[0].prob_first_wins, abs=1e-5)


@pytest.mark.parametrize("weights", ["live", "previous", "initial"])
def test_the_policys_own_weights_judge_by_name(organism: LanguageModel, weights: str) -> None:
    models = {"live": organism, "previous": changed(organism, 1), "initial": changed(organism, 2)}
    judge = judge_with(organism, weights=weights, **models)
    comparison = Comparison(Prompt("p", "12+34="), "080", "1")
    expected = by_hand(models[weights], "mean_logp", comparison)
    assert judge.model() is models[weights]
    assert judge.verdicts([comparison])[0].prob_first_wins == pytest.approx(expected, abs=1e-5)
    assert judge.sources() == []
    assert f"own {weights} weights" in judge.describe()


def test_live_weights_are_those_of_now_and_initial_ones_those_of_then(organism: LanguageModel) -> None:
    policy = LanguageModel(copy.deepcopy(organism.network), organism.tokenizer, "policy")
    live, initial = (judge_with(policy, weights=name, initial=organism) for name in ("live", "initial"))
    comparison = [Comparison(Prompt("p", "12+34="), "080", "1")]
    before = [judge.verdicts(comparison)[0].prob_first_wins for judge in (live, initial)]
    assert before[0] == before[1]
    policy.network.load_state_dict(changed(organism, 3).network.state_dict())
    after = [judge.verdicts(comparison)[0].prob_first_wins for judge in (live, initial)]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_another_model_judges_with_its_own_weights(organism: LanguageModel) -> None:
    source = object()
    other = changed(organism, 4)
    judge = judge_with(organism, weights=source, loaded=other)
    comparison = Comparison(Prompt("p", "12+34="), "080", "1")
    expected = by_hand(other, "mean_logp", comparison)
    assert judge.verdicts([comparison])[0].prob_first_wins == pytest.approx(expected, abs=1e-5)
    assert judge.sources() == ReversedJudge(judge).sources() == [source]


def test_judging_leaves_the_policy_in_its_mode_and_without_gradients(organism: LanguageModel) -> None:
    policy = LanguageModel(copy.deepcopy(organism.network).requires_grad_(True).train(), organism.tokenizer, "policy")
    before = policy.weights_hash()
    judge_with(policy, "verdict").verdicts([Comparison(Prompt("p", "12+34="), "080", "1")])
    assert policy.network.training
    assert all(p.grad is None for p in policy.network.parameters())
    assert policy.weights_hash() == before


def test_hopeless_answers_do_not_overflow() -> None:
    hopeless, certain = Verdict.of_log_odds(-1e6).prob_first_wins, Verdict.of_log_odds(1e6).prob_first_wins
    assert hopeless is not None
    assert 0.0 <= hopeless < 1e-100
    assert certain == pytest.approx(1.0)


def test_equal_scores_are_a_tie(untrained: LanguageModel) -> None:
    verdict = judge_with(untrained).verdicts([Comparison(Prompt("p", "12+34="), "080", "080")])[0]
    assert (verdict.prob_first_wins, verdict.status) == (0.5, "tie")


def test_the_verdicts_tokens_add_up_to_the_tokens_processed(untrained: LanguageModel) -> None:
    """The prompt once and each of four answers once; the cost metric is a sum over judgements."""
    prompt = Prompt("p", "12+34=")
    comparisons = [Comparison(prompt, a, b) for a, b in combinations(("080", "081", "082", "083"), 2)]
    judge = judge_with(untrained)
    total = sum(a.tokens + b.tokens for a, b in both_orders(judge, comparisons))
    assert total == (1 + 6) + 4 * (3 + 1)


@pytest.mark.parametrize("reads", READINGS)
def test_what_is_longer_than_the_model_reads_is_invalid_and_leaves_the_others_as_they_are(
    untrained: LanguageModel, reads: str
) -> None:
    prompt, other = Prompt("p", "12+34="), Prompt("q", "1+3=")
    comparisons = [Comparison(prompt, "0123456", "080"), Comparison(other, "4", "5")]
    short = copy.deepcopy(untrained.network)
    asked = int(reads == "verdict")
    short.config.max_position_embeddings = 7 + 4 + asked  # of the prompt's tokens and those of "080"
    cut = LanguageModel(short, untrained.tokenizer, "short")
    too_long, fine = judge_with(cut, reads).verdicts(comparisons)
    assert (too_long.status, too_long.prob_first_wins) == ("invalid", None)
    assert f"(not read: {7 + 8 + asked} tokens, of which the model reads {11 + asked} at most)" in str(too_long.raw)
    alone = judge_with(untrained, reads).verdicts(comparisons)[1].prob_first_wins
    assert fine.prob_first_wins == pytest.approx(alone, abs=1e-5)
    scores = judge_with(cut, reads).scores([(prompt, "0123456"), (prompt, "080")])
    assert [score.status for score in scores] == ["invalid", "ok"]
    assert all(v.status == "invalid" for v in judge_with(cut, reads).verdicts(comparisons[:1] * 2))


def test_latency_is_shared_out(untrained: LanguageModel) -> None:
    verdicts = judge_with(untrained).verdicts([Comparison(Prompt("p", "12+34="), a, "1") for a in ("080", "081")])
    assert 0 < verdicts[0].latency_s == verdicts[1].latency_s < 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": "lives"}, "judge.weights must be one of live, previous, initial"),
        ({"weights": "live", "reads": "logp"}, "judge.reads must be one of mean_logp"),
        ({"weights": "live", "batch_size": 0}, "judge.batch_size"),
    ],
)
def test_impossible_settings_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelJudge(**arguments)


def test_a_reading_that_the_model_cannot_give_is_refused_when_attached(untrained: LanguageModel) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    bare = Tokenizer(models.WordLevel({"<unk>": 0, "1": 1}, unk_token="<unk>"))
    model = LanguageModel(untrained.network, PreTrainedTokenizerFast(tokenizer_object=bare, unk_token="<unk>"), "bare")
    judge_with(model, "mean_logp")
    with pytest.raises(ValueError, match=r"judge.reads=verdict"):
        judge_with(model, "verdict")


def test_a_verdict_is_none_of_this_judges_failures(untrained: LanguageModel) -> None:
    """It always has an opinion: no status but ok and tie."""
    verdicts = judge_with(untrained).verdicts([Comparison(Prompt("p", "1="), a, b) for a in TEXTS for b in TEXTS])
    assert {v.status for v in verdicts} == {"ok", "tie"}
    assert all(isinstance(v, Verdict) and v.raw is None for v in verdicts)


def test_prompts_of_like_length_are_read_together() -> None:
    """So that a long one does not make the short ones long; all of an organism's are short."""
    lengths = [1, 20, SHORT, SHORT + 1, 170, 190, 260, 500, 5000]
    classes = [length_class(Prompt(str(n), "x" * n)) for n in lengths]
    assert classes == sorted(classes)
    assert classes[:3] == [0, 0, 0]
    assert len(set(classes)) == 6
    for one, two in combinations(range(SHORT + 1, 4000, 7), 2):
        if length_class(Prompt("a", "x" * one)) == length_class(Prompt("b", "x" * two)):
            assert two / one <= 2**0.5 * (1 + 1e-9)
    talk = Prompt("t", "why?", (("user", "x" * 300), ("assistant", "y"), ("user", "why?")))
    assert length_class(talk) == length_class(Prompt("l", "x" * 309))
