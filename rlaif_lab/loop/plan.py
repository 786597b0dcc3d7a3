"""What a round is made of, in typed groups: who takes part, how much is done, and where it is kept."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rlaif_lab.feedback.base import FeedbackKind, Settings, Source
from rlaif_lab.feedback.kinds import pairs_are_revisions
from rlaif_lab.feedback.pairing import Pairing
from rlaif_lab.feedback.replay import Mixing, Replay
from rlaif_lab.feedback.revision import RevisionConfig
from rlaif_lab.loop.evaluation import Evaluation
from rlaif_lab.loop.gate import Gate
from rlaif_lab.loop.stages import Stages
from rlaif_lab.loop.weights import PolicySnapshots
from rlaif_lab.metrics.base import Metric
from rlaif_lab.models.critic import Critic
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.people.human_set import SharedSet
from rlaif_lab.records import Prompt
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.engine import Engine
from rlaif_lab.sampling.exact import Exact
from rlaif_lab.training.batches import Batching, Models

if TYPE_CHECKING:
    from rlaif_lab.audit.pairs import LabelledPair
    from rlaif_lab.judges.base import Judge
    from rlaif_lab.learners.base import Learner
    from rlaif_lab.plateau.detector import ChangeMeasure
    from rlaif_lab.reward.model import RewardModel
    from rlaif_lab.store.run_folder import RoundStore
    from rlaif_lab.tasks.base import Task


@dataclass(frozen=True)
class Parts:
    """Who takes part in a run.

    policy: the weights being trained. base: a frozen model of what they were at first.
    kinds: the feedback that is collected for the learner, besides the judgements.
    bank: labelled pairs that stay the same, on which the judge is audited in every round.
    metrics: what a user measures besides the lab's own.
    human_set: the fixed set by which people measure all arms of a sweep; None: they do not.
    """

    policy: LanguageModel
    base: LanguageModel
    judge: Judge
    learner: Learner
    task: Task
    critic: Critic | None = None
    heldout_judge: Judge | None = None
    engine: Engine = field(default_factory=Exact)
    kinds: Sequence[FeedbackKind] = ()
    reward_model: RewardModel | None = None
    bank: Sequence[LabelledPair] = ()
    metrics: Sequence[Metric] = ()
    human_set: SharedSet | None = None

    @property
    def judges(self) -> dict[str, Judge]:
        """Return, by role, those that there are."""
        found = {"judge": self.judge, "heldout_judge": self.heldout_judge}
        return {role: judge for role, judge in found.items() if judge is not None}

    @property
    def models(self) -> Models:
        return Models(self.policy, self.base, self.critic)


@dataclass(frozen=True)
class Plan:
    """How much is done in a round, and with which weights.

    sync_every: resample every so many optimiser steps. None: once per round. Values larger than a round span several
        rounds; a very large value is fully offline.
    lag: rounds by which the policy that samples is older than the one that is trained.
    changes: measure of the per-round change on fresh prompts, for the plateau detector; None: it is not measured.
    """

    seed: int
    prompts_per_round: int
    sampling: SamplingConfig
    pairing: Pairing
    batching: Batching
    evaluation: Evaluation
    replay: Replay = field(default_factory=Replay)
    revision: RevisionConfig | None = None
    sync_every: int | None = None
    lag: int = 0
    changes: ChangeMeasure | None = None

    @property
    def steps_per_round(self) -> int:
        # Rounded up: the last step of a round may be smaller.
        return -(-self.prompts_per_round // self.batching.per_step()) * self.batching.passes

    @property
    def sync_rounds(self) -> int:
        """Return the number of rounds that are sampled from the same weights."""
        return max(1, (self.sync_every or self.steps_per_round) // self.steps_per_round)

    @property
    def prompts_per_segment(self) -> int:
        every = self.sync_every or self.steps_per_round
        # Each prompt takes part in `passes` steps, so that `sync_every` steps use up this many.
        return min(self.prompts_per_round, max(1, every * self.batching.per_step() // self.batching.passes))

    @property
    def segments(self) -> int:
        """Return how many segments each round has."""
        return -(-self.prompts_per_round // self.prompts_per_segment)

    def prompts(self, task: Task, index: int) -> list[list[Prompt]]:
        """Return the fresh prompts of a round, segment by segment."""
        first, end = index * self.prompts_per_round, (index + 1) * self.prompts_per_round
        return [
            task.prompts("rounds", start, min(self.prompts_per_segment, end - start), self.seed)
            for start in range(first, end, self.prompts_per_segment)
        ]

    def sampling_round(self, index: int) -> int:
        """Return the round whose policy samples this one: that of its own start, or an earlier round's."""
        # Round 0 has nobody before it: the lag grows to its length over the first rounds.
        return max(0, index - index % self.sync_rounds - self.lag)

    def reach(self, judges: Sequence[Judge]) -> int:
        """Return how many rounds back the policy's weights will be asked for."""
        previous = any(judge.needs_previous_policy() for judge in judges)
        # The judge looks one round back; sampling looks back by the lag, and at most to the start of its block of
        # rounds.
        return max(int(previous), self.lag + self.sync_rounds - 1)


@dataclass(frozen=True)
class Services:
    """Where a round's files, weights and progress go, and what may refuse it."""

    store: RoundStore
    weights: PolicySnapshots
    stages: Stages
    gate: Gate


def feedback_settings(parts: Parts, plan: Plan) -> Settings:
    """Return what feedback is made from, before any weights load."""
    return Settings(
        seed=plan.seed,
        task=parts.task,
        judge=parts.judge,
        sampling=plan.sampling,
        pairing=plan.pairing,
        reward_model=parts.reward_model,
        revision=plan.revision,
    )


def mixing(parts: Parts, plan: Plan, services: Services) -> Mixing:
    """Return what makes a segment's examples of its feedback and of earlier rounds'."""
    names = parts.learner.kinds()
    source = Source(
        settings=feedback_settings(parts, plan),
        engine=parts.engine,
        store=services.store,
        segments=plan.segments,
        author=lambda index: services.weights.author(plan.sampling_round(index)),
        run_stage=functools.partial(services.stages.run),
    )
    return Mixing(
        replay=plan.replay,
        # Pairs have been held to the budget when they were chosen; any other feedback is held to it here.
        budget=None if "pairs" in names else plan.pairing.budget,
        kinds=parts.kinds,
        source=source,
        pairs_are_revisions=pairs_are_revisions(names, plan.pairing),
    )
