"""The recipe of a model organism: everything that decides its weights, and nothing else."""

from __future__ import annotations

import hashlib
import inspect
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rlaif_lab.tasks.base import Skill, Split

if TYPE_CHECKING:
    from rlaif_lab.tasks.base import ProceduralTask

PRETRAINING: tuple[Split, ...] = ("policy_pretraining", "judge_pretraining")
FORMAT = 2
"""Raise when the meaning of a recipe changes without its fields changing (corpus, initialisation, optimiser)."""


@dataclass(frozen=True)
class Recipe:
    """A tiny Llama pretrained on what a demonstrator of ``skill`` writes: answers, and verdicts on answers.

    split: whose problems it sees; policies and judges learn from disjoint ones. batch_size: prompts.
    verdict_turns: answers by others that come with each prompt, for their verdicts to be learnt.
    verdict_weight: of a verdict in the loss; a token of an answer weighs 1. Both make a better judge by verdict and,
    for the same number of steps, a worse one by likelihood (experiments/LOG.md).
    """

    skill: Skill
    split: Split
    steps: int = 900
    batch_size: int = 128
    learning_rate: float = 6e-3
    weight_decay: float = 0.01
    warmup_steps: int = 50
    verdict_turns: int = 1
    verdict_weight: float = 1.0
    width: int = 96
    layers: int = 3
    heads: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "verdict_turns", "width", "layers", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"recipe.{name} must be at least 1; got {getattr(self, name)}")
        # A head's rotation works on pairs of dimensions, so its width has to be even.
        if self.width % (2 * self.heads):
            raise ValueError(f"recipe.width must be a multiple of 2 x heads; got {self.width} and {self.heads} heads")
        if self.split not in PRETRAINING:
            raise ValueError(f"recipe.split must be one of {', '.join(PRETRAINING)}; got {self.split!r}")
        for name in ("learning_rate", "verdict_weight"):
            if getattr(self, name) <= 0:
                raise ValueError(f"recipe.{name} must be positive; got {getattr(self, name)}")

    def fingerprint(self, task: ProceduralTask) -> str:
        """Return the content hash: equal exactly when the same weights would come out (on the same libraries)."""
        # Nothing of the libraries: the same recipe gives other bits with another torch, which the weights' own hash
        # shows.
        content = {"format": FORMAT, "recipe": asdict(self), "task": task.name, "code": _source_hash(type(task))}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _source_hash(task_class: type) -> str:
    """Return the hash of a task's source: its demonstrators decide the corpus, so an edited task must not find its old
    organisms. Of the base classes only what demonstrates counts."""
    from rlaif_lab.tasks.base import ProceduralTask

    own = [c for c in task_class.__mro__ if issubclass(c, ProceduralTask) and c is not ProceduralTask]
    modules = {inspect.getmodule(c) for c in own}
    # Sorted, so that the order in which Python lists base classes does not matter.
    sources = sorted(inspect.getsource(module) for module in modules if module is not None)
    return hashlib.sha256("".join([*sources, inspect.getsource(ProceduralTask)]).encode()).hexdigest()
