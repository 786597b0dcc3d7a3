"""REINFORCE leave-one-out on the judge's win rates within each prompt's group of responses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from torch import Tensor

from rlaif_lab.learners.base import Batch, Example, Learner, Reference, groups_as_examples, mean_of, sequence_logps
from rlaif_lab.learners.dpo import Labels
from rlaif_lab.learners.losses import clipped_policy_gradient, rloo_advantages
from rlaif_lab.pairing import Floats
from rlaif_lab.records import Generation, PreferencePair


class RLOO(Learner):
    """labels: win rates from ``hard`` wins (each judge contributes its ordering only) or ``soft`` probabilities.
    clip: PPO's clip range. kl_weight: weight of the log-ratio to the reference, taken off the reward."""

    def __init__(
        self,
        labels: Labels = "hard",
        clip: float = 0.2,
        kl_weight: float = 0.0,
        reference: Reference = "previous_round",
        name: str = "rloo",
    ) -> None:
        super().__init__(reference)
        if labels not in get_args(Labels):
            raise ValueError(f"learner.labels must be one of {', '.join(get_args(Labels))}; got {labels!r}")
        if clip <= 0:
            raise ValueError(f"learner.clip must be positive; got {clip}")
        if kl_weight < 0:
            raise ValueError(f"learner.kl_weight must not be negative; got {kl_weight}")
        self.labels, self.clip, self.kl_weight, self.name = labels, clip, kl_weight, name

    def examples(
        self, generations: Sequence[Generation], prob_beats: Floats, pairs: Sequence[PreferencePair]
    ) -> list[Example]:
        return groups_as_examples(prob_beats, hard=self.labels == "hard")

    def loss(self, logps: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        policy, sampled = sequence_logps(logps), sequence_logps(batch.sampled_logps)
        log_ratio = policy.detach() - sequence_logps(batch.reference_logps)
        advantages = rloo_advantages(batch.signal - self.kl_weight * log_ratio)
        loss = clipped_policy_gradient(policy, sampled, advantages, self.clip).mean()
        drift = (policy - sampled).detach()
        return loss, {
            "preference_loss": loss.detach(),
            "sampled_kl": mean_of(-drift),
            "clip_fraction": mean_of((drift.exp() - 1).abs().gt(self.clip).float()),
        }
