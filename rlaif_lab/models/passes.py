"""By which forward pass a model may be read: established by trying it, never assumed from a configuration.

Packing, shared prefixes and caches with padding are right for attention that looks where its mask says. They are wrong
for recurrent and convolutional layers, for ALiBi, for windows that a mask given from outside switches off, and for
whatever comes next. So a small batch is put to the model in every way and compared with one plain pass per sequence.
The batch is as wide as the rows that are to be computed, rounded up to a power of two, so that every limit that the
model has within that width is reached; a wider batch is tried anew, before it is computed.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor

from rlaif_lab.models.limits import positions
from rlaif_lab.models.packing import pack, packed_states
from rlaif_lab.models.plain import head, row_logits, row_states
from rlaif_lab.models.precision import computed_dtype, inference

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Way = Literal["packed", "together", "alone"]
"""Of a prompt and its responses: in one row under a mask; each in a row, padded at the end; each row by itself."""

# Any narrower batch is tried at this width: a trial takes as long as a forward pass.
NARROWEST = 64
# What counts as rounding, by dtype; any other dtype is coarse.
_ROUNDING = {torch.float32: 1e-4, torch.float64: 1e-6}
_COARSE = 2e-2
_TOO_COARSE = {torch.float32: 1e-2, torch.float64: 1e-4}
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Passes:
    """What holds of a model up to some width. way: how a prompt's responses are computed. head: the logits are a
    function of the body's last states, and ``plain.head`` is that function. tolerance: the largest relative error that
    is rounding."""

    way: Way
    head: bool
    tolerance: float


NOT_FINITE = Passes("together", False, float("inf"))
"""Of a model that says nan: all ways are alike, and nothing is established."""


def passes(network: PreTrainedModel, width: int) -> Passes:
    """Return how rows of up to ``width`` tokens may be computed. Tried once for each class, configuration, precision
    and doubling of the width.

    Raises ValueError for a model that cannot be run on tokens alone, or that sees what comes later.
    """
    return established(network, "passes", width, lambda widest: _try_passes(network, widest))


def established(network: PreTrainedModel, what: str, width: int, attempt: Callable[[int], _Found]) -> _Found:
    """Return what ``attempt`` finds at the next power of two from ``width``; found once in a process."""
    # Powers of two: a model is tried a few times at most, however many widths there are.
    widest = max(NARROWEST, 1 << (width - 1).bit_length())
    key = (what, widest, *_kind(network))
    if key not in _FOUND:
        with inference(network):
            found = attempt(widest)
        # Not kept: the weights may be others next time.
        if found is NOT_FINITE:
            return found
        _FOUND[key] = found
    return _FOUND[key]


_FOUND: dict[Hashable, Any] = {}
_CONFIGS: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def _kind(network: Any) -> tuple[Any, ...]:
    """Return what decides how a network computes: not its weights."""
    # An adapter does not change how its base computes.
    plain = network.get_base_model() if hasattr(network, "get_base_model") else network
    if plain not in _CONFIGS:
        # Serialised once for each model object: a configuration is large, and this is asked for every batch.
        _CONFIGS[plain] = json.dumps(plain.config.to_dict(), sort_keys=True, default=str)
    parameter = next(plain.parameters())
    attention = plain.config._attn_implementation
    # With the attention: sdpa and eager of one model may differ in what a mask does.
    return type(plain), _CONFIGS[plain], attention, parameter.dtype, computed_dtype(network), parameter.device.type


# --- the trial --------------------------------------------------------------------------------------------------------
def trial_rows(network: PreTrainedModel, count: int, length: int) -> list[list[int]]:
    """Return rows of ordinary tokens, (count, length), that hardly repeat."""
    config = network.config.get_text_config()
    special = set()
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        value = getattr(config, name, None)
        special |= set(value if isinstance(value, list) else [value])
    size = int(config.vocab_size)
    # A vocabulary of nothing but special tokens is tried with those.
    ordinary = [token for token in range(size) if token not in special] or list(range(size))
    return [
        # A quadratic sequence, for rows that hardly repeat without drawing anything.
        [ordinary[(17 + 101 * row + 7 * i * (i + row + 1)) % len(ordinary)] for i in range(length)]
        for row in range(count)
    ]


def relative_error(found: Tensor, right: Tensor) -> float:
    """Return the largest relative error over positions, each a vector: (..., D) twice. Infinite where anything is not
    finite."""
    # By position: the norm over the last dimension, so that one wrong position shows.
    difference = (found.float() - right.float()).norm(dim=-1) / right.float().norm(dim=-1).clamp(min=1e-6)
    worst = float(difference.max()) if difference.numel() else 0.0
    # nan compares false with everything, and must not pass.
    return worst if worst == worst else float("inf")


def longest_trial(network: PreTrainedModel, widest: int) -> int:
    """Return tokens of the longest sequence that is tried: as many as the model has positions for."""
    # At least 8, for prompts and responses of some length.
    room = positions(network.config)
    return max(8, min(widest, room) if room is not None else widest)


def _try_passes(network: PreTrainedModel, widest: int) -> Passes:
    longest = longest_trial(network, widest)
    first, second = trial_rows(network, 2, longest)
    half = longest // 2
    # Unequal lengths on purpose: what is wrong with padding shows only where there is some.
    prompts = [first[:half], second[: max(1, half // 3)]]
    responses = [[first[half:], second[half : half + max(1, half // 2)]], [first[: half // 3 + 1], second[1:half]]]
    rows = [[*prompt, *response] for prompt, group in zip(prompts, responses, strict=True) for response in group]
    try:
        # One row at a time, without padding or mask: right for every causal model.
        right = row_states(network, rows, 0, together=False)
        separable = True
    # The body cannot be run by itself: the whole model is, and logits are compared.
    except (ValueError, TypeError, AttributeError):
        right, separable = _logits_alone(network, rows), False
    # What a model says of the first tokens of a row may not depend on what follows; if it does by little: rounding.
    again = _alone(network, rows[0][:half], separable)
    noise = relative_error(again, right[0, :half])
    dtype = computed_dtype(network)
    most = _TOO_COARSE.get(dtype, 0.15)
    if not bool(torch.isfinite(right).all()):
        return NOT_FINITE
    if noise > 2 * most:
        raise ValueError(
            f"{type(network).__name__} is no causal language model as it stands: what it says of a token depends on "
            "those that follow"
        )
    # Noise is measured, since it depends on the model's depth; four times of it is taken for rounding.
    tolerance = min(max(_ROUNDING.get(dtype, _COARSE), 4 * noise), most)

    def error(found: Tensor) -> float:
        return max(relative_error(found[i, : len(row)], right[i, : len(row)]) for i, row in enumerate(rows))

    way: Way = "alone"
    pad = rows[0][-1]
    # From the least that may be wrong to the most: padding at the end, then packing.
    if separable and holds(lambda: error(row_states(network, rows, pad, together=True)), tolerance):
        way = "together"
        batch = pack(prompts, responses, pad).to(right.device)

        def packed_error() -> float:
            found = packed_states(network, batch)
            worst = 0.0
            for b, prompt in enumerate(prompts):
                for i, response in enumerate(responses[b]):
                    expected = right[2 * b + i, len(prompt) - 1 : len(prompt) + len(response)]
                    worst = max(worst, relative_error(found[b, i, : len(response) + 1], expected))
            return worst

        if holds(packed_error, tolerance):
            way = "packed"
    if not separable and holds(lambda: error(_logits_together(network, rows, pad)), tolerance):
        way = "together"
    by_head = separable and holds(lambda: relative_error(*_both_logits(network, rows[0], right[0])), tolerance)
    return Passes(way, by_head, tolerance)


def holds(error: Callable[[], float], tolerance: float) -> bool:
    """Return whether a way of computing is right. One that fails, as it does for a model without the arguments that it
    needs, is not."""
    try:
        return error() <= tolerance
    # No sign of being wrong.
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return False


def _alone(network: PreTrainedModel, row: list[int], separable: bool) -> Tensor:
    if separable:
        return row_states(network, [row], 0, together=False)[0]
    return row_logits(network, [row], 0, together=False, keep=len(row))[0]


def _logits_alone(network: PreTrainedModel, rows: list[list[int]]) -> Tensor:
    try:
        found = [row_logits(network, [row], 0, together=False, keep=len(row))[0] for row in rows]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{type(network).__name__} cannot be read by token ids alone: {reason}") from error
    width = max(map(len, rows))
    return torch.stack([torch.nn.functional.pad(one, (0, 0, 0, width - len(one))) for one in found])


def _logits_together(network: PreTrainedModel, rows: list[list[int]], pad: int) -> Tensor:
    width = max(map(len, rows))
    return row_logits(network, [[*row, *[pad] * (width - len(row))] for row in rows], pad, together=True, keep=width)


def _both_logits(network: PreTrainedModel, row: list[int], hidden: Tensor) -> tuple[Tensor, Tensor]:
    return head(network, hidden[: len(row)]), row_logits(network, [row], 0, together=False, keep=len(row))[0]
