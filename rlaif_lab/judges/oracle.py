"""Judges with known competence: the oracle, the oracle with stated errors, and the nulls (random, reversed)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rlaif_lab.judges.base import Judge
from rlaif_lab.models.access import JudgeContext, PolicyWeights
from rlaif_lab.records import Comparison, Prompt, Score, Verdict
from rlaif_lab.seeding import seed_for

if TYPE_CHECKING:
    from rlaif_lab.models.sources import ModelSource


def _coin(probability: float, *identity: int | str) -> bool:
    """Return True with this probability, decided by identity alone."""
    # 63 bits, as `seed_for` gives them: uniform on [0, 1).
    return seed_for(*identity) / 2**63 < probability


def _pair_identity(comparison: Comparison) -> tuple[str, str, str]:
    """Return the same for both orders, so that a random verdict has no position bias."""
    # By text, not by order or by sample: the same pair meets the same fate in every order and round.
    low, high = sorted((comparison.first, comparison.second))
    return comparison.prompt.id, low, high


class OracleJudge(Judge):
    """Prefers the higher gold quality; equal quality is a tie."""

    sees_gold = True
    gives_scores = True

    def __init__(self, name: str = "oracle") -> None:
        self.name = name

    def attach(self, context: JudgeContext) -> None:
        assert context.gold is not None
        self.seed, self.gold = context.seed, context.gold

    def quality(self, prompt: Prompt, response: str) -> float:
        return self.gold.quality(prompt, response)

    def identity(self) -> str:
        return f"{type(self).__name__} of {self.gold.name}"

    def scores(self, responses: Sequence[tuple[Prompt, str]]) -> list[Score]:
        return [Score.of(self.quality(prompt, response)) for prompt, response in responses]

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return [self._verdict(comparison) for comparison in comparisons]

    def _verdict(self, comparison: Comparison) -> Verdict:
        first = self.quality(comparison.prompt, comparison.first)
        second = self.quality(comparison.prompt, comparison.second)
        # Gold that is not finite for one response decides nothing; a failure is recorded, not a tie.
        if not math.isfinite(first - second):
            return Verdict.of(math.nan)
        return Verdict.of(0.5 if first == second else float(first > second))


class NoisyOracleJudge(OracleJudge):
    """The oracle with errors of stated kind and size.

    flip: probability that a preference is reversed, independently for every pair (unsystematic error).
    misconception: probability, per prompt, that the judge holds the task's misconception on it and prefers
        what is right under it (systematic error).
    """

    gives_scores = False  # its errors are of comparisons

    def __init__(self, flip: float = 0.0, misconception: float = 0.0, name: str = "noisy_oracle") -> None:
        super().__init__(name)
        for key, value in (("flip", flip), ("misconception", misconception)):
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"judge.{key} is a probability and must lie in [0, 1]; got {value}")
        self.flip, self.misconception = flip, misconception

    def identity(self) -> str:
        return f"{super().identity()}, seed {self.seed}, flip {self.flip}, misconception {self.misconception}"

    def quality(self, prompt: Prompt, response: str) -> float:
        # Drawn per prompt, so the error is systematic: no averaging over pairs takes it out.
        if _coin(self.misconception, self.seed, "misconception", prompt.id):
            return self.gold.misconceived_quality(prompt, response)
        return self.gold.quality(prompt, response)

    def _verdict(self, comparison: Comparison) -> Verdict:
        verdict = super()._verdict(comparison)
        if verdict.prob_first_wins is None:
            return verdict
        # Drawn per pair, the same in both orders: averaging the two does not take it out either.
        if _coin(self.flip, self.seed, "flip", *_pair_identity(comparison)):
            return replace(verdict, prob_first_wins=1.0 - verdict.prob_first_wins)
        return verdict


class RandomJudge(Judge):
    """A fair coin per pair: the null under which nothing may be learnt."""

    null = True

    def __init__(self, name: str = "random") -> None:
        self.name = name

    def attach(self, context: JudgeContext) -> None:
        self.seed = context.seed

    def identity(self) -> str:
        return f"coin, seed {self.seed}"

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return [self._verdict(comparison) for comparison in comparisons]

    def _verdict(self, comparison: Comparison) -> Verdict:
        lower_wins = _coin(0.5, self.seed, "random judge", *_pair_identity(comparison))
        # The coin falls for the lower text, whichever slot it is in: no position bias.
        first_is_lower = comparison.first <= comparison.second
        return Verdict(float(lower_wins == first_is_lower))


class ReversedJudge(Judge):
    """Another judge turned round: the null under which the policy must get worse."""

    def __init__(self, of: Judge, name: str = "reversed") -> None:
        self.of, self.name = of, name
        self.sees_gold, self.spare_prompts = of.sees_gold, of.spare_prompts

    def attach(self, context: JudgeContext) -> None:
        self.of.attach(context)

    def sources(self) -> list[ModelSource]:
        return self.of.sources()

    def check_tokenizers(self, tokenizer_of: Callable[[PolicyWeights | ModelSource], Any]) -> None:
        self.of.check_tokenizers(tokenizer_of)

    def needs_previous_policy(self) -> bool:
        return self.of.needs_previous_policy()

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return [
            # A failure stays one: nobody knows what its opposite would be.
            v if v.prob_first_wins is None else replace(v, prob_first_wins=1.0 - v.prob_first_wins)
            for v in self.of.verdicts(comparisons)
        ]

    def identity(self) -> str:
        return f"opposite of {self.of.identity()}"

    def describe(self) -> str:
        return f"{self.name} (the opposite of: {self.of.describe()})"
