"""What a judge is, and how its verdicts become judgements: both orders asked, averaged, failures kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Literal

from rlaif_lab.records import Comparison, Generation, Judgement, Status, Verdict

if TYPE_CHECKING:
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.models.sources import ModelSource
    from rlaif_lab.tasks.base import Task

PolicyWeights = Literal["live", "previous", "initial"]
"""Which weights of the policy judge: those being trained as of this round, those of one round earlier, or those
it started from. Three different scientific claims."""


@dataclass(frozen=True)
class JudgeContext:
    """What a judge may know of the run.

    policy: the policy's weights by name, as of now. load: a model from its source (cached across judges).
    gold: the task, for the judges that declare ``sees_gold``; None for every other.
    """

    seed: int
    policy: Callable[[PolicyWeights], LanguageModel]
    load: Callable[[ModelSource], LanguageModel]
    gold: Task | None


class Judge(ABC):
    """Compares two responses to one prompt. A new judge is one subclass plus one YAML.

    ``__init__`` only checks and keeps its arguments (it runs before any weights load); ``attach`` gets the run.
    """

    name: str
    sees_gold: bool = False

    def attach(self, context: JudgeContext) -> None:
        """Called once, before the first verdict. Load weights here."""

    def sources(self) -> list[ModelSource]:
        """The models it needs besides the policy."""
        return []

    def needs_previous_policy(self) -> bool:
        """Whether it will ask for the policy's ``previous`` weights, which are only kept for one that does."""
        return False

    @abstractmethod
    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """One verdict per comparison, each as presented: ``first`` in slot one."""

    def describe(self) -> str:
        """One line for the run's log: who judges, with which weights."""
        return self.name


def comparisons_of(generation: Generation) -> list[tuple[int, int]]:
    """Pairs of samples worth a judge's time: every pair of *different* texts once, by their first occurrence."""
    first_seen: dict[str, int] = {}
    for sample, response in enumerate(generation.responses):
        first_seen.setdefault(response.text, sample)
    return list(combinations(first_seen.values(), 2))


def judge_generations(judge: Judge, generations: Sequence[Generation]) -> list[Judgement]:
    """All distinct pairs of each prompt's responses, judged in both orders."""
    asked = [(g, i, j) for g in generations for i, j in comparisons_of(g)]
    comparisons = [Comparison(g.prompt, g.responses[i].text, g.responses[j].text) for g, i, j in asked]
    return [
        debias(comparison, i, j, shown_first, shown_second)
        for (_, i, j), comparison, (shown_first, shown_second) in zip(
            asked, comparisons, both_orders(judge, comparisons), strict=True
        )
    ]


def both_orders(judge: Judge, comparisons: Sequence[Comparison]) -> list[tuple[Verdict, Verdict]]:
    """Each comparison's verdict as given and with the slots swapped."""
    if not comparisons:
        return []
    verdicts = judge.verdicts([*comparisons, *(c.swapped() for c in comparisons)])
    assert len(verdicts) == 2 * len(comparisons)
    return list(zip(verdicts[: len(comparisons)], verdicts[len(comparisons) :], strict=True))


def debias(
    comparison: Comparison, sample_first: int, sample_second: int, shown_first: Verdict, shown_second: Verdict
) -> Judgement:
    """Averages the two orders. One failed order fails the judgement: it is recorded, never a silent label."""
    p_first = shown_first.prob_first_wins
    p_second = None if shown_second.prob_first_wins is None else 1.0 - shown_second.prob_first_wins
    probability: float | None
    status: Status
    if p_first is not None and p_second is not None:
        probability = (p_first + p_second) / 2
        status = "tie" if probability == 0.5 else "ok"
    else:
        probability = None
        status = "invalid" if "invalid" in (shown_first.status, shown_second.status) else "abstain"
    raws = [verdict.raw for verdict in (shown_first, shown_second) if verdict.raw is not None]
    return Judgement(
        comparison=comparison,
        sample_first=sample_first,
        sample_second=sample_second,
        prob_first_wins=probability,
        prob_first_wins_shown_first=p_first,
        prob_first_wins_shown_second=p_second,
        status=status,
        latency_s=shown_first.latency_s + shown_second.latency_s,
        tokens=shown_first.tokens + shown_second.tokens,
        raw="\n---\n".join(raws) if raws else None,
    )
