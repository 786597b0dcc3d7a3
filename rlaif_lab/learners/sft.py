"""Supervised fine-tuning on chosen responses: the controls that tell learning from feedback from imitation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from rlaif_lab.learners.base import Batch, Learner, Restart, one_of
from rlaif_lab.learners.shares import shared_mean, token_shares

SFTNormalise = Literal["token", "sequence"]


@dataclass(kw_only=True, eq=False)
class SFT(Learner):
    """Weighted negative log-likelihood (nats per token); an example's signal is the weight of each response, >= 0.

    normalise: ``token`` (the mean over tokens) or ``sequence`` (over responses, of each one's mean over its tokens).
    restart: ``never`` (a round goes on from the weights of the last one) or ``base`` (it starts from those of the run's
        start, on this round's data alone unless replay says more).
    """

    normalise: SFTNormalise = "token"
    restart: Restart = "never"
    name: str = "sft"

    minimum_k = 1
    needs_reference = False

    def __post_init__(self) -> None:
        super().__init__()
        one_of("learner.normalise", self.normalise, SFTNormalise)
        one_of("learner.restart", self.restart, Restart)

    def loss(self, logps: Tensor, batch: Batch, values: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        loss = shared_mean(-logps, *self.shares(batch))
        return loss, {"nll": loss.detach()}

    def shares(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return token_shares(batch.packed.response_mask, batch.signal, self.normalise)

    def weight(self, batch: Batch) -> float:
        """Return the weights of its responses, or of their tokens, together."""
        return float(self.shares(batch)[1])
