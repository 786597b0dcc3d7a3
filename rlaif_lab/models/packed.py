"""Log-probabilities of several responses to one prompt, the prompt computed once.

A row packs a prompt and its n responses into one sequence, with an attention mask under which every response
sees the prompt and itself, never its siblings::

    [ pad | prompt | response 1 | pad | response 2 | pad | ... ]

With short answers to a shared prompt this more than halves the arithmetic of judging and training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlaif_lab.models.llama import forward, is_small_llama

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
    """Pads token ids into a Packed batch. Prompts with fewer responses than the most get empty ones.

    Shapes: B prompts, B lists of up to n responses.
    """
    width = max(map(len, prompts))
    n = max(map(len, responses))
    length = max(1, max(len(response) for group in responses for response in group))
    prompt_rows, response_rows, prompt_marks, response_marks = [], [], [], []
    for prompt, group in zip(prompts, responses, strict=True):
        gap = width - len(prompt)
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


def response_logits(network: PreTrainedModel, batch: Packed) -> Tensor:
    """Next-token logits before each response token and after the last: (B, n, R + 1, V).

    Entry ``[b, i, t]`` predicts response token t of response i; entry t = R (or t = the response's length, if
    shorter) is what the model would say after it.
    """
    inputs, kept = model_inputs(network, batch), _kept(batch)
    if is_small_llama(network):
        logits = forward(network, inputs["input_ids"], inputs["position_ids"], inputs["attention_mask"], kept)
    else:
        logits = network(**inputs, logits_to_keep=kept).logits
    return _by_response(logits, batch)


def response_hidden(network: PreTrainedModel, batch: Packed) -> Tensor:
    """Last hidden states of the model's body, indexed as the logits are: (B, n, R + 1, H).

    Entry ``[b, i, t]`` is the state from which response token t of response i is predicted; entry t = the response's
    length is the state at its last token. ``network``: a causal LM, a sequence classifier, or the body of one.
    Raises ValueError for a model whose body gives no hidden states.
    """
    output = body_of(network)(**model_inputs(network, batch))
    hidden = getattr(output, "last_hidden_state", None)
    if hidden is None:
        raise ValueError(f"{type(network).__name__} has no body that gives hidden states, which this needs")
    return _by_response(hidden[:, -_kept(batch) :], batch)


def body_of(network: PreTrainedModel) -> PreTrainedModel:
    """The model without its head. Of a model with adapters: the body with the adapters in it."""
    plain = network.get_base_model() if hasattr(network, "get_base_model") else network
    return plain.base_model


def model_inputs(network: PreTrainedModel, batch: Packed) -> dict[str, Any]:
    """Token ids, positions and the additive attention mask of a packed batch, as a model's arguments.

    input_ids, position_ids: (B, T); attention_mask: (B, 1, T, T) in the dtype in which the model computes; T = P + n R.
    """
    rows, width = batch.prompt_ids.shape
    _, n, length = batch.response_ids.shape
    total = width + n * length
    _refuse_narrow_window(network, width + length)
    ids = torch.cat([batch.prompt_ids, batch.response_ids.reshape(rows, n * length)], dim=1)
    prompt_lengths = batch.prompt_mask.sum(1, keepdim=True)
    prompt_positions = (batch.prompt_mask.cumsum(1) - 1).clamp(min=0)
    response_positions = prompt_lengths + torch.arange(length, device=ids.device).repeat(n)
    positions = torch.cat([prompt_positions, response_positions], dim=1)

    segment = torch.cat(  # 0 = prompt, i + 1 = response i
        [
            torch.zeros(width, dtype=torch.long, device=ids.device),
            torch.arange(1, n + 1, device=ids.device).repeat_interleave(length),
        ]
    )
    index = torch.arange(total, device=ids.device)
    allowed = (segment[None, :] == segment[:, None]) | (segment[None, :] == 0)
    allowed &= index[None, :] <= index[:, None]
    dtype = _compute_dtype(network, ids.device)
    mask = torch.zeros(1, 1, total, total, dtype=dtype, device=ids.device)
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


def _kept(batch: Packed) -> int:
    """Positions at the end of a row that say something of a response: the prompt's last and all of the responses."""
    _, n, length = batch.response_ids.shape
    return n * length + 1


def _by_response(kept: Tensor, batch: Packed) -> Tensor:
    """The prompt's last position in front of each response's own: (B, 1 + n R, D) -> (B, n, R + 1, D)."""
    rows, n, length = batch.response_ids.shape
    first = kept[:, :1].unsqueeze(1).expand(rows, n, 1, -1)
    rest = kept[:, 1:].reshape(rows, n, length, kept.shape[-1])
    return torch.cat([first, rest], dim=2)


def _compute_dtype(network: PreTrainedModel, device: torch.device) -> torch.dtype:
    """What attention computes in. Under autocast that is not the weights' dtype, and a float32 minimum, rounded to
    bfloat16, would be minus infinity."""
    if torch.is_autocast_enabled(device.type):
        return torch.get_autocast_dtype(device.type)
    return next(network.parameters()).dtype


def _refuse_narrow_window(network: PreTrainedModel, length: int) -> None:
    """The mask written here is for full attention; a sliding window must be wide enough to be the same."""
    window = getattr(network.config.get_text_config(), "sliding_window", None)
    if window is not None and length > window:
        raise ValueError(
            f"a prompt with its response is {length} tokens long, but this model attends to the last {window} only "
            "(sliding_window); shorten prompts or sampler.max_new_tokens"
        )


def token_logps(logits: Tensor, batch: Packed) -> Tensor:
    """Log-probabilities (nats) of the response tokens, 0 on padding: (B, n, R or R + 1, V) -> (B, n, R)."""
    logps = torch.log_softmax(logits[:, :, : batch.response_ids.shape[2]].float(), dim=-1)
    picked = logps.gather(-1, batch.response_ids.unsqueeze(-1)).squeeze(-1)
    return picked * batch.response_mask


def response_logps(network: PreTrainedModel, batch: Packed) -> Tensor:
    """Log-probability (nats) of every response token given its prompt, 0 on padding: (B, n, R)."""
    # Nobody asks what comes after a response, so its last token need not go through the network.
    shorter = replace(batch, response_ids=batch.response_ids[:, :, :-1], response_mask=batch.response_mask[:, :, :-1])
    return token_logps(response_logits(network, shorter), batch)
