"""How far the policy has moved: KL over the full vocabulary, and entropy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from rlaif_lab.models.language_model import LanguageModel, inference
from rlaif_lab.models.limits import out_of_memory
from rlaif_lab.models.packed import Packed, by_position, fits_at_once, pack, response_logits
from rlaif_lab.records import Generation

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS_AT_ONCE = 2**14
"""Prompts' and responses', in one forward pass of each model."""


def kl_and_entropy(policy_logits: Tensor, base_logits: Tensor, batch: Packed) -> dict[str, Tensor]:
    """Return KL and entropy per response, on the prefixes that the policy itself wrote.

    logits: (B, n, R + 1, V). Returns (B, n) each: ``kl`` = sum over its tokens of KL(policy || base), and
    ``entropy`` = sum over its tokens of the policy's entropy, both in nats; ``tokens`` = their number.
    """
    mask = batch.response_mask
    policy = torch.log_softmax(policy_logits[:, :, :-1].float(), -1)
    base = torch.log_softmax(base_logits[:, :, :-1].float(), -1)
    probabilities = policy.exp()
    # Rounding may lead below 0; the divergence of a position cannot be.
    kl = (probabilities * (policy - base)).sum(-1).clamp(min=0)
    entropy = -(probabilities * policy).sum(-1)
    return {"kl": (kl * mask).sum(-1), "entropy": (entropy * mask).sum(-1), "tokens": mask.sum(-1)}


def divergence(policy: PreTrainedModel, base: PreTrainedModel, batch: Packed) -> dict[str, Tensor]:
    """Return both of them, and the numbers of tokens, (B, n) each; logits exist for some positions at a time."""
    # With few positions the logits are held as they are: one pass of each model.
    if fits_at_once(policy, batch):
        return kl_and_entropy(response_logits(policy, batch), response_logits(base, batch), batch)
    kl, entropy = by_position([policy, base], batch, _at_positions)
    return {"kl": kl.sum(-1), "entropy": entropy.sum(-1), "tokens": batch.response_mask.sum(-1)}


def _at_positions(ids: Tensor, policy_logits: Tensor, base_logits: Tensor) -> tuple[Tensor, Tensor]:
    policy, base = torch.log_softmax(policy_logits.float(), -1), torch.log_softmax(base_logits.float(), -1)
    probabilities = policy.exp()
    kl = (probabilities * (policy - base)).sum(-1).clamp(min=0)
    return kl, -(probabilities * policy).sum(-1)


def divergence_metrics(
    policy: LanguageModel, base: LanguageModel, generations: Sequence[Generation]
) -> dict[str, float]:
    """Return the full-vocabulary KL to the base policy and entropy, on the first sample of each prompt."""
    prompts = policy.encode_prompts([g.prompt for g in generations])
    responses = [g.responses[0].token_ids for g in generations]
    # Prompts are read with the responses, so both count.
    longest = max(len(ids) + len(said) for ids, said in zip(prompts, responses, strict=True))
    batch_size = max(1, min(256, TOKENS_AT_ONCE // longest))
    totals: dict[str, list[float]] = {"kl": [], "entropy": [], "tokens": []}
    for start in range(0, len(generations), batch_size):
        some = slice(start, start + batch_size)
        batch = pack(prompts[some], [[said] for said in responses[some]], policy.pad_id).to(policy.device)
        # The policy's mode and precision; the base is never trained.
        with inference(policy.network), out_of_memory("evaluation.prompts"):
            for name, values in divergence(policy.network, base.network, batch).items():
                totals[name] += values[:, 0].tolist()
    tokens = sum(totals["tokens"])
    return {
        "kl/per_sequence": float(np.mean(totals["kl"])),
        "kl/per_token": sum(totals["kl"]) / tokens,
        "entropy/per_sequence": float(np.mean(totals["entropy"])),
        "entropy/per_token": sum(totals["entropy"]) / tokens,
    }
