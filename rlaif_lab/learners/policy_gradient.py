"""What the policy gradient learners share: rewards, groups, the clipped surrogate, the KL to the reference policy."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from rlaif_lab.feedback.base import Example, Feedback
from rlaif_lab.feedback.matrices import win_rates
from rlaif_lab.learners.base import Batch, Labels, Learner, Reference, RewardSource, mean_of, one_of, sequence_logps
from rlaif_lab.learners.kl import adapted_weight, k3
from rlaif_lab.records import Floats

KLPlace = Literal["loss", "reward"]

SAME = 1e-9
"""Rewards closer than this are equal: they differ by the order of a summation only."""


def rewards_of(feedback: Feedback, reward: RewardSource | None, labels: Labels = "hard") -> Floats:
    """Return the reward of each response, higher is better: (N, k), nan where there is none.

    labels: for win rates; ``hard`` counts wins, ``soft`` averages the judge's probabilities.
    """
    if reward == "win_rate":
        return win_rates(feedback.prob_beats, hard=labels == "hard")
    # Either kind of feedback comes as (N, k), see `Feedback.scores`.
    assert feedback.scores is not None, reward
    return feedback.scores


def clipped_policy_gradient(
    policy: Tensor, sampled: Tensor, advantages: Tensor, clip: float, clip_high: float | None = None
) -> Tensor:
    """Return PPO's clipped surrogate (Schulman et al. 1707.06347), negated: a loss per response, or per token.

    min(ratio A, clip(ratio, 1 - clip, 1 + clip_high) A), ratio = exp(policy - sampled). clip_high: another upper range
    (DAPO, Yu et al. 2503.14476); None: ``clip``. policy, sampled: log-probabilities now and when sampled, (B, k) of
    sequences or (B, k, R) of tokens; advantages of a shape that broadcasts -> the shape of policy.
    """
    ratio = torch.exp(policy - sampled)
    # The minimum of both: a ratio that has moved too far the wrong way keeps its gradient back.
    limited = ratio.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    return -torch.minimum(ratio * advantages, limited * advantages)


@dataclass(kw_only=True, eq=False)
class PolicyGradient(Learner):
    """Reinforcement learning on the round's own samples.

    reward: ``win_rate`` within the group of k responses, the judge's direct ``score``, or the ``reward_model``'s.
    labels: for win rates; ``hard`` (each judge contributes its ordering only) or ``soft`` (its probabilities).
    clip, clip_high: how far below and above 1 the probability ratio counts; ``clip_high=None``: the same.
    kl_weight: of the KL to the reference policy. kl_in: ``loss`` (the k3 estimate per token beside the policy loss, as
        in GRPO) or ``reward`` (the log-ratio taken off the reward).
    target_kl: if given, the weight moves between rounds (Ziegler et al. 1909.08593) so that ``train/kl_to_reference``,
        the k3 estimate per response (nats) averaged over the round's batches, comes to it. That one and not
        ``kl/per_sequence``, because it is to the reference that the loss holds on to, and from this round's training.
    horizon: rounds; the weight changes by at most 0.2 / horizon of itself per round.
    no_eos_penalty: taken off the reward of a response that was cut off, before any advantage is formed.
    mask_truncated: leave such responses out of the loss; the baseline of the others still knows their rewards.
    """

    reward: RewardSource = "win_rate"
    labels: Labels = "hard"
    clip: float = 0.2
    clip_high: float | None = None
    kl_weight: float = 0.0
    kl_in: KLPlace = "reward"
    target_kl: float | None = None
    horizon: float = 1.0
    no_eos_penalty: float = 0.0
    mask_truncated: bool = False
    reference: Reference = "previous_round"
    name: str = "policy_gradient"

    def __post_init__(self) -> None:
        super().__init__(self.reference)
        one_of("learner.reward", self.reward, RewardSource)
        one_of("learner.labels", self.labels, Labels)
        one_of("learner.kl_in", self.kl_in, KLPlace)
        if not 0.0 < self.clip < 1.0:
            raise ValueError(f"learner.clip must lie in (0, 1); got {self.clip}")
        if self.clip_high is not None and self.clip_high <= 0:
            raise ValueError(f"learner.clip_high must be positive, or null for the same as clip; got {self.clip_high}")
        for key in ("kl_weight", "no_eos_penalty"):
            if getattr(self, key) < 0:
                raise ValueError(f"learner.{key} must not be negative; got {getattr(self, key)}")
        if self.target_kl is not None and (self.target_kl <= 0 or self.kl_weight == 0):
            raise ValueError(
                "learner.target_kl must be positive, and needs a positive learner.kl_weight to start from; got "
                f"target_kl {self.target_kl}, kl_weight {self.kl_weight}"
            )
        if self.horizon <= 0.2:
            raise ValueError(f"learner.horizon must be more than 0.2 rounds; got {self.horizon}")
        # Without a weight nobody reads it, and a forward pass is saved.
        self.needs_reference = self.kl_weight > 0

    # --- examples -----------------------------------------------------------------------------------------------
    def examples(self, feedback: Feedback) -> list[Example]:
        """Return all k responses of each prompt; the signal is the reward, the penalty for being cut off included.

        Prompts with a response without reward are left out, and so are those from which there is nothing to learn.
        """
        rewards = rewards_of(feedback, self.reward, self.labels)
        # (N, k) bool.
        unfinished = np.array([[not r.finished for r in g.responses] for g in feedback.generations])
        rewards = rewards - self.no_eos_penalty * unfinished
        # A group with a hole has no mean to compare with.
        useful = ~np.isnan(rewards).any(axis=1) & self.teaches(rewards)
        return [
            Example(g.prompt, g.responses, tuple(row.tolist()), feedback.round_index)
            for g, row, keep in zip(feedback.generations, rewards, useful, strict=True)
            if keep
        ]

    def teaches(self, rewards: Floats) -> Any:
        """Return which groups carry a gradient, (N,) bool. With the group's mean as baseline: those whose rewards
        differ, and all of them if a KL does."""
        # Equal rewards have advantages of 0; rounding in the win rates is not a difference.
        return np.full(len(rewards), self.kl_weight > 0) | (np.ptp(rewards, axis=1) > SAME)

    # --- parts of the loss --------------------------------------------------------------------------------------
    def counted(self, batch: Batch) -> Tensor:
        """Return 1 for the responses that are trained on, else 0: (B, n)."""
        kept = batch.finished if self.mask_truncated else torch.ones_like(batch.finished)
        # As a float, since it multiplies losses.
        return kept.to(batch.sampled_logps.dtype)

    def surrogate(self, policy: Tensor, sampled: Tensor, advantages: Tensor) -> Tensor:
        return clipped_policy_gradient(policy, sampled, advantages, self.clip, self.clip_high)

    def kl_loss(self, logps: Tensor, batch: Batch) -> Tensor:
        """Return the weighted k3 estimate of each token, if the KL is part of the loss: (B, n, R)."""
        if self.kl_in == "reward" or self.kl_weight == 0:
            return torch.zeros_like(logps)
        return self.kl_weight * k3(logps, batch.reference_logps)

    def rewards_less_kl(self, logps: Tensor, batch: Batch) -> Tensor:
        """Return rewards, the weighted log-ratio to the reference taken off if the KL is part of them: (B, n).

        It is the log-ratio of the policy as it is by now, not as it was when it sampled: that makes it the gradient of
        the KL all through the round, and not nothing where the reference is the policy that sampled.
        """
        if self.kl_in == "loss" or self.kl_weight == 0:
            return batch.signal
        # Detached: it is a reward, through which no gradient flows; see above for why the current policy's KL is used.
        return batch.signal - self.kl_weight * sequence_logps(logps.detach() - batch.reference_logps)

    def log(self, logps: Tensor, batch: Batch, loss: Tensor, log_ratios: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return scalars that every policy gradient logs. log_ratios, mask: of what is clipped, responses or tokens."""
        # Only over what counts: padding has a ratio of 1, and would dilute the fractions.
        kept = log_ratios.detach()[mask.bool()]
        high = self.clip if self.clip_high is None else self.clip_high
        outside = (kept.exp() < 1 - self.clip) | (kept.exp() > 1 + high)
        logged = {
            "policy_loss": loss.detach(),
            "reward": mean_of(batch.signal),
            # log pi_sampled - log pi of the samples: the k1 estimate of KL(pi_sampled || pi).
            "sampled_kl": mean_of(sequence_logps(batch.sampled_logps - logps)),
            "clip_fraction": mean_of(outside.float()),
        }
        if self.needs_reference:
            logged["kl_to_reference"] = mean_of(sequence_logps(k3(logps.detach(), batch.reference_logps)))
            logged["kl_weight"] = torch.tensor(self.kl_weight)
        return logged

    @abstractmethod
    def weight(self, batch: Batch) -> float: ...

    # --- state --------------------------------------------------------------------------------------------------
    def observe(self, row: Mapping[str, float]) -> None:
        """Move the KL weight towards ``target_kl``."""
        measured = row.get("train/kl_to_reference")
        if self.target_kl is not None and measured is not None:
            # After the round, so that all of its steps were under one weight.
            self.kl_weight = adapted_weight(self.kl_weight, measured, self.target_kl, self.horizon)

    def state_dict(self) -> dict[str, Any]:
        return {"kl_weight": self.kl_weight}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.kl_weight = state["kl_weight"]
