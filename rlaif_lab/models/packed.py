"""Log-probabilities of several responses to one prompt, the prompt computed once.

A row packs a prompt and its n responses into one sequence, with an attention mask under which every response
sees the prompt and itself, never its siblings::

    [ pad | prompt | response 1 | pad | response 2 | pad | ... ]

With short answers to a shared prompt this more than halves the arithmetic of judging and training. Models for which it
is wrong get a row for each response (models/passes.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from rlaif_lab.models.llama import WIDEST, forward, is_small_llama
from rlaif_lab.models.packing import Packed as Packed
from rlaif_lab.models.packing import by_response, kept_positions, model_inputs, packed_states
from rlaif_lab.models.packing import pack as pack
from rlaif_lab.models.passes import Way, passes
from rlaif_lab.models.plain import body_of as body_of
from rlaif_lab.models.plain import head, row_logits, row_states
from rlaif_lab.models.precision import computing

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGITS_AT_ONCE = 2**25
"""How many logits are held at a time: an eighth of a GB in float32, 1024 positions of a vocabulary of 32768."""


def response_logits(network: PreTrainedModel, batch: Packed) -> Tensor:
    """Return next-token logits before each response token and after the last: (B, n, R + 1, V).

    Entry ``[b, i, t]`` predicts response token t of response i; entry t = R (or t = the response's length, if
    shorter) is what the model would say after it. For what needs no more than a number per position there is
    ``by_position``, which never holds all of them.
    """
    with computing(network):
        if is_small_llama(network):
            return by_response(_small_llama(network, batch), batch)
        found = passes(network, _width(batch))
        # (B, n, R + 1, H): the head makes logits of any states, so of those that are asked for only.
        if found.head:
            hidden = _response_states(network, batch, found.way)
            return head(network, hidden.flatten(0, 2)).unflatten(0, hidden.shape[:3])
        rows = _rows(batch)
        longest = max(map(len, rows))
        # Padded with a token of the row itself: any token does, since nothing looks at what comes later.
        rows = [[*row, *[row[0]] * (longest - len(row))] for row in rows]
        logits = row_logits(network, rows, rows[0][0], found.way != "alone", longest)
        return _behind_prompts(logits, batch)


def response_hidden(network: PreTrainedModel, batch: Packed) -> Tensor:
    """Return the last hidden states of the model's body, indexed as the logits are: (B, n, R + 1, H).

    Entry ``[b, i, t]`` is the state from which response token t of response i is predicted; entry t = the response's
    length is the state at its last token. ``network``: a causal LM, a sequence classifier, or the body of one.
    Raises ValueError for a model whose body gives no hidden states.
    """
    with computing(network):
        return _response_states(network, batch, passes(network, _width(batch)).way)


def _response_states(network: PreTrainedModel, batch: Packed, way: Way) -> Tensor:
    # One response needs no mask if it is padded at its end, and without a mask grouped-query attention stays grouped.
    # (To a narrow model that is worth nothing.)
    alone = batch.response_ids.shape[1] == 1 and network.config.get_text_config().hidden_size > WIDEST
    if way == "packed" and not alone:
        return packed_states(network, batch)
    rows = _rows(batch)
    return _behind_prompts(row_states(network, rows, rows[0][0], way != "alone"), batch)


def _small_llama(network: PreTrainedModel, batch: Packed, headless: bool = False) -> Tensor:
    inputs = model_inputs(network, batch)
    given = inputs["input_ids"], inputs["position_ids"], inputs["attention_mask"]
    return forward(network, *given, kept=kept_positions(batch), headless=headless)


def _rows(batch: Packed) -> list[list[int]]:
    """Return the token ids of every response behind its prompt, B n of them."""
    # Without padding: whoever computes the rows pads them again.
    prompts = [ids[mask].tolist() for ids, mask in zip(batch.prompt_ids, batch.prompt_mask, strict=True)]
    responses = batch.response_ids.tolist()
    lengths = batch.response_mask.sum(-1).tolist()
    return [
        [*prompt, *ids[:length]]
        for prompt, group, sizes in zip(prompts, responses, lengths, strict=True)
        for ids, length in zip(group, sizes, strict=True)
    ]


def _behind_prompts(values: Tensor, batch: Packed) -> Tensor:
    """Return states from the prompt's last position on, of rows that are padded at their end: (B n, T, D) -> (B, n, R +
    1, D)."""
    rows, n, length = batch.response_ids.shape
    # The prompt's last position: what it says is the response's first token.
    first = batch.prompt_mask.sum(1).repeat_interleave(n)[:, None] - 1
    # Padding follows a row's end: any index will do, and what it gives is masked.
    index = (first + torch.arange(length + 1, device=values.device)).clamp(max=values.shape[1] - 1)
    picked = values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))
    return picked.unflatten(0, (rows, n))


def passes_of(network: PreTrainedModel, batch: Packed) -> Way:
    """Return in which way a batch's responses are computed."""
    return passes(network, _width(batch)).way


def _width(batch: Packed) -> int:
    _, n, length = batch.response_ids.shape
    return batch.prompt_ids.shape[1] + n * length


def token_logps(logits: Tensor, batch: Packed) -> Tensor:
    """Return log-probabilities (nats) of the response tokens, 0 on padding: (B, n, R or R + 1, V) -> (B, n, R)."""
    # In float32: a log-softmax in bfloat16 is off by more than a training step changes.
    logps = torch.log_softmax(logits[:, :, : batch.response_ids.shape[2]].float(), dim=-1)
    picked = logps.gather(-1, batch.response_ids.unsqueeze(-1)).squeeze(-1)
    # Padding: log-probability 0, so that sums over a row are those of its response.
    return picked * batch.response_mask


def response_logps(network: PreTrainedModel, batch: Packed) -> Tensor:
    """Return the log-probability (nats) of every response token given its prompt, 0 on padding: (B, n, R)."""
    if fits_at_once(network, batch):
        # Nobody asks what comes after a response, so its last token need not go through the network.
        return token_logps(response_logits(network, without_last(batch)), batch)
    [logps] = by_position(
        [network], batch, lambda ids, logits: (-cross_entropy(logits.float(), ids, reduction="none"),)
    )
    return logps


# --- one number per position, without holding the logits of all of them --------------------------------------------
PositionReader = Callable[..., tuple[Tensor, ...]]
"""Token ids (M,) and each network's logits (M, V) -> numbers of these positions, (M,) each."""


def by_position(networks: Sequence[PreTrainedModel], batch: Packed, read: PositionReader) -> list[Tensor]:
    """Return what ``read`` says of every position from which a response token is predicted, 0 on padding: (B, n, R)
    each.

    Logits exist for a few positions at a time, and again in the backward pass: memory does not grow with the number of
    positions times the vocabulary.
    """
    shorter, real = without_last(batch), batch.response_mask
    # Real tokens only, (M,): padding would cost logits, too.
    ids = batch.response_ids[real]
    hidden = [_states_to_read(network, shorter) for network in networks]
    if any(one is None for one in hidden):
        # All or none: what is read from several networks is read at the same positions.
        return _by_row(networks, batch, read)
    picked = [one[real] for one in hidden if one is not None]
    # So many positions at a time that the logits of the widest vocabulary fit.
    step = max(1, LOGITS_AT_ONCE // max(vocabulary(network) for network in networks))

    def some(at: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        logits = []
        for network, one in zip(networks, states, strict=True):
            with computing(network):
                logits.append(head(network, one))
        return read(at, *logits)

    # At least one, so that a batch of empty responses has a value of the right shape.
    starts = range(0, max(1, len(ids)), step)
    found = [_recomputed(some, ids[i : i + step], *(one[i : i + step] for one in picked)) for i in starts]
    return [_placed(torch.cat(values), real) for values in zip(*found, strict=True)]


def _states_to_read(network: PreTrainedModel, batch: Packed) -> Tensor | None:
    """Return the last hidden states, (B, n, R + 1, H); None where the logits are not a function of them."""
    with computing(network):
        if is_small_llama(network):
            return by_response(_small_llama(network, batch, headless=True), batch)
        found = passes(network, _width(batch))
        return _response_states(network, batch, found.way) if found.head else None


def _by_row(networks: Sequence[PreTrainedModel], batch: Packed, read: PositionReader) -> list[Tensor]:
    """Return the same for heads that cannot be had by themselves: the logits of one response at a time."""
    n = batch.response_ids.shape[1]
    rows = []
    for number in range(batch.response_ids.shape[0] * n):
        b, i = divmod(number, n)
        one = Packed(
            batch.prompt_ids[b : b + 1],
            batch.prompt_mask[b : b + 1],
            batch.response_ids[b : b + 1, i : i + 1],
            batch.response_mask[b : b + 1, i : i + 1],
        )

        def whole(ids: Tensor, mask: Tensor, one: Packed = one) -> tuple[Tensor, ...]:
            logits = [response_logits(network, without_last(one))[:, :, : ids.shape[-1]][mask] for network in networks]
            return tuple(_placed(values, mask) for values in read(ids[mask], *logits))

        rows.append(_recomputed(whole, one.response_ids, one.response_mask))
    return [torch.cat(values).unflatten(0, (-1, n)).squeeze(2) for values in zip(*rows, strict=True)]


def _recomputed(function: Callable[..., tuple[Tensor, ...]], *tensors: Tensor) -> tuple[Tensor, ...]:
    """Return the function's value; in the backward pass it is computed once more rather than kept."""
    if not torch.is_grad_enabled():
        return function(*tensors)
    # Nothing is drawn in it: the state of the generators need not be restored.
    return checkpoint(function, *tensors, use_reentrant=False, preserve_rng_state=False)


def _placed(values: Tensor, real: Tensor) -> Tensor:
    return torch.zeros(real.shape, dtype=values.dtype, device=values.device).masked_scatter(real, values)


def without_last(batch: Packed) -> Packed:
    """Return the batch without the last column of its responses."""
    ids, mask = batch.response_ids[:, :, :-1], batch.response_mask[:, :, :-1]
    return replace(batch, response_ids=ids, response_mask=mask)


def vocabulary(network: PreTrainedModel) -> int:
    """Return how many logits a position has."""
    # The head's rows: some models pad their vocabulary.
    embeddings = network.get_output_embeddings()
    weight = getattr(embeddings, "weight", None)
    return int(network.config.get_text_config().vocab_size if weight is None else weight.shape[0])


def fits_at_once(network: PreTrainedModel, batch: Packed) -> bool:
    """Return whether the logits of all positions are few enough to be held."""
    return batch.response_ids.numel() * vocabulary(network) <= LOGITS_AT_ONCE
