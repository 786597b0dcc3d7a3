"""What a round costs in floating point operations, by the usual rule of thumb (Kaplan et al. 2001.08361)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from rlaif_lab.models.access import parameter_count
from rlaif_lab.records import Generation, Metrics

if TYPE_CHECKING:
    from rlaif_lab.judges.base import Judge
    from rlaif_lab.learners.base import Learner
    from rlaif_lab.metrics.round import Segment
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.reward.model import RewardModel


def forward_flops(parameters: int, tokens: float) -> float:
    """Return the FLOP of reading or writing ``tokens``: a multiplication and an addition per parameter, 2 N T."""
    return 2.0 * parameters * tokens


def training_flops(parameters: int, trainable: int, tokens: float) -> float:
    """Return the FLOP of forward and backward over ``tokens`` tokens: 2 N T forward, 2 N T for the gradients that pass
    through and 2 N' T for those of the N' parameters that are trained; 6 N T where all are."""
    assert 0 <= trainable <= parameters
    return (4.0 * parameters + 2.0 * trainable) * tokens


class Spenders(Protocol):
    """Whose models cost something in a round."""

    @property
    def policy(self) -> LanguageModel: ...
    @property
    def judge(self) -> Judge: ...
    @property
    def learner(self) -> Learner: ...
    @property
    def reward_model(self) -> RewardModel | None: ...


def round_flops(row: Metrics, segments: Sequence[Segment], parts: Spenders) -> Metrics:
    """Return ``flops/*`` of what the learner needs: sampling, judging, training, the judge's demonstrations and the
    reward model's training.

    What is only measured does not count, so a learner that reads no verdicts pays for none; nor do the passes of a
    reference policy and of a critic. nan where a judge's model is not known.
    """
    size, trained = parameter_count(parts.policy.network)
    judge_size, needs = parts.judge.parameters(), parts.learner.needs

    def read(generations: Sequence[Generation]) -> int:
        prompts = parts.policy.encode_prompts([g.prompt for g in generations])
        return sum(map(len, prompts)) + sum(len(r.token_ids) for g in generations for r in g.responses)

    def by_judge(tokens: float) -> float:
        # Nothing was judged, so an unknown size costs nothing.
        return forward_flops(judge_size, tokens) if judge_size is not None else float("nan") if tokens else 0.0

    sampled = [g for s in segments for g in s.feedback.generations]
    shown = [g for s in segments for g in s.feedback.demonstrations]
    found = {
        # Samples are the learner's cost where it learns from them; a distilled policy's are only measured.
        "flops/sampling": forward_flops(size, read(sampled)) if {"judgements", "revisions"} & {*needs} else 0.0,
        "flops/judging": by_judge(row["tokens/judging"]) if "judgements" in needs else 0.0,
        "flops/demonstrating": by_judge(read(shown)) if shown else 0.0,
        "flops/training": training_flops(size, trained, row["tokens/training"]),
    }
    if parts.reward_model is not None:
        body = parameter_count(parts.reward_model.members[0].network)[0]
        found["flops/reward_model"] = training_flops(body, body, row.get("tokens/reward_model", float("nan")))
    return found | {"flops/total": sum(found.values())}
