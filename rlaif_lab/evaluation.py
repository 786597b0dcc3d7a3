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

LOGITS_AT_ONCE = 2**26  # of each model: a quarter of a GB in float32


@dataclass(frozen=True)
class Evaluation:
    """How much is evaluated each round: prompts, and samples per prompt at temperature 1, untruncated."""

    prompts: int = 512
    samples: int = 4

    def __post_init__(self) -> None:
        for name in ("prompts", "samples"):
            if getattr(self, name) < 1:
                raise ValueError(f"evaluation.{name} must be at least 1; got {getattr(self, name)}")


def judged_win_rate(judge: Judge, comparisons: Sequence[Comparison]) -> float:
    """P(first wins) + half the ties, both orders asked. Identical answers are a tie that no judge needs to be asked;
    comparisons without a verdict are left out, and nan is returned when none is left."""
    different = [c for c in comparisons if c.first != c.second]
    return win_rate(both_orders(judge, different), len(comparisons) - len(different))


def quality_metrics(task: Task, sampled: Sequence[Generation], greedy: Sequence[Generation]) -> dict[str, float]:
    """True quality of samples and of the greedy answer; nan for a task without gold."""
    k = len(sampled[0].responses)
    names = ("sampled", "sampled_stderr", "greedy", f"pass_at_{k}", f"majority_at_{k}")
    if not task.has_gold:
        return {f"quality/{name}": float("nan") for name in names}
    qualities = gold_qualities(task, sampled)
    stderr = qualities.mean(1).std(ddof=1) / np.sqrt(len(sampled)) if len(sampled) > 1 else 0.0
    values = (
        qualities.mean(),
        stderr,
        gold_qualities(task, greedy).mean(),
        mean_pass_at_k(qualities, k),
        majority_quality(qualities, [[r.text for r in g.responses] for g in sampled]),
    )
    return {f"quality/{name}": float(value) for name, value in zip(names, values, strict=True)}


def gold_qualities(task: Task, generations: Sequence[Generation]) -> Floats:
    """Gold quality of every sample: (N, k); nan throughout for a task without gold."""
    if not task.has_gold:
        return np.full((len(generations), len(generations[0].responses)), np.nan)
    return np.array([[task.quality(g.prompt, r.text) for r in g.responses] for g in generations])


def evaluate(
    policy: LanguageModel,
    base: LanguageModel,
    judge: Judge,
    heldout_judge: Judge | None,
    task: Task,
    prompts: Sequence[Prompt],
    config: Evaluation,
    seed: int,
    round_index: int,
    progress: Callable[[int], object] = lambda count: None,
) -> dict[str, float]:
    """All metrics of the policy of this round on ``prompts``. The round-0 answers that the judges compare with are
    sampled anew from the base policy, on the same fresh prompts. The held-out judge has no part in training."""
    limit = task.max_response_tokens
    untruncated = SamplingConfig(k=config.samples)
    sampled = sample(policy, prompts, untruncated, limit, seed, "evaluation", round_index)
    greedy = sample(policy, prompts, SamplingConfig(k=1, temperature=0.0), limit, seed, "greedy", round_index)
    baseline = sample(base, prompts, SamplingConfig(k=1), limit, seed, "baseline", round_index)
    progress(1)
    metrics = quality_metrics(task, sampled, greedy)
    versus_base = [
        Comparison(now.prompt, now.responses[0].text, then.responses[0].text)
        for now, then in zip(sampled, baseline, strict=True)
    ]
    metrics["judge/win_rate_vs_round_0"] = judged_win_rate(judge, versus_base)
    if heldout_judge is not None:
        metrics["heldout_judge/win_rate_vs_round_0"] = judged_win_rate(heldout_judge, versus_base)
    progress(1)
    metrics |= divergence_metrics(policy, base, sampled)
    written = (r for part in (sampled, greedy, baseline) for g in part for r in g.responses)
    metrics["tokens/evaluation"] = sum(len(r.token_ids) for r in written)
    return metrics


def divergence_metrics(
    policy: LanguageModel, base: LanguageModel, generations: Sequence[Generation]
) -> dict[str, float]:
    """Full-vocabulary KL to the base policy and entropy, on the first sample of each prompt."""
    longest = max(len(g.responses[0].token_ids) for g in generations) + 1
    vocabulary = policy.network.config.get_text_config().vocab_size
    batch_size = max(1, min(256, LOGITS_AT_ONCE // (longest * vocabulary)))
    totals: dict[str, list[float]] = {"kl": [], "entropy": [], "tokens": []}
    for start in range(0, len(generations), batch_size):
        some = generations[start : start + batch_size]
        prompts = policy.encode_prompts([g.prompt for g in some])
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
