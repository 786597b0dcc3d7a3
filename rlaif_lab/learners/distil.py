"""Imitation of the judge."""

from __future__ import annotations

from dataclasses import dataclass

from rlaif_lab.feedback.base import Example, Feedback
from rlaif_lab.learners.sft import SFT


@dataclass(kw_only=True, eq=False)
class Distil(SFT):
    """SFT on the judge's own answers to the round's prompts: what its opinion of the policy's answers has to beat
    (Sharma et al. 2402.12366)."""

    name: str = "distil"

    needs = ("demonstrations",)

    def examples(self, feedback: Feedback) -> list[Example]:
        return [
            Example(g.prompt, g.responses, (1.0,) * len(g.responses), feedback.round_index, sampled=False)
            for g in feedback.demonstrations
        ]
