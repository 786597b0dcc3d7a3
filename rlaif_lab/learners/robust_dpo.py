"""Robust DPO: for a judge that is known to err at a certain rate."""

from __future__ import annotations

from torch import Tensor

from rlaif_lab.learners.base import Batch, Reference
from rlaif_lab.learners.losses import robust_dpo
from rlaif_lab.learners.preference import PairLearner, check_flip_rate, check_positive, log_ratio_difference


class RobustDPO(PairLearner):
    """Robust DPO (Chowdhury et al. 2403.00409).

    label_noise: the rate, in [0, 0.5), at which the judge's labels are flipped independently of the answers. Mistakes
    that a judge makes consistently are not noise, and nothing here makes up for them. beta: as in DPO. nll_weight: see
    PairLearner; it also bounds the loss, which by itself falls for ever as the margin grows.
    """

    def __init__(
        self,
        beta: float = 1.0,
        label_noise: float = 0.1,
        nll_weight: float = 1.0,
        reference: Reference = "previous_round",
        name: str = "robust_dpo",
    ) -> None:
        super().__init__(nll_weight, reference, name)
        check_positive("learner.beta", beta)
        check_flip_rate("learner.label_noise", label_noise)
        self.beta, self.label_noise = beta, label_noise

    def preference(self, policy: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        h = log_ratio_difference(policy, batch)
        return robust_dpo(h, self.beta, self.label_noise), self.beta * h
