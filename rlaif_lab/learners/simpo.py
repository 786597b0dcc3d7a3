"""Simple preference optimisation: length-normalised, with a margin, without a reference policy."""

from __future__ import annotations

from torch import Tensor

from rlaif_lab.learners.base import Batch
from rlaif_lab.learners.losses import simpo
from rlaif_lab.learners.preference import PairLearner, check_not_negative, check_positive, per_token


class SimPO(PairLearner):
    """SimPO (Meng et al. 2405.14734).

    beta: scale of the log-probability per token. margin: gamma, what the reward margin is to exceed, in the units of
    beta x nats per token. nll_weight: see PairLearner; the paper has none.
    """

    needs_reference = False

    def __init__(self, beta: float = 1.0, margin: float = 0.5, nll_weight: float = 1.0, name: str = "simpo") -> None:
        super().__init__(nll_weight, "previous_round", name)
        check_positive("learner.beta", beta)
        check_not_negative("learner.margin", margin)
        self.beta, self.margin = beta, margin

    def preference(self, policy: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        # Per token, as SimPO defines the reward: a long answer gets none for its length.
        means = per_token(policy, batch)
        difference = means[:, 0] - means[:, 1]
        return simpo(difference, self.beta, self.margin), self.beta * difference
