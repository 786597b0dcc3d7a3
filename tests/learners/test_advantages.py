"""Advantages against arithmetic written out."""

from __future__ import annotations

import math

import pytest
import torch

from rlaif_lab.learners.advantages import gae, grpo_advantages, rloo_advantages, terminal_rewards, whitened


def rewards_like(k: int) -> torch.Tensor:
    return torch.randn(50, k, generator=torch.Generator().manual_seed(k))


# --- within the group -----------------------------------------------------------------------------------------------
def test_leave_one_out_advantages_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.5], [2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 3.0]])
    expected = [[2 / 3, -2 / 3, 0.0, 0.0], [0.0] * 4, [-1.0, -1.0, -1.0, 3.0]]  # each minus the mean of the other three
    torch.testing.assert_close(rloo_advantages(rewards), torch.tensor(expected))


@pytest.mark.parametrize("k", [2, 3, 8])
def test_leave_one_out_is_the_reward_minus_the_others_mean(k: int) -> None:
    rewards = rewards_like(k)
    made = rloo_advantages(rewards)
    others = torch.stack([rewards[:, [j for j in range(k) if j != i]].mean(1) for i in range(k)], 1)
    torch.testing.assert_close(made, rewards - others, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(made.sum(1), torch.zeros(50), atol=1e-5, rtol=0)
    torch.testing.assert_close(rloo_advantages(rewards + 7.0), made, atol=1e-5, rtol=0)


def test_grpo_advantages_by_hand() -> None:
    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.5], [0.0, 0.0, 0.0, 3.0]])
    deviations = [math.sqrt(0.5 / 3), math.sqrt((3 * 0.75**2 + 2.25**2) / 3)]
    expected = [[0.5, -0.5, 0.0, 0.0], [-0.75, -0.75, -0.75, 2.25]]
    torch.testing.assert_close(grpo_advantages(rewards, "none"), torch.tensor(expected))
    scaled = [[a / (s + 1e-4) for a in row] for row, s in zip(expected, deviations, strict=True)]
    torch.testing.assert_close(grpo_advantages(rewards, "std"), torch.tensor(scaled))


def test_equal_rewards_have_no_advantage_however_they_are_scaled() -> None:
    rewards = torch.tensor([[0.1 + 0.2, 0.3, 0.3, 0.3]], dtype=torch.float64)  # equal but for rounding
    assert grpo_advantages(rewards, "std").abs().max() < 1e-9
    assert rloo_advantages(rewards).abs().max() < 1e-9


@pytest.mark.parametrize("k", [2, 4, 7])
def test_grpo_with_deviation_does_not_see_the_scale_of_the_rewards_and_without_it_is_rloo_but_for_a_factor(
    k: int,
) -> None:
    rewards = rewards_like(k)
    torch.testing.assert_close(grpo_advantages(1000 * rewards + 3), grpo_advantages(1e4 * rewards), atol=1e-2, rtol=0)
    torch.testing.assert_close(grpo_advantages(rewards, "none") * k / (k - 1), rloo_advantages(rewards))


# --- along the response ---------------------------------------------------------------------------------------------
MASK = torch.tensor([[[True, True, True], [True, False, False]]])


def test_the_reward_comes_with_the_last_token() -> None:
    made = terminal_rewards(torch.tensor([[2.0, -1.0]]), MASK)
    assert made.tolist() == [[[0.0, 0.0, 2.0], [-1.0, 0.0, 0.0]]]


def test_an_empty_response_gets_no_reward() -> None:
    assert terminal_rewards(torch.tensor([[2.0]]), torch.zeros(1, 1, 3).bool()).eq(0).all()


def test_gae_by_hand() -> None:
    rewards = torch.tensor([[[0.1, 0.0, 1.0], [0.5, 9.0, 9.0]]])
    values = torch.tensor([[[0.2, 0.4, 0.6], [0.3, 9.0, 9.0]]])  # what stands on padding must not matter
    gamma, lam = 0.9, 0.8
    third = 1.0 - 0.6
    second = (0.0 + 0.9 * 0.6 - 0.4) + 0.72 * third
    first = (0.1 + 0.9 * 0.4 - 0.2) + 0.72 * second
    expected = torch.tensor([[[first, second, third], [0.5 - 0.3, 0.0, 0.0]]])
    torch.testing.assert_close(gae(rewards, values, MASK, gamma, lam), expected)


def random_episode() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(6) < torch.randint(1, 7, (4, 3, 1), generator=generator)
    rewards, values = (torch.randn(4, 3, 6, generator=generator) * mask for _ in range(2))
    return rewards, values, mask


def test_gae_with_lambda_1_is_the_return_minus_the_value() -> None:
    rewards, values, mask = random_episode()
    to_go = rewards.flip(-1).cumsum(-1).flip(-1)
    torch.testing.assert_close(gae(rewards, values, mask, 1.0, 1.0), (to_go - values) * mask)


def test_gae_with_lambda_0_is_the_one_step_error() -> None:
    rewards, values, mask = random_episode()
    after = torch.cat([values[..., 1:], torch.zeros(4, 3, 1)], -1)
    torch.testing.assert_close(gae(rewards, values, mask, 0.9, 0.0), (rewards + 0.9 * after - values) * mask)


def test_a_critic_that_knows_the_return_leaves_no_advantage() -> None:
    rewards, _, mask = random_episode()
    values = rewards.flip(-1).cumsum(-1).flip(-1) * mask
    for lam in (0.0, 0.5, 1.0):
        torch.testing.assert_close(gae(rewards, values, mask, 1.0, lam), torch.zeros(4, 3, 6), atol=1e-5, rtol=0)


def test_whitening_by_hand() -> None:
    made = whitened(torch.tensor([[[1.0, 3.0, 50.0], [5.0, 50.0, 50.0]]]), torch.tensor([[[1, 1, 0], [1, 0, 0]]]))
    deviation = math.sqrt(8 / 3)
    torch.testing.assert_close(made, torch.tensor([[[-2 / deviation, 0.0, 0.0], [2 / deviation, 0.0, 0.0]]]))
    assert whitened(torch.ones(2, 3), torch.zeros(2, 3)).eq(0).all()
