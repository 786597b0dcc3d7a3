"""Odds ratio preference optimisation: imitation of the chosen response with a penalty on the rejected one."""

from __future__ import annotations

from torch import Tensor

from rlaif_lab.learners.base import Batch
from rlaif_lab.learners.losses import log_odds_ratio, orpo
from rlaif_lab.learners.preference import PairLearner, check_positive, per_token


class ORPO(PairLearner):
    """ORPO (Hong et al. 2403.07691): the chosen response's negative log-likelihood per token, plus
    ``odds_ratio_weight`` (the paper's lambda) times the odds ratio loss. No reference policy.

    The likelihood is the response's only; TRL's trainer counts the prompt's tokens as well. The reward margin is the
    log odds ratio.
    """

    needs_reference = False

    def __init__(self, odds_ratio_weight: float = 0.1, name: str = "orpo") -> None:
        # nll_weight = 1: the likelihood term is ORPO's own, not a guard.
        super().__init__(1.0, "previous_round", name)
        check_positive("learner.odds_ratio_weight", odds_ratio_weight)
        self.odds_ratio_weight = odds_ratio_weight

    def preference(self, policy: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        # Columns: chosen first, rejected second, as pairs are stored.
        chosen, rejected = per_token(policy, batch).unbind(1)
        return self.odds_ratio_weight * orpo(chosen, rejected), log_odds_ratio(chosen, rejected)
