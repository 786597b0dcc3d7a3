"""How a reward model is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Labels = Literal["hard", "soft"]


@dataclass(frozen=True)
class Training:
    """AdamW on the Bradley-Terry loss (reward/losses.py); a fresh optimiser every round.

    batch_size: prompts, each with all of its pairs. clip_norm: gradient norm, 0 = off.
    labels: ``hard``, the judge's preference counts as certain; ``soft``, with the judge's probability p.
    margin: m, of a pair of which the judge is certain; m (2 p - 1) of others, so that responses which the judge can
    hardly tell apart need not be far apart (Touvron et al. 2307.09288). With soft labels whichever wins must win by it.
    """

    passes: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    clip_norm: float
    labels: Labels
    margin: float
    label_smoothing: float
    centring: float

    def __post_init__(self) -> None:
        for name in ("passes", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"reward_model.{name} must be at least 1; got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"reward_model.learning_rate must be positive; got {self.learning_rate}")
        for name in ("weight_decay", "warmup_steps", "clip_norm", "margin", "centring"):
            if getattr(self, name) < 0:
                raise ValueError(f"reward_model.{name} must not be negative; got {getattr(self, name)}")
        if self.labels not in get_args(Labels):
            raise ValueError(f"reward_model.labels must be one of {', '.join(get_args(Labels))}; got {self.labels!r}")
        if not 0.0 <= self.label_smoothing < 0.5:
            raise ValueError(f"reward_model.label_smoothing must lie in [0, 0.5); got {self.label_smoothing}")
