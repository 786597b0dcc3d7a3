"""A causal LM with its tokenizer: the one form in which policies and judges are passed around."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlaif_lab.models.precision import inference as inference
from rlaif_lab.records import Prompt
from rlaif_lab.store.checksums import CHECKSUMS, seal
from rlaif_lab.store.files import open_to_umask

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MARK = "(what the assistant says)"
_THOUGHTS = ("think", "thinking", "thought", "reasoning")


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """``name`` is for people; ``weights_hash()`` is the identity of the weights.

    chat: prompts are put to it as turns of its tokenizer's chat template; otherwise as they are. system: what a chat
    model is told first, unless the prompt brings a system turn of its own. chat_options: further arguments of the chat
    template, e.g. ``enable_thinking``.
    """

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    chat: bool = False
    system: str | None = None
    chat_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def pad_id(self) -> int:
        """Return what stands where nothing stands; it is never looked at, but it must have an embedding."""
        # Some tokenizers name a padding token that the model has no embedding for.
        pad, size = self.tokenizer.pad_token_id, self.network.get_input_embeddings().num_embeddings
        return int(pad if pad is not None and pad < size else self.tokenizer.eos_token_id)

    @cached_property
    def eos_id(self) -> int:
        """Return the token that ends a response: the end of a turn for a chat model, else the end of the sequence."""
        return self._end_of_turn() if self.chat else int(self.tokenizer.eos_token_id)

    @cached_property
    def eos_ids(self) -> tuple[int, ...]:
        """Return all tokens that end a response when the model writes them, ``eos_id`` among them; ascending."""
        # Models list further end tokens in their generation config (end of turn, end of text).
        configured = getattr(getattr(self.network, "generation_config", None), "eos_token_id", None)
        more = configured if isinstance(configured, Sequence) else [configured]
        # `- {None}`: tokenizers and configs without one say None.
        known = {self.eos_id, self.tokenizer.eos_token_id, *more} - {None}
        return tuple(sorted(int(token) for token in known))

    def encode_prompts(self, prompts: Sequence[str | Prompt]) -> list[list[int]]:
        """Return the token ids of prompts as this model is asked them, up to where its response begins.

        A chat model's are written by its template, a text as single user turn; control tokens written out in a turn
        are text, so that nobody can end or open a turn from within one. Any other model's are the text behind the
        tokenizer's own first token. No end token stands between a prompt and its response, whatever a tokenizer adds.
        Raises ValueError when the tokenizer has no token for a character of a prompt, when a template refuses the turns
        of one or drops its system turn, and when a conversation of several turns is put to a model without template.
        """
        if not self.chat:
            rows = self._encode([self._plain_text(prompt) for prompt in prompts], add_special_tokens=True)
            return [self._open_ended(row) for row in rows]
        ids = [self._render(_turns(prompt)) for prompt in prompts]
        said = ["\n".join(turn["content"] for turn in _turns(prompt)) for prompt in prompts]
        self._refuse_unknown(said, ids)
        return ids

    def _open_ended(self, ids: list[int]) -> list[int]:
        """Return the ids without a second first token, and without the end tokens that some tokenizers append
        (add_eos_token)."""
        first, last = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        # A first token twice: a template that writes it, and a tokenizer that adds it.
        start = 1 if len(ids) > 1 and first is not None and ids[0] == ids[1] == first else 0
        stop = len(ids)
        # One token is left in any case: an empty prompt has its first token only.
        while stop - start > 1 and ids[stop - 1] == last:
            stop -= 1
        return ids[start:stop]

    def encode_responses(self, texts: Sequence[str], finished: Sequence[bool] | None = None) -> list[list[int]]:
        """Return the token ids of responses, ``eos_id`` added to the finished ones (default: all)."""
        ids = self._encode(texts, add_special_tokens=False)
        done = [True] * len(ids) if finished is None else finished
        return [[*row, self.eos_id] if end else row for row, end in zip(ids, done, strict=True)]

    def decode(self, rows: Iterable[Sequence[int]]) -> list[str]:
        ids = [list(row) for row in rows]
        return self.tokenizer.batch_decode(ids, skip_special_tokens=True) if ids else []

    def weights_hash(self) -> str:
        return hash_weights(self.network)

    def save(self, folder: Path) -> None:
        """Save for ``from_pretrained``, with checksums. Weights with a LoRA adapter are saved merged, and the adapter
        by itself in a folder beside (``policy_adapter`` beside ``policy``)."""
        from transformers.utils import logging

        from rlaif_lab.models.lora import save_network

        logging.disable_progress_bar()
        # A list of what was there before would not fit what is saved now.
        (folder / CHECKSUMS).unlink(missing_ok=True)
        save_network(self.network, folder)
        self.tokenizer.save_pretrained(folder)
        # Others may read a shared folder; safetensors writes for the owner only.
        open_to_umask(folder)
        # Last, over all that is there by then.
        seal(folder)

    # --- encoding ---------------------------------------------------------------------------------------------
    def _encode(self, texts: Sequence[str], add_special_tokens: bool) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self.tokenizer(  # "<eos>" spelled out in a text is five characters, not an end
            list(texts), add_special_tokens=add_special_tokens, split_special_tokens=True
        )["input_ids"]
        self._refuse_unknown(texts, ids)
        return ids

    def _refuse_unknown(self, texts: Sequence[str], ids: Sequence[Sequence[int]]) -> None:
        """Refuse a text with an unknown character, which would be scored as another text.

        The token for unknown characters may be the first or last token too: does it stand for something in the text?"""
        unknown = self.tokenizer.unk_token_id
        if unknown is None:
            return
        for text, row in zip(texts, ids, strict=True):
            if unknown in row and unknown in self._bare(text):
                raise ValueError(
                    f"the tokenizer of model {self.name!r} cannot write {text!r}: it has no token for one of its "
                    "characters; the model was made for another task"
                )

    def _bare(self, text: str) -> list[int]:
        """Return the token ids of a text and of nothing else."""
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return ids

    def _plain_text(self, prompt: str | Prompt) -> str:
        turns = _turns(prompt)
        if len(turns) > 1:
            raise ValueError(
                f"model {self.name!r} is not asked by a chat template, so it cannot be asked prompt "
                f"{getattr(prompt, 'id', prompt)!r}, a conversation of {len(turns)} turns; use a chat model (chat=true)"
            )
        return turns[0]["content"]

    def _render(self, turns: Sequence[dict[str, str]]) -> list[int]:
        # sanitize_control_tokens: control tokens that are written out in a turn are text.
        ids: list[int] = self._apply_template(
            turns, add_generation_prompt=True, return_dict=False, sanitize_control_tokens=True
        )
        return ids

    def _apply_template(self, turns: Sequence[dict[str, str]], **options: Any) -> Any:
        from jinja2 import TemplateError

        if self.system is not None and turns[0]["role"] != "system":
            turns = [{"role": "system", "content": self.system}, *turns]
        if turns[0]["role"] == "system" and turns[0]["content"] and not self.keeps_system:
            raise ValueError(
                f"the chat template of model {self.name!r} drops the system turn without a word; put what it says into "
                "the user's turn, and leave policy.system=null"
            )
        try:
            return self.tokenizer.apply_chat_template(list(turns), **options, **self.chat_options)
        except TemplateError as error:
            roles = ", ".join(turn["role"] for turn in turns)
            raise ValueError(
                f"the chat template of model {self.name!r} refuses a conversation of the roles {roles}: {error}"
            ) from error

    @cached_property
    def keeps_system(self) -> bool:
        """Return whether a system turn is in what the template writes. (One that is refused raises where it is put.)"""
        from jinja2 import TemplateError

        turns = [{"role": "system", "content": _MARK}, {"role": "user", "content": "?"}]
        try:
            written = self.tokenizer.apply_chat_template(turns, tokenize=False, **self.chat_options)
        except TemplateError:
            return True
        return _MARK in str(written)

    @cached_property
    def opens_thought(self) -> bool:
        """Return whether the template opens a thought for the assistant and leaves it open (chat models only)."""
        if not self.chat:
            return False
        turns = [{"role": "user", "content": "?"}]
        written = str(self._apply_template(turns, tokenize=False, add_generation_prompt=True))
        opened = [written.rfind(f"<{tag}>") for tag in _THOUGHTS]
        closed = [written.rfind(f"</{tag}>") for tag in _THOUGHTS]
        return any(start > end for start, end in zip(opened, closed, strict=True))

    def _end_of_turn(self) -> int:
        """Return the first control token that the template writes after what the assistant says."""
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
        after = str(self._apply_template(turns, tokenize=False)).rpartition(_MARK)[2]
        special = set(self.tokenizer.all_special_ids)
        ids = self.tokenizer(after, add_special_tokens=False)["input_ids"]
        return int(next((token for token in ids if token in special), self.tokenizer.eos_token_id))


def _turns(prompt: str | Prompt) -> list[dict[str, str]]:
    if isinstance(prompt, Prompt) and prompt.turns:
        return [{"role": role, "content": content} for role, content in prompt.turns]
    return [{"role": "user", "content": _text(prompt)}]


def _text(prompt: str | Prompt) -> str:
    return prompt if isinstance(prompt, str) else prompt.text


def hash_weights(network: torch.nn.Module) -> str:
    """Return the hash of all parameters and buffers, bit for bit."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
