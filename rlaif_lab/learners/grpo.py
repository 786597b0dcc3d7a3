"""Group relative policy optimisation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rlaif_lab.learners.advantages import Scale, grpo_advantages
from rlaif_lab.learners.base import Batch, one_of
from rlaif_lab.learners.policy_gradient import KLPlace, PolicyGradient
from rlaif_lab.learners.shares import Normalise, shared_mean, token_shares


@dataclass(kw_only=True, eq=False)
class GRPO(PolicyGradient):
    """GRPO (Shao et al. 2402.03300): every token is an action with its response's advantage; each one's ratio is
    clipped.

    scale: ``std`` divides a group's advantages by their standard deviation, ``none`` does not.
    normalise: ``sequence`` (GRPO), ``token`` (DAPO, Yu et al. 2503.14476) or ``constant`` (Dr. GRPO, Liu et al.
        2503.20783, with ``scale: none``), as in shares.py. divisor: the tokens by which ``constant`` divides.
    """

    scale: Scale = "std"
    normalise: Normalise = "sequence"
    divisor: float = 1.0
    kl_in: KLPlace = "loss"
    name: str = "grpo"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("learner.scale", self.scale, Scale)
        one_of("learner.normalise", self.normalise, Normalise)
        if self.divisor <= 0:
            raise ValueError(f"learner.divisor must be positive; got {self.divisor}")

    def loss(self, logps: Tensor, batch: Batch, values: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        # One advantage for all tokens of a response: (B, n, 1).
        advantages = grpo_advantages(self.rewards_less_kl(logps, batch), self.scale).unsqueeze(-1)
        per_token = self.surrogate(logps, batch.sampled_logps, advantages) + self.kl_loss(logps, batch)
        # Shares and total add up over batches, so that accumulated parts have the gradient of the whole.
        shares, total = self.shares(batch)
        loss = shared_mean(per_token, shares, total)
        # What is clipped is a token's ratio, so tokens are counted.
        return loss, self.log(logps, batch, loss, logps - batch.sampled_logps, shares > 0)

    def shares(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return token_shares(batch.packed.response_mask, self.counted(batch), self.normalise, self.divisor)

    def weight(self, batch: Batch) -> float:
        """Return responses or tokens that are trained on, by ``normalise``."""
        return float(self.shares(batch)[1])
