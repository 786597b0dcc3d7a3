"""The evaluation of one policy: fresh held-out prompts, gold quality, the judge's opinion, distance from the base."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif_lab.feedback.pairing import Floats
from rlaif_lab.judges.asking import both_orders
from rlaif_lab.judges.base import Judge
from rlaif_lab.metrics.bias import length_drift
from rlaif_lab.metrics.divergence import kl_and_entropy
from rlaif_lab.metrics.judge import policy_preference, win_rate
from rlaif_lab.metrics.quality import majority_quality, mean_pass_at_k
from rlaif_lab.models.language_model import LanguageModel, inference
from rlaif_lab.models.packed import pack, response_logits, response_logps
from rlaif_lab.records import Comparison, Generation, Prompt
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample
from rlaif_lab.tasks.base import Task

LOGITS_AT_ONCE = 2**26  # of each model: a quarter of a GB in float32


@dataclass(frozen=True)
class Evaluation:
    """How much is evaluated each round: prompts, and samples per prompt at temperature 1, untruncated.

    final_samples: in round 0 and after the last, this many more on the first ``final_prompts`` of the prompts, for
    pass@k up to k = final_samples: whether the policy still covers what it covered. 0: none.
    """

    prompts: int = 512
    samples: int = 4
    final_samples: int = 64
    final_prompts: int = 64

    def __post_init__(self) -> None:
        for name in ("prompts", "samples", "final_prompts"):
            if getattr(self, name) < 1:
                raise ValueError(f"evaluation.{name} must be at least 1; got {getattr(self, name)}")
        if self.final_samples < 0:
            raise ValueError(f"evaluation.final_samples must not be negative (0: none); got {self.final_samples}")


def quality_metrics(task: Task, sampled: Sequence[Generation], greedy: Sequence[Generation]) -> dict[str, float]:
    """True quality of samples and of the greedy answer; nan for a task without gold."""
    k = len(sampled[0].responses)
    some = powers_of_two(k)
    names = ("sampled", "sampled_stderr", "greedy", *(f"pass_at_{i}" for i in some), f"majority_at_{k}")
    if not task.has_gold:
        return {f"quality/{name}": float("nan") for name in names}
    qualities = gold_qualities(task, sampled)
    stderr = qualities.mean(1).std(ddof=1) / np.sqrt(len(sampled)) if len(sampled) > 1 else 0.0
    values = (
        qualities.mean(),
        stderr,
        gold_qualities(task, greedy).mean(),
        *(mean_pass_at_k(qualities, i) for i in some),
        majority_quality(qualities, [[r.text for r in g.responses] for g in sampled]),
    )
    return {f"quality/{name}": float(value) for name, value in zip(names, values, strict=True)}


def powers_of_two(largest: int) -> list[int]:
    """1, 2, 4, ..., and ``largest`` itself."""
    return sorted({largest, *(2**i for i in range(largest.bit_length()) if 2**i <= largest)})


def coverage_metrics(task: Task, sampled: Sequence[Generation]) -> dict[str, float]:
    """``coverage/pass_at_k`` for k = 1, 2, 4, ... from many samples of a few prompts, all k from the same samples."""
    some = powers_of_two(len(sampled[0].responses))
    if not task.has_gold:
        return {f"coverage/pass_at_{k}": float("nan") for k in some}
    qualities = gold_qualities(task, sampled)
    return {f"coverage/pass_at_{k}": mean_pass_at_k(qualities, k) for k in some}


def quality_changes(task: Task, now: Sequence[Generation], before: Sequence[Generation]) -> Floats:
    """Gold quality of the newer policy minus that of the older one on the same prompts, each averaged over its samples:
    (N,) in [-1, 1]."""
    assert [g.prompt for g in now] == [g.prompt for g in before]
    return gold_qualities(task, now).mean(1) - gold_qualities(task, before).mean(1)


def judged_changes(judge: Judge, now: Sequence[Generation], before: Sequence[Generation]) -> Floats:
    """The same in the eyes of a judge: 1 where it prefers the newer policy's first sample in both orders' mean, -1
    where the older one's, 0 for a tie. Prompts without a verdict are left out, so the array may be shorter."""
    pairs = [Comparison(a.prompt, a.responses[0].text, b.responses[0].text) for a, b in zip(now, before, strict=True)]
    different = [c for c in pairs if c.first != c.second]
    found = [
        float(np.sign(first.prob_first_wins - second.prob_first_wins))
        for first, second in both_orders(judge, different)
        if first.prob_first_wins is not None and second.prob_first_wins is not None
    ]
    return np.array(found + [0.0] * (len(pairs) - len(different)))


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
    sampled: Sequence[Generation],
    seed: int,
    round_index: int,
    progress: Callable[[int], object] = lambda count: None,
) -> dict[str, float]:
    """All metrics of the policy of this round, whose samples on fresh held-out prompts are ``sampled``. The round-0
    answers that the judges compare with are sampled anew from the base policy, on the same prompts. The held-out judge
    has no part in training."""
    limit, prompts = task.max_response_tokens, [g.prompt for g in sampled]
    greedy = sample(policy, prompts, SamplingConfig(k=1, temperature=0.0), limit, seed, "greedy", round_index)
    baseline = sample(base, prompts, SamplingConfig(k=1), limit, seed, "baseline", round_index)
    progress(1)
    metrics = quality_metrics(task, sampled, greedy)
    versus_base = [
        Comparison(now.prompt, now.responses[0].text, then.responses[0].text)
        for now, then in zip(sampled, baseline, strict=True)
    ]
    truth = gold_win_rate(task, versus_base)
    metrics["quality/win_rate_vs_round_0"] = truth
    different = [c for c in versus_base if c.first != c.second]
    identical = len(versus_base) - len(different)
    for role, somebody in (("judge", judge), ("heldout_judge", heldout_judge)):
        if somebody is not None:
            verdicts = both_orders(somebody.evaluator(), different)
            believed = win_rate(verdicts, identical)
            metrics[f"{role}/win_rate_vs_round_0"] = believed
            metrics[f"{role}/win_rate_minus_gold"] = believed - truth
            if role == "judge":
                metrics |= policy_preference(verdicts, gold_differences(task, different))
                metrics |= somebody.own_metrics(different, verdicts, identical)
    progress(1)
    metrics |= divergence_metrics(policy, base, sampled)
    metrics["quality/gold_nll"] = gold_nll(policy, task, prompts)
    lengths = [[len(g.responses[0].text) for g in part] for part in (sampled, baseline)]
    metrics["text/length_drift"] = length_drift(*lengths)
    written = (r for part in (sampled, greedy, baseline) for g in part for r in g.responses)
    metrics["tokens/evaluation"] = sum(len(r.token_ids) for r in written)
    return metrics


def gold_win_rate(task: Task, comparisons: Sequence[Comparison]) -> float:
    """P(the first is truly better) + half of P(equally good); nan for a task without gold. What the judge's win rate
    would be if it were right, so that their difference (self-score minus gold, for a self judge) is in one unit."""
    return float(np.mean(0.5 + 0.5 * np.sign(gold_differences(task, comparisons))))


def gold_differences(task: Task, comparisons: Sequence[Comparison]) -> list[float]:
    """Gold quality of the first minus that of the second; nan for a task without gold."""
    if not task.has_gold:
        return [float("nan")] * len(comparisons)
    return [task.quality(c.prompt, c.first) - task.quality(c.prompt, c.second) for c in comparisons]


def gold_nll(policy: LanguageModel, task: Task, prompts: Sequence[Prompt]) -> float:
    """Held-out negative log-likelihood of the right answer, nats per token; nan where the task has no one to tell."""
    answers = [task.gold_answer(prompt) for prompt in prompts]
    known = [(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True) if answer is not None]
    total = tokens = 0.0
    for start in range(0, len(known), 128):
        some = known[start : start + 128]
        encoded = policy.encode_responses([answer for _, answer in some])
        batch = pack(policy.encode_prompts([prompt for prompt, _ in some]), [[ids] for ids in encoded], policy.pad_id)
        batch = batch.to(policy.device)
        with inference(policy.network):
            total -= float(response_logps(policy.network, batch).sum())
        tokens += float(batch.response_mask.sum())
    return total / tokens if tokens else float("nan")


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
