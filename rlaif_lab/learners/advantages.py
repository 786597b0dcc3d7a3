"""Advantages from rewards, as pure functions."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Scale = Literal["std", "none"]
"""Whether a group's advantages are divided by the standard deviation of its rewards."""

# Keeps a group of equal rewards at 0, where the division would be 0 / 0.
_STD_FLOOR = 1e-4


def rloo_advantages(rewards: Tensor) -> Tensor:
    """Return leave-one-out advantages (Ahmadian et al. 2402.14740): reward minus the mean of the others'.

    Shapes: (B, k) -> (B, k), k >= 2.
    """
    k = rewards.shape[1]
    # r - mean of the others = (r - mean of all) k / (k - 1): no gather over k - 1 others is needed.
    return (rewards - rewards.mean(1, keepdim=True)) * (k / (k - 1))


def grpo_advantages(rewards: Tensor, scale: Scale = "std") -> Tensor:
    """Return the reward minus the group's mean, over the group's standard deviation (GRPO, Shao et al. 2402.03300).

    ``scale="none"`` leaves the division out, which otherwise gives very easy and very hard prompts the weight of the
    others (Dr. GRPO, Liu et al. 2503.20783). The deviation is the sample's (k - 1 degrees of freedom) plus 1e-4.
    Shapes: (B, k) -> (B, k), k >= 2.
    """
    centred = rewards - rewards.mean(1, keepdim=True)
    return centred if scale == "none" else centred / (rewards.std(1, keepdim=True) + _STD_FLOOR)


def terminal_rewards(rewards: Tensor, mask: Tensor) -> Tensor:
    """Return each response's reward at its last token, 0 elsewhere. Shapes: (B, n), (B, n, R) bool -> (B, n, R)."""
    # The last true of each row: true here, and not true one to the right.
    last = mask & ~torch.cat([mask[..., 1:], torch.zeros_like(mask[..., :1])], dim=-1)
    return rewards.unsqueeze(-1) * last


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> Tensor:
    """Return generalised advantage estimates (Schulman et al. 1506.02438), 0 on padding.

    A_t = d_t + gamma lam A_{t+1}, d_t = r_t + gamma V_{t+1} - V_t. A response ends the episode, whether it was finished
    or cut off: the state after its last token is worth 0. Shapes: (B, n, R) each, the mask bool and padded right.
    """
    values = values * mask
    # V of the next state; 0 after the last token, where the episode ends.
    after = torch.cat([values[..., 1:], torch.zeros_like(values[..., :1])], dim=-1)
    deltas = (rewards + gamma * after - values) * mask
    advantages = torch.zeros_like(deltas)
    later = torch.zeros_like(deltas[..., 0])
    # From the last token backwards, as each estimate holds the one after it.
    for t in reversed(range(deltas.shape[-1])):
        later = deltas[..., t] + gamma * lam * later
        advantages[..., t] = later
    return advantages


def whitened(advantages: Tensor, mask: Tensor) -> Tensor:
    """Return advantages of mean 0 and standard deviation 1 over the tokens that count, 0 on the others. Any shape."""
    count = mask.sum().clamp(min=1)
    mean = (advantages * mask).sum() / count
    centred = (advantages - mean) * mask
    # 1e-8 under the root: advantages that are all equal become 0.
    return centred / ((centred**2).sum() / count + 1e-8).sqrt()
