"""Losses on preferences as pure functions of log-probabilities. h = log-ratio(chosen) - log-ratio(rejected)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def preference_logits(policy: Tensor, reference: Tensor) -> Tensor:
    """h: sequence log-probabilities, chosen in column 0 and rejected in column 1. Shapes: (B, 2), (B, 2) -> (B,)."""
    ratios = policy - reference
    return ratios[:, 0] - ratios[:, 1]


def dpo(h: Tensor, beta: float, prob_chosen_wins: Tensor | None = None) -> Tensor:
    """DPO (Rafailov et al. 2305.18290): -log sigmoid(beta h), per pair. Shapes: (B,) -> (B,).

    With ``prob_chosen_wins`` (B,) in [0, 1] the label is soft (cDPO, Mitchell 2023):
    -(p log sigmoid(beta h) + (1 - p) log sigmoid(-beta h)).
    """
    if prob_chosen_wins is None:
        return -logsigmoid(beta * h)
    return -prob_chosen_wins * logsigmoid(beta * h) - (1 - prob_chosen_wins) * logsigmoid(-beta * h)


def rloo_advantages(rewards: Tensor) -> Tensor:
    """Leave-one-out advantages (Ahmadian et al. 2402.14740): reward minus the mean of the others'.

    Shapes: (B, k) -> (B, k), k >= 2.
    """
    k = rewards.shape[1]
    return (rewards - rewards.mean(1, keepdim=True)) * (k / (k - 1))


def clipped_policy_gradient(policy: Tensor, sampled: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """PPO's clipped surrogate (Schulman et al. 1707.06347) on whole responses, negated: a loss per response.

    policy, sampled: sequence log-probabilities now and when sampled (B, k); advantages (B, k) -> (B, k).
    """
    ratio = torch.exp(policy - sampled)
    return -torch.minimum(ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages)
