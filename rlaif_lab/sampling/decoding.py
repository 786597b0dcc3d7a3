"""From a batch of prompts to the logits of their continuations, step by step, with cached keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from rlaif_lab.models.llama import KeyValues, forward, is_small_llama
from rlaif_lab.models.passes import established, holds, longest_trial, passes, relative_error, trial_rows
from rlaif_lab.models.plain import head, row_logits, row_states

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Decoder(Protocol):
    """Made from prompts (B, P) and their mask; has B k rows, the k of a prompt beside each other."""

    logits: Tensor
    """(rows, V), of the next token."""

    @property
    def refills(self) -> bool:
        """Tell whether further rows may join it; ``join`` is for such a one only."""

    def keep(self, rows: Tensor) -> None:
        """Go on with these of its rows only."""

    def join(self, other: Decoder) -> None:
        """Take in another decoder of its kind, whose rows come behind its own."""

    def advance(self, tokens: Tensor) -> None:
        """Append one token to each row, (rows,), and compute ``logits`` anew."""


def decoder(network: PreTrainedModel, ids: Tensor, mask: Tensor, k: int, steps: int = 0) -> Decoder:
    """Return a decoder. ids: (B, P), padded left. mask: (B, P), 1 on real tokens. steps: how many tokens are appended
    at most.

    The fastest decoder that has been tried on this model, at this width, and found right (see models/passes.py).
    """
    # Tests hold it to transformers' numbers, so that it need not be tried.
    if is_small_llama(network):
        return SmallLlamaDecoder(network, ids, mask, k)
    return fastest(network, ids.shape[1] + steps)(network, ids, mask, k)


def fastest(network: PreTrainedModel, width: int) -> type[CachedDecoder | GroupedDecoder | RecomputingDecoder]:
    """Return the first of the decoders whose logits are those of plain passes, for sequences up to this width."""
    return established(network, "decoder", width, lambda widest: _try_decoders(network, widest))


class CachedDecoder:
    """Any causal LM with attention throughout, with the cache of transformers: the prompt is computed once, and its
    keys copied for each row."""

    def __init__(self, network: PreTrainedModel, ids: Tensor, mask: Tensor, k: int) -> None:
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        self.network = network
        # Without a mask, attention of grouped queries need not repeat the keys for each.
        self.mask = None if bool(mask.all()) else mask
        output = network(ids, attention_mask=self.mask, position_ids=positions, use_cache=True, logits_to_keep=1)
        self.cache = output.past_key_values
        # The prompt is computed once, and its keys copied k times.
        self.cache.batch_repeat_interleave(k)
        self.logits = output.logits[:, -1].repeat_interleave(k, dim=0)
        if self.mask is not None:
            self.mask = self.mask.repeat_interleave(k, dim=0)
        # Positions count real tokens.
        self.next_position = mask.sum(1).repeat_interleave(k, dim=0)

    @property
    def refills(self) -> bool:
        """Tell whether all layers keep everything: a window of its own could not be padded."""
        from transformers.cache_utils import DynamicLayer

        return all(type(layer) is DynamicLayer for layer in self.cache.layers)

    def join(self, other: Decoder) -> None:
        assert isinstance(other, CachedDecoder)
        masks = [one.mask if one.mask is not None else one.ones() for one in (self, other)]
        # Padded at the left to one width, of which no more is kept than some row needs.
        width = max(mask.shape[1] for mask in masks)
        mask = torch.cat([nn.functional.pad(one, (width - one.shape[1], 0)) for one in masks])
        spare = int(mask.any(0).long().argmax())
        for mine, theirs in zip(self.cache.layers, other.cache.layers, strict=True):
            for name in ("keys", "values"):
                tensors = (getattr(mine, name), getattr(theirs, name))
                padded = [nn.functional.pad(one, (0, 0, width - one.shape[2], 0)) for one in tensors]
                setattr(mine, name, torch.cat(padded)[:, :, spare:])
        mask = mask[:, spare:]
        self.mask = None if bool(mask.all()) else mask
        self.logits = torch.cat([self.logits, other.logits])
        self.next_position = torch.cat([self.next_position, other.next_position])

    def ones(self) -> Tensor:
        """Return the mask of rows that are not padded."""
        size = len(self.next_position), self.cache.get_seq_length()
        return torch.ones(size, dtype=self.next_position.dtype, device=self.next_position.device)

    def keep(self, rows: Tensor) -> None:
        self.cache.batch_select_indices(rows)
        self.mask = None if self.mask is None else self.mask[rows]
        self.next_position = self.next_position[rows]

    def advance(self, tokens: Tensor) -> None:
        if self.mask is not None:
            # What is appended is real.
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


class GroupedDecoder:
    """For caches that can neither be padded nor rearranged, as those of recurrent layers: prompts of equal length go
    together, each row computes its own, and rows that leave are computed on and not looked at."""

    refills = False

    def __init__(self, network: PreTrainedModel, ids: Tensor, mask: Tensor, k: int) -> None:
        self.network = network
        lengths = mask.sum(1)
        self.groups: list[_Group] = []
        # Without padding: only prompts of one length can share a batch.
        for length in lengths.unique().tolist():
            prompts = (lengths == length).nonzero().squeeze(1)
            rows = ids[prompts, -length:].repeat_interleave(k, dim=0)
            output = network(rows, use_cache=True)
            places = (prompts[:, None] * k + torch.arange(k, device=ids.device)).flatten()
            alive = torch.arange(len(rows), device=ids.device)
            self.groups.append(_Group(output.past_key_values, output.logits[:, -1], places, alive, rows[:, -1]))
        self._gather()

    def _gather(self) -> None:
        """Gather the logits of the rows that are left, by their places."""
        # Back into the order in which the caller counts its rows.
        places = torch.cat([group.places for group in self.groups])
        self.logits = torch.cat([group.logits[group.alive] for group in self.groups])[places.argsort()]

    def join(self, other: Decoder) -> None:
        raise NotImplementedError

    def keep(self, rows: Tensor) -> None:
        # old place -> new place, -1 for rows that leave.
        new = torch.full((int(rows.max()) + 1,), -1, device=rows.device)
        new[rows] = torch.arange(len(rows), device=rows.device)
        for group in self.groups:
            inside = group.places < len(new)
            place = torch.where(inside, new[group.places.clamp(max=len(new) - 1)], -1)
            group.places, group.alive = place[place >= 0], group.alive[place >= 0]
        self.groups = [group for group in self.groups if len(group.places)]
        self._gather()

    def advance(self, tokens: Tensor) -> None:
        for group in self.groups:
            # A copy: rows that have left keep their last token, which nobody looks at.
            group.last = group.last.clone()
            group.last[group.alive] = tokens[group.places]
            output = self.network(group.last[:, None], past_key_values=group.cache, use_cache=True)
            group.cache, group.logits = output.past_key_values, output.logits[:, -1]
        self._gather()


@dataclass
class _Group:
    """Rows of one cache. logits: (rows, V). places: where those that are left stand among all that are left. alive:
    which of the cache's rows they are. last: the token that each row read last."""

    cache: Any
    logits: Tensor
    places: Tensor
    alive: Tensor
    last: Tensor


class RecomputingDecoder:
    """Any causal LM, without a cache: every token costs a pass over the whole sequence."""

    refills = False

    def __init__(self, network: PreTrainedModel, ids: Tensor, mask: Tensor, k: int) -> None:
        self.network, self.device = network, ids.device
        prompts = [row[real.bool()].tolist() for row, real in zip(ids, mask, strict=True)]
        # Token lists, one for each row: the sequences grow apart.
        self.rows: list[list[int]] = [list(prompt) for prompt in prompts for _ in range(k)]
        self.logits = next_logits(network, prompts, 1)[:, 0].repeat_interleave(k, dim=0)

    def join(self, other: Decoder) -> None:
        raise NotImplementedError

    def keep(self, rows: Tensor) -> None:
        self.rows = [self.rows[i] for i in rows.tolist()]
        self.logits = self.logits[rows]

    def advance(self, tokens: Tensor) -> None:
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            row.append(token)
        self.logits = next_logits(self.network, self.rows, 1)[:, 0]


def next_logits(network: PreTrainedModel, rows: Sequence[Sequence[int]], keep: int) -> Tensor:
    """Return logits after the last ``keep`` tokens of every row, without a cache: (N, keep, V)."""
    found = passes(network, max(map(len, rows)))
    if not found.head:
        return row_logits(network, rows, rows[0][0], found.way != "alone", keep)
    hidden = row_states(network, rows, rows[0][0], found.way != "alone")
    last = torch.stack([one[len(row) - keep : len(row)] for one, row in zip(hidden, rows, strict=True)])
    return head(network, last.flatten(0, 1)).unflatten(0, last.shape[:2])


def _try_decoders(network: PreTrainedModel, widest: int) -> type[CachedDecoder | GroupedDecoder | RecomputingDecoder]:
    """Try two prompts of different lengths, two rows each, of which one leaves half-way."""
    longest = longest_trial(network, widest)
    steps = min(6, longest // 2)
    tolerance = passes(network, widest).tolerance
    device = next(network.parameters()).device
    rows = trial_rows(network, 4, longest)
    width, short = longest - steps, max(1, (longest - steps) // 3)
    prompts = [rows[0][:width], rows[1][:short]]
    # Padded left, as the sampler's prompts are.
    ids = torch.tensor([prompts[0], [0] * (width - short) + prompts[1]], device=device)
    mask = torch.tensor([[1] * width, [0] * (width - short) + [1] * short], device=device)
    said = [row[-steps:] for row in rows]
    # Row i follows prompt i // 2, with its own continuation.
    whole = [[*prompts[i // 2], *said[i]] for i in range(4)]
    right = row_logits(network, whole, 0, together=False, keep=steps + 1)

    def error(made: type[CachedDecoder | GroupedDecoder]) -> float:
        ahead, left, worst = made(network, ids, mask, 2), [0, 1, 2, 3], 0.0
        for step in range(steps):
            worst = max(worst, relative_error(ahead.logits, right[left, step]))
            # One row leaves half-way: what rearranges a cache wrongly shows then.
            if step == steps // 2:
                left = [0, 2, 3]
                ahead.keep(torch.tensor(left, device=device))
            ahead.advance(torch.tensor([said[i][step] for i in left], device=device))
        return max(worst, relative_error(ahead.logits, right[left, steps]))

    # The faster one first.
    for made in (CachedDecoder, GroupedDecoder):
        if holds(lambda made=made: error(made), tolerance):  # type: ignore[misc]
            return made
    return RecomputingDecoder


class SmallLlamaDecoder:
    """The k rows of a prompt are k queries to one copy of its keys. Keys lie in the order prompt, first tokens of the k
    samples, second tokens of the k samples, ...; ``mask`` lets each row see the prompt and its own."""

    refills = False

    def __init__(self, network: PreTrainedModel, ids: Tensor, mask: Tensor, k: int) -> None:
        self.network, self.k, self.past, self.width = network, k, KeyValues(), ids.shape[1]
        # Not -inf: a row without anything to see would be nan.
        self.unseen = torch.finfo(torch.float32).min
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        # Causal within the prompt: (1, 1, P, P).
        seen = torch.ones(self.width, self.width, dtype=torch.bool).tril_()[None, None]
        padding = mask == 0
        if bool(padding.any()):
            seen = seen & ~padding[:, None, None]
        logits = forward(network, ids, positions, self.additive(seen), kept=1, past=self.past)
        self.logits = logits[:, 0].repeat_interleave(k, dim=0)
        self.next_position = mask.sum(1, keepdim=True).expand(-1, k)
        # One mask for the k queries of a prompt: (B, 1, k, P).
        self.mask = self.additive(~padding)[:, None, None].expand(-1, 1, k, -1)

    def additive(self, seen: Tensor) -> Tensor:
        return torch.zeros(seen.shape).masked_fill_(~seen, self.unseen)

    def join(self, other: Decoder) -> None:
        raise NotImplementedError

    def keep(self, rows: Tensor) -> None:
        """Keep some rows. Rows that leave tear the groups apart: from then on every row is a group of its own."""
        prompt, sample, k, width = rows // self.k, rows % self.k, self.k, self.width
        # Columns of a row's own tokens: every k-th from its number on.
        own = torch.arange(width, self.past.layers[0][0].shape[1], k)[None, :] + sample[:, None]
        columns = torch.cat([torch.arange(width).expand(len(rows), -1), own], 1)
        self.past.select(prompt[:, None], columns)
        self.mask = self.mask[prompt, 0, sample].gather(1, columns)[:, None, None]
        self.next_position = self.next_position[prompt, sample][:, None]
        # Rows that are left are groups of one: their keys lie in their own order from here on.
        self.k = 1

    def advance(self, tokens: Tensor) -> None:
        # Each of the k new tokens sees itself, and none of its siblings'.
        own = self.additive(torch.eye(self.k, dtype=torch.bool)).expand(len(self.mask), 1, -1, -1)
        self.mask = torch.cat([self.mask, own], 3)
        ids = tokens.view(-1, self.k)
        logits = forward(self.network, ids, self.next_position, self.mask, kept=self.k, past=self.past)
        self.next_position = self.next_position + 1
        self.logits = logits.flatten(0, 1)
