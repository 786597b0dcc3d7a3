"""The tokens that a judge's verdict is read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlaif_lab.judges.prompted.shared_prefix import Path, TokenIds, read_next

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlaif_lab.models.language_model import LanguageModel


@dataclass(frozen=True)
class LabelTokens:
    """lead: the tokens of the cue, which go between a judge prompt and its verdict. tokens: of each label, one; a label
    that begins with another (``10`` with ``1``, where a tokenizer writes digits one by one) has two.
    """

    lead: tuple[int, ...]
    tokens: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str], cue: str, model: str, otherwise: str
    ) -> LabelTokens:
        """Return how this tokenizer writes the labels after the cue. otherwise: the setting that needs no such tokens.

        Raises ValueError when it splits a label, or begins two of them with the same token.
        """
        # As the tokenizer splits the label *after the cue*: a leading space makes it another token.
        texts = [f"{cue} {label}" if cue else label for label in labels]
        # split_special_tokens: a label in a user's template must not become a control token.
        rows: list[list[int]] = tokenizer(texts, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        lead = 0
        # What all labels begin with belongs to the cue; one token of each label is left at least.
        while all(len(row) > lead + 1 for row in rows) and len({row[lead] for row in rows}) == 1:
            lead += 1
        tokens = tuple(tuple(row[lead:]) for row in rows)
        found = cls(tuple(rows[0][:lead]), tokens)
        for label, ids in zip(labels, tokens, strict=True):
            # Two tokens are readable if the first is itself a label: P(10) = P(1) P(0 | 1).
            if len(ids) != 1 and not (len(ids) == 2 and ids[:1] in tokens):
                pieces = ", ".join(repr(tokenizer.decode([token])) for token in ids)
                raise ValueError(
                    f"the tokenizer of model {model!r} splits the verdict {label!r} into {len(ids)} tokens ({pieces}), "
                    f"so its probability cannot be read; use labels of one token, or {otherwise}"
                )
        if len(found.longer()) > 1 or len(set(tokens)) < len(tokens):
            sharing = [
                label for label, ids in zip(labels, tokens, strict=True) if tokens.count(ids) > 1 or len(ids) > 1
            ]
            raise ValueError(
                f"the tokenizer of model {model!r} begins several of the verdicts {', '.join(map(repr, sharing))} with "
                f"the same token; use labels that differ in their first token, or {otherwise}"
            )
        return found

    def longer(self) -> list[int]:
        """Return the labels that begin with another one."""
        return [i for i, ids in enumerate(self.tokens) if len(ids) == 2]

    def probabilities(
        self,
        model: LanguageModel,
        prompts: Sequence[TokenIds],
        paths: Sequence[Path],
        batch_size: int,
        share: bool = True,
    ) -> LabelProbabilities:
        """Return what the model would say after each prompt and the cue (see shared_prefix.read_next)."""
        longer = self.longer()
        # The longer label's first token goes into the prompt, so that what follows it is read in the same pass.
        tail = self.tokens[longer[0]][:1] if longer else ()
        columns = [ids[-1] for ids in self.tokens]
        sequences = [[*prompt, *self.lead, *tail] for prompt in prompts]
        read = read_next(
            model, sequences, paths, columns=columns, keep=1 + len(tail), batch_size=batch_size, share=share
        )
        # (N, labels): at the place of the first token.
        values = read.logps[:, 0].double().exp()
        for label in longer:
            shorter = self.tokens.index(tail)
            # The chain rule; what the longer label takes is no longer the shorter one's.
            values[:, label] = values[:, shorter] * read.logps[:, 1, label].double().exp()
            values[:, shorter] -= values[:, label]
        return LabelProbabilities(values, read.top, read.tokens)


@dataclass(frozen=True)
class LabelProbabilities:
    """values: (N, labels), as the model has them: what is missing to 1 is the probability that it says anything else.
    top: (N,), the most likely next token, a label or not. tokens: how many were processed."""

    values: Tensor
    top: Tensor
    tokens: int

    @property
    def mass(self) -> Tensor:
        """Return the probability that the model says any of the labels: (N,)."""
        # Rounding may lead beyond 1.
        return self.values.sum(-1).clamp(max=1.0)

    def normalised(self) -> Tensor:
        """Return the probabilities over the labels alone: (N, labels). Uniform where they have no probability at all;
        nan stays nan."""
        total = self.values.sum(-1, keepdim=True)
        # All labels at probability 0 in float64: nothing speaks for any of them.
        uniform = torch.full_like(self.values, 1.0 / self.values.shape[-1])
        return torch.where(total != 0, self.values / total.clamp(min=torch.finfo(torch.float64).tiny), uniform)
