"""Direct preference optimisation on the round's pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from rlaif_lab.learners.base import Batch, Labels, Reference, one_of
from rlaif_lab.learners.losses import dpo, smoothed
from rlaif_lab.learners.preference import PairLearner, check_flip_rate, check_positive, log_ratio_difference


class DPO(PairLearner):
    """DPO (Rafailov et al. 2305.18290), and with soft or smoothed labels conservative DPO (Mitchell 2023).

    beta: strength of the anchor to the reference policy, per nat of a response's log-ratio: a pair counts less and less
    beyond h of about 1 / beta. The default suits short answers and a reference that moves every round; 0.1 is usual
    for large models and long answers. labels: ``hard`` (the chosen one won) or ``soft`` (the judge's probability).
    label_smoothing: probability, in [0, 0.5), that a label is the wrong way round; either kind of label is drawn
    towards 1/2 by it. nll_weight: see PairLearner.
    """

    def __init__(
        self,
        beta: float = 1.0,
        labels: Labels = "hard",
        label_smoothing: float = 0.0,
        nll_weight: float = 1.0,
        reference: Reference = "previous_round",
        name: str = "dpo",
    ) -> None:
        super().__init__(nll_weight, reference, name)
        check_positive("learner.beta", beta)
        one_of("learner.labels", labels, Labels)
        check_flip_rate("learner.label_smoothing", label_smoothing)
        self.beta, self.labels, self.label_smoothing = beta, labels, label_smoothing

    def preference(self, policy: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        h = log_ratio_difference(policy, batch)
        # Column 0 is the chosen response's: the probability that it is the better one.
        label = batch.signal[:, 0] if self.labels == "soft" else torch.ones_like(h)
        return dpo(h, self.beta, smoothed(label, self.label_smoothing)), self.beta * h
