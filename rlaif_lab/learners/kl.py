"""Estimates of KL(policy || reference) from the policy's own samples, and a controller of its weight."""

from __future__ import annotations

from torch import Tensor


def k1(policy: Tensor, reference: Tensor) -> Tensor:
    """Return log pi - log pi_ref: unbiased, of either sign. Any shape; nats."""
    return policy - reference


def k3(policy: Tensor, reference: Tensor) -> Tensor:
    """Return pi_ref/pi - log(pi_ref/pi) - 1 (GRPO, Shao et al. 2402.03300, eq. 4): unbiased as well, never negative,
    and of lower variance near the reference. Any shape; nats.

    As a loss on samples of the policy its expected gradient is that of KL(reference || policy), not of
    KL(policy || reference); near the reference they agree.
    """
    difference = reference - policy
    return difference.exp() - difference - 1.0


def adapted_weight(weight: float, measured: float, target: float, horizon: float) -> float:
    """Return the KL weight for the next round: the proportional controller of Ziegler et al. 1909.08593 (section 2.2).

    It grows by the relative error (measured - target) / target, at most 20 % of it either way, divided by ``horizon``
    (in rounds). A measurement that is not a number leaves it as it is.
    """
    # nan is unequal to itself.
    if measured != measured:
        return weight
    # Held to 20 %, so that one odd round does not throw the weight off (Ziegler et al.).
    error = min(max((measured - target) / target, -0.2), 0.2)
    return weight * (1.0 + error / horizon)
