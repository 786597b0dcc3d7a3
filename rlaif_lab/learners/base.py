"""What a learner is: which examples it draws from a round's feedback, and a loss over their log-probabilities."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from rlaif_lab.feedback.base import Example, Feedback
from rlaif_lab.models.packed import Packed
from rlaif_lab.records import Prompt, Response
from rlaif_lab.returned import check_returns, finite, named, number, records, shown

Reference = Literal["initial", "previous_round"]
"""The policy the loss is anchored to: the one the run started from, or the one this round started from."""

RewardSource = Literal["win_rate", "score", "reward_model"]
"""What a learner takes as reward: the win rate within the group of k responses, the judge's direct score of each, or
the reward model's."""

REWARDED_BY = {"score": ("scores",), "reward_model": ("rewards",)}
"""The kind of feedback that holds a reward's numbers; win rates are in the judgements themselves."""

Labels = Literal["hard", "soft"]
"""How a judge's probabilities are read: by whom they favour, or as they are."""

Restart = Literal["never", "base"]
"""Which weights a round's training starts from: those the last one ended with, or those the run started from."""


@dataclass(frozen=True)
class Batch:
    """A padded batch of examples. Shapes with B prompts, n responses each, R tokens:

    packed: the token ids. sampled_logps: (B, n, R), under the weights that sampled; for examples that the policy did
    not sample, under those the round started from. reference_logps: (B, n, R), under the reference policy.
    signal: (B, n). finished: (B, n) bool. values: (B, n, R), the critic's at the start of the round; None without one.
    """

    packed: Packed
    sampled_logps: Tensor
    reference_logps: Tensor
    signal: Tensor
    finished: Tensor
    values: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor | Packed)}
        return replace(self, **moved)

    def __len__(self) -> int:
        return len(self.signal)


class Learner(ABC):
    """Turns a round's feedback into examples, and log-probabilities into a loss. One file plus one YAML.

    The class attributes say what the round has to provide.
    """

    name: str
    minimum_k: int = 2
    reward: RewardSource | None = None
    restart: Restart = "never"
    labels: Labels = "hard"
    """Whether it reads the judge's ordering or its probabilities; what the judge's biases are fitted to."""
    needs: tuple[str, ...] = ("judgements",)
    """The kinds of feedback it trains on, by name (feedback/kinds.py). Without ``judgements`` the judge's verdicts are
    measured and not trained on. What ``reward`` asks for need not be named."""
    needs_reference: bool = True
    """False for a loss without a reference policy: no log-probabilities are computed for it."""
    needs_values: bool = False
    """A critic is trained beside the policy (PPO)."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Have a learner's examples, its loss and its weights checked where it gives them."""
        super().__init_subclass__(**kwargs)
        check_returns(cls, "examples", _checked_examples)
        check_returns(cls, "loss", _checked_loss)
        check_returns(cls, "weight", _checked_weight)

    def __init__(self, reference: Reference = "previous_round") -> None:
        if reference not in get_args(Reference):
            raise ValueError(f"learner.reference must be one of {', '.join(get_args(Reference))}; got {reference!r}")
        self.reference = reference

    def kinds(self) -> tuple[str, ...]:
        """Return the names of all feedback it trains on, that of its reward included."""
        return (*self.needs, *REWARDED_BY.get(self.reward or "", ()))

    @abstractmethod
    def examples(self, feedback: Feedback) -> list[Example]:
        """Return what this learner trains on, in the order of the prompts."""

    @abstractmethod
    def loss(self, logps: Tensor, batch: Batch, values: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss and scalars to log, from the policy's log-probabilities ``logps`` (B, n, R) and, for a
        learner with a critic, its ``values`` (B, n, R). The loss is a mean: over ``weight(batch)`` equal parts."""

    def weight(self, batch: Batch) -> float:
        """Return what this batch counts among those of one optimiser step; accumulation is exact because of it.
        Default: its examples. A loss that is a mean over tokens returns their number."""
        return float(len(batch))

    # --- state that moves with the rounds (an adaptive KL weight); kept in the checkpoint --------------------------
    def observe(self, row: Mapping[str, float]) -> None:
        """Take note of a round's metrics, after its training."""

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


def _checked_examples(learner: Learner, found: Any, feedback: Feedback) -> list[Example]:
    where = named(learner, "examples")
    examples = records(where, found, Example)
    for example in examples:
        if not isinstance(example.prompt, Prompt) or not all(isinstance(r, Response) for r in example.responses):
            raise ValueError(f"{where}: an Example has a Prompt and Responses; got {shown(example.prompt)} and others")
        if not 0 < len(example.signal) == len(example.responses) == len(examples[0].responses):
            raise ValueError(
                f"{where}: every Example has the same number of responses, and a signal for each; prompt "
                f"{example.prompt.id!r} has {len(example.responses)} and {len(example.signal)}, the first Example "
                f"{len(examples[0].responses)}"
            )
        finite(where, example.signal, f"the signals of prompt {example.prompt.id!r}")
    return examples


def _checked_loss(
    learner: Learner, found: Any, logps: Tensor, batch: Batch, values: Tensor | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Whether the loss is finite is left to the training, which counts the steps where it is not."""
    where = named(learner, "loss")
    if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], Mapping):
        raise ValueError(f"{where} must return the loss and a mapping of statistics; it returned {shown(found)}")
    loss, statistics = found
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
        shape = f" of shape {tuple(loss.shape)} and {loss.dtype}" if isinstance(loss, Tensor) else ""
        raise ValueError(
            f"{where} must return a loss that is one number, as a Tensor; it returned {shown(loss)}{shape}"
        )
    if logps.requires_grad and not loss.requires_grad:
        raise ValueError(
            f"{where}: the loss does not depend on the log-probabilities (it has no gradient), so nothing can be "
            "learnt from it; it was perhaps detached, or computed from numbers"
        )
    scalars = {}
    for name, value in statistics.items():
        if not isinstance(value, Tensor) and number(value) is None:
            raise ValueError(f"{where}: statistic {name!r} must be one number; got {shown(value)}")
        scalars[str(name)] = torch.as_tensor(value) if not isinstance(value, Tensor) else value
        if scalars[str(name)].numel() != 1:
            raise ValueError(
                f"{where}: statistic {name!r} must be one number; got a Tensor of shape "
                f"{tuple(scalars[str(name)].shape)}"
            )
    return loss, scalars


def _checked_weight(learner: Learner, found: Any, batch: Batch) -> float:
    weight = number(found.item() if isinstance(found, Tensor) and found.numel() == 1 else found)
    if weight is None or not math.isfinite(weight) or weight < 0:
        raise ValueError(
            f"{named(learner, 'weight')} must return a finite number, 0 or more; it returned {shown(found)}"
        )
    return weight


def pairs_as_examples(feedback: Feedback) -> list[Example]:
    """Return pairs as examples: chosen first, rejected second; the signal is the probability that each is the better
    one. Of revisions, those that changed nothing are left out."""
    if feedback.pairs_are_revisions:
        return [
            Example(r.prompt, (r.revised, r.original), (1.0, 0.0), feedback.round_index, sampled=False)
            # Nobody judged a revision: that it is better than the original is taken for granted (probability 1).
            for r in feedback.revisions
            if r.revised.text != r.original.text
        ]
    responses = {g.prompt.id: g.responses for g in feedback.generations}
    return [
        Example(
            pair.prompt,
            (responses[pair.prompt.id][pair.sample_chosen], responses[pair.prompt.id][pair.sample_rejected]),
            (pair.prob_chosen_wins, 1.0 - pair.prob_chosen_wins),
            feedback.round_index,
        )
        for pair in feedback.pairs
    ]


def sequence_logps(logps: Tensor) -> Tensor:
    """Return the log-probability of whole responses: (B, n, R) -> (B, n)."""
    return logps.sum(-1)


def response_lengths(batch: Batch) -> Tensor:
    """Return tokens of each response, at least 1: (B, n)."""
    # At least 1, so that an empty response has a mean of 0 and not of nan.
    return batch.packed.response_mask.sum(-1).clamp(min=1)


def mean_of(values: Tensor) -> Tensor:
    # An empty selection has no mean; 0, since a logged nan would spoil the round's mean.
    return values.detach().mean() if values.numel() else torch.zeros(())


def one_of(name: str, value: str, allowed: Any) -> None:
    """Raise ValueError unless ``value`` is one of a Literal's choices."""
    if value not in get_args(allowed):
        raise ValueError(f"{name} must be one of {', '.join(get_args(allowed))}; got {value!r}")
