"""The organisms' second look at an answer: after its end comes ``?``, then ``T`` or ``F``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlaif_lab.models.packed import Packed, response_logits

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlaif_lab.models.language_model import LanguageModel

ASK, TRUE, FALSE = "?", "T", "F"


def verdict_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[int, int, int]:
    """Return the ids of ask, true and false. ValueError when the tokenizer has no single token for one of them."""
    ids = []
    for sign in (ASK, TRUE, FALSE):
        token = tokenizer.convert_tokens_to_ids(sign)
        if token is None or token == tokenizer.unk_token_id:
            raise ValueError(
                f"judge.reads=verdict needs a model whose tokenizer has one token each for {ASK!r}, {TRUE!r} and "
                f"{FALSE!r} (the organisms have); this one lacks {sign!r}. Use judge.reads=mean_logp"
            )
        ids.append(int(token))
    return ids[0], ids[1], ids[2]


def verdict_logit(model: LanguageModel, batch: Packed) -> Tensor:
    """Return log P(true) - log P(false) after each response of the batch, in nats: (B, n)."""
    ask, true, false = verdict_tokens(model.tokenizer)
    lengths = batch.response_mask.sum(-1, keepdim=True)
    rows, n, length = batch.response_ids.shape
    # One column more for `?`, which is put right after each response: (B, n, R + 1).
    ids = torch.nn.functional.pad(batch.response_ids, (0, 1), value=model.pad_id).scatter(2, lengths, ask)
    # Real up to `?` itself, at index `lengths`.
    mask = torch.arange(length + 1, device=ids.device).expand(rows, n, -1) <= lengths
    logits = response_logits(model.network, replace(batch, response_ids=ids, response_mask=mask))
    # The entry after `?` predicts the verdict.
    asked = logits.gather(2, (lengths + 1).unsqueeze(-1).expand(-1, -1, -1, logits.shape[-1])).squeeze(2)
    # In nats: a difference of logits is one of log-probabilities, whatever the other tokens have.
    return (asked[..., true] - asked[..., false]).float()
