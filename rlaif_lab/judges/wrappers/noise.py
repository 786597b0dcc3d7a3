"""Judges with added noise or with a bias of known size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.wrappers.base import Wrapper, length_feature, logit, with_logit
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.records import Comparison, Prompt, Verdict
from rlaif_lab.seeding import seed_for

if TYPE_CHECKING:
    from rlaif_lab.judges.logprob import ModelJudge


class NoisyJudge(Wrapper):
    """Turns round the verdict on a share ``flip`` of all pairs, independently of everything but the pair, so the same
    in both orders, in every round and for every judge. Direct scores stay as they are."""

    def __init__(self, of: Judge, flip: float = 0.1, name: str = "noisy") -> None:
        super().__init__(of, name)
        if not 0 <= flip <= 1:
            raise ValueError(f"judge.flip is a probability and must lie in [0, 1]; got {flip}")
        self.flip = float(flip)

    def change(self, comparison: Comparison, verdict: Verdict, prob_first_wins: float) -> Verdict:
        # By the pair's sorted texts: both orders are flipped, or neither.
        pair = sorted((comparison.first, comparison.second))
        if seed_for(self.seed, "noise", comparison.prompt.id, *pair) / 2**63 >= self.flip:
            return verdict
        return replace(verdict, prob_first_wins=1.0 - prob_first_wins)

    def settings(self) -> str:
        return f"{self.flip:g} of verdicts flipped"

    def identity(self) -> str:
        return repr([super().identity(), self.seed])


class BiasedJudge(Wrapper):
    """Adds to the log-odds of every verdict: for ablations of biases whose size is known.

    position: in favour of the response shown first (nats). length: in favour of the longer one, times
    tanh(difference in characters / length_scale). length_scale: characters. self_preference: in favour of the one that
    the initial policy finds likelier: nats per nat of difference in mean log-probability per token. Judges
    favour what they would have written (Panickssery et al. 2404.13076; by its familiarity, Wataoka et al. 2410.21819);
    here any judge can be made to favour what the *policy* would have written, beyond what it thinks of it anyway. What
    the bias costs to compute is not counted as the judge's.
    """

    def __init__(
        self,
        of: Judge,
        position: float = 0.0,
        length: float = 0.0,
        length_scale: float = 100.0,
        self_preference: float = 0.0,
        name: str = "biased",
    ) -> None:
        super().__init__(of, name)
        if length_scale <= 0:
            raise ValueError(f"judge.length_scale must be positive (characters); got {length_scale}")
        self.position, self.length, self.length_scale = float(position), float(length), float(length_scale)
        self.self_preference = float(self_preference)
        self.policy: ModelJudge | None = None

    def attach(self, context: JudgeContext) -> None:
        super().attach(context)
        if self.self_preference:
            from rlaif_lab.judges.logprob import ModelJudge

            # Those of the initial policy: a live one's likelihoods would change the bias from round to round.
            self.policy = ModelJudge("initial", reads="mean_logp")
            self.policy.attach(context)

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        likely = self._likelihoods(comparisons)
        verdicts = []
        for c, verdict in zip(comparisons, self.of.verdicts(comparisons), strict=True):
            added = self.position + self.length * length_feature(c, self.length_scale)
            if self.policy is not None:
                # nan where the likelihood is not known: a verdict cannot be biased by it, and fails.
                first, second = (likely.get((c.prompt, text), math.nan) for text in (c.first, c.second))
                added += self.self_preference * (first - second)
            p = verdict.prob_first_wins
            verdicts.append(with_logit(verdict, logit(p) + added) if p is not None and added else verdict)
        return verdicts

    def _likelihoods(self, comparisons: Sequence[Comparison]) -> dict[tuple[Prompt, str], float]:
        """Return the mean log-probability per token of every response, under the initial policy."""
        if self.policy is None or not comparisons:
            return {}
        # Each response once.
        asked = list(dict.fromkeys((c.prompt, text) for c in comparisons for text in (c.first, c.second)))
        scores = [score.value for score in self.policy.scores(asked)]
        return {response: value for response, value in zip(asked, scores, strict=True) if value is not None}

    def settings(self) -> str:
        added = [
            f"{self.position:g} for the first",
            f"{self.length:g} for the longer per {self.length_scale:g} characters",
            f"{self.self_preference:g} per nat for what the policy finds likelier",
        ]
        sizes = (self.position, self.length, self.self_preference)
        return "log-odds + " + (", + ".join(a for a, size in zip(added, sizes, strict=True) if size) or "0")

    def identity(self) -> str:
        return repr([super().identity(), *([self.policy.identity()] if self.policy else [])])
