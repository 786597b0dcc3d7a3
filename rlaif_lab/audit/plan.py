"""What an audit asks of a judge besides the bank."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """What is asked besides the bank itself, which is asked in both orders.

    repeat_times: how often the same question is asked in all, 1 is off. repeat_pairs: of how many pairs of the bank.
    own_prompts: prompts to which the judge answers itself, to see whether it prefers its own mistakes, 0 is off.
    own_samples: how many answers each. injection_pairs: pairs to which text is added that addresses the judge, 0 is
    off. self_author: the bank's name for what the judge itself wrote, in banks that name authors.
    """

    repeat_times: int = 3
    repeat_pairs: int = 50
    own_prompts: int = 200
    own_samples: int = 8
    injection_pairs: int = 10
    self_author: str | None = None

    def __post_init__(self) -> None:
        for name, least in (("repeat_times", 1), ("repeat_pairs", 1), ("own_prompts", 0), ("own_samples", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"plan.{name} must be at least {least}; got {getattr(self, name)}")
        if self.injection_pairs < 0:
            raise ValueError(f"plan.injection_pairs must be at least 0; got {self.injection_pairs}")
