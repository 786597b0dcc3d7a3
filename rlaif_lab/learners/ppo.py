"""Proximal policy optimisation with a critic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlaif_lab.learners.advantages import gae, terminal_rewards, whitened
from rlaif_lab.learners.base import Batch, Reference, mean_of, one_of
from rlaif_lab.learners.kl import k1
from rlaif_lab.learners.policy_gradient import PolicyGradient
from rlaif_lab.learners.shares import Normalise, shared_mean, token_shares
from rlaif_lab.records import Floats


def clipped_value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float | None) -> Tensor:
    """Return half the squared error, and at least that of the values held within ``clip`` of the old ones: what has
    moved that far gets no gradient for moving on. None: no limit. Any one shape."""
    loss = (values - returns) ** 2
    if clip is not None:
        limited = old + (values - old).clamp(-clip, clip)
        # The larger of the two: no gradient for going on in a direction that has gone far enough.
        loss = torch.maximum(loss, (limited - returns) ** 2)
    return 0.5 * loss


@dataclass(kw_only=True, eq=False)
class PPO(PolicyGradient):
    """PPO-clip (Schulman et al. 1707.06347) with generalised advantage estimates: every token is an action, the reward
    comes with the last one, a critic says what each state was worth. ``trainer.passes`` are its epochs.

    Advantages are estimated from the critic as it was when the round's data were made, so they stay the same all
    through its training. A group of responses is a prompt computed once, and no baseline.

    gamma, lam: discount and GAE's bias against variance. value_clip: see ``clipped_value_loss``. vf_weight: of the
    critic's loss. normalise, divisor: as in GRPO.
    kl_in ``reward`` takes the log-ratio off each token's reward, as of when it was sampled (Ziegler et al.
        1909.08593), so it needs a reference other than the policy that sampled: ``initial``.
    whiten: subtract the batch's mean advantage and divide by their deviation. Off, since it makes the loss depend on
        how the examples fall into batches.
    """

    gamma: float = 1.0
    lam: float = 0.95
    value_clip: float | None = None
    vf_weight: float = 0.5
    normalise: Normalise = "token"
    divisor: float = 1.0
    whiten: bool = False
    reference: Reference = "initial"
    name: str = "ppo"

    needs_values = True

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("learner.normalise", self.normalise, Normalise)
        for key in ("gamma", "lam"):
            if not 0.0 <= getattr(self, key) <= 1.0:
                raise ValueError(f"learner.{key} must lie in [0, 1]; got {getattr(self, key)}")
        for key in ("vf_weight", "divisor"):
            if getattr(self, key) <= 0:
                raise ValueError(f"learner.{key} must be positive; got {getattr(self, key)}")
        if self.value_clip is not None and self.value_clip <= 0:
            raise ValueError(f"learner.value_clip must be positive, or null for none; got {self.value_clip}")
        # The policy that sampled has a log-ratio of 0 to itself at that time.
        if self.kl_weight > 0 and self.kl_in == "reward" and self.reference == "previous_round":
            raise ValueError(
                "learner.kl_in=reward takes no effect with learner.reference=previous_round, which is the policy that "
                "sampled; use learner.reference=initial or learner.kl_in=loss"
            )
        # Nothing is compared within a group, but for win rates.
        self.minimum_k = 2 if self.reward == "win_rate" else 1

    def teaches(self, rewards: Floats) -> Any:
        """Return all groups: the critic is the baseline, so that one of equal rewards says as much as any other."""
        return np.ones(len(rewards), dtype=bool)

    def loss(self, logps: Tensor, batch: Batch, values: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        assert values is not None
        assert batch.values is not None
        advantages = self.advantages(batch)
        # TD(lambda) returns: what the critic is trained on is consistent with the advantages.
        returns = advantages + batch.values
        shares, total = self.shares(batch)
        # No token of a masked response counts.
        counted = shares > 0
        scaled = whitened(advantages, counted) if self.whiten else advantages
        policy = self.surrogate(logps, batch.sampled_logps, scaled) + self.kl_loss(logps, batch)
        policy_loss = shared_mean(policy, shares, total)
        value_loss = shared_mean(clipped_value_loss(values, batch.values, returns, self.value_clip), shares, total)
        return policy_loss + self.vf_weight * value_loss, {
            **self.log(logps, batch, policy_loss, logps - batch.sampled_logps, counted),
            "value_loss": value_loss.detach(),
            "value": mean_of(values[counted]),
            "return": mean_of(returns[counted]),
            "unexplained_variance": unexplained_variance(batch.values[counted], returns[counted]),
        }

    def advantages(self, batch: Batch) -> Tensor:
        """Return the GAE of the rewards per token, the KL among them if it is in the reward: (B, n, R)."""
        assert batch.values is not None
        mask = batch.packed.response_mask
        rewards = terminal_rewards(batch.signal, mask)
        if self.kl_in == "reward" and self.kl_weight > 0:
            # As of sampling, both fixed: the reward of a token does not change while the policy trains.
            rewards = rewards - self.kl_weight * k1(batch.sampled_logps, batch.reference_logps)
        return gae(rewards, batch.values, mask, self.gamma, self.lam)

    def shares(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return token_shares(batch.packed.response_mask, self.counted(batch), self.normalise, self.divisor)

    def weight(self, batch: Batch) -> float:
        """Return responses or tokens that are trained on, by ``normalise``."""
        return float(self.shares(batch)[1])


def unexplained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """Return the variance of the returns that the values leave, as a share of it: 0 for a perfect critic, 1 for a
    constant. Shapes: (M,), (M,) -> ()."""
    if returns.numel() < 2:
        return torch.ones(())
    # A return that never varies leaves nothing to explain: the floor keeps it finite.
    return (returns - values).var() / returns.var().clamp(min=1e-12)
