"""KL and entropy over the full vocabulary."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import RAGGED_PROMPTS, prompts_of

from rlaif_lab.metrics import divergence
from rlaif_lab.metrics.divergence import divergence_metrics, kl_and_entropy
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.packed import pack
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import sample


def test_kl_and_entropy_by_hand() -> None:
    """Two responses of one and two tokens; what stands on the padding and after the end must not count."""
    batch = pack([[1]], [[[5], [5, 6]]], 0)
    p, q, uniform = [0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [1 / 3] * 3
    far = [0.998, 0.001, 0.001]
    policy = torch.log(torch.tensor([[[p, far, far], [p, uniform, far]]]))
    base = torch.log(torch.tensor([[[q, uniform, uniform], [q, p, uniform]]]))
    made = kl_and_entropy(policy + 3.0, base - 1.0, batch)  # logits need not be normalised
    first = 0.5 * math.log(2) + 0.25 * math.log(1) + 0.25 * math.log(0.5)
    second = (math.log(2 / 3) + 2 * math.log(4 / 3)) / 3
    entropies = 1.5 * math.log(2), math.log(3)
    assert made["kl"][0].tolist() == pytest.approx([first, first + second], abs=1e-6)
    assert made["entropy"][0].tolist() == pytest.approx([entropies[0], sum(entropies)], abs=1e-6)
    assert made["tokens"].tolist() == [[1, 2]]


def test_kl_to_oneself_is_zero(organism: LanguageModel) -> None:
    generations = sample(organism, prompts_of(RAGGED_PROMPTS), SamplingConfig(k=2), 6, 0)
    made = divergence_metrics(organism, organism, generations)
    assert made["kl/per_sequence"] == made["kl/per_token"] == 0.0
    assert made["entropy/per_sequence"] > 0


def test_full_vocabulary_kl_agrees_with_the_mean_log_ratio_of_samples(
    organism: LanguageModel, untrained: LanguageModel
) -> None:
    """KL(policy || base) = E[log pi - log pi_0] and entropy = -E[log pi], over the policy's own samples."""
    n = 4000
    prompts = [type(p)(f"{i}", p.text) for i in range(n) for p in prompts_of(["12+34="])]
    generations = sample(organism, prompts, SamplingConfig(k=1), 4, 0)
    made = divergence_metrics(organism, untrained, generations)
    own = np.array([sum(g.responses[0].logps) for g in generations])
    batch = pack(organism.encode_prompts(["12+34="] * n), [[g.responses[0].token_ids] for g in generations], 0)
    from rlaif_lab.models.packed import response_logps

    base = response_logps(untrained.network, batch)[:, 0].sum(-1).numpy()
    for measured, draws in ((made["kl/per_sequence"], own - base), (made["entropy/per_sequence"], -own)):
        assert measured == pytest.approx(draws.mean(), abs=4 * draws.std() / np.sqrt(n))
    tokens = np.mean([len(g.responses[0].token_ids) for g in generations])
    assert made["kl/per_token"] == pytest.approx(made["kl/per_sequence"] / tokens)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_batching_does_not_change_divergence(
    organism: LanguageModel, untrained: LanguageModel, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generations = sample(organism, prompts_of(RAGGED_PROMPTS), SamplingConfig(k=1), 6, 0)
    whole = divergence_metrics(organism, untrained, generations)
    prompts = organism.encode_prompts([g.prompt for g in generations])
    longest = max(len(ids) + len(g.responses[0].token_ids) for ids, g in zip(prompts, generations, strict=True))
    monkeypatch.setattr(divergence, "TOKENS_AT_ONCE", batch_size * longest)
    assert divergence_metrics(organism, untrained, generations) == pytest.approx(whole, rel=1e-4)
