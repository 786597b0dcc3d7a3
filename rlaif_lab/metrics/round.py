"""What a round was like, from its own samples: the judge, the gap, the pairs, the texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from rlaif_lab.feedback.base import Example, Feedback
from rlaif_lab.judges.by_people import human_metrics
from rlaif_lab.metrics.base import Metric, RoundView, own_metrics
from rlaif_lab.metrics.bias import amplification
from rlaif_lab.metrics.gap import Gap, best_of_k_gap, pairwise_gap
from rlaif_lab.metrics.judge import judge_metrics
from rlaif_lab.metrics.quality import gold_qualities
from rlaif_lab.metrics.text import text_metrics
from rlaif_lab.records import Floats, Judgement, Metrics
from rlaif_lab.tasks.base import Task
from rlaif_lab.training.batches import Step


@dataclass(frozen=True)
class Segment:
    """What one pass through the stages gave: a whole round, or with ``sync_every`` a part of one.

    examples: what is trained on, those of earlier rounds included. steps: the same, as the optimiser takes it.
    seconds: by stage. extra: metrics of how the feedback was made.
    """

    feedback: Feedback
    judgements: Sequence[Judgement]
    examples: Sequence[Example]
    steps: Sequence[Step] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    extra: Metrics = field(default_factory=dict)

    def trained_tokens(self) -> int:
        """Return tokens that training reads, over all passes; a prompt counts once for all its responses."""
        # Every pass over the data is a step of its own, so passes are counted.
        packed = [batch.packed for step in self.steps for batch in step.batches]
        return sum(int(p.prompt_mask.sum() + p.response_mask.sum()) for p in packed)


def view_of(task: Task, segments: Sequence[Segment]) -> RoundView:
    """Return what the metrics of a whole round may look at."""
    generations = [g for s in segments for g in s.feedback.generations]
    return RoundView(
        index=segments[0].feedback.round_index,
        task=task,
        generations=generations,
        judgements=[j for s in segments for j in s.judgements],
        prob_beats=np.concatenate([s.feedback.prob_beats for s in segments]),
        qualities=gold_qualities(task, generations),
    )


def round_metrics(view: RoundView, segments: Sequence[Segment], own: Sequence[Metric] = ()) -> Metrics:
    """Return the on-policy metrics of a round, with a user's ``own``. Those that need gold are nan without it."""
    generations, judgements, qualities = view.generations, view.judgements, view.qualities
    examples = [e for s in segments for e in s.examples]
    k = view.prob_beats.shape[1]
    metrics = {
        **gap_metrics(qualities, view.prob_beats),
        **judge_metrics(judgements),
        "pairs/judged": len(judgements),
        # Pairs of equal texts are not judged: what is missing to k (k - 1) / 2 are duplicates.
        "pairs/duplicate_rate": 1.0 - len(judgements) / (len(generations) * k * (k - 1) / 2) if k > 1 else 0.0,
        "pairs/count": sum(len(s.feedback.pairs) for s in segments),
        "pairs/examples": sum(e.round_index == view.index for e in examples),
        "pairs/replayed": sum(e.round_index != view.index for e in examples),
        **text_metrics(generations),
        "tokens/sampling": sum(len(r.token_ids) for g in generations for r in g.responses),
        "tokens/judging": sum(j.tokens for j in judgements),
        "cost/judging_usd": sum(j.cost_usd for j in judgements),
        **human_metrics(judgements),
    }
    scores = [s.feedback.scores for s in segments if s.feedback.scores is not None]
    if scores:
        metrics |= reward_metrics(np.concatenate(scores), qualities)
    # The user's own come last, and may not replace the lab's.
    return metrics | own_metrics(own, view)


def gap_metrics(qualities: Floats, prob_beats: Floats) -> Metrics:
    """Return the metrics of the gap; nan throughout without gold."""
    unknown = Gap(*[float("nan")] * 5)
    # One sample without gold, and nothing about the gap is known.
    graded = not np.isnan(qualities).any()
    gap = pairwise_gap(qualities, prob_beats) if graded else unknown
    absolute, relative = best_of_k_gap(qualities, prob_beats) if graded else (float("nan"), float("nan"))
    return {
        "judge/accuracy": gap.accuracy,
        "gap/best_of_2": gap.gap,
        "gap/diversity_D": gap.diversity,
        "gap/informativeness_I": gap.informativeness,
        f"gap/best_of_{qualities.shape[1]}": absolute,
        "gap/relative": relative,
        "pairs/discordant_rate": gap.discordant_rate,
    }


def reward_metrics(scores: Floats, qualities: Floats) -> Metrics:
    """Describe the number that a learner takes as reward: its spread, its failures, and how often it orders two samples
    as gold does. scores, qualities: (N, k)."""
    # above[p, i, j]: by how much sample i is rewarded more than j.
    above = scores[:, :, None] - scores[:, None, :]
    known = scores[np.isfinite(scores)]
    return {
        "reward/mean": float(known.mean()) if known.size else float("nan"),
        "reward/std": float(known.std()) if known.size else float("nan"),
        "reward/missing_rate": float(1 - known.size / scores.size),
        # As a judge's decisions: 1 where i is rewarded more, 0.5 for a tie, nan without a reward.
        "reward/accuracy": gap_metrics(qualities, 0.5 + 0.5 * np.sign(above))["judge/accuracy"],
    }


def length_amplification(row: Metrics) -> float:
    """Return how far the policy's lengths have drifted per unit of the judge's bias for length: as measured on the
    frozen bank, else on the round's own pairs; nan where neither tells."""
    biases = (row.get(f"audit/b_length_{where}", float("nan")) for where in ("frozen", "on_policy"))
    # nan is unequal to itself.
    bias = next((b for b in biases if b == b), float("nan"))
    return amplification(row.get("text/length_drift", float("nan")), bias)
