"""How much each token of a batch counts: one rule for every loss that is a mean over tokens or responses."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Normalise = Literal["sequence", "token", "constant"]
"""``sequence``: the mean over responses of each one's mean over its tokens, so that a token of a long response counts
less. ``token``: the mean over all tokens, so that a long response counts more. ``constant``: the sum over a response's
tokens, divided by the same number for all of them, so that neither does (Dr. GRPO, 2503.20783)."""


def token_shares(mask: Tensor, weights: Tensor, normalise: Normalise, divisor: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return what each token counts, and what they count together: (B, n, R) and a scalar.

    The loss of a batch is sum(shares * per_token) / total; a batch cut into parts, each of them weighted by its total,
    has the same. mask: (B, n, R) bool. weights: (B, n), of the responses. divisor: for ``constant``; a response then
    counts as one in the total even if its weight is 0.
    """
    # (B, n, 1) times (B, n, R): padding counts 0.
    shares = weights.unsqueeze(-1) * mask
    if normalise == "constant":
        # The number of responses and not of tokens: the divisor is the same for every batch, whatever its lengths.
        return shares / divisor, shares.new_tensor(float(weights.numel()))
    if normalise == "sequence":
        # Each response counts by its weight, spread over its tokens.
        shares = shares / mask.sum(-1, keepdim=True).clamp(min=1)
    return shares, shares.sum()


def shared_mean(per_token: Tensor, shares: Tensor, total: Tensor) -> Tensor:
    """Return sum(shares * per_token) / total; 0 where nothing counts. Shapes: (B, n, R) twice, () -> ()."""
    # Where nothing counts, the numerator is 0 as well.
    return (shares * per_token).sum() / total.where(total > 0, 1.0)
