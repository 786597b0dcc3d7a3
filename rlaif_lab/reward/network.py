"""A reward model: the body of a causal LM with one number as its head, read at the last token."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlaif_lab.models.language_model import LanguageModel, inference
from rlaif_lab.models.limits import positions
from rlaif_lab.models.packed import Packed, body_of, pack, response_hidden
from rlaif_lab.records import Prompt
from rlaif_lab.reward.examples import Answer
from rlaif_lab.store.checksums import check_sealed

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAD = "<|pad|>"
Encoded = tuple[list[int], list[list[int]]]
"""Token ids of what a prompt's answers have in common, and of what follows in each."""


@dataclass(frozen=True)
class Scored:
    """rewards: of every answer of every prompt. tokens: processed for them, a prompt's once for all its answers."""

    rewards: list[list[float]]
    tokens: int


class RewardNetwork(LanguageModel):
    """An ``AutoModelForSequenceClassification`` with one label, and its tokenizer.

    The reward is read where transformers itself reads it: at the last token that is not padding. With ``chat`` the
    whole conversation is written by the tokenizer's template, the response as the assistant's turn (whether it was
    finished cannot be seen then); otherwise prompt and response follow each other as when they were sampled, and a
    finished response ends in the end-of-sequence token.
    """

    def encode(self, groups: Sequence[tuple[Prompt, Sequence[Answer]]]) -> list[Encoded]:
        """Return the token ids of prompts and answers. Raises ValueError for a text that the tokenizer cannot write,
        and as ``encode_prompts`` does."""
        prompts = self.encode_prompts([prompt for prompt, _ in groups])
        if self.chat:
            return [self._conversations(*group, asked) for group, asked in zip(groups, prompts, strict=True)]
        answers = [answer for _, group in groups for answer in group]
        rows = iter(self.encode_responses([text for text, _ in answers], [finished for _, finished in answers]))
        return [
            (prompt, [self._read_part(next(rows)) for _ in group])
            for prompt, (_, group) in zip(prompts, groups, strict=True)
        ]

    def _conversations(self, prompt: Prompt, answers: Sequence[Answer], asked: list[int]) -> Encoded:
        """Return the conversations. asked: the token ids of the prompt, up to where a response would begin; a template
        may write it otherwise once there is a response."""
        turns = [{"role": role, "content": said} for role, said in prompt.turns or (("user", prompt.text),)]
        whole = [
            self._apply_template(
                [*turns, {"role": "assistant", "content": text}], return_dict=False, sanitize_control_tokens=True
            )
            for text, _ in answers
        ]
        self._refuse_unknown([text for text, _ in answers], whole)
        read = [self._read_part(ids) for ids in whole]
        # What the template writes alike for the question alone and for all answers.
        shared = _shared_length([asked, *read])
        return asked[:shared], [ids[shared:] for ids in read]

    def _read_part(self, ids: list[int]) -> list[int]:
        """Return the part up to the token at which the reward is read. (Where padding and end of sequence are one
        token, transformers takes the end for padding, and so must this.)"""
        pad = self.network.config.get_text_config().pad_token_id
        end = len(ids)
        while end and ids[end - 1] == pad:
            end -= 1
        return ids[:end]

    def pack(self, encoded: Sequence[Encoded]) -> Packed:
        return pack([prompt for prompt, _ in encoded], [rows for _, rows in encoded], self.pad_id).to(self.device)

    def rewards(self, batch: Packed) -> Tensor:
        """Return (B, n), float32; what stands in empty places means nothing."""
        hidden = response_hidden(self.network, batch)
        # Entry t = the response's length is the state at its last token (see `response_hidden`): (B, n, 1, H).
        last = batch.response_mask.sum(-1)[..., None, None].expand(-1, -1, 1, hidden.shape[-1])
        rewards: Tensor = self.network.score(hidden.gather(2, last).squeeze(2)).squeeze(-1)
        return rewards.float()

    def score(self, groups: Sequence[tuple[Prompt, Sequence[Answer]]], batch_size: int) -> Scored:
        """Return the reward of every answer, ``batch_size`` prompts at a time."""
        encoded = self.encode(groups)
        longest = max((len(prompt) + len(row) for prompt, rows in encoded for row in rows), default=0)
        check_room(self, longest)
        rewards: list[list[float]] = []
        tokens = 0
        with inference(self.network):
            for at in range(0, len(encoded), batch_size):
                some = encoded[at : at + batch_size]
                batch = self.pack(some)
                rows = self.rewards(batch).tolist()
                # Empty places of prompts with fewer answers are cut off.
                rewards += [row[: len(answers)] for row, (_, answers) in zip(rows, some, strict=True)]
                tokens += int(batch.prompt_mask.sum() + batch.response_mask.sum())
        return Scored(rewards, tokens)


class EncoderRewardNetwork(RewardNetwork):
    """A reward model on an encoder (BERT, DeBERTa, ...), whose two segments are the prompt's text and the response."""

    def score(self, groups: Sequence[tuple[Prompt, Sequence[Answer]]], batch_size: int) -> Scored:
        """Score as a RewardNetwork does. Raises ValueError for a conversation of several turns, and for a pair of texts
        that is longer than the encoder can read."""
        rewards: list[list[float]] = []
        tokens = 0
        with inference(self.network):
            for at in range(0, len(groups), batch_size):
                rows = [
                    (self._plain_text(p), text) for p, answers in groups[at : at + batch_size] for text, _ in answers
                ]
                batch = self.tokenizer(
                    [prompt for prompt, _ in rows],
                    [text for _, text in rows],
                    padding=True,
                    padding_side="right",
                    return_tensors="pt",
                ).to(self.device)
                check_room(self, batch["input_ids"].shape[1])
                scored = iter(self.network(**batch).logits[:, 0].float().tolist())
                rewards += [[next(scored) for _ in answers] for _, answers in groups[at : at + batch_size]]
                tokens += int(batch["attention_mask"].sum())
        return Scored(rewards, tokens)


def check_room(model: LanguageModel, tokens: int) -> None:
    """Raise ValueError when a prompt with its response is longer than a reward model reads."""
    room = positions(model.network.config)
    if room is not None and tokens > room:
        raise ValueError(
            f"a prompt with its response is {tokens} tokens long, but reward model {model.name!r} reads {room} at most"
        )


def _shared_length(rows: Sequence[Sequence[int]]) -> int:
    """Return how many items these rows all begin with."""
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False)))


def with_reward_head(model: LanguageModel, seed: int, name: str) -> RewardNetwork:
    """Return a reward model that starts from a causal LM's weights, copied, in float32. seed: of the head.

    The head is drawn from N(0, 1 / (width + 1)) (Stiennon et al. 2009.01325). The reward model is asked as the causal
    LM is, but not told a ``system`` message that is not the prompt's own. A tokenizer without padding token, or with
    the end of sequence for one, gets its own, since the end is what the reward is read at.
    Raises ValueError when transformers has no sequence classifier for this architecture.
    """
    from transformers import AutoModelForSequenceClassification

    body = body_of(model.network)
    config = copy.deepcopy(body.config)
    # transformers takes the number of labels from the configuration.
    config.num_labels = 1
    tokenizer = copy.deepcopy(model.tokenizer)
    if not model.chat:
        tokenizer.chat_template = None  # a saved folder then says by itself how it is asked
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        tokenizer.add_special_tokens({"pad_token": PAD})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = AutoModelForSequenceClassification.from_config(
                config, attn_implementation=config._attn_implementation, dtype=torch.float32
            )
        except ValueError as error:
            raise _no_classifier(model) from error
        if not hasattr(network, "score"):
            raise _no_classifier(model)
        # The body's weights; the head is drawn below.
        network.base_model.load_state_dict(body.state_dict())
        # A padding token of its own needs an embedding.
        if tokenizer.pad_token_id >= network.get_input_embeddings().num_embeddings:
            network.resize_token_embeddings(tokenizer.pad_token_id + 1, mean_resizing=False)
        # Again, so that the head's draw depends on the seed alone, not on how the body was initialised.
        torch.manual_seed(seed)
        torch.nn.init.normal_(network.score.weight, std=(network.score.in_features + 1) ** -0.5)
    # Both, where a model has a configuration of its own for its text part.
    for part in {id(c): c for c in (network.config, network.config.get_text_config())}.values():
        part.pad_token_id = tokenizer.pad_token_id
    return RewardNetwork(network.to(model.device).eval(), tokenizer, name, model.chat)


def _no_classifier(model: LanguageModel) -> ValueError:
    return ValueError(
        f"reward_model.model: transformers has no sequence classifier that is read at the last token for "
        f"{model.network.config.model_type!r}, the architecture of model {model.name!r}"
    )


def load_reward_network(folder: Path, name: str) -> RewardNetwork:
    """Load a network from a folder, in float32 and eval mode; a tokenizer with a chat template makes it a chat model.

    ValueError when it cannot be read as a reward model.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    check_sealed(folder)
    try:
        network = AutoModelForSequenceClassification.from_pretrained(
            folder, attn_implementation="eager", dtype="float32"
        )
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, padding_side="left")
    except Exception as error:  # transformers raises many kinds; all mean the same to the user
        raise ValueError(f"cannot load reward model {name!r} from folder {str(folder)!r}: {error}") from error
    if not hasattr(network, "score"):  # the head's name wherever it is read at the last token
        return EncoderRewardNetwork(network.eval(), tokenizer, name)
    return RewardNetwork(network.eval(), tokenizer, name, bool(tokenizer.chat_template))
