"""The Bradley-Terry loss of a reward model, as a pure function of rewards."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def bradley_terry(
    chosen_rewards: Tensor,
    rejected_rewards: Tensor,
    prob_chosen_wins: Tensor | None = None,
    margin: Tensor | float = 0.0,
    label_smoothing: float = 0.0,
    centring: float = 0.0,
) -> Tensor:
    """Return the negative log-likelihood (nats) of a preference under P(chosen wins) = sigmoid(r_c - r_r), per pair.

    Shapes: (P,), (P,) -> (P,); ``prob_chosen_wins`` (P,) in [0, 1], None: 1; ``margin`` a number or (P,), >= 0.

        -q log sigmoid(r_c - r_r - margin) - (1 - q) log sigmoid(r_r - r_c - margin) + centring (r_c + r_r)^2

    The model is Bradley and Terry's (1952), fitted to responses by Christiano et al. (1706.03741) and Ouyang et al.
    (2203.02155). q is the label after smoothing: a label is the other way round with probability ``label_smoothing``,
    q = p (1 - s) + (1 - p) s. margin: whichever wins must win by so much (Touvron et al. 2307.09288, there for q = 1).
    centring: the differences leave a constant per prompt free, which this pulls to 0 (Eisenstein et al. 2312.09244).
    Exchanging chosen and rejected, with 1 - p for p, changes nothing.
    """
    difference = chosen_rewards - rejected_rewards
    p = torch.ones_like(difference) if prob_chosen_wins is None else prob_chosen_wins
    q = p * (1.0 - label_smoothing) + (1.0 - p) * label_smoothing
    # logsigmoid and not the log of a sigmoid: finite even for rewards that are far apart.
    likelihood = q * logsigmoid(difference - margin) + (1.0 - q) * logsigmoid(-difference - margin)
    return centring * (chosen_rewards + rejected_rewards).square() - likelihood
