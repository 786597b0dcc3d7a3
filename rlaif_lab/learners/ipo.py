"""Identity preference optimisation: a squared loss with a finite target."""

from __future__ import annotations

from torch import Tensor

from rlaif_lab.learners.base import Batch, Reference, sequence_logps
from rlaif_lab.learners.losses import ipo, preference_logits
from rlaif_lab.learners.preference import PairLearner, check_positive, per_token


class IPO(PairLearner):
    """IPO (Azar et al. 2310.12036). The reward margin is tau h, whose target is 1/2.

    tau: strength of the anchor; the log-ratios of a pair are to differ by 1 / (2 tau). average_log_prob: false, as the
    paper writes it, sums a response's log-ratio over its tokens; true, as TRL computes it, takes their mean, so that
    long answers are not held to the same total as short ones and 1 / (2 tau) is in nats per token. The same tau is a
    much larger step with the mean than with the sum. nll_weight: see PairLearner; mind that the slope of this loss at
    h = 0 is 1 / tau (beta / 2 for DPO), which is what the guard competes with.
    """

    def __init__(
        self,
        tau: float = 1.0,
        average_log_prob: bool = True,
        nll_weight: float = 1.0,
        reference: Reference = "previous_round",
        name: str = "ipo",
    ) -> None:
        super().__init__(nll_weight, reference, name)
        check_positive("learner.tau", tau)
        self.tau, self.average_log_prob = tau, average_log_prob

    def preference(self, policy: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        reference = sequence_logps(batch.reference_logps)
        if self.average_log_prob:
            policy, reference = per_token(policy, batch), per_token(reference, batch)
        # h is linear, so that log-ratios per token give it per token.
        h = preference_logits(policy, reference)
        return ipo(h, self.tau), self.tau * h
