"""REINFORCE leave-one-out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rlaif_lab.learners.advantages import rloo_advantages
from rlaif_lab.learners.base import Batch, sequence_logps
from rlaif_lab.learners.policy_gradient import PolicyGradient


@dataclass(kw_only=True, eq=False)
class RLOO(PolicyGradient):
    """RLOO (Ahmadian et al. 2402.14740): a whole response is one action, the others of its group are its baseline.

    The ratio that is clipped is the whole response's. The loss is a mean over responses.
    """

    name: str = "rloo"

    def loss(self, logps: Tensor, batch: Batch, values: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        policy, sampled = sequence_logps(logps), sequence_logps(batch.sampled_logps)
        advantages = rloo_advantages(self.rewards_less_kl(logps, batch))
        # The response is the action: its log-probabilities are summed before the ratio is clipped.
        per_response = self.surrogate(policy, sampled, advantages) + sequence_logps(self.kl_loss(logps, batch))
        counted = self.counted(batch)
        # At least 1: all masked is a loss of 0, not of nan.
        loss = (counted * per_response).sum() / counted.sum().clamp(min=1)
        return loss, self.log(logps, batch, loss, policy - sampled, counted)

    def weight(self, batch: Batch) -> float:
        """Return the responses that are trained on."""
        return float(self.counted(batch).sum())
