"""How far the policy has moved: KL over the full vocabulary, and entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from rlaif_lab.models.packed import Packed


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
