"""What a learner is: which examples it reads, and a loss over the log-probabilities of their responses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from rlaif_lab.models.packed import Packed
from rlaif_lab.pairing import Floats, win_rates
from rlaif_lab.records import Generation, PreferencePair

Reference = Literal["initial", "previous_round"]
"""The policy the loss is anchored to: the one the run started from, or the one that sampled this round."""


@dataclass(frozen=True)
class Example:
    """One prompt with n responses to learn from (n is the same for all examples of a round).

    samples: which of the prompt's responses, by sample number.
    signal: one number per response; its meaning is the learner's (chosen probability, reward, ...).
    """

    generation: int
    samples: tuple[int, ...]
    signal: tuple[float, ...]


@dataclass(frozen=True)
class Batch:
    """A padded batch of examples. Shapes with B prompts, n responses each, R tokens:

    packed: the token ids. sampled_logps: (B, n, R), under the weights that sampled.
    reference_logps: (B, n, R), under the reference policy. signal: (B, n).
    """

    packed: Packed
    sampled_logps: Tensor
    reference_logps: Tensor
    signal: Tensor


class Learner(ABC):
    """Turns a round's judgements into examples, and log-probabilities into a loss. One file plus one YAML."""

    name: str
    minimum_k: int = 2

    def __init__(self, reference: Reference) -> None:
        if reference not in get_args(Reference):
            raise ValueError(f"learner.reference must be one of {', '.join(get_args(Reference))}; got {reference!r}")
        self.reference = reference

    @abstractmethod
    def examples(
        self, generations: Sequence[Generation], prob_beats: Floats, pairs: Sequence[PreferencePair]
    ) -> list[Example]:
        """What this learner trains on: by default one of pairs_as_examples, groups_as_examples."""

    @abstractmethod
    def loss(self, logps: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss and scalars to log, from the policy's log-probabilities ``logps`` (B, n, R)."""


def pairs_as_examples(generations: Sequence[Generation], pairs: Sequence[PreferencePair]) -> list[Example]:
    """Chosen first, rejected second; the signal is the probability that each is the better one."""
    position = {g.prompt.id: i for i, g in enumerate(generations)}
    return [
        Example(
            position[p.prompt.id],
            (p.sample_chosen, p.sample_rejected),
            (p.prob_chosen_wins, 1.0 - p.prob_chosen_wins),
        )
        for p in pairs
    ]


def groups_as_examples(prob_beats: Floats, hard: bool) -> list[Example]:
    """All k responses of each prompt; the signal is the win rate within the group.

    Prompts with a response that got no verdict at all are left out, and so are those whose win rates are all
    equal: they carry no gradient.
    """
    rates = win_rates(prob_beats, hard)
    samples = tuple(range(rates.shape[1]))
    useful = ~np.isnan(rates).any(axis=1) & (np.ptp(rates, axis=1) > 0)
    return [Example(int(i), samples, tuple(rates[i].tolist())) for i in np.flatnonzero(useful)]


def sequence_logps(logps: Tensor) -> Tensor:
    """Log-probability of whole responses: (B, n, R) -> (B, n)."""
    return logps.sum(-1)


def mean_of(values: Tensor) -> Tensor:
    return values.detach().mean() if values.numel() else torch.zeros(())
