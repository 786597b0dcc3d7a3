"""True quality of samples: mean, pass@k, majority, against the first policy, and what a round changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb

import numpy as np

from rlaif_lab.metrics.difficulty import difficulty_metrics
from rlaif_lab.metrics.divergence import TOKENS_AT_ONCE
from rlaif_lab.models.language_model import LanguageModel, inference
from rlaif_lab.models.limits import out_of_memory
from rlaif_lab.models.packed import pack, response_logps
from rlaif_lab.records import Comparison, Floats, Generation, Prompt
from rlaif_lab.statistics.clusters import stderr_of_mean
from rlaif_lab.tasks.base import Task


def pass_at_k(correct: int, n: int, k: int) -> float:
    """Return P(at least one of k draws is right), unbiased from ``correct`` of ``n`` samples (Chen et al. 2107.03374):
    1 - C(n - c, k) / C(n, k)."""
    assert 0 <= correct <= n and 1 <= k <= n, (correct, n, k)
    return 1.0 - comb(n - correct, k) / comb(n, k)


def mean_pass_at_k(qualities: Floats, k: int) -> float:
    """Return pass@k over prompts; a sample passes at quality 1. Shapes: (N, n) -> scalar."""
    n = qualities.shape[1]
    # A sample passes at quality 1, whatever half-right answers are worth.
    return float(np.mean([pass_at_k(int(c), n, k) for c in (qualities >= 1.0).sum(1)]))


def majority_quality(qualities: Floats, texts: Sequence[Sequence[str]]) -> float:
    """Return maj@k: quality of the most frequent answer; equally frequent ones share. Shapes: (N, k), N lists of k."""
    values = []
    for row, answers in zip(qualities, texts, strict=True):
        counts = Counter(answers)
        top = max(counts.values())
        # Equal answers have equal quality; equally frequent ones share the vote.
        winners = {answer: q for answer, q in zip(answers, row, strict=True) if counts[answer] == top}
        values.append(np.mean(list(winners.values())))
    return float(np.mean(values))


def gold_qualities(task: Task, generations: Sequence[Generation]) -> Floats:
    """Return the gold quality of every sample: (N, k); nan throughout for a task without gold."""
    if not task.has_gold:
        return np.full((len(generations), len(generations[0].responses)), np.nan)
    return np.array([[task.quality(g.prompt, r.text) for r in g.responses] for g in generations])


def quality_metrics(task: Task, sampled: Sequence[Generation], greedy: Sequence[Generation]) -> dict[str, float]:
    """Return the true quality of samples and of the greedy answer; nan for a task without gold."""
    k = len(sampled[0].responses)
    some = powers_of_two(k)
    names = ("sampled", "sampled_stderr", "greedy", *(f"pass_at_{i}" for i in some), f"majority_at_{k}")
    if not task.has_gold:
        return {f"quality/{name}": float("nan") for name in names}
    qualities = gold_qualities(task, sampled)
    asked = [(g.prompt.text, g.prompt.turns) for g in sampled]  # a finite set may ask one and the same twice
    # One sample mean of each prompt, clustered by question.
    stderr = stderr_of_mean(qualities.mean(1), asked) if len(sampled) > 1 else 0.0
    values = (
        qualities.mean(),
        stderr,
        gold_qualities(task, greedy).mean(),
        *(mean_pass_at_k(qualities, i) for i in some),
        majority_quality(qualities, [[r.text for r in g.responses] for g in sampled]),
    )
    by_name = {f"quality/{name}": float(value) for name, value in zip(names, values, strict=True)}
    return by_name | difficulty_metrics(task, sampled, qualities)


def coverage_metrics(task: Task, sampled: Sequence[Generation]) -> dict[str, float]:
    """Return ``coverage/pass_at_k`` for k = 1, 2, 4, ... from many samples of a few prompts, all k from the same
    samples."""
    some = powers_of_two(len(sampled[0].responses))
    if not task.has_gold:
        return {f"coverage/pass_at_{k}": float("nan") for k in some}
    qualities = gold_qualities(task, sampled)
    return {f"coverage/pass_at_{k}": mean_pass_at_k(qualities, k) for k in some}


def powers_of_two(largest: int) -> list[int]:
    """Return 1, 2, 4, ..., and ``largest`` itself."""
    return sorted({largest, *(2**i for i in range(largest.bit_length()) if 2**i <= largest)})


def quality_changes(task: Task, now: Sequence[Generation], before: Sequence[Generation]) -> Floats:
    """Return the gold quality of the newer policy minus that of the older one on the same prompts, each averaged over
    its samples: (N,) in [-1, 1]."""
    assert [g.prompt for g in now] == [g.prompt for g in before]
    return gold_qualities(task, now).mean(1) - gold_qualities(task, before).mean(1)


def gold_win_rate(task: Task, comparisons: Sequence[Comparison]) -> float:
    """Return P(the first is truly better) + half of P(equally good); nan for a task without gold. What the judge's win
    rate would be if it were right, so that their difference (self-score minus gold, for a self judge) is in one unit.
    """
    if not comparisons:
        return float("nan")  # nothing to compare is no draw
    return float(np.mean(0.5 + 0.5 * np.sign(gold_differences(task, comparisons))))


def gold_differences(task: Task, comparisons: Sequence[Comparison]) -> list[float]:
    """Return the gold quality of the first minus that of the second; nan for a task without gold."""
    if not task.has_gold:
        return [float("nan")] * len(comparisons)
    return [task.quality(c.prompt, c.first) - task.quality(c.prompt, c.second) for c in comparisons]


def gold_nll(policy: LanguageModel, task: Task, prompts: Sequence[Prompt]) -> float:
    """Return the held-out negative log-likelihood of the right answer, nats per token; nan where the task has no one to
    tell."""
    answers = [task.gold_answer(prompt) for prompt in prompts]
    known = [(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True) if answer is not None]
    total = tokens = 0.0
    prompt_ids = policy.encode_prompts([prompt for prompt, _ in known])
    answer_ids = policy.encode_responses([answer for _, answer in known])
    longest = max((len(ids) + len(said) for ids, said in zip(prompt_ids, answer_ids, strict=True)), default=1)
    # As many at a time as fit into memory.
    batch_size = max(1, min(128, TOKENS_AT_ONCE // longest))
    for start in range(0, len(known), batch_size):
        some = slice(start, start + batch_size)
        batch = pack(prompt_ids[some], [[ids] for ids in answer_ids[some]], policy.pad_id).to(policy.device)
        with inference(policy.network), out_of_memory("evaluation.prompts"):
            total -= float(response_logps(policy.network, batch).sum())
        tokens += float(batch.response_mask.sum())
    return total / tokens if tokens else float("nan")
