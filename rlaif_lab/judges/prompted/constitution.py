"""A prompted judge under a constitution: one principle drawn per comparison, or all of them averaged (Bai et al.
2212.08073), and what the judgements say of each principle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from rlaif_lab.instructions.constitution import Constitution, Principle
from rlaif_lab.judges.prompted.pairwise import PairwiseReading, PromptedJudge
from rlaif_lab.models.access import PolicyWeights
from rlaif_lab.records import FAILURES, Comparison, Judgement, Verdict

if TYPE_CHECKING:
    from rlaif_lab.models.sources import ModelSource

Use = Literal["drawn", "all"]


class ConstitutionJudge(PromptedJudge):
    """constitution: the name of a file in ``conf/constitution``, or a path.
    principles: ``drawn``: one per comparison, decided by the run's seed and the pair, the same in both orders. ``all``:
        every comparison is judged under each principle and the probabilities are averaged; a principle under which no
        verdict could be read is left out of its mean, and the verdict fails when all of them are.

    The other arguments are PromptedJudge's; the template needs a {principle}. Details name the principle, or give
    every principle's probability by its id (None: no verdict).
    """

    def __init__(
        self,
        weights: PolicyWeights | ModelSource,
        constitution: str = "general",
        principles: Use = "drawn",
        criteria: str = "helpful_honest_harmless",
        template: str = "principle",
        reads: PairwiseReading = "probabilities",
        votes: int = 5,
        temperature: float = 1.0,
        reasoning: bool = False,
        reasoning_tokens: int = 192,
        clamp: Sequence[float] | None = (0.4, 0.6),
        minimum_mass: float = 0.1,
        batch_size: int = 12,
        name: str = "constitution",
    ) -> None:
        super().__init__(
            weights,
            criteria,
            template,
            reads=reads,
            votes=votes,
            temperature=temperature,
            reasoning=reasoning,
            reasoning_tokens=reasoning_tokens,
            clamp=clamp,
            minimum_mass=minimum_mass,
            batch_size=batch_size,
            name=name,
        )
        if principles not in get_args(Use):
            raise ValueError(f"judge.principles must be one of {', '.join(get_args(Use))}; got {principles!r}")
        self.constitution, self.principles = Constitution.load(constitution), principles

    def check_template(self) -> None:
        if not self.template.takes_principle:
            raise ValueError(f"judge.template {self.template.name!r} has no {{principle}} to put a principle in")

    def describe(self) -> str:
        how = "one drawn per comparison" if self.principles == "drawn" else "all averaged"
        principles = f"{len(self.constitution.principles)} principles of {self.constitution.name!r}, {how}"
        return f"{super().describe()}, under {principles}"

    def identity(self) -> str:
        # Which principle is drawn depends on the seed: verdicts of other seeds are others.
        drawn_by = self.seed if self.principles == "drawn" else None
        return repr([super().identity(), self.constitution.identity(), self.principles, drawn_by])

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        asked = [(c, principle) for c in comparisons for principle in self.principles_for(c)]
        verdicts = iter(self.answered([self.question(c, principle.compare) for c, principle in asked]))
        # In the order of `asked`: one verdict for each principle of each comparison.
        return [self._combined({p.id: next(verdicts) for p in self.principles_for(c)}) for c in comparisons]

    def principles_for(self, comparison: Comparison) -> tuple[Principle, ...]:
        if self.principles == "all":
            return self.constitution.principles
        # By the sorted texts: the same principle in both orders, or averaging them would mean nothing.
        pair = sorted((comparison.first, comparison.second))
        return (self.constitution.draw("judge", self.seed, comparison.prompt.id, *pair),)

    def _combined(self, by_principle: Mapping[str, Verdict]) -> Verdict:
        verdicts = list(by_principle.values())
        if self.principles == "drawn":
            (principle,) = by_principle
            details: dict[str, Any] = {"principle": principle, **(verdicts[0].details or {})}
        else:
            details = {"principles": {name: v.prob_first_wins for name, v in by_principle.items()}}
        found = [v.prob_first_wins for v in verdicts if v.prob_first_wins is not None]
        raws = [v.raw for v in verdicts if v.raw is not None]
        # A principle without a verdict is left out of the mean; see the class.
        probability = sum(found) / len(found) if found else None
        rest: dict[str, Any] = {
            "latency_s": sum(v.latency_s for v in verdicts),
            "tokens": sum(v.tokens for v in verdicts),
            "raw": "\n---\n".join(raws) if raws else None,
            "cost_usd": sum(v.cost_usd for v in verdicts),
            "details": details,
        }
        if probability is not None:
            return Verdict.of(probability, **rest)
        return Verdict(None, next(failure for failure in FAILURES if failure in {v.status for v in verdicts}), **rest)


# --- per-principle statistics ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class PrincipleStatistics:
    """What the judgements say of one principle.

    count: judgements it had a part in. failed: those of them without a verdict under it.
    preference: mean of |2 p - 1|, how decided its verdicts are.
    disagreement: how often it picks another response than the judgement it is part of (only tells something where all
        principles are averaged). agreement: how often it picks the better one by ``better``, of those it picks at all.
    """

    count: int
    failed: int
    preference: float
    disagreement: float
    agreement: float


def principle_statistics(
    judgements: Iterable[Judgement], better: Sequence[float] | None = None
) -> dict[str, PrincipleStatistics]:
    """Return statistics by principle id, in order of appearance.

    better: for each judgement, gold or anybody's label: above 0 when its first response is better, below 0 when its
    second is, 0 when neither. Rates without anything to count are nan.
    """
    judged = list(judgements)
    labels = [0.0] * len(judged) if better is None else list(better)
    found: dict[str, list[tuple[float | None, float | None, float]]] = {}
    for judgement, label in zip(judged, labels, strict=True):
        for principle, probability in _by_principle(judgement).items():
            found.setdefault(principle, []).append((probability, judgement.prob_first_wins, label))
    return {principle: _statistics(rows) for principle, rows in found.items()}


def _by_principle(judgement: Judgement) -> dict[str, float | None]:
    """Return the probability that the first wins under each principle, both orders averaged; None where one of them
    failed."""
    details = judgement.details or {}
    # Both orders' details, where they differ, are held apart by `asking.debias`; where equal, once.
    shown_first = details.get("shown_first", details)
    shown_second = details.get("shown_second", details)
    if "principle" in shown_first:
        return {shown_first["principle"]: judgement.prob_first_wins}
    found: dict[str, float | None] = {}
    for principle, first in shown_first.get("principles", {}).items():
        second = shown_second.get("principles", {}).get(principle)
        # The second order's probability is about its own slot one.
        found[principle] = None if first is None or second is None else (first + 1.0 - second) / 2
    return found


def _statistics(rows: Sequence[tuple[float | None, float | None, float]]) -> PrincipleStatistics:
    known = [(p, whole, label) for p, whole, label in rows if p is not None]
    # A tie picks nothing: neither agreement nor disagreement.
    picks = [(p > 0.5, whole, label) for p, whole, label in known if p != 0.5]
    against = [first != (whole > 0.5) for first, whole, _ in picks if whole is not None and whole != 0.5]
    right = [first == (label > 0) for first, _, label in picks if label != 0]
    return PrincipleStatistics(
        count=len(rows),
        failed=len(rows) - len(known),
        preference=_mean([abs(2 * p - 1) for p, _, _ in known]),
        disagreement=_mean(against),
        agreement=_mean(right),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else float("nan")
