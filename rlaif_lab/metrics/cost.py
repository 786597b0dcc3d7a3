"""What a round costs in floating point operations, by the usual rule of thumb (Kaplan et al. 2001.08361)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module


def forward_flops(parameters: int, tokens: float) -> float:
    """Reading or writing ``tokens`` tokens: a multiplication and an addition per parameter, 2 N T."""
    return 2.0 * parameters * tokens


def training_flops(parameters: int, trainable: int, tokens: float) -> float:
    """Forward and backward over ``tokens`` tokens: 2 N T forward, 2 N T for the gradients that pass through and
    2 N' T for those of the N' parameters that are trained; 6 N T where all are."""
    assert 0 <= trainable <= parameters
    return (4.0 * parameters + 2.0 * trainable) * tokens


def parameter_count(network: Module) -> tuple[int, int]:
    """(all, those that are trained)."""
    counts = [(p.numel(), p.requires_grad) for p in network.parameters()]
    return sum(n for n, _ in counts), sum(n for n, trained in counts if trained)
