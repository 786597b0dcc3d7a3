"""How good a reward model is on pairs whose label is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlaif_lab.records import Floats
from rlaif_lab.statistics.calibration import brier, ece


@dataclass(frozen=True)
class Validation:
    """accuracy: how often the chosen response has the higher reward, equal rewards counting half. loss: cross-entropy
    in nats. brier, ece: of sigmoid(mean difference) as the probability that the chosen response wins. disagreement:
    mean standard deviation of a pair's difference between members. All nan without pairs."""

    accuracy: float
    loss: float
    brier: float
    ece: float
    disagreement: float


def validate(differences: Floats, labels: Floats) -> Validation:
    """Validate a model. differences: reward of the chosen minus that of the rejected, (members, P). labels: P(chosen
    wins), (P,)."""
    if not len(labels):
        return Validation(*[float("nan")] * 5)
    d = differences.mean(0)
    # Each pair in both orders: with the chosen one always first, saying 1 would be perfect calibration.
    stated, happened = np.exp(-np.logaddexp(0.0, -np.r_[d, -d])), np.r_[labels, 1.0 - labels]
    return Validation(
        accuracy=float(np.mean(0.5 + 0.5 * np.sign(d))),
        loss=float(np.mean(labels * np.logaddexp(0.0, -d) + (1.0 - labels) * np.logaddexp(0.0, d))),
        brier=brier(stated, happened),
        ece=ece(stated, happened),
        disagreement=float(differences.std(0).mean()),
    )
