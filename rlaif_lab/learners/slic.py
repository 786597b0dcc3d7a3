"""Hinge losses on pairs: SLiC, with or without a reference policy."""

from __future__ import annotations

from torch import Tensor

from rlaif_lab.learners.base import Batch, Reference
from rlaif_lab.learners.losses import hinge
from rlaif_lab.learners.preference import PairLearner, check_positive, log_ratio_difference


class SLiC(PairLearner):
    """Hinge loss max(0, 1 - beta d) on pairs.

    anchored: true takes d from log-ratios to the reference policy (the normalised hinge of Liu et al. 2309.06657,
    TRL's ``hinge``); false from the policy's log-probabilities alone, which is SLiC as Zhao et al. 2305.10425 have it,
    with margin 1 / beta, and needs no reference. nll_weight: see PairLearner; it is SLiC's regularisation, with the
    chosen response as its target.
    """

    def __init__(
        self,
        beta: float = 1.0,
        anchored: bool = True,
        nll_weight: float = 1.0,
        reference: Reference = "previous_round",
        name: str = "slic",
    ) -> None:
        super().__init__(nll_weight, reference, name)
        check_positive("learner.beta", beta)
        self.beta, self.anchored = beta, anchored
        # The policy alone: no reference is computed.
        self.needs_reference = anchored

    def preference(self, policy: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        d = log_ratio_difference(policy, batch) if self.anchored else policy[:, 0] - policy[:, 1]
        return hinge(d, self.beta), self.beta * d
