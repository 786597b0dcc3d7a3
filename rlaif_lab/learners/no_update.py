"""The null: everything runs, nothing is learnt."""

from __future__ import annotations

from torch import Tensor

from rlaif_lab.feedback.base import Example, Feedback
from rlaif_lab.learners.base import Batch, Learner


class NoUpdate(Learner):
    """Trains on nothing. What changes from round to round under it is the noise of the measurement."""

    # Nothing is trained, so that nothing is refused: any judge, any k.
    minimum_k = 1
    needs_reference = False
    needs = ()

    def __init__(self, name: str = "no_update") -> None:
        super().__init__()
        self.name = name

    def examples(self, feedback: Feedback) -> list[Example]:
        return []

    def loss(self, logps: Tensor, batch: Batch, values: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        raise AssertionError("there are no examples to have a loss on")
