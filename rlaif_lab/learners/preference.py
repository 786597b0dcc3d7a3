"""What the learners on preference pairs share: examples from pairs, the guard on the chosen response, statistics."""

from __future__ import annotations

import math
from abc import abstractmethod

from torch import Tensor

from rlaif_lab.feedback.base import Example, Feedback
from rlaif_lab.learners.base import (
    Batch,
    Learner,
    Reference,
    mean_of,
    pairs_as_examples,
    response_lengths,
    sequence_logps,
)
from rlaif_lab.learners.losses import preference_logits


class PairLearner(Learner):
    """A learner on pairs: the mean over pairs of a loss, plus ``nll_weight`` times the chosen response's negative
    log-likelihood per token (Pang et al. 2404.19733), which guards against likelihood displacement (Razin et al.
    2410.08847) and by itself is imitation of the chosen samples. Both are means over pairs, so that a batch in parts,
    weighted by their pairs, is the batch.

    Logged: preference_loss, chosen_nll (nats per token), reward_margin (chosen minus rejected, in the units in which
    the loss reads it) and reward_accuracy (how often that margin is positive).
    """

    needs = ("judgements", "pairs")

    def __init__(self, nll_weight: float, reference: Reference, name: str) -> None:
        super().__init__(reference)
        check_not_negative("learner.nll_weight", nll_weight)
        self.nll_weight, self.name = nll_weight, name

    def examples(self, feedback: Feedback) -> list[Example]:
        return pairs_as_examples(feedback)

    @abstractmethod
    def preference(self, policy: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the loss and reward margin of each pair, (B,) and (B,), from the policy's sequence log-probabilities
        (B, 2), chosen first."""

    def loss(self, logps: Tensor, batch: Batch, values: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        policy = sequence_logps(logps)
        losses, margin = self.preference(policy, batch)
        # Per token: otherwise long answers would weigh more in the guard than in the preference.
        preference, chosen_nll = losses.mean(), -per_token(policy, batch)[:, 0].mean()
        return preference + self.nll_weight * chosen_nll, {
            "preference_loss": preference.detach(),
            "chosen_nll": chosen_nll.detach(),
            "reward_margin": mean_of(margin),
            "reward_accuracy": mean_of((margin > 0).float()),
        }


def per_token(totals: Tensor, batch: Batch) -> Tensor:
    """Return the mean over a response's tokens: (B, n) -> (B, n)."""
    return totals / response_lengths(batch)


def log_ratio_difference(policy: Tensor, batch: Batch) -> Tensor:
    """Return h of each pair: (B, 2) -> (B,)."""
    return preference_logits(policy, sequence_logps(batch.reference_logps))


def check_positive(name: str, value: float) -> None:
    if value == math.inf:
        raise ValueError(f"{name} must be finite; got {value}")
    # `not value > 0`, so that nan is refused, too.
    if not value > 0:
        raise ValueError(f"{name} must be positive; got {value}")


def check_not_negative(name: str, value: float) -> None:
    if value == math.inf:
        raise ValueError(f"{name} must be finite; got {value}")
    if not value >= 0:
        raise ValueError(f"{name} must not be negative; got {value}")


def check_flip_rate(name: str, value: float) -> None:
    """Check a rate of flipped labels: below 1/2, where labels say nothing any more."""
    if not 0 <= value < 0.5:
        raise ValueError(f"{name} must lie in [0, 0.5); got {value}")
