"""How far the policy has moved: KL over the full vocabulary, and entropy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rlaif_lab.models.language_model import LanguageModel, inference
from rlaif_lab.models.packed import Packed, pack, response_logits
from rlaif_lab.records import Generation

LOGITS_AT_ONCE = 2**26  # of each model: a quarter of a GB in float32


def kl_and_entropy(policy_logits: Tensor, base_logits: Tensor, batch: Packed) -> dict[str, Tensor]:
    """Per response, on the prefixes that the policy itself wrote.

    logits: (B, n, R + 1, V). Returns (B, n) each: ``kl`` = sum over its tokens of KL(policy || base), and
    ``entropy`` = sum over its tokens of the policy's entropy, both in nats; ``tokens`` = their number.
    """
    mask = batch.response_mask
    policy = torch.log_softmax(policy_logits[:, :, :-1].float(), -1)
    base = torch.log_softmax(base_logits[:, :, :-1].float(), -1)
    probabilities = policy.exp()
    kl = (probabilities * (policy - base)).sum(-1).clamp(min=0)
    entropy = -(probabilities * policy).sum(-1)
    return {"kl": (kl * mask).sum(-1), "entropy": (entropy * mask).sum(-1), "tokens": mask.sum(-1)}


def divergence_metrics(
    policy: LanguageModel, base: LanguageModel, generations: Sequence[Generation]
) -> dict[str, float]:
    """Full-vocabulary KL to the base policy and entropy, on the first sample of each prompt."""
    longest = max(len(g.responses[0].token_ids) for g in generations) + 1
    vocabulary = policy.network.config.get_text_config().vocab_size
    batch_size = max(1, min(256, LOGITS_AT_ONCE // (longest * vocabulary)))
    totals: dict[str, list[float]] = {"kl": [], "entropy": [], "tokens": []}
    for start in range(0, len(generations), batch_size):
        some = generations[start : start + batch_size]
        prompts = policy.encode_prompts([g.prompt for g in some])
        batch = pack(prompts, [[g.responses[0].token_ids] for g in some], policy.pad_id).to(policy.device)
        with inference(policy.network):
            now, then = response_logits(policy.network, batch), response_logits(base.network, batch)
        for name, values in kl_and_entropy(now, then, batch).items():
            totals[name] += values[:, 0].tolist()
    tokens = sum(totals["tokens"])
    return {
        "kl/per_sequence": float(np.mean(totals["kl"])),
        "kl/per_token": sum(totals["kl"]) / tokens,
        "entropy/per_sequence": float(np.mean(totals["entropy"])),
        "entropy/per_token": sum(totals["entropy"]) / tokens,
    }
