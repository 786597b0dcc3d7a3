"""What a judge is."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rlaif_lab.models.access import JudgeContext, PolicyWeights
from rlaif_lab.records import Comparison, Prompt, Score, Verdict
from rlaif_lab.returned import check_returns, named, records

if TYPE_CHECKING:
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.models.sources import ModelSource

Answer = TypeVar("Answer", Verdict, Score)


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
    is_annotator: bool = False
    """Whether it is people, or stands for people: what it says costs their time, and is counted as theirs."""
    spare_prompts: int = 0
    """How many of the task's prompts it needs for itself, besides those of the rounds."""
    writes: bool = False
    """Whether it is a language model whose own answers can be had, for a policy to be distilled from."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Have what a judge answers checked where it answers, whoever asks it: a stage, a wrapper or an audit."""
        super().__init_subclass__(**kwargs)
        check_returns(cls, "verdicts", _checked_verdicts)
        check_returns(cls, "scores", _checked_scores)

    def attach(self, context: JudgeContext) -> None:
        """Load weights: called once, before the first verdict."""

    def sources(self) -> list[ModelSource]:
        """Return the models it needs besides the policy."""
        return []

    def check_tokenizers(self, tokenizer_of: Callable[[PolicyWeights | ModelSource], Any]) -> None:
        """Raise ValueError, before any weights load, when verdicts cannot be had with these tokenizers."""

    def needs_previous_policy(self) -> bool:
        """Return whether it will ask for the policy's ``previous`` weights, which are only kept for one that does."""
        return False

    @abstractmethod
    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        """Return one verdict per comparison, each as presented: ``first`` in slot one."""

    def scores(self, responses: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """Return one direct score per response, for judges that declare ``gives_scores``."""
        raise ValueError(f"judge {self.name!r} compares responses and gives no score of a single one")

    def evaluator(self) -> Judge:
        """Return the judge that measures with what this one trains with: itself, except for one that buys some of its
        training labels from people."""
        return self

    def auditor(self) -> Judge:
        """Return the judge whose accuracy counts for what is trained: the evaluator, except where people who give
        part of the labels can be asked for an audit, too."""
        return self.evaluator()

    asks_people_to_evaluate: bool = False
    """Whether ``own_changes`` has something to say."""

    def own_changes(self, comparisons: Sequence[Comparison]) -> list[float]:
        """Return what people say of a random share of what training changed: 1 where they prefer the first, the newer
        policy's answer, -1 where the second, 0 for a tie and for equal texts."""
        return []

    def own_metrics(
        self, comparisons: Sequence[Comparison], verdicts: Sequence[tuple[Verdict, Verdict]], identical: int
    ) -> dict[str, float]:
        """Return what it alone can say of an evaluation, as metrics. comparisons: the policy's answers first, those of
        round 0 second. verdicts: the evaluator's, both orders. identical: further comparisons, of equal texts."""
        return {}

    def note_ai(self, probabilities: Mapping[tuple[Prompt, str, str], float | None]) -> None:
        """Take note of what an AI judge said of pairs that this one will be asked about, for whoever looks at both.

        probabilities: (prompt, lower text, higher text) -> probability that the lower one wins.
        """

    def language_model(self) -> LanguageModel:
        """Return the judging model as of now, for judges that declare ``writes``."""
        raise ValueError(f"judge {self.name!r} is no language model, so it has no answers of its own")

    def parameters(self) -> int | None:
        """Return the size of the model that the tokens of its verdicts go through; None where that is not known or not
        one model."""
        from rlaif_lab.models.access import parameter_count

        return parameter_count(self.language_model().network)[0] if self.writes else None

    def identity(self) -> str:
        """Return what decides this judge's verdicts, as of now: weights, prompt and settings, hashed or in words. Two
        judges with equal identity give equal verdicts, which is what a cache goes by. Called after ``attach``."""
        raise ValueError(f"judge {self.name!r} has no stable identity, so its verdicts cannot be cached")

    def describe(self) -> str:
        """Return one line for the run's log: who judges, with which weights."""
        return self.name


def _checked_verdicts(judge: Judge, found: Any, comparisons: Sequence[Comparison]) -> list[Verdict]:
    where = named(judge, "verdicts")
    return _with_json(where, records(where, found, Verdict, len(comparisons)))


def _checked_scores(judge: Judge, found: Any, responses: Sequence[tuple[Prompt, str]]) -> list[Score]:
    where = named(judge, "scores")
    return _with_json(where, records(where, found, Score, len(responses)))


def _with_json(where: str, answers: list[Answer]) -> list[Answer]:
    """Return the answers. Raises ValueError for details that no file can hold."""
    for answer in answers:
        if answer.details is None:
            continue
        try:
            json.dumps(answer.details)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{where}: the details of a {type(answer).__name__} must be JSON ({error})") from None
    return answers
