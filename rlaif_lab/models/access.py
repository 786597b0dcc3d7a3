"""Which weights of which model a judge may use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlaif_lab.records import (
    Generation,
)

if TYPE_CHECKING:
    from torch.nn import Module

    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.models.sources import ModelSource
    from rlaif_lab.sampling.engine import Engine
    from rlaif_lab.tasks.base import Task


PolicyWeights = Literal["live", "previous", "initial"]
"""Which weights of the policy judge: those being trained as of this round, those of one round earlier, or those
it started from. Three different scientific claims."""


@dataclass(frozen=True)
class JudgeContext:
    """What a judge may know of the run.

    policy: the policy's weights by name, as of now. load: a model from its source (cached across judges).
    gold: the task, for the judges that declare ``sees_gold``; None for every other.
    directory: where a judge may keep what must outlive a crash (paid verdicts); None outside a run.
    spare_samples: (start, count, k) -> samples from the initial policy, k to each of ``count`` prompts from
        position ``start`` of those that no round uses; for a judge that declares ``spare_prompts``. None outside a run.
    engine: what samples a judge's own words; None: the lab's own sampler.
    """

    seed: int
    policy: Callable[[PolicyWeights], LanguageModel]
    load: Callable[[ModelSource], LanguageModel]
    gold: Task | None
    directory: Path | None = None
    spare_samples: Callable[[int, int, int], list[Generation]] | None = None
    engine: Engine | None = None


def parameter_count(network: Module) -> tuple[int, int]:
    """Return (all, those that are trained)."""
    # All in one walk over the parameters; tied weights are one parameter, and counted once.
    counts = [(p.numel(), p.requires_grad) for p in network.parameters()]
    return sum(n for n, _ in counts), sum(n for n, trained in counts if trained)
