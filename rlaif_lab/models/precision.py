"""What a model computes in: one autocast context for all that reads it, and what this processor can do."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from torch import nn

MIXED = ("bf16-mixed", "bf16")
"""Lightning's names for float32 weights that are computed with in bfloat16."""
_COMPUTES_IN = "_computes_in"


@functools.cache
def has_bfloat16_units() -> bool:
    """Tell whether the CPU multiplies bfloat16 in hardware (AVX512_BF16, AMX, or Arm's). Without, torch falls back to
    a path that is some ten times slower than float32."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return any("bf16" in name and value is True for name, value in capabilities.items())


def has_accelerator() -> bool:
    """Tell whether anything but a CPU is here to compute on."""
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def bfloat16_is_slow_here() -> bool:
    """Tell whether bfloat16 would have to be computed on a processor without units for it."""
    return not has_accelerator() and not has_bfloat16_units()


def check_precision(precision: str, accelerator: str) -> None:
    """Raise ValueError for a trainer's bfloat16 on a processor that has no units for it."""
    on_cpu = accelerator == "cpu" or (accelerator == "auto" and not has_accelerator())
    if precision.startswith("bf16") and on_cpu and not has_bfloat16_units():
        raise ValueError(
            f"trainer.precision={precision} is some ten times slower than float32 on this processor, which has no "
            "units for bfloat16; use trainer.precision=32-true"
        )


def compute_in(network: nn.Module, dtype: torch.dtype | None) -> None:
    """Have everything that reads ``network`` compute in ``dtype``, whatever its weights are in; None: in theirs. Copies
    of the network, and its body by itself, keep to it."""
    # The body too, as it is called by itself where only states are wanted.
    for module in {network, *_inner(network)}:
        setattr(module, _COMPUTES_IN, dtype)


def set_precision(network: nn.Module, precision: str) -> None:
    """Have everything that reads ``network`` compute as a trainer of this precision (Lightning's name) trains it."""
    import torch

    # Weights stay float32, so that small updates are not rounded away.
    if precision in MIXED:
        compute_in(network, torch.bfloat16)
    elif precision == "bf16-true":
        network.to(torch.bfloat16)


def _inner(network: Any) -> Iterator[nn.Module]:
    plain = network.get_base_model() if hasattr(network, "get_base_model") else network
    yield plain
    if hasattr(plain, "base_model"):
        yield plain.base_model


def computed_dtype(network: nn.Module) -> torch.dtype:
    """Return the dtype in which a forward pass of this network computes now."""
    import torch

    parameter = next(network.parameters())
    if (dtype := getattr(network, _COMPUTES_IN, None)) is not None:
        return dtype
    if torch.is_autocast_enabled(parameter.device.type):
        return torch.get_autocast_dtype(parameter.device.type)
    return parameter.dtype


@contextlib.contextmanager
def computing(network: nn.Module) -> Iterator[None]:
    """Compute as ``compute_in`` has set for this network: in the same precision when it samples, judges, is evaluated,
    serves as reference and is trained, so that their log-probabilities differ by what its weights have changed."""
    import torch

    dtype = getattr(network, _COMPUTES_IN, None)
    if dtype is None:
        yield
        return
    device = next(network.parameters()).device.type
    # Within a context that is open already, a weight cast here without gradients would be kept for a pass that needs
    # them.
    keep = not torch.is_autocast_enabled(device) or torch.is_grad_enabled()
    with torch.autocast(device, dtype=dtype, cache_enabled=keep and torch.is_autocast_cache_enabled()):
        yield


@contextlib.contextmanager
def inference(network: nn.Module) -> Iterator[None]:
    """Put the network into eval mode without gradients for the block, computing as ``compute_in`` has set, and back
    into its own mode afterwards. (``inference_mode`` would make tensors that cannot be trained on.)"""
    import torch

    was_training = network.training
    if was_training:
        network.eval()
    try:
        with torch.no_grad(), computing(network):
            yield
    finally:
        if was_training:
            network.train()
