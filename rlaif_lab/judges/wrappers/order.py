"""Judges that treat the two orders in another way: one order only, or the shorter response on a tie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.wrappers.base import Wrapper
from rlaif_lab.records import ONE_ORDER, Comparison, Verdict
from rlaif_lab.seeding import seed_for


class SingleOrderJudge(Wrapper):
    """Asks one order only and takes its verdict for the other one as well: what averaging both orders removes is left
    in, at half the cost. Which order is asked is decided by the pair. Details say so (``one_order``), since nothing can
    be known then of how a verdict depends on the order."""

    def __init__(self, of: Judge, name: str = "single_order") -> None:
        super().__init__(of, name)

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        turned = [self._asked_turned(comparison) for comparison in comparisons]
        asked = [c.swapped() if turn else c for c, turn in zip(comparisons, turned, strict=True)]
        # Both orders of a comparison become the same question.
        distinct = list(dict.fromkeys(asked))
        said = dict(zip(distinct, self.of.verdicts(distinct), strict=True))
        paid: set[Comparison] = set()  # what both orders share is counted once
        verdicts = []
        for question, turn in zip(asked, turned, strict=True):
            verdict = said[question]
            if question in paid:
                verdict = replace(verdict, latency_s=0.0, tokens=0, cost_usd=0.0)
            paid.add(question)
            # Back into the order in which the caller asked.
            if turn and verdict.prob_first_wins is not None:
                verdict = replace(verdict, prob_first_wins=1.0 - verdict.prob_first_wins)
            # Position bias cannot be seen in what was asked once, and metrics leave such verdicts out.
            verdicts.append(replace(verdict, details={**(verdict.details or {}), ONE_ORDER: True}))
        return verdicts

    def _asked_turned(self, comparison: Comparison) -> bool:
        low, high = sorted((comparison.first, comparison.second))
        # By the pair's identity: neither of the two texts is favoured by always coming first.
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
        # In one call, each order once, though callers usually ask both themselves.
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
