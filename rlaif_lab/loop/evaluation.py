"""The evaluation of one policy: fresh held-out prompts, gold quality, the judge's opinion, distance from the base."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlaif_lab import ranks
from rlaif_lab.audit.in_loop import frozen_bank_metrics
from rlaif_lab.audit.judged import judge_pairs
from rlaif_lab.config import EvaluationSize
from rlaif_lab.judges.asking import both_orders
from rlaif_lab.judges.base import Judge
from rlaif_lab.loop.stages import bar
from rlaif_lab.metrics.bias import length_drift
from rlaif_lab.metrics.divergence import divergence_metrics
from rlaif_lab.metrics.judge import policy_preference, win_rate
from rlaif_lab.metrics.quality import (
    coverage_metrics,
    gold_differences,
    gold_nll,
    gold_win_rate,
    quality_changes,
    quality_metrics,
)
from rlaif_lab.records import Comparison, Floats, Generation, Metrics, Position, Prompt
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.engine import sample
from rlaif_lab.statistics.clusters import stderr_of_mean
from rlaif_lab.store.run_folder import CHANGES, RoundStore, StageResult
from rlaif_lab.store.tables import AHEAD, BASELINE, COVERAGE, EVALUATED, Stage

if TYPE_CHECKING:
    from rlaif_lab.loop.plan import Parts, Plan, Services


@dataclass(frozen=True)
class Evaluation(EvaluationSize):
    """How much is evaluated each round: prompts, and samples per prompt at temperature 1, untruncated.

    final_samples: in round 0 and after the last, this many more on the first ``final_prompts`` of the prompts, for
    pass@k up to k = final_samples: whether the policy still covers what it covered. 0: none.
    measured: on how many of the prompts that is measured which costs passes of its own, beside the samples: the most
        likely answer, the base's answer and who is preferred, KL and entropy, the right answer's likelihood. None: all.
    """

    def __post_init__(self) -> None:
        for name in ("prompts", "samples", "final_prompts"):
            if getattr(self, name) < 1:
                raise ValueError(f"evaluation.{name} must be at least 1; got {getattr(self, name)}")
        if self.measured is not None and self.measured < 1:
            raise ValueError(f"evaluation.measured must be at least 1, or null for all prompts; got {self.measured}")
        if self.final_samples < 0:
            raise ValueError(f"evaluation.final_samples must not be negative (0: none); got {self.final_samples}")


# --- what is sampled ------------------------------------------------------------------------------------------------
def evaluation_prompts(index: int, parts: Parts, plan: Plan) -> list[Prompt]:
    """Return prompts that are fresh in every round and never trained on."""
    count = plan.evaluation.prompts
    return parts.task.prompts("evaluation", index * count, count, plan.seed)


def sample_evaluation(
    index: int, stage: Stage[Generation], parts: Parts, *, plan: Plan, services: Services
) -> StageResult[Generation]:
    """Sample the current policy, that of round ``index``, on the evaluation prompts of this round (EVALUATED) or
    of the next (AHEAD): what the policy that this round's training makes will be compared with.

    The same draws serve both policies on a prompt, so that where they agree their samples do, and the difference has
    little noise.
    """
    # The policy after this round's training is measured on the next round's prompts, so the one before is too.
    of_round = index + 1 if stage is AHEAD else index
    # At temperature 1 and untruncated, whatever training samples with: what is estimated is the policy's own quality.
    config = SamplingConfig(k=plan.evaluation.samples, batch_size=plan.sampling.batch_size)
    # By the prompts' round, not the policy's: draws are shared between the policies that answer the same prompts.
    identity = (plan.seed, "evaluation", of_round)

    def compute(some: Sequence[Prompt]) -> list[Generation]:
        return sample(
            parts.engine, parts.policy, some, config=config, limit=parts.task.max_response_tokens, identity=identity
        )

    prompts = evaluation_prompts(of_round, parts, plan)
    name = "evaluation_ahead" if stage is AHEAD else stage.name
    return services.stages.run(Position(index), stage, prompts, compute=compute, name=name, sampled=config)


def coverage(index: int, parts: Parts, plan: Plan, services: Services) -> tuple[Metrics, float]:
    """Return pass@k of many samples of the current policy, and the seconds it took: asked for at the start and at the
    end of a run."""
    if not plan.evaluation.final_samples:
        return {}, 0.0
    many = SamplingConfig(k=plan.evaluation.final_samples, batch_size=plan.sampling.batch_size)
    identity = (plan.seed, "coverage", index)

    def compute(some: Sequence[Prompt]) -> list[Generation]:
        return sample(
            parts.engine, parts.policy, some, config=many, limit=parts.task.max_response_tokens, identity=identity
        )

    prompts = evaluation_prompts(index, parts, plan)[: plan.evaluation.final_prompts]
    found = services.stages.run(Position(index), COVERAGE, prompts, compute=compute, name="coverage", sampled=many)
    return coverage_metrics(parts.task, found.records), found.seconds


# --- what is measured -----------------------------------------------------------------------------------------------
def evaluate(index: int, parts: Parts, plan: Plan, services: Services) -> Metrics:
    """Return all metrics of the current policy, which is that of round ``index``; once computed, from their
    file."""

    # The policy of a round is evaluated when the round before it ends, and asked for again when it begins.
    held = ranks.on_first(lambda: services.store.read_json(index, "evaluation"))
    if held is not None:
        return held
    start = time.perf_counter()
    sampled = sample_evaluation(index, EVALUATED, parts, plan=plan, services=services).records
    answers = sample_answers(index, [g.prompt for g in sampled], parts, plan=plan, services=services)

    def compute() -> Metrics:  # on rank 0: it asks judges
        metrics = measure(index, sampled, answers, parts)
        metrics |= change(index, sampled, parts, plan=plan, store=services.store)
        metrics |= audit(index, parts, services.store)
        return metrics | {"time/evaluation_s": time.perf_counter() - start}

    return services.store.compute_once(index, "evaluation", compute)


@dataclass(frozen=True)
class Answers:
    """One answer to each prompt that all is measured on: the policy's most likely one, and the base policy's."""

    greedy: list[Generation]
    baseline: list[Generation]


def sample_answers(index: int, prompts: Sequence[Prompt], parts: Parts, *, plan: Plan, services: Services) -> Answers:
    """Answer the prompts that all is measured on once more."""
    limit, asked = parts.task.max_response_tokens, prompts[: plan.evaluation.measured]
    most_likely = SamplingConfig(k=1, batch_size=plan.sampling.batch_size, temperature=0.0)

    # Greedy answers draw no random numbers; the identity is there for engines that want one.
    def greedy(some: Sequence[Prompt]) -> list[Generation]:
        return sample(
            parts.engine, parts.policy, some, config=most_likely, limit=limit, identity=(plan.seed, "greedy", index)
        )

    baseline = base_answers(index, asked, parts, plan=plan, services=services)
    with bar(index, "answering", 1) as shown:
        found = ranks.shared_out(asked, greedy)
        shown.update(1)
    return Answers(found, baseline)


def measure(index: int, sampled: Sequence[Generation], answers: Answers, parts: Parts) -> Metrics:
    """Measure the policy of this round, whose samples on fresh held-out prompts are ``sampled``. The round-0 answers
    that the judges compare with are the base policy's, on the same prompts. The held-out judge has no part in
    training."""
    task, greedy, baseline = parts.task, answers.greedy, answers.baseline
    # The first of the prompts, in their order, so that a smaller `measured` is a part of a larger one.
    some = sampled[: len(greedy)]
    prompts = [g.prompt for g in some]
    with bar(index, "evaluating", 1) as shown:
        metrics = quality_metrics(task, sampled, greedy)
        # One answer of each side: the first sample is as random as any, and a judge's time is expensive.
        versus_base = [
            Comparison(now.prompt, now.responses[0].text, then.responses[0].text)
            for now, then in zip(some, baseline, strict=True)
        ]
        metrics |= opinions(versus_base, parts)
        shown.update(1)
    metrics |= divergence_metrics(parts.policy, parts.base, some)
    metrics["quality/gold_nll"] = gold_nll(parts.policy, task, prompts)
    lengths = [[len(g.responses[0].text) for g in part] for part in (some, baseline)]
    metrics["text/length_drift"] = length_drift(*lengths)
    written = (r for part in (sampled, greedy, baseline) for g in part for r in g.responses)
    metrics["tokens/evaluation"] = sum(len(r.token_ids) for r in written)
    return metrics


def base_answers(
    index: int, prompts: Sequence[Prompt], parts: Parts, *, plan: Plan, services: Services
) -> list[Generation]:
    """Return the base policy's answer to each prompt of a round's evaluation. Training does not change it, so the arms
    of a sweep compute it once between them, and a resumed run not again."""
    one = SamplingConfig(k=1, batch_size=plan.sampling.batch_size)
    limit, identity = parts.task.max_response_tokens, (plan.seed, "baseline", index)

    def compute(some: Sequence[Prompt]) -> list[Generation]:
        return sample(parts.engine, parts.base, some, config=one, limit=limit, identity=identity)

    return services.stages.run(
        Position(index), BASELINE, prompts, compute=compute, name="base", sampled=one, untrained=True
    ).records


def opinions(versus_base: Sequence[Comparison], parts: Parts) -> Metrics:
    """Return how often gold and the judges prefer the policy's answer, which comes first, to round 0's."""
    task, truth = parts.task, gold_win_rate(parts.task, versus_base)
    metrics = {"quality/win_rate_vs_round_0": truth}
    # Equal texts are a tie that no judge needs to be asked about; `identical` puts them back into the rate.
    different = [c for c in versus_base if c.first != c.second]
    identical = len(versus_base) - len(different)
    for role, somebody in parts.judges.items():
        verdicts = both_orders(somebody.evaluator(), different)
        believed = win_rate(verdicts, identical)
        metrics[f"{role}/win_rate_vs_round_0"] = believed
        # A comparison without a verdict is left out on both sides: a judge that fails on hard ones is not flattered.
        failed = {
            c for c, both in zip(different, verdicts, strict=True) if any(v.prob_first_wins is None for v in both)
        }
        comparable = gold_win_rate(task, [c for c in versus_base if c not in failed]) if failed else truth
        metrics[f"{role}/win_rate_minus_gold"] = believed - comparable
        if role == "judge":
            metrics |= policy_preference(verdicts, gold_differences(task, different))
            metrics |= somebody.own_metrics(different, verdicts, identical)
    return metrics


def audit(index: int, parts: Parts, store: RoundStore) -> Metrics:
    """Return the judge on the frozen bank, and how many of its verdicts are still those of round 0."""
    if not parts.bank:
        return {}
    judgements = judge_pairs(parts.judge.auditor(), parts.bank)
    said = [j.prob_first_wins for j in judgements]
    # Written for every round, so that each round's verdicts can be compared with those of round 0.
    store.compute_once(index, "bank", lambda: {"prob_first_wins": said})
    first = store.read_json(0, "bank")
    at_first = None if first is None else np.array(first["prob_first_wins"], dtype=float)  # None becomes nan
    return frozen_bank_metrics(judgements, parts.bank, at_first, soft=parts.learner.labels == "soft")


# --- what training changed --------------------------------------------------------------------------------------------
def change(index: int, sampled: Sequence[Generation], parts: Parts, *, plan: Plan, store: RoundStore) -> Metrics:
    """Return what the training of the round before changed, on prompts that nobody had seen. Every prompt's change is
    kept in a file, for the detector and to pool the seeds of an arm."""
    # Round 0 has no training before it.
    before = store.read_stage(index - 1, AHEAD) if index and plan.changes is not None else []
    if not before:
        return {}
    if plan.changes == "gold":
        changes = quality_changes(parts.task, sampled, before)
    elif plan.changes == "people":
        changes = np.array(parts.judge.own_changes(changed_pairs(sampled, before)), dtype=np.float64)
    else:
        assert parts.heldout_judge is not None
        changes = judged_changes(parts.heldout_judge.evaluator(), sampled, before)
    # For the detector, which asks after a resume, and for reports that pool the seeds.
    store.compute_once(index, CHANGES, lambda: {"measure": plan.changes, "changes": changes.tolist()})
    if not len(changes):
        return {}
    # The same question may be asked twice (the tasks are small): its changes are not independent.
    by_prompt = plan.changes == "gold"  # a judge leaves out what it has no verdict on
    asked = [(g.prompt.text, g.prompt.turns) for g in sampled] if by_prompt else range(len(changes))
    stderr = stderr_of_mean(changes, asked)
    return {"quality/change": float(changes.mean()), "quality/change_stderr": stderr}


def changes_into(index: int, store: RoundStore) -> Floats | None:
    """Return, per prompt, what the training of round ``index - 1`` changed; None where it was not measured."""
    held = ranks.on_first(lambda: store.read_json(index, CHANGES))
    return None if held is None else np.array(held["changes"])


def changed_pairs(now: Sequence[Generation], before: Sequence[Generation]) -> list[Comparison]:
    """Return the newer policy's first sample beside the older one's, prompt by prompt."""
    return [Comparison(a.prompt, a.responses[0].text, b.responses[0].text) for a, b in zip(now, before, strict=True)]


def judged_changes(judge: Judge, now: Sequence[Generation], before: Sequence[Generation]) -> Floats:
    """Return the same in the eyes of a judge: 1 where it prefers the newer policy's first sample in both orders' mean,
    -1 where the older one's, 0 for a tie. Prompts without a verdict are left out, so the array may be shorter."""
    pairs = changed_pairs(now, before)
    # Equal texts have not changed for the better or worse: 0, without a verdict.
    different = [c for c in pairs if c.first != c.second]
    found = [
        # The sign only: a judge's probabilities are not on a scale of quality.
        float(np.sign(first.prob_first_wins - second.prob_first_wins))
        for first, second in both_orders(judge, different)
        if first.prob_first_wins is not None and second.prob_first_wins is not None
    ]
    return np.array(found + [0.0] * (len(pairs) - len(different)))
