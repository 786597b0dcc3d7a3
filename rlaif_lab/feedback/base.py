"""What a learner sees of a round, and what a kind of feedback is: one file each, found by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from rlaif_lab.records import (
    Floats,
    Generation,
    Judgement,
    Metrics,
    Position,
    PreferencePair,
    Prompt,
    Response,
    Revision,
)
from rlaif_lab.store.run_folder import RoundStore, StageResult
from rlaif_lab.store.tables import Stage

if TYPE_CHECKING:
    from rlaif_lab.feedback.pairing import Pairing
    from rlaif_lab.feedback.revision import RevisionConfig
    from rlaif_lab.judges.base import Judge
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.reward.model import RewardModel
    from rlaif_lab.sampling.config import SamplingConfig
    from rlaif_lab.sampling.engine import Engine
    from rlaif_lab.tasks.base import Task

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Feedback:
    """All that is known of a segment's samples: N prompts with k responses each.

    prob_beats: (N, k, k), the probability that one response is better than another (matrices.py).
    collected: by the name of its kind, all other feedback. The properties are those of the kinds that the lab brings,
        empty where nobody asked for them.
    pairs_are_revisions: pairs are revisions against originals, not what the judge chose.
    """

    round_index: int
    generations: Sequence[Generation]
    prob_beats: Floats
    collected: Mapping[str, Any] = field(default_factory=dict)
    pairs_are_revisions: bool = False

    @property
    def pairs(self) -> Sequence[PreferencePair]:
        return self.collected.get("pairs", ())

    @property
    def scores(self) -> Floats | None:
        """Return (N, k), the number that the learner takes as reward in place of win rates: the reward model's or the
        judge's direct score; nan where there is none. None for a learner that asks for neither."""
        # A reward model's number goes first: a learner asks for one of the two.
        return self.collected.get("rewards", self.collected.get("scores"))

    @property
    def revisions(self) -> Sequence[Revision]:
        return self.collected.get("revisions", ())

    @property
    def demonstrations(self) -> Sequence[Generation]:
        """Return the judge's own answers, one to each prompt."""
        return self.collected.get("demonstrations", ())


@dataclass(frozen=True)
class Example:
    """One prompt with n responses to learn from (n is the same for all examples of a round).

    signal: one number per response; its meaning is the learner's (chosen probability, reward, weight, ...).
    round_index: the round it comes from; with replay that may be an earlier one.
    sampled: the policy of that round wrote these responses to this prompt, so that their ``logps`` are its
        log-probabilities. False for revisions, demonstrations and other people's answers.
    """

    prompt: Prompt
    responses: tuple[Response, ...]
    signal: tuple[float, ...]
    round_index: int
    sampled: bool = True


# --- kinds of feedback ------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Samples:
    """What a segment's prompts were answered with, and how the judge saw it. prob_beats: (N, k, k)."""

    prompts: Sequence[Prompt]
    generations: Sequence[Generation]
    judgements: Sequence[Judgement]
    prob_beats: Floats


class StageRunner(Protocol):
    """Runs a stage over its items, chunk by chunk, with a progress bar; what is stored already is loaded."""

    def __call__(
        self, at: Position, stage: Stage[T], items: Sequence[S], compute: Callable[[Sequence[S]], list[T]], name: str
    ) -> StageResult[T]: ...


@dataclass(frozen=True)
class Settings:
    """What a run is made of, as far as feedback is made from it, before any weights load."""

    seed: int
    task: Task
    judge: Judge
    sampling: SamplingConfig
    pairing: Pairing
    reward_model: RewardModel | None = None
    revision: RevisionConfig | None = None


@dataclass(frozen=True)
class Source:
    """What a kind of feedback is collected from while the run goes.

    segments: how many each round has. author: whose weights write the samples of a round.
    """

    settings: Settings
    engine: Engine
    store: RoundStore
    segments: int
    author: Callable[[int], LanguageModel]
    run_stage: StageRunner


@dataclass(frozen=True)
class Collected:
    """What was collected. seconds: by the name under which it is logged. extra: what there is to log besides."""

    value: Any
    seconds: Mapping[str, float] = field(default_factory=dict)
    extra: Metrics = field(default_factory=dict)


class FeedbackKind(ABC):
    """Something that a learner can train on. A new one is one file in this folder, named as the kind is.

    stage: the file that its records are stored in; None where it is made anew from what other stages store.
    """

    name: ClassVar[str]
    stage: ClassVar[Stage[Any] | None] = None

    def check(self, settings: Settings, learner: str) -> None:
        """Raise ValueError, one sentence, where this run cannot give this feedback to the learner of that name."""

    @abstractmethod
    def collect(self, at: Position, samples: Samples, source: Source) -> Collected:
        """Make the feedback on these samples. It is idempotent: what is stored is loaded."""

    def stored(self, at: Position, samples: Samples, source: Source) -> Any:
        """Return what was collected at an earlier position, for replay."""
        assert self.stage is not None
        # Stages hold what a kind collected; kinds without one override this.
        return source.store.read_stage(at.index, self.stage, at.segment)
