"""A prompt and its responses in one row: token ids, masks, and the pass that reads them.

Whether the pass is right for a model is established in models/passes.py; what is read from it is in models/packed.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlaif_lab.models.plain import states
from rlaif_lab.models.precision import computed_dtype

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TokenIds = Sequence[int]


@dataclass(frozen=True)
class Packed:
    """B prompts with n responses each, padded.

    prompt_ids, prompt_mask: (B, P), padded left. response_ids, response_mask: (B, n, R), padded right.
    Masks are bool, True on real tokens.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    response_ids: Tensor
    response_mask: Tensor

    def to(self, device: torch.device) -> Packed:
        return replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items()})


def pack(prompts: Sequence[TokenIds], responses: Sequence[Sequence[TokenIds]], pad_id: int) -> Packed:
    """Pad token ids into a Packed batch. Prompts with fewer responses than the most get empty ones.

    Shapes: B prompts, B lists of up to n responses.
    """
    width = max(map(len, prompts))
    n = max(map(len, responses))
    # At least one column, so that a batch of empty responses has a shape.
    length = max(1, max(len(response) for group in responses for response in group))
    prompt_rows, response_rows, prompt_marks, response_marks = [], [], [], []
    for prompt, group in zip(prompts, responses, strict=True):
        gap = width - len(prompt)
        # Left, so that a prompt's last token stands right before the responses.
        prompt_rows.append([pad_id] * gap + list(prompt))
        prompt_marks.append([False] * gap + [True] * len(prompt))
        for i in range(n):
            response = list(group[i]) if i < len(group) else []
            gap = length - len(response)
            response_rows.append(response + [pad_id] * gap)
            response_marks.append([True] * len(response) + [False] * gap)
    shape = (len(prompts), n, length)
    return Packed(
        torch.tensor(prompt_rows, dtype=torch.long),
        torch.tensor(prompt_marks, dtype=torch.bool),
        torch.tensor(response_rows, dtype=torch.long).view(shape),
        torch.tensor(response_marks, dtype=torch.bool).view(shape),
    )


def packed_states(network: PreTrainedModel, batch: Packed) -> Tensor:
    """Return the states of ``response_hidden`` from one row per prompt, right for this model or not (see passes.py)."""
    return by_response(states(network, **model_inputs(network, batch))[:, -kept_positions(batch) :], batch)


def model_inputs(network: PreTrainedModel, batch: Packed) -> dict[str, Any]:
    """Return token ids, positions and the additive attention mask of a packed batch, as a model's arguments.

    input_ids, position_ids: (B, T); attention_mask: (B, 1, T, T) in the dtype in which the model computes; T = P + n R.
    """
    rows, width = batch.prompt_ids.shape
    _, n, length = batch.response_ids.shape
    total = width + n * length
    ids = torch.cat([batch.prompt_ids, batch.response_ids.reshape(rows, n * length)], dim=1)
    prompt_lengths = batch.prompt_mask.sum(1, keepdim=True)
    # Counted in real tokens: padding has no position of its own.
    prompt_positions = (batch.prompt_mask.cumsum(1) - 1).clamp(min=0)
    # Every response goes on where the prompt ends, as if its siblings were not there; its padding stays at its last
    # token, since a model may have no position further on.
    response_positions = prompt_lengths + (batch.response_mask.cumsum(-1) - 1).reshape(rows, n * length)
    response_positions = response_positions.clamp(min=0)
    positions = torch.cat([prompt_positions, response_positions], dim=1)

    segment = torch.cat(  # 0 = prompt, i + 1 = response i
        [
            torch.zeros(width, dtype=torch.long, device=ids.device),
            torch.arange(1, n + 1, device=ids.device).repeat_interleave(length),
        ]
    )
    index = torch.arange(total, device=ids.device)
    # A token sees its own segment and the prompt: (T, T).
    allowed = (segment[None, :] == segment[:, None]) | (segment[None, :] == 0)
    # And nothing that comes later.
    allowed &= index[None, :] <= index[:, None]
    dtype = computed_dtype(network)  # under autocast a float32 minimum, rounded to bfloat16, would be -inf
    mask = torch.zeros(1, 1, total, total, dtype=dtype, device=ids.device)
    # The smallest number and not -inf: a row without anything to see would be nan.
    mask.masked_fill_(~allowed, torch.finfo(dtype).min)
    if not bool(batch.prompt_mask.all()):  # hide the left padding; responses' right padding is never attended to
        visible = torch.cat([batch.prompt_mask, torch.ones_like(ids[:, width:], dtype=torch.bool)], dim=1)
        hidden = ~visible[:, None, None, :] & (index[None, :] != index[:, None])  # a row with nothing to see is nan
        mask = mask.masked_fill(hidden, torch.finfo(dtype).min)
    return {
        "input_ids": ids,
        "attention_mask": mask.expand(rows, 1, total, total),
        "position_ids": positions,
        "use_cache": False,
    }


def kept_positions(batch: Packed) -> int:
    """Return positions at the end of a row that say something of a response: the prompt's last and all of the
    responses."""
    _, n, length = batch.response_ids.shape
    return n * length + 1


def by_response(kept: Tensor, batch: Packed) -> Tensor:
    """Return the prompt's last position in front of each response's own: (B, 1 + n R, D) -> (B, n, R + 1, D)."""
    rows, n, length = batch.response_ids.shape
    # What comes first in each response is said by the prompt's last position.
    first = kept[:, :1].unsqueeze(1).expand(rows, n, 1, -1)
    rest = kept[:, 1:].reshape(rows, n, length, kept.shape[-1])
    return torch.cat([first, rest], dim=2)
