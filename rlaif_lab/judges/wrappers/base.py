"""A judge that wraps another one."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rlaif_lab.judges.base import Judge
from rlaif_lab.models.access import JudgeContext, PolicyWeights
from rlaif_lab.records import Comparison, Prompt, Score, Verdict

if TYPE_CHECKING:
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.models.sources import ModelSource


class Wrapper(Judge):
    """A judge that changes another one's verdicts and is in all else that judge. of: the other one."""

    def __init__(self, of: Judge, name: str) -> None:
        # What a wrapper does not change it passes on, so that a learner or a check sees the judge within.
        self.of, self.name = of, name
        self.sees_gold, self.gives_scores, self.writes = of.sees_gold, of.gives_scores, of.writes
        self.spare_prompts = of.spare_prompts

    def attach(self, context: JudgeContext) -> None:
        self.seed = context.seed
        self.of.attach(context)

    def check_tokenizers(self, tokenizer_of: Callable[[PolicyWeights | ModelSource], Any]) -> None:
        self.of.check_tokenizers(tokenizer_of)

    def sources(self) -> list[ModelSource]:
        return self.of.sources()

    def needs_previous_policy(self) -> bool:
        return self.of.needs_previous_policy()

    def language_model(self) -> LanguageModel:
        return self.of.language_model()

    def parameters(self) -> int | None:
        return self.of.parameters()

    def scores(self, responses: Sequence[tuple[Prompt, str]]) -> list[Score]:
        return self.of.scores(responses)

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return [
            # Failures pass through: no wrapper makes a verdict of none.
            verdict if verdict.prob_first_wins is None else self.change(comparison, verdict, verdict.prob_first_wins)
            for comparison, verdict in zip(comparisons, self.of.verdicts(comparisons), strict=True)
        ]

    def change(self, comparison: Comparison, verdict: Verdict, prob_first_wins: float) -> Verdict:
        """Return what becomes of a verdict with this probability. Failures stay what they are."""
        return verdict

    @abstractmethod
    def settings(self) -> str:
        """Return what it does to verdicts, in words; part of its identity."""

    def identity(self) -> str:
        return repr([type(self).__name__, self.settings(), self.of.identity()])

    def describe(self) -> str:
        return f"{self.name} ({self.settings()}, of: {self.of.describe()})"


CLIP = 1e-6
"""Probabilities nearer to 0 or 1 than this count as this far away: log-odds stay within +-13.8."""


def logit(probability: float) -> float:
    # Kept off 0 and 1, whose logit is infinite: no bias could move them.
    p = min(max(probability, CLIP), 1.0 - CLIP)
    return math.log(p / (1.0 - p))


def with_logit(verdict: Verdict, value: float) -> Verdict:
    """Return the verdict with these log-odds (nats) that the first wins."""
    found = Verdict.of_log_odds(value, raw=verdict.raw)
    return replace(verdict, prob_first_wins=found.prob_first_wins, status=found.status, raw=found.raw)


def length_feature(comparison: Comparison, scale: float) -> float:
    """Return tanh(difference in characters / scale): positive when the first is longer; turns its sign with the
    order."""
    # tanh, so that one very long response does not outweigh everything; odd, so that both orders agree.
    return math.tanh((len(comparison.first) - len(comparison.second)) / scale)
