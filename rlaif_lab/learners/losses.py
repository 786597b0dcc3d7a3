"""Losses on preferences as pure functions of log-probabilities, one number per pair (KTO: per response).

h = log-ratio(chosen) - log-ratio(rejected), where a log-ratio is log pi(y|x) - log pi_ref(y|x), in nats.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def preference_logits(policy: Tensor, reference: Tensor) -> Tensor:
    """Return h from sequence log-probabilities, chosen in column 0 and rejected in column 1. Shapes: (B, 2), (B, 2) ->
    (B,)."""
    ratios = policy - reference
    return ratios[:, 0] - ratios[:, 1]


def dpo(h: Tensor, beta: float, prob_chosen_wins: Tensor | None = None) -> Tensor:
    """Return the loss of DPO (Rafailov et al. 2305.18290): -log sigmoid(beta h), per pair. Shapes: (B,) -> (B,).

    With ``prob_chosen_wins`` (B,) in [0, 1] the label is soft (conservative DPO, Mitchell 2023):
    -(p log sigmoid(beta h) + (1 - p) log sigmoid(-beta h)), least at beta h = logit(p).
    """
    if prob_chosen_wins is None:
        return -logsigmoid(beta * h)
    return -prob_chosen_wins * logsigmoid(beta * h) - (1 - prob_chosen_wins) * logsigmoid(-beta * h)


def smoothed(prob_chosen_wins: Tensor, label_smoothing: float) -> Tensor:
    """Return the probability that the chosen one is better when a label is flipped with probability ``label_smoothing``
    (conservative DPO's epsilon). Shapes: (B,) -> (B,)."""
    return prob_chosen_wins * (1 - label_smoothing) + (1 - prob_chosen_wins) * label_smoothing


def robust_dpo(h: Tensor, beta: float, label_noise: float) -> Tensor:
    """Return the loss of robust DPO (Chowdhury et al. 2403.00409): an unbiased estimate of DPO's loss on clean labels
    from labels that were flipped with probability eps = ``label_noise`` < 1/2. Shapes: (B,) -> (B,).

    (-(1 - eps) log sigmoid(beta h) + eps log sigmoid(-beta h)) / (1 - 2 eps)

    Where conservative DPO holds back, this one makes up for the flips: it falls without bound as h grows.
    """
    correct, flipped = -logsigmoid(beta * h), -logsigmoid(-beta * h)
    # The weights make the expectation over flips that of clean labels; they add up to 1.
    return ((1 - label_noise) * correct - label_noise * flipped) / (1 - 2 * label_noise)


def ipo(h: Tensor, tau: float) -> Tensor:
    """Return the loss of IPO (Azar et al. 2310.12036, eq. 17): (h - 1 / (2 tau))^2, a target for h where DPO has none.
    Shapes: (B,) -> (B,)."""
    return (h - 1 / (2 * tau)) ** 2


def hinge(h: Tensor, beta: float) -> Tensor:
    """Return the hinge loss: max(0, 1 - beta h). Shapes: (B,) -> (B,).

    On log-ratios it is the normalised hinge of Liu et al. 2309.06657. On the difference of the policy's own
    log-probabilities it is SLiC's calibration loss max(0, delta - log pi(chosen) + log pi(rejected)) of Zhao et al.
    2305.10425, divided by its margin delta = 1 / beta.
    """
    return torch.relu(1 - beta * h)


def simpo(difference: Tensor, beta: float, margin: float) -> Tensor:
    """Return the loss of SimPO (Meng et al. 2405.14734, eq. 6): -log sigmoid(beta d - gamma), gamma = ``margin``.
    Shapes: (B,) -> (B,).

    difference: d, log-probability per token of the chosen response minus that of the rejected one, without reference.
    """
    return -logsigmoid(beta * difference - margin)


def log_odds_ratio(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return the log of odds(chosen) / odds(rejected), odds(y) = P(y) / (1 - P(y)). Shapes: (B,), (B,) -> (B,).

    chosen, rejected: log-probability per token, so that P is the geometric mean over a response's tokens.
    """
    # log odds(c) - log odds(r); log P - log(1 - P) for each, in logarithms throughout.
    return (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))


def orpo(chosen: Tensor, rejected: Tensor) -> Tensor:
    """Return the odds ratio term of ORPO (Hong et al. 2403.07691, eq. 7): -log sigmoid(log_odds_ratio). The whole loss
    is the chosen response's negative log-likelihood plus lambda times this. Shapes: (B,), (B,) -> (B,)."""
    return -logsigmoid(log_odds_ratio(chosen, rejected))


def kto(
    log_ratios: Tensor,
    desirable: Tensor,
    reference_point: Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Return the loss of KTO (Ethayarajh et al. 2402.01306), a loss per response. Shapes: (B,), (B,) bool, () -> (B,).

    lambda_D (1 - sigmoid(beta (r - z))) for a desirable response, lambda_U (1 - sigmoid(beta (z - r))) for an
    undesirable one, with r = ``log_ratios`` (nats per response) and z = ``reference_point``, taken as a constant.
    """
    # Detached: z moves the loss, and is not moved by it.
    gain = beta * (log_ratios - reference_point.detach())
    return torch.where(desirable, desirable_weight * torch.sigmoid(-gain), undesirable_weight * torch.sigmoid(gain))


def kto_reference_point(log_ratios: Tensor, drift: Tensor) -> Tensor:
    """Return z of KTO: an estimate of KL(pi || pi_ref), at least 0 and detached. Shapes: (B,), (B,) -> ().

    log_ratios: log pi - log pi_ref of responses drawn from the weights that sampled. drift: log pi - log pi_sampled of
    the same. The mean over pi's own responses is estimated with self-normalised importance weights exp(drift); without
    drift it is the plain mean of the log-ratios.
    """
    # Softmax of the drift: importance weights that add up to 1 over the batch, not over the population.
    weights = torch.softmax(drift.detach(), 0)
    return (weights * log_ratios.detach()).sum().clamp(min=0)


def _log1mexp(x: Tensor) -> Tensor:
    """Return log(1 - e^x) for x < 0, without cancellation. x is kept off 0, where a certain response has infinite
    odds."""
    # At x = 0, P = 1 and its odds are infinite.
    x = x.clamp(max=-torch.finfo(x.dtype).eps)
    small = torch.log1p(-torch.exp(x))
    near_zero = torch.log(-torch.expm1(x))
    # Each branch is exact where it is used (Maechler 2012); they meet at -log 2.
    return torch.where(x < -0.6931, small, near_zero)
