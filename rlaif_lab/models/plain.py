"""Forward passes that are right for every causal model: each row by itself, or rows padded at their end, where what
comes later changes nothing. Slower than packing, and what packing is compared with (models/passes.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TokenIds = Sequence[int]


def body_of(network: PreTrainedModel) -> PreTrainedModel:
    """Return the model without its head. Of a model with adapters: the body with the adapters in it."""
    # An adapter's layers are within the body, so it is taken from below the adapter's wrapper.
    plain = network.get_base_model() if hasattr(network, "get_base_model") else network
    return plain.base_model


def states(network: PreTrainedModel, **inputs: Any) -> Tensor:
    """Return the last hidden states of the model's body, (B, T, H), before its head.

    Raises ValueError for a model whose body gives none.
    """
    output = body_of(network)(**inputs)
    hidden = getattr(output, "last_hidden_state", None)
    if hidden is None:
        raise ValueError(f"{type(network).__name__} has no body that gives hidden states, which this needs")
    return hidden


def padded_rows(rows: Sequence[TokenIds], pad_id: int, device: torch.device) -> Tensor:
    """Return token ids, padded at the end: (N, longest)."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], dtype=torch.long, device=device)


def row_states(network: PreTrainedModel, rows: Sequence[TokenIds], pad_id: int, together: bool) -> Tensor:
    """Return the last hidden states of every row: (N, longest, H); what stands behind a row's end means nothing.

    together: in one batch, padded at the end; else each row by itself.
    """
    device = next(network.parameters()).device
    if together:
        return states(network, input_ids=padded_rows(rows, pad_id, device), use_cache=False)
    width = max(map(len, rows))
    alone = [states(network, input_ids=torch.tensor([list(row)], device=device), use_cache=False)[0] for row in rows]
    # Beyond its end a row says nothing: zeros make the shapes equal.
    return torch.stack([nn.functional.pad(one, (0, 0, 0, width - len(one))) for one in alone])


def row_logits(network: PreTrainedModel, rows: Sequence[TokenIds], pad_id: int, together: bool, keep: int) -> Tensor:
    """Return logits after the last ``keep`` tokens of every row: (N, keep, V), by the whole model."""
    device = next(network.parameters()).device
    if together:
        logits = network(input_ids=padded_rows(rows, pad_id, device), use_cache=False).logits
        # Rows are padded at their ends, so each one's last tokens are elsewhere.
        return torch.stack([one[len(row) - keep : len(row)] for one, row in zip(logits, rows, strict=True)])
    alone = [network(input_ids=torch.tensor([list(row)], device=device), use_cache=False).logits[0] for row in rows]
    return torch.stack([one[-keep:] for one in alone])


# --- the head by itself -----------------------------------------------------------------------------------------------
class _Said:
    """A body's output that holds nothing but its last states."""

    def __init__(self, last_hidden_state: Tensor) -> None:
        self.last_hidden_state = last_hidden_state

    # Models take the states by name or by index.
    def __getitem__(self, index: Any) -> Any:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        # Whatever else a model looks for in its body's output is not there.
        return None


class _Given(nn.Module):
    """Stands in for a model's body, or for its decoder, and says these states whatever it is asked."""

    def __init__(self, body: nn.Module, said: Tensor) -> None:
        super().__init__()
        # Past nn.Module's bookkeeping: as a submodule, the body would be registered twice.
        object.__setattr__(self, "stands_for", body)
        object.__setattr__(self, "said", said)

    def forward(self, *_: Any, **__: Any) -> Any:
        return _Said(self.said)

    def __getattr__(self, name: str) -> Any:
        # Encoder-decoder models ask for the decoder of their body.
        return self if name == "decoder" else getattr(self.stands_for, name)


def head(network: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Return logits of these states, (N, H) -> (N, V), by the model's own code: with its bias, scale or soft cap, and
    with an adapter on its head. Whether this gives a model's logits is established in models/passes.py."""
    plain = network.get_base_model() if hasattr(network, "get_base_model") else network
    name = plain.base_model_prefix
    body = plain._modules[name]
    # For the time of one call the body is replaced: so the head is computed by the model's own code.
    plain._modules[name] = _Given(body, hidden[None])
    try:
        # As many tokens as states; which ones does not matter.
        ids = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
        logits: Tensor = plain(input_ids=ids, use_cache=False).logits[0]
    finally:
        # Even after an error: the model must not be left without its body.
        plain._modules[name] = body
    return logits
