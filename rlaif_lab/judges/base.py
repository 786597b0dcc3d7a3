"""What a judge is, and how its verdicts become judgements: both orders asked, averaged, failures kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlaif_lab.records import (
    FAILURES,
    Comparison,
    Details,
    Generation,
    Judgement,
    Prompt,
    Score,
    Status,
    Verdict,
)

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
    directory: where a judge may keep what must outlive a crash (paid verdicts); None outside a run.
    spare_samples: (start, count, k) -> samples of the policy as it was at first, k to each of ``count`` prompts from
        position ``start`` of those that no round uses; for a judge that declares ``spare_prompts``. None outside a run.
    """

    seed: int
    policy: Callable[[PolicyWeights], LanguageModel]
    load: Callable[[ModelSource], LanguageModel]
    gold: Task | None
    directory: Path | None = None
    spare_samples: Callable[[int, int, int], list[Generation]] | None = None


class Judge(ABC):
    """Compares two responses to one prompt. A new judge is one subclass plus one YAML.

    ``__init__`` only checks and keeps its arguments (it runs before any weights load); ``attach`` gets the run.
    """

    name: str
    sees_gold: bool = False
    gives_scores: bool = False
    """Whether ``scores`` works, so that its number can serve as a reward by itself (d-RLAIF, Lee et al. 2309.00267)."""
    null: bool = False
    """A judge that knows nothing, by design: the gate that refuses to train under a judge at chance lets it pass."""
    spare_prompts: int = 0
    """How many of the task's prompts it needs for itself, besides those of the rounds."""
    writes: bool = False
    """Whether it is a language model whose own answers can be had, for a policy to be distilled from."""

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

    def scores(self, responses: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """One direct score per response, for judges that declare ``gives_scores``."""
        raise ValueError(f"judge {self.name!r} compares responses and gives no score of a single one")

    def evaluator(self) -> Judge:
        """The judge that measures with what this one trains with: itself, except for one that buys some of its training
        labels from people."""
        return self

    def own_metrics(
        self, comparisons: Sequence[Comparison], verdicts: Sequence[tuple[Verdict, Verdict]], identical: int
    ) -> dict[str, float]:
        """What it alone can say of an evaluation, as metrics. comparisons: the policy's answers first, those of round 0
        second. verdicts: the evaluator's, both orders. identical: further comparisons, of equal texts."""
        return {}

    def language_model(self) -> LanguageModel:
        """The judging model as of now, for judges that declare ``writes``."""
        raise ValueError(f"judge {self.name!r} is no language model, so it has no answers of its own")

    def parameters(self) -> int | None:
        """Of the model that the tokens of its verdicts go through; None where that is not known or not one model."""
        from rlaif_lab.metrics.cost import parameter_count

        return parameter_count(self.language_model().network)[0] if self.writes else None

    def identity(self) -> str:
        """What decides this judge's verdicts, as of now: weights, prompt and settings, hashed or in words. Two judges
        with equal identity give equal verdicts, which is what a cache goes by. Called after ``attach``."""
        raise ValueError(f"judge {self.name!r} has no stable identity, so its verdicts cannot be cached")

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


def score_generations(judge: Judge, generations: Sequence[Generation]) -> list[Score]:
    """Direct scores of all samples, k per prompt in their order; equal texts are scored once."""
    asked = list(dict.fromkeys((g.prompt, r.text) for g in generations for r in g.responses))
    found = dict(zip(asked, judge.scores(asked) if asked else [], strict=True))
    return [found[g.prompt, r.text] for g in generations for r in g.responses]


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
        status = next(s for s in FAILURES if s in (shown_first.status, shown_second.status))
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
        cost_usd=shown_first.cost_usd + shown_second.cost_usd,
        details=_merged(shown_first.details, shown_second.details),
    )


def _merged(shown_first: Details | None, shown_second: Details | None) -> Details | None:
    """What both orders have to say: once if it is the same, else by order."""
    if shown_first == shown_second:
        return shown_first
    return {"shown_first": dict(shown_first or {}), "shown_second": dict(shown_second or {})}
