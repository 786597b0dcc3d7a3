"""From a batch of prompts to the logits of their continuations, step by step, with cached keys and values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from rlaif_lab.models.llama import KeyValues, forward, is_small_llama

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Decoder(Protocol):
    """Made from prompts (B, P) and their mask; has B k rows, the k of a prompt beside each other."""

    logits: Tensor
    """(rows, V), of the next token."""

    def keep(self, rows: Tensor) -> None:
        """Goes on with these of its rows only."""

    def advance(self, tokens: Tensor) -> None:
        """Appends one token to each row, (rows,), and computes ``logits`` anew."""


def decoder(network: PreTrainedModel, ids: Tensor, mask: Tensor, k: int) -> Decoder:
    """ids: (B, P), padded left. mask: (B, P), 1 on real tokens."""
    made = SmallLlamaDecoder if is_small_llama(network) else CachedDecoder
    return made(network, ids, mask, k)


class CachedDecoder:
    """Any causal LM, with the cache of transformers: the prompt is computed once, and its keys copied for each row."""

    def __init__(self, network: PreTrainedModel, ids: Tensor, mask: Tensor, k: int) -> None:
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        output = network(ids, attention_mask=mask, position_ids=positions, use_cache=True, logits_to_keep=1)
        self.network, self.cache = network, output.past_key_values
        self.cache.batch_repeat_interleave(k)
        self.logits = output.logits[:, -1].repeat_interleave(k, dim=0)
        self.mask = mask.repeat_interleave(k, dim=0)
        self.next_position = self.mask.sum(1)

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.mask, self.next_position = self.mask[rows], self.next_position[rows]

    def advance(self, tokens: Tensor) -> None:
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        output = self.network(
            tokens[:, None],
            attention_mask=self.mask,
            position_ids=self.next_position[:, None],
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self.next_position = self.next_position + 1
        self.logits = output.logits[:, -1]


class SmallLlamaDecoder:
    """The k rows of a prompt are k queries to one copy of its keys. Keys lie in the order prompt, first tokens of the k
    samples, second tokens of the k samples, ...; ``mask`` lets each row see the prompt and its own."""

    def __init__(self, network: PreTrainedModel, ids: Tensor, mask: Tensor, k: int) -> None:
        self.network, self.k, self.past, self.width = network, k, KeyValues(), ids.shape[1]
        self.unseen = torch.finfo(torch.float32).min
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        seen = torch.ones(self.width, self.width, dtype=torch.bool).tril_()[None, None]
        padding = mask == 0
        if bool(padding.any()):
            seen = seen & ~padding[:, None, None]
        logits = forward(network, ids, positions, self.additive(seen), kept=1, past=self.past)
        self.logits = logits[:, 0].repeat_interleave(k, dim=0)
        self.next_position = mask.sum(1, keepdim=True).expand(-1, k)
        self.mask = self.additive(~padding)[:, None, None].expand(-1, 1, k, -1)

    def additive(self, seen: Tensor) -> Tensor:
        return torch.zeros(seen.shape).masked_fill_(~seen, self.unseen)

    def keep(self, rows: Tensor) -> None:
        """Rows that leave tear the groups apart: from then on every row is a group of its own."""
        prompt, sample, k, width = rows // self.k, rows % self.k, self.k, self.width
        own = torch.arange(width, self.past.layers[0][0].shape[1], k)[None, :] + sample[:, None]
        columns = torch.cat([torch.arange(width).expand(len(rows), -1), own], 1)
        self.past.select(prompt[:, None], columns)
        self.mask = self.mask[prompt, 0, sample].gather(1, columns)[:, None, None]
        self.next_position = self.next_position[prompt, sample][:, None]
        self.k = 1

    def advance(self, tokens: Tensor) -> None:
        own = self.additive(torch.eye(self.k, dtype=torch.bool)).expand(len(self.mask), 1, -1, -1)
        self.mask = torch.cat([self.mask, own], 3)
        ids = tokens.view(-1, self.k)
        logits = forward(self.network, ids, self.next_position, self.mask, kept=self.k, past=self.past)
        self.next_position = self.next_position + 1
        self.logits = logits.flatten(0, 1)
