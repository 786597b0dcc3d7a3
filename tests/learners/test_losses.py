"""The losses against arithmetic written out."""

from __future__ import annotations

import math

import pytest
import torch

from rlaif_lab.learners.losses import clipped_policy_gradient, dpo, preference_logits, rloo_advantages


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_preference_logits_by_hand() -> None:
    policy = torch.tensor([[-1.0, -2.0], [-3.0, -1.5]])
    reference = torch.tensor([[-1.5, -1.0], [-3.0, -1.0]])
    # (-1 + 1.5) - (-2 + 1) = 1.5; (-3 + 3) - (-1.5 + 1) = 0.5
    assert preference_logits(policy, reference).tolist() == [1.5, 0.5]


@pytest.mark.parametrize("h", [-3.0, 0.0, 1.5])
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_dpo_by_hand(h: float, beta: float) -> None:
    assert dpo(torch.tensor([h]), beta).item() == pytest.approx(softplus(-beta * h), rel=1e-6)


@pytest.mark.parametrize(("h", "beta", "p"), [(1.5, 0.1, 0.8), (-2.0, 0.5, 0.6), (0.0, 1.0, 0.9), (3.0, 0.1, 0.5)])
def test_soft_labels_by_hand(h: float, beta: float, p: float) -> None:
    expected = p * softplus(-beta * h) + (1 - p) * softplus(beta * h)
    assert dpo(torch.tensor([h]), beta, torch.tensor([p])).item() == pytest.approx(expected, rel=1e-6)


def test_at_the_reference_the_loss_is_ln_2_and_its_slope_half_beta() -> None:
    h = torch.zeros(1, requires_grad=True)
    loss = dpo(h, 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert h.grad is not None
    assert h.grad.item() == pytest.approx(-0.05)


def test_a_certain_soft_label_is_a_hard_one_and_an_even_one_pulls_to_zero() -> None:
    h = torch.tensor([-2.0, 0.3, 4.0], requires_grad=True)
    torch.testing.assert_close(dpo(h, 0.3, torch.ones(3)), dpo(h, 0.3))
    dpo(h, 0.3, torch.full((3,), 0.5)).sum().backward()
    assert h.grad is not None
    assert h.grad.sign().tolist() == [-1.0, 1.0, 1.0]


def test_soft_labels_are_least_at_the_logit_of_the_label() -> None:
    h = torch.tensor([math.log(0.8 / 0.2) / 0.5], requires_grad=True)
    dpo(h, 0.5, torch.tensor([0.8])).sum().backward()
    assert h.grad is not None
    assert h.grad.item() == pytest.approx(0.0, abs=1e-7)


def test_dpo_stays_finite_far_out() -> None:
    h = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = dpo(h, 1.0)
    loss.sum().backward()
    assert loss.tolist() == [1e4, 0.0]
    assert h.grad is not None
    assert h.grad.tolist() == [-1.0, 0.0]


# --- RLOO -----------------------------------------------------------------------------------------------------------
def test_leave_one_out_advantages_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.5], [2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 3.0]])
    expected = [[2 / 3, -2 / 3, 0.0, 0.0], [0.0] * 4, [-1.0, -1.0, -1.0, 3.0]]  # each minus the mean of the other three
    torch.testing.assert_close(rloo_advantages(rewards), torch.tensor(expected))


@pytest.mark.parametrize("k", [2, 3, 8])
def test_advantages_are_rewards_minus_the_others_mean_and_sum_to_zero(k: int) -> None:
    rewards = torch.randn(50, k, generator=torch.Generator().manual_seed(k))
    made = rloo_advantages(rewards)
    others = torch.stack([rewards[:, [j for j in range(k) if j != i]].mean(1) for i in range(k)], 1)
    torch.testing.assert_close(made, rewards - others, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made.sum(1), torch.zeros(50), atol=1e-5, rtol=0)
    torch.testing.assert_close(rloo_advantages(rewards + 7.0), made, atol=1e-5, rtol=0)


# --- clip -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),  # within the range: the policy gradient itself
        (1.5, 2.0, -2.4, 0.0),  # already raised enough: no more of it
        (0.5, 2.0, -1.0, -1.0),  # wrongly lowered: pulled back however far
        (0.9, -2.0, 1.8, 1.8),
        (0.5, -2.0, 1.6, 0.0),  # already lowered enough
        (1.5, -2.0, 3.0, 3.0),  # wrongly raised
        (1.3, 0.0, 0.0, 0.0),
    ],
)
def test_the_clipped_surrogate_by_hand(ratio: float, advantage: float, loss: float, slope: float) -> None:
    """Slope with respect to the log-probability: -ratio x advantage where it is not clipped."""
    policy = torch.tensor([[math.log(ratio)]], requires_grad=True)
    value = clipped_policy_gradient(policy, torch.zeros(1, 1), torch.tensor([[advantage]]), 0.2)
    value.sum().backward()
    assert value.item() == pytest.approx(loss, rel=1e-6)
    assert policy.grad is not None
    assert policy.grad.item() == pytest.approx(slope, rel=1e-6)
