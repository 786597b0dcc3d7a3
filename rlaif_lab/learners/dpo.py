"""Direct preference optimisation on the round's pairs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from torch import Tensor

from rlaif_lab.learners.base import Batch, Example, Learner, Reference, mean_of, pairs_as_examples, sequence_logps
from rlaif_lab.learners.losses import dpo, preference_logits
from rlaif_lab.pairing import Floats
from rlaif_lab.records import Generation, PreferencePair

Labels = Literal["hard", "soft"]


class DPO(Learner):
    """beta: strength of the anchor to the reference policy. labels: ``hard`` (the chosen one won) or ``soft``
    (the judge's probability). nll_weight: weight of the chosen response's negative log-likelihood per token,
    which guards against likelihood displacement."""

    def __init__(
        self,
        beta: float = 0.1,
        labels: Labels = "hard",
        nll_weight: float = 0.2,
        reference: Reference = "previous_round",
        name: str = "dpo",
    ) -> None:
        super().__init__(reference)
        if beta <= 0:
            raise ValueError(f"learner.beta must be positive; got {beta}")
        if labels not in get_args(Labels):
            raise ValueError(f"learner.labels must be one of {', '.join(get_args(Labels))}; got {labels!r}")
        if nll_weight < 0:
            raise ValueError(f"learner.nll_weight must not be negative; got {nll_weight}")
        self.beta, self.labels, self.nll_weight, self.name = beta, labels, nll_weight, name

    def examples(
        self, generations: Sequence[Generation], prob_beats: Floats, pairs: Sequence[PreferencePair]
    ) -> list[Example]:
        return pairs_as_examples(generations, pairs)

    def loss(self, logps: Tensor, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        policy, reference = sequence_logps(logps), sequence_logps(batch.reference_logps)
        h = preference_logits(policy, reference)
        preference = dpo(h, self.beta, batch.signal[:, 0] if self.labels == "soft" else None).mean()
        chosen_nll = -(policy[:, 0] / batch.packed.response_mask[:, 0].sum(-1)).mean()
        return preference + self.nll_weight * chosen_nll, {
            "preference_loss": preference.detach(),
            "chosen_nll": chosen_nll.detach(),
            "reward_margin": mean_of(self.beta * h),
            "reward_accuracy": mean_of((h > 0).float()),
        }
