"""The stages of a round: who sees gold, whose weights judge, what is trained on, and that nothing is computed twice."""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import ScriptedJudge, plain_logps
from rounds import make_round

from rlaif_lab.feedback import pairs
from rlaif_lab.feedback.replay import Replay
from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.logprob import ModelJudge
from rlaif_lab.judges.oracle import NoisyOracleJudge, OracleJudge, RandomJudge, ReversedJudge
from rlaif_lab.learners.base import Batch, Learner
from rlaif_lab.learners.distil import Distil
from rlaif_lab.learners.dpo import DPO
from rlaif_lab.learners.rloo import RLOO
from rlaif_lab.loop import evaluation, stages
from rlaif_lab.loop.data import RoundData
from rlaif_lab.loop.evaluation import Evaluation
from rlaif_lab.loop.gate import Gate
from rlaif_lab.loop.parts import spare_samples
from rlaif_lab.loop.round import Round
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Comparison, Metrics, Position, Verdict
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import Exact
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.training.batches import Batching, Step, prepare

Make = Callable[..., Round]


@pytest.fixture
def make(organism: LanguageModel, task: Addition, tmp_path: Path) -> Make:
    """A run of rounds of sixteen prompts; ``directory`` as in a resumed run."""

    def rounds(judge: Judge, learner: Learner | None = None, directory: str = "run", **changes: Any) -> Round:
        return make_round(organism, task, tmp_path / directory, judge, learner=learner or RLOO(), **changes)

    return rounds


def metrics_of(data: RoundData) -> Metrics:
    return data.round.row(data.before, data.segments)


def samples_of(data: RoundData) -> list[Any]:
    return data.round.stored_samples(data.index)


def train(rounds: Round, seed: int) -> str:
    """Stands for a round of training: other weights. Returns the hash of those before."""
    before = rounds.parts.policy.weights_hash()
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in rounds.parts.policy.network.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=noise)
    return before


# --- gold ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sees_gold", [True, False])
def test_gold_goes_only_to_a_judge_that_declares_it(make: Make, task: Addition, sees_gold: bool) -> None:
    judge = ScriptedJudge(lambda c: Verdict(0.5, "tie"), sees_gold)
    make(judge)
    assert judge.context is not None
    assert judge.context.gold is (task if sees_gold else None)
    assert judge.context.seed == 0


@pytest.mark.parametrize(
    ("judge", "sees_gold"),
    [
        (OracleJudge(), True),
        (NoisyOracleJudge(), True),
        (ReversedJudge(OracleJudge()), True),
        (RandomJudge(), False),
        (ModelJudge("live"), False),
        (ReversedJudge(ModelJudge("live")), False),
    ],
    ids=lambda x: getattr(x, "name", ""),
)
def test_which_judges_declare_it(judge: Judge, sees_gold: bool) -> None:
    assert judge.sees_gold is sees_gold


def test_a_judge_is_shown_prompts_and_texts_and_nothing_else(make: Make) -> None:
    judge = ScriptedJudge(lambda c: Verdict(0.5, "tie"))
    RoundData(make(judge), 0)
    assert judge.asked
    for asked in judge.asked:
        assert isinstance(asked, Comparison)
        assert set(asked.__slots__) == {"prompt", "first", "second"}
        assert set(asked.prompt.__slots__) == {"id", "text", "turns"}


# --- whose weights ------------------------------------------------------------------------------------------------
def judging_weights(judge: Judge) -> str:
    inner = judge.of if isinstance(judge, ReversedJudge) else judge
    assert isinstance(inner, ModelJudge)
    return inner.model().weights_hash()


@pytest.mark.parametrize("wrap", [lambda j: j, ReversedJudge], ids=["bare", "wrapped"])
def test_previous_weights_are_those_of_one_round_earlier(make: Make, wrap: Callable[[Judge], Judge]) -> None:
    judge = wrap(ModelJudge("previous"))
    rounds = make(judge)
    initial = rounds.parts.base.weights_hash()
    RoundData(rounds, 0)
    assert judging_weights(judge) == initial  # there is none before the first
    started_0 = train(rounds, 0)
    RoundData(rounds, 1)
    assert judging_weights(judge) == started_0 == initial
    started_1 = train(rounds, 1)
    RoundData(rounds, 2)
    assert judging_weights(judge) == started_1 != initial


@pytest.mark.parametrize("weights", ["live", "initial"])
def test_live_and_initial_weights(make: Make, weights: str) -> None:
    judge = ModelJudge(weights)  # type: ignore[arg-type]
    rounds = make(judge)
    for index in range(3):
        RoundData(rounds, index)
        expected = rounds.parts.policy if weights == "live" else rounds.parts.base
        assert judging_weights(judge) == expected.weights_hash()
        train(rounds, index)


def test_two_runs_in_one_process_do_not_share_snapshots(make: Make) -> None:
    """As in a sweep that runs its jobs one after the other."""
    for directory in ("one", "two"):
        judge = ModelJudge("previous")
        rounds = make(judge, directory=directory)
        RoundData(rounds, 0)
        train(rounds, 5 if directory == "one" else 6)
        RoundData(rounds, 1)
        started = train(rounds, 7)
        RoundData(rounds, 2)
        assert judging_weights(judge) == started


# --- what is trained on -------------------------------------------------------------------------------------------
def steps_of(data: RoundData) -> list[Step]:
    """All steps of a round, up to the empty one that ends it."""
    return list(itertools.takewhile(lambda step: step.batches, (data[i] for i in range(len(data)))))


def batches(rounds: Round, index: int = 0) -> list[Batch]:
    return flat(steps_of(RoundData(rounds, index)))


def flat(steps: list[Step]) -> list[Batch]:
    return [batch for step in steps for batch in step.batches]


@pytest.mark.parametrize("learner", [RLOO(), DPO()], ids=lambda x: x.name)
def test_recorded_logps_are_the_policys_at_round_start(make: Make, learner: Learner) -> None:
    rounds = make(RandomJudge(), learner)
    RoundData(rounds, 0)
    train(rounds, 0)
    for batch in batches(rounds, 1):
        assert torch.equal(batch.sampled_logps, batch.reference_logps)
        for b in range(len(batch.signal)):
            prompt = batch.packed.prompt_ids[b][batch.packed.prompt_mask[b]].tolist()
            for i in range(batch.signal.shape[1]):
                mask = batch.packed.response_mask[b, i]
                answer = batch.packed.response_ids[b, i][mask].tolist()
                fresh = plain_logps(rounds.parts.policy.network, prompt, answer)
                torch.testing.assert_close(batch.sampled_logps[b, i][mask], fresh.detach(), atol=1e-5, rtol=0)
                assert batch.sampled_logps[b, i][~mask].eq(0).all()


def test_the_initial_reference_is_the_base_policys(make: Make) -> None:
    rounds = make(RandomJudge(), DPO(reference="initial"))
    RoundData(rounds, 0)
    train(rounds, 0)
    for batch in batches(rounds, 1):
        prompt = batch.packed.prompt_ids[0][batch.packed.prompt_mask[0]].tolist()
        mask = batch.packed.response_mask[0, 0]
        expected = plain_logps(rounds.parts.base.network, prompt, batch.packed.response_ids[0, 0][mask].tolist())
        torch.testing.assert_close(batch.reference_logps[0, 0][mask], expected, atol=1e-5, rtol=0)
        assert not batch.reference_logps.requires_grad
        assert not torch.allclose(batch.sampled_logps, batch.reference_logps, atol=1e-3)


@pytest.mark.parametrize("passes", [1, 3])
def test_every_example_is_seen_once_per_pass(make: Make, passes: int) -> None:
    data = RoundData(make(RandomJudge(), RLOO(), batching=Batching(5, accumulate=2, passes=passes)), 0)
    steps = steps_of(data)
    sizes = [len(batch) for step in steps for batch in step.batches]
    assert sum(sizes) == passes * metrics_of(data)["pairs/examples"] > 0
    assert sizes[:-1] == [5] * (len(sizes) - 1)
    assert [len(step.batches) for step in steps[:-1]] == [2] * (len(steps) - 1)


def test_an_oracles_pairs_train_towards_gold(make: Make, task: Addition) -> None:
    rounds = make(OracleJudge(), DPO(), prompts_per_round=200, sampling=SamplingConfig(k=8))
    right = 0
    for batch in batches(rounds):
        for b in range(len(batch)):
            prompt, chosen, rejected = (
                rounds.parts.policy.decode([ids])[0]
                for ids in (
                    batch.packed.prompt_ids[b][batch.packed.prompt_mask[b]],
                    batch.packed.response_ids[b, 0][batch.packed.response_mask[b, 0]],
                    batch.packed.response_ids[b, 1][batch.packed.response_mask[b, 1]],
                )
            )
            first, second = (int(n[::-1]) for n in prompt.rstrip("=").split("+"))
            asked = task.to_prompt(first * 100 + second)
            assert task.quality(asked, chosen) > task.quality(asked, rejected)
            right += 1
    assert right > 0


@pytest.mark.parametrize("learner", [RLOO(), DPO(), DPO(reference="initial")], ids=lambda x: f"{x.name} {x.reference}")
def test_a_round_without_any_preference_is_one_empty_step(make: Make, learner: Learner) -> None:
    data = RoundData(make(ScriptedJudge(lambda c: Verdict(0.5, "tie")), learner), 0)
    assert (len(data), data[0]) == (1, Step(0))
    metrics = metrics_of(data)
    assert metrics["pairs/examples"] == metrics["pairs/count"] == 0
    assert metrics["judge/tie_rate"] == 1.0


def test_a_judge_that_always_fails_ends_the_run(make: Make) -> None:
    with pytest.raises(ValueError, match=r"failed on \d+ of the \d+ comparisons of round 0.*gate\.max_failed=0\.5"):
        RoundData(make(ScriptedJudge(lambda c: Verdict(None, "invalid", raw="?"))), 0)


def test_where_failures_are_allowed_they_leave_nothing_to_train_on(make: Make) -> None:
    allowed = Gate(force=True, max_failed=1.0)
    data = RoundData(make(ScriptedJudge(lambda c: Verdict(None, "invalid", raw="?")), gate=allowed), 0)
    assert (len(data), data[0]) == (1, Step(0))
    assert metrics_of(data)["judge/invalid_rate"] == 1.0


def no_times(metrics: Metrics) -> Metrics:
    return {k: v for k, v in metrics.items() if k != "time/batching_s"}


def nothing_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("computed again")

    for where, name in (
        (Exact, "generate"),
        (evaluation, "measure"),
        (stages, "judge_generations"),
        (pairs, "make_pairs"),
    ):
        monkeypatch.setattr(where, name, never)


# --- idempotence --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("weights", ["live", "previous"])
def test_a_stored_round_is_loaded_bit_for_bit_and_never_computed_again(
    make: Make, monkeypatch: pytest.MonkeyPatch, weights: str
) -> None:
    first = RoundData(make(ModelJudge(weights)), 0)  # type: ignore[arg-type]

    nothing_is_computed(monkeypatch)
    again = RoundData(make(ModelJudge(weights)), 0)  # type: ignore[arg-type]
    assert no_times(metrics_of(again)) == pytest.approx(no_times(metrics_of(first)), nan_ok=True)
    assert samples_of(again) == samples_of(first)
    for one, other in zip(flat(steps_of(first)), flat(steps_of(again)), strict=True):
        assert torch.equal(one.sampled_logps, other.sampled_logps)
        assert torch.equal(one.signal, other.signal)
        assert all(
            torch.equal(a, b) for a, b in zip(vars(one.packed).values(), vars(other.packed).values(), strict=True)
        )


def test_two_runs_with_one_seed_are_equal_and_with_another_differ(make: Make) -> None:
    def texts(seed: int, directory: str) -> list[Any]:
        rounds = make(ModelJudge("live"), directory=directory, seed=seed)
        return [row[1:] for row in samples_of(RoundData(rounds, 0))]

    assert texts(0, "a") == texts(0, "b")
    assert texts(0, "c") != texts(1, "d")


def test_a_round_leaves_the_policy_as_it_was(make: Make) -> None:
    rounds = make(ModelJudge("live"), RLOO(reference="initial"))
    before = rounds.parts.policy.weights_hash()
    RoundData(rounds, 0)
    assert rounds.parts.policy.weights_hash() == before
    assert rounds.parts.policy.network.training
    assert all(p.requires_grad and p.grad is None for p in rounds.parts.policy.network.parameters())
    assert torch.is_grad_enabled()


def test_rounds_and_evaluations_use_fresh_and_disjoint_prompts(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    original = Addition.prompts

    def noting(self: Addition, split: Any, start: int, count: int, seed: int) -> Any:
        made = original(self, split, start, count, seed)
        asked.extend((split, p.id) for p in made)
        return made

    monkeypatch.setattr(Addition, "prompts", noting)
    rounds = make(RandomJudge(), evaluation=Evaluation(prompts=8, samples=2, final_samples=0))
    for index in range(3):
        RoundData(rounds, index)
    assert len(asked) == 3 * (16 + 8)
    assert len({name for _, name in asked}) == len(asked)


def test_a_perfect_judge_has_full_informativeness(make: Make) -> None:
    metrics = metrics_of(RoundData(make(OracleJudge(), prompts_per_round=300), 0))
    assert metrics["judge/accuracy"] == 1.0
    assert metrics["gap/informativeness_I"] == pytest.approx(1.0)
    assert metrics["gap/best_of_2"] == pytest.approx(metrics["gap/diversity_D"]) != 0
    assert metrics["gap/relative"] <= 1.0
    reversed_metrics = metrics_of(
        RoundData(make(ReversedJudge(OracleJudge()), directory="reversed", prompts_per_round=300), 0)
    )
    assert reversed_metrics["gap/informativeness_I"] == pytest.approx(-1.0)


# --- whose samples ------------------------------------------------------------------------------------------------
def signals(data: RoundData) -> list[Any]:
    return [e for segment in data.segments for e in segment.examples]


def test_a_round_that_samples_anew_asks_for_each_prompt_once_and_trains_in_between(make: Make) -> None:
    """Two steps of five prompts each, then the next ten: the second segment is sampled from other weights."""
    rounds = make(RandomJudge(), RLOO(), sync_every=2, prompts_per_round=24)
    data = RoundData(rounds, 0)
    started = rounds.parts.policy.weights_hash()
    assert len(data.segments) == 1
    while data[len(data.ready) - 1].batches and len(data.segments) < 3:
        train(rounds, len(data.segments))
        data[len(data.ready)]
    assert started != rounds.parts.policy.weights_hash()
    asked = [g.prompt.id for segment in data.segments for g in segment.feedback.generations]
    assert len(asked) == len(set(asked)) == 24
    assert [len(segment.feedback.generations) for segment in data.segments] == [10, 10, 4]
    for batch in batches_of_segment(rounds, data, 2):
        prompt = batch.packed.prompt_ids[0][batch.packed.prompt_mask[0]].tolist()
        mask = batch.packed.response_mask[0, 0]
        now = plain_logps(rounds.parts.policy.network, prompt, batch.packed.response_ids[0, 0][mask].tolist())
        torch.testing.assert_close(batch.sampled_logps[0, 0][mask], now.detach(), atol=1e-5, rtol=0)
    assert metrics_of(data)["pairs/judged"] == sum(len(s.judgements) for s in data.segments)


def batches_of_segment(rounds: Round, data: RoundData, number: int) -> list[Batch]:
    steps = prepare(
        Position(data.index, number),
        data.segments[number].examples,
        rounds.parts.models,
        learner=rounds.parts.learner,
        batching=rounds.plan.batching,
        seed=rounds.plan.seed,
        fresh=True,
    )
    return flat(steps)


def test_the_same_segments_come_back_from_the_store(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first = RoundData(make(RandomJudge(), RLOO(), sync_every=1), 0)
    steps = len(steps_of(first))

    nothing_is_computed(monkeypatch)
    again = RoundData(make(RandomJudge(), RLOO(), sync_every=1), 0)
    assert len(steps_of(again)) == steps
    assert signals(again) == signals(first)


@pytest.mark.parametrize(
    ("changes", "sampled_by"),
    [
        ({}, [0, 1, 2, 3]),
        ({"sync_every": 4}, [0, 1, 2, 3]),  # 16 prompts are 4 steps of 5
        ({"sync_every": 8}, [0, 0, 2, 2]),
        ({"sync_every": 1000}, [0, 0, 0, 0]),  # fully offline
        ({"lag": 1}, [0, 0, 1, 2]),
    ],
)
def test_who_samples(make: Make, changes: dict[str, Any], sampled_by: list[int]) -> None:
    """Responses are those of the policy as of the round that ``sampled_by`` says, whatever was trained since."""
    rounds = make(RandomJudge(), DPO(), **changes)
    kept: list[LanguageModel] = []
    for index, of in enumerate(sampled_by):
        kept.append(rounds_copy(rounds.parts.policy))
        made = batches(rounds, index)
        for batch in made:
            prompt = batch.packed.prompt_ids[0][batch.packed.prompt_mask[0]].tolist()
            mask = batch.packed.response_mask[0, 0]
            answer = batch.packed.response_ids[0, 0][mask].tolist()
            behaviour, reference = (plain_logps(kept[i].network, prompt, answer).detach() for i in (of, index))
            torch.testing.assert_close(batch.sampled_logps[0, 0][mask], behaviour, atol=1e-5, rtol=0)
            torch.testing.assert_close(batch.reference_logps[0, 0][mask], reference, atol=1e-5, rtol=0)
        train(rounds, index)


def rounds_copy(model: LanguageModel) -> LanguageModel:
    return LanguageModel(copy.deepcopy(model.network), model.tokenizer, "copy")


@pytest.mark.parametrize(
    ("replay", "from_rounds"),
    [
        (Replay(), {3: 16}),
        (Replay(window=2), {2: 16, 3: 16}),
        (Replay(window=None), {0: 16, 1: 16, 2: 16, 3: 16}),
        (Replay(window=None, share=0.0), {3: 16}),
    ],
)
def test_which_rounds_are_trained_on(make: Make, replay: Replay, from_rounds: dict[int, int]) -> None:
    rounds = make(ModelJudge("live"), RLOO(labels="soft"), replay=replay)
    for index in range(3):
        RoundData(rounds, index)
        train(rounds, index)
    data = RoundData(rounds, 3)
    found = Counter(e.round_index for e in signals(data))
    assert set(found) == set(from_rounds)
    assert metrics_of(data)["pairs/replayed"] == sum(n for index, n in found.items() if index != 3)
    for index, examples in itertools.groupby(signals(data), key=lambda e: e.round_index):
        if index < 3:  # unchanged since they were the latest
            assert list(examples) == signals(RoundData(make(ModelJudge("live"), RLOO(labels="soft")), index))


def test_a_share_of_the_older_rounds(make: Make) -> None:
    rounds = make(ModelJudge("live"), RLOO(labels="soft"), replay=Replay(window=None, share=0.5))
    for index in range(3):
        data = RoundData(rounds, index)
    latest = sum(e.round_index == 2 for e in signals(data))
    assert sum(e.round_index < 2 for e in signals(data)) == round(0.5 * latest)
    assert {e.round_index for e in signals(data)} == {0, 1, 2}


def test_old_weights_are_not_kept_for_ever(make: Make, tmp_path: Path) -> None:
    rounds = make(ModelJudge("previous"))
    for index in range(6):
        RoundData(rounds, index)
        train(rounds, index)
    assert [p.parent.name for p in sorted((tmp_path / "run").glob("*/policy.pt"))] == [
        "round_003",
        "round_004",
        "round_005",
    ]


def test_a_held_out_judge_only_evaluates(make: Make) -> None:
    held_out = ScriptedJudge(lambda c: Verdict(0.75))
    metrics = metrics_of(RoundData(make(RandomJudge(), heldout_judge=held_out), 0))
    assert "heldout_judge/win_rate_vs_round_0" in metrics
    assert held_out.asked
    rounds_prompts = {p.id for p in Addition(2).prompts("rounds", 0, 16, 0)}
    assert not {c.prompt.id for c in held_out.asked} & rounds_prompts


def test_without_gold_the_metrics_that_need_it_are_nan(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Addition, "has_gold", False)
    monkeypatch.setattr(Addition, "quality", lambda *_: pytest.fail("there is no gold"))
    metrics = metrics_of(RoundData(make(ModelJudge("live")), 0))
    unknown = {name for name, value in metrics.items() if math.isnan(value)}
    assert {"quality/sampled", "quality/greedy", "judge/accuracy", "gap/best_of_2", "gap/diversity_D"} <= unknown
    assert "judge/win_rate_vs_round_0" not in unknown
    assert metrics["pairs/examples"] > 0


def test_the_judges_score_as_reward(make: Make) -> None:
    rounds = make(ModelJudge("live", reads="sum_logp"), RLOO(reward="score"))
    data = RoundData(rounds, 0)
    compared = 0
    for example in signals(data):
        texts = [response.text for response in example.responses]
        for response, reward, ids in zip(
            example.responses, example.signal, rounds.parts.policy.encode_responses(texts), strict=True
        ):
            if tuple(ids) == response.token_ids:  # a judge reads a text that has ended, not control tokens in between
                assert reward == pytest.approx(sum(response.logps), abs=1e-4)
                compared += 1
    assert compared > 0
    assert metrics_of(data)["reward/missing_rate"] == 0.0


def test_spare_samples_are_of_the_first_policy_on_prompts_that_no_round_uses(make: Make, task: Addition) -> None:
    rounds = make(RandomJudge())
    before = [r.token_ids for g in spare_samples(rounds.parts, rounds.plan, 0, 20, 2) for r in g.responses]
    train(rounds, 0)
    spare = spare_samples(rounds.parts, rounds.plan, 0, 20, 2)
    assert [r.token_ids for g in spare for r in g.responses] == before
    assert [g.prompt for g in spare_samples(rounds.parts, rounds.plan, 5, 10, 2)] == [g.prompt for g in spare[5:15]]
    used = task.prompts("rounds", 0, task.available("rounds") - 20, 0)
    assert not {g.prompt.id for g in spare} & {p.id for p in used}


def test_floating_point_operations_are_those_of_what_the_learner_needs(make: Make) -> None:
    def row(judge: Judge, learner: Learner, directory: str) -> dict[str, Any]:
        rounds = make(judge, learner, directory)
        data = RoundData(rounds, 0)
        for i in range(len(data)):
            data[i]
        return metrics_of(data)

    by_likelihood = row(ModelJudge("initial"), RLOO(), "rloo")
    size = sum(p.numel() for p in make(RandomJudge()).parts.policy.network.parameters())
    assert by_likelihood["flops/judging"] == 2 * size * by_likelihood["tokens/judging"] > 0
    assert by_likelihood["flops/training"] == 6 * size * by_likelihood["tokens/training"] > 0
    prompts = 16 * len("<12+34=")
    assert by_likelihood["flops/sampling"] == 2 * size * (by_likelihood["tokens/sampling"] + prompts)
    parts = [by_likelihood[f"flops/{part}"] for part in ("sampling", "judging", "demonstrating", "training")]
    assert by_likelihood["flops/total"] == sum(parts) and parts[2] == 0
    imitated = row(ModelJudge("initial"), Distil(), "distil")
    assert imitated["flops/sampling"] == imitated["flops/judging"] == 0 < imitated["flops/demonstrating"]
    assert row(RandomJudge(), RLOO(), "random")["flops/judging"] == 0
    unknown = ScriptedJudge(lambda c: Verdict(float(c.first < c.second), tokens=3))
    assert math.isnan(row(unknown, RLOO(), "unknown")["flops/total"])
