"""Imitation of what the judge lets pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlaif_lab.feedback.base import Example, Feedback
from rlaif_lab.learners.base import Labels, RewardSource, one_of
from rlaif_lab.learners.policy_gradient import rewards_of
from rlaif_lab.learners.sft import SFT


@dataclass(kw_only=True, eq=False)
class FilteredSFT(SFT):
    """SFT on every response whose reward is at least ``threshold``, a prompt's responses together in one example.

    A text that was sampled twice counts twice. Responses without reward do not pass, and prompts none of whose
    responses pass are left out. reward, labels: as in policy_gradient.py. threshold: in units of the reward.
    """

    threshold: float = 0.75
    reward: RewardSource = "win_rate"
    labels: Labels = "soft"
    name: str = "filtered_sft"

    minimum_k = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("learner.reward", self.reward, RewardSource)
        one_of("learner.labels", self.labels, Labels)
        if not math.isfinite(self.threshold) or (self.reward == "win_rate" and not 0.0 <= self.threshold <= 1.0):
            raise ValueError(f"learner.threshold must be finite, and lie in [0, 1] for win rates; got {self.threshold}")
        # A direct score needs no group to be compared with.
        self.minimum_k = 2 if self.reward == "win_rate" else 1

    def examples(self, feedback: Feedback) -> list[Example]:
        passed = rewards_of(feedback, self.reward, self.labels) >= self.threshold  # nan compares false
        return [
            # Weights 0 and 1: what does not pass costs a forward pass, and no gradient.
            Example(g.prompt, g.responses, tuple(map(float, row)), feedback.round_index)
            for g, row in zip(feedback.generations, passed, strict=True)
            if row.any()
        ]
