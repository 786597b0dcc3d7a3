"""A causal LM with its tokenizer: the one form in which policies and judges are passed around."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """``name`` is for people; ``weights_hash()`` is the identity of the weights."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def pad_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)

    @property
    def eos_id(self) -> int:
        return int(self.tokenizer.eos_token_id)

    def encode_prompts(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids with the tokenizer's own special tokens in front.

        Raises ValueError when the tokenizer has no token for a character of a prompt.
        """
        return self._encode(texts, add_special_tokens=True)

    def encode_responses(self, texts: Sequence[str], finished: Sequence[bool] | None = None) -> list[list[int]]:
        """Token ids of responses, the end-of-sequence token added to the finished ones (default: all)."""
        ids = self._encode(texts, add_special_tokens=False)
        done = [True] * len(ids) if finished is None else finished
        return [[*row, self.eos_id] if end else row for row, end in zip(ids, done, strict=True)]

    def decode(self, rows: Iterable[Sequence[int]]) -> list[str]:
        ids = [list(row) for row in rows]
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True) if ids else []

    def _encode(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        """Refuses unknown characters: the text would be scored as another text."""
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(  # "<eos>" spelled out in a text is five characters, not an end
            list(texts), add_special_tokens=add_special_tokens, split_special_tokens=True
        )["input_ids"]
        unknown = self.tokenizer.unk_token_id
        if unknown is None:
            return ids
        for text, row in zip(texts, ids, strict=True):
            if unknown in row:
                raise ValueError(
                    f"the tokenizer of model {self.name!r} cannot write {text!r}: it has no token for one of its "
                    "characters; the model was made for another task"
                )
        return ids

    def weights_hash(self) -> str:
        return hash_weights(self.network)

    def save(self, folder: Path) -> None:
        self.network.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


@contextmanager
def inference(network: torch.nn.Module) -> Iterator[None]:
    """Eval mode without gradients, and the mode it was in afterwards. (``inference_mode`` would make tensors that
    cannot be trained on.)"""
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        network.train(was_training)


def hash_weights(network: torch.nn.Module) -> str:
    """Hash of all parameters and buffers, bit for bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
