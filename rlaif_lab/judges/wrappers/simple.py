"""Judges made of another judge: noise, bias, one order only, the shorter response on a tie."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rlaif_lab.judges.base import Judge, JudgeContext, PolicyWeights
from rlaif_lab.records import Comparison, Prompt, Score, Verdict
from rlaif_lab.seeding import seed_for

if TYPE_CHECKING:
    from rlaif_lab.judges.logprob import ModelJudge
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.models.sources import ModelSource


class Wrapper(Judge):
    """A judge that changes another one's verdicts and is in all else that judge. of: the other one."""

    def __init__(self, of: Judge, name: str) -> None:
        self.of, self.name = of, name
        self.sees_gold, self.gives_scores, self.writes = of.sees_gold, of.gives_scores, of.writes
        self.spare_prompts = of.spare_prompts

    def attach(self, context: JudgeContext) -> None:
        self.seed = context.seed
        self.of.attach(context)

    def check_tokenizers(self, tokenizer_of: Callable[[PolicyWeights | ModelSource], Any]) -> None:
        check = getattr(self.of, "check_tokenizers", None)
        if check is not None:
            check(tokenizer_of)

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
            verdict if verdict.prob_first_wins is None else self.change(comparison, verdict, verdict.prob_first_wins)
            for comparison, verdict in zip(comparisons, self.of.verdicts(comparisons), strict=True)
        ]

    def change(self, comparison: Comparison, verdict: Verdict, prob_first_wins: float) -> Verdict:
        """What becomes of a verdict with this probability. Failures stay what they are."""
        return verdict

    @abstractmethod
    def settings(self) -> str:
        """What it does to verdicts, in words; part of its identity."""

    def identity(self) -> str:
        return repr([type(self).__name__, self.settings(), self.of.identity()])

    def describe(self) -> str:
        return f"{self.name} ({self.settings()}, of: {self.of.describe()})"


class NoisyJudge(Wrapper):
    """Turns round the verdict on a share ``flip`` of all pairs, independently of everything but the pair, so the same
    in both orders, in every round and for every judge. Direct scores stay as they are."""

    def __init__(self, of: Judge, flip: float = 0.1, name: str = "noisy") -> None:
        super().__init__(of, name)
        if not 0 <= flip <= 1:
            raise ValueError(f"judge.flip is a probability and must lie in [0, 1]; got {flip}")
        self.flip = float(flip)

    def change(self, comparison: Comparison, verdict: Verdict, prob_first_wins: float) -> Verdict:
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
    the policy, as it was at first, finds likelier: nats per nat of difference in mean log-probability per token. Judges
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

            self.policy = ModelJudge("initial", reads="mean_logp")
            self.policy.attach(context)

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        likely = self._likelihoods(comparisons)
        verdicts = []
        for c, verdict in zip(comparisons, self.of.verdicts(comparisons), strict=True):
            added = self.position + self.length * length_feature(c, self.length_scale)
            if likely:
                added += self.self_preference * (likely[c.prompt, c.first] - likely[c.prompt, c.second])
            p = verdict.prob_first_wins
            verdicts.append(with_logit(verdict, logit(p) + added) if p is not None and added else verdict)
        return verdicts

    def _likelihoods(self, comparisons: Sequence[Comparison]) -> dict[tuple[Prompt, str], float]:
        """Mean log-probability per token of every response, under the policy as it was at first."""
        if self.policy is None or not comparisons:
            return {}
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


class SingleOrderJudge(Wrapper):
    """Asks one order only and takes its verdict for the other one as well: what averaging both orders removes is left
    in, at half the cost. Which order is asked is decided by the pair."""

    def __init__(self, of: Judge, name: str = "single_order") -> None:
        super().__init__(of, name)

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        turned = [self._asked_turned(comparison) for comparison in comparisons]
        asked = [c.swapped() if turn else c for c, turn in zip(comparisons, turned, strict=True)]
        distinct = list(dict.fromkeys(asked))
        said = dict(zip(distinct, self.of.verdicts(distinct), strict=True))
        paid: set[Comparison] = set()  # what both orders share is counted once
        verdicts = []
        for question, turn in zip(asked, turned, strict=True):
            verdict = said[question]
            if question in paid:
                verdict = replace(verdict, latency_s=0.0, tokens=0, cost_usd=0.0)
            paid.add(question)
            if turn and verdict.prob_first_wins is not None:
                verdict = replace(verdict, prob_first_wins=1.0 - verdict.prob_first_wins)
            verdicts.append(verdict)
        return verdicts

    def _asked_turned(self, comparison: Comparison) -> bool:
        low, high = sorted((comparison.first, comparison.second))
        lower_first = seed_for(self.seed, "single order", comparison.prompt.id, low, high) % 2 == 0
        return (comparison.first == low) != lower_first

    def settings(self) -> str:
        return "one order only"

    def identity(self) -> str:
        return repr([super().identity(), self.seed])


class ShorterOnTie(Wrapper):
    """Where the other judge has no clear preference, within ``margin`` of 0.5 once both orders are averaged, the
    shorter response (in characters) wins with probability ``preference``; equally long ones are a tie.

    Both orders are always asked, so that a pure position bias counts as the tie it is.
    """

    def __init__(self, of: Judge, margin: float = 0.05, preference: float = 1.0, name: str = "shorter_on_tie") -> None:
        super().__init__(of, name)
        if not 0 <= margin < 0.5:
            raise ValueError(f"judge.margin must lie in [0, 0.5); got {margin}")
        if not 0.5 < preference <= 1:
            raise ValueError(f"judge.preference must lie in (0.5, 1]; got {preference}")
        self.margin, self.preference = float(margin), float(preference)

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        asked = list(dict.fromkeys([*comparisons, *(c.swapped() for c in comparisons)]))
        said = dict(zip(asked, self.of.verdicts(asked), strict=True))
        return [self._decided(c, said[c], said[c.swapped()]) for c in comparisons]

    def _decided(self, comparison: Comparison, verdict: Verdict, swapped: Verdict) -> Verdict:
        if verdict.prob_first_wins is None or swapped.prob_first_wins is None:
            return verdict
        if abs(verdict.prob_first_wins - swapped.prob_first_wins) / 2 > self.margin:
            return verdict
        difference = len(comparison.first) - len(comparison.second)
        if difference == 0:
            return replace(verdict, prob_first_wins=0.5, status="tie")
        wins = self.preference if difference < 0 else 1.0 - self.preference
        return replace(verdict, prob_first_wins=wins, status="ok")

    def settings(self) -> str:
        return f"within {self.margin:g} of a tie the shorter wins with probability {self.preference:g}"


# --- log-odds -------------------------------------------------------------------------------------------------------
CLIP = 1e-6
"""Probabilities nearer to 0 or 1 than this count as this far away: log-odds stay within +-13.8."""


def logit(probability: float) -> float:
    p = min(max(probability, CLIP), 1.0 - CLIP)
    return math.log(p / (1.0 - p))


def with_logit(verdict: Verdict, value: float) -> Verdict:
    """The verdict with these log-odds (nats) that the first wins."""
    if value == 0.0:
        return replace(verdict, prob_first_wins=0.5, status="tie")
    return replace(verdict, prob_first_wins=1.0 / (1.0 + math.exp(-value)), status="ok")


def length_feature(comparison: Comparison, scale: float) -> float:
    """tanh(difference in characters / scale): positive when the first is longer; turns its sign with the order."""
    return math.tanh((len(comparison.first) - len(comparison.second)) / scale)
