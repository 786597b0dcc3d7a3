"""The evaluation of one policy: fresh held-out prompts, gold quality, the judge's opinion, distance from the base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif_lab.judges.base import Judge, both_orders
from rlaif_lab.metrics.divergence import kl_and_entropy
from rlaif_lab.metrics.judge import win_rate
from rlaif_lab.metrics.quality import majority_quality, mean_pass_at_k
from rlaif_lab.models.language_model import LanguageModel, inference
from rlaif_lab.models.packed import pack, response_logits
from rlaif_lab.pairing import Floats
from rlaif_lab.records import Comparison, Generation, Prompt
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.sampler import sample
from rlaif_lab.tasks.base import Task


@dataclass(frozen=True)
class Evaluation:
    """How much is evaluated each round: prompts, and samples per prompt at temperature 1, untruncated."""

    prompts: int = 512
    samples: int = 4

    def __post_init__(self) -> None:
        for name in ("prompts", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"evaluation.{name} must be at least 1; got {getattr(self, name)}")


def gold_qualities(task: Task, generations: Sequence[Generation]) -> Floats:
    """Gold quality of every sample: (N, k)."""
    return np.array([[task.quality(g.prompt, r.text) for r in g.responses] for g in generations])


def evaluate(
    policy: LanguageModel,
    base: LanguageModel,
    judge: Judge,
    task: Task,
    prompts: Sequence[Prompt],
    config: Evaluation,
    seed: int,
    round_index: int,
    progress: Callable[[int], object] = lambda count: None,
) -> dict[str, float]:
    """All metrics of the policy of this round on ``prompts``. The round-0 answers that the judge compares with are
    sampled anew from the base policy, on the same fresh prompts."""
    limit = task.max_response_tokens
    untruncated = SamplingConfig(k=config.samples)
    sampled = sample(policy, prompts, untruncated, limit, seed, "evaluation", round_index)
    greedy = sample(policy, prompts, SamplingConfig(k=1, temperature=0.0), limit, seed, "greedy", round_index)
    baseline = sample(base, prompts, SamplingConfig(k=1), limit, seed, "baseline", round_index)
    progress(1)
    qualities = gold_qualities(task, sampled)
    metrics = {
        "quality/sampled": float(qualities.mean()),
        "quality/sampled_stderr": float(qualities.mean(1).std(ddof=1) / np.sqrt(len(prompts)))
        if len(prompts) > 1
        else 0.0,
        "quality/greedy": float(gold_qualities(task, greedy).mean()),
        f"quality/pass_at_{config.samples}": mean_pass_at_k(qualities, config.samples),
        f"quality/majority_at_{config.samples}": majority_quality(
            qualities, [[r.text for r in g.responses] for g in sampled]
        ),
    }
    versus_base = [
        Comparison(now.prompt, now.responses[0].text, then.responses[0].text)
        for now, then in zip(sampled, baseline, strict=True)
    ]
    different = [c for c in versus_base if c.first != c.second]
    judged = both_orders(judge, different)
    decided = sum(a.prob_first_wins is not None and b.prob_first_wins is not None for a, b in judged)
    same = len(versus_base) - len(different)  # identical answers are a tie, which no judge needs to be asked
    wins = win_rate(judged) * decided if decided else 0.0
    metrics["judge/win_rate_vs_round_0"] = (wins + same / 2) / (decided + same) if decided + same else float("nan")
    progress(1)
    metrics |= divergence_metrics(policy, base, sampled)
    written = (r for part in (sampled, greedy, baseline) for g in part for r in g.responses)
    metrics["tokens/evaluation"] = sum(len(r.token_ids) for r in written)
    return metrics


def divergence_metrics(
    policy: LanguageModel, base: LanguageModel, generations: Sequence[Generation], batch_size: int = 256
) -> dict[str, float]:
    """Full-vocabulary KL to the base policy and entropy, on the first sample of each prompt."""
    totals: dict[str, list[float]] = {"kl": [], "entropy": [], "tokens": []}
    for start in range(0, len(generations), batch_size):
        some = generations[start : start + batch_size]
        prompts = policy.encode_prompts([g.prompt.text for g in some])
        batch = pack(prompts, [[g.responses[0].token_ids] for g in some], policy.pad_id).to(policy.device)
        with inference(policy.network):
            now, then = response_logits(policy.network, batch), response_logits(base.network, batch)
        for name, values in kl_and_entropy(now, then, batch).items():
            totals[name] += values[:, 0].tolist()
    tokens = sum(totals["tokens"])
    return {
        "kl/per_sequence": float(np.mean(totals["kl"])),
        "kl/per_token": sum(totals["kl"]) / tokens,
        "entropy/per_sequence": float(np.mean(totals["entropy"])),
        "entropy/per_token": sum(totals["entropy"]) / tokens,
    }
