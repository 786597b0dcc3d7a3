"""The critic: a copy of its own, values that do not depend on padding, and what it learns."""

from __future__ import annotations

import copy

import pytest
import torch

from models.test_packed import ragged
from rlaif_lab.learners.ppo import unexplained_variance
from rlaif_lab.models.critic import Critic
from rlaif_lab.models.language_model import LanguageModel, hash_weights
from rlaif_lab.models.packed import Packed, pack


def opinionated(model: LanguageModel, seed: int = 0) -> Critic:
    """One that does not say 0 everywhere."""
    critic = Critic(model, seed)
    with torch.no_grad():
        critic.out.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(1))
    return critic


def test_a_new_critic_says_zero_everywhere(untrained: LanguageModel) -> None:
    batch = pack(*ragged(0), 0)
    values = Critic(untrained, 0).values(batch)
    assert values.shape == batch.response_ids.shape
    assert values.eq(0).all()


def test_values_are_those_of_plain_forward_passes(untrained: LanguageModel) -> None:
    """The value before a token is read where that token is predicted; padding is worth 0."""
    prompts, responses = ragged(1)
    batch = pack(prompts, responses, 0)
    critic = opinionated(untrained)
    values = critic.values(batch)
    assert values[~batch.response_mask].eq(0).all()
    for b, (prompt, group) in enumerate(zip(prompts, responses, strict=True)):
        for i, answer in enumerate(group):
            states = critic.body(input_ids=torch.tensor([[*prompt, *answer]])).last_hidden_state[
                0, len(prompt) - 1 : -1
            ]
            plain = critic.out(torch.tanh(critic.hidden(states))).squeeze(-1)
            torch.testing.assert_close(values[b, i, : len(answer)], plain, atol=1e-5, rtol=1e-4)


def test_a_response_of_its_own_never_changes_a_siblings_values(untrained: LanguageModel) -> None:
    critic = opinionated(untrained)
    one, other = (critic.values(pack([[1, 8, 9, 17]], [[[9, 10, 2], x]], 0))[0, 0] for x in ([7] * 5, [16, 2]))
    torch.testing.assert_close(one[:3], other[:3], atol=1e-6, rtol=0)


def test_the_first_weights_are_decided_by_the_seed_alone(untrained: LanguageModel) -> None:
    state = torch.random.get_rng_state()
    first = hash_weights(Critic(untrained, 3))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(5)
    assert hash_weights(Critic(untrained, 3)) == first
    assert hash_weights(Critic(untrained, 4)) != first


def test_it_is_trainable_and_leaves_the_policy_alone(untrained: LanguageModel) -> None:
    before = untrained.weights_hash()
    critic = opinionated(untrained)
    assert all(p.requires_grad for p in critic.parameters())
    critic.values(pack(*ragged(2), 0)).sum().backward()
    assert sum(p.grad is not None and bool(p.grad.ne(0).any()) for p in critic.body.parameters()) > 10
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.add_(1.0)
    assert untrained.weights_hash() == before
    assert not any(p.requires_grad for p in untrained.network.parameters())


def test_weights_that_are_frozen_in_the_model_are_frozen_in_the_critic(untrained: LanguageModel) -> None:
    """As with adapters: the rest is not trained."""
    network = copy.deepcopy(untrained.network)
    network.model.layers[1].requires_grad_(True)
    critic = Critic(LanguageModel(network, untrained.tokenizer, "partly"), 0)
    assert all(name.startswith("layers.1.") for name, p in critic.body.named_parameters() if p.requires_grad)
    assert critic.out.weight.requires_grad


def test_a_critic_of_bfloat16_weights_says_float32(untrained: LanguageModel) -> None:
    network = copy.deepcopy(untrained.network).to(torch.bfloat16)
    critic = opinionated(LanguageModel(network, untrained.tokenizer, "bf16"))
    exact = opinionated(untrained)
    batch = pack(*ragged(3), 0)
    values = critic.values(batch)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, exact.values(batch), atol=0.05, rtol=0.05)


def openings(seed: int) -> tuple[Packed, torch.Tensor]:
    """Responses that are worth 1 if their first token is one of the lower ones, else 0: (B, n)."""
    prompts, responses = ragged(seed, prompts=64, most=4, longest=6)
    batch = pack([[*prompt, 5] for prompt in prompts], responses, 0)  # 5 marks where the response begins
    return batch, (batch.response_ids[..., 0] < 10).float() * batch.response_mask[..., 0]


@pytest.mark.parametrize("seed", [0, 1])
def test_it_learns_what_a_response_is_going_to_be_worth(untrained: LanguageModel, seed: int) -> None:
    """On responses that it has not seen: before the first token nothing can be known, after it everything."""
    critic = Critic(untrained, seed)
    optimizer = torch.optim.AdamW(critic.parameters(), lr=1e-2, weight_decay=0.0)
    for step in range(100):
        batch, worth = openings(1000 * seed + step)
        error = (critic.values(batch) - worth.unsqueeze(-1)) * batch.response_mask
        loss = (error**2).sum() / batch.response_mask.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    batch, worth = openings(9999)
    with torch.no_grad():
        values = critic.values(batch)
    for t, least, most in ((0, 0.9, 1.2), (1, 0.0, 0.1), (4, 0.0, 0.2)):
        there = batch.response_mask[..., t]
        assert least < unexplained_variance(values[..., t][there], worth[there]) < most, t
