"""Imitation of the best of n."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlaif_lab.feedback.base import Example, Feedback
from rlaif_lab.learners.base import Labels, RewardSource, one_of
from rlaif_lab.learners.policy_gradient import rewards_of
from rlaif_lab.learners.sft import SFT


@dataclass(kw_only=True, eq=False)
class BestOfN(SFT):
    """SFT on each prompt's response of highest reward (RAFT, Dong et al. 2304.06767); with ``restart: base`` each
    round's policy is trained anew from the first one's weights (ReST-EM, Singh et al. 2312.06585).

    Of equal rewards the first counts. Groups of equal rewards stay in, as in RAFT. Prompts with a response without
    reward are left out. reward, labels: as in policy_gradient.py.
    """

    reward: RewardSource = "win_rate"
    labels: Labels = "soft"
    name: str = "best_of_n"

    minimum_k = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("learner.reward", self.reward, RewardSource)
        one_of("learner.labels", self.labels, Labels)

    def examples(self, feedback: Feedback) -> list[Example]:
        rewards = rewards_of(feedback, self.reward, self.labels)
        return [
            # The first of equals, as numpy's argmax has it: samples are in the order of their draws, which says nothing
            # of them.
            Example(g.prompt, (g.responses[int(row.argmax())],), (1.0,), feedback.round_index)
            for g, row in zip(feedback.generations, rewards, strict=True)
            if not np.isnan(row).any()
        ]
