"""Which rounds' feedback a round trains on, and how much of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlaif_lab.feedback.base import Example, Feedback, FeedbackKind, Samples, Source
from rlaif_lab.feedback.matrices import preference_matrices
from rlaif_lab.feedback.pairing import within_budget
from rlaif_lab.records import Position
from rlaif_lab.seeding import seed_for
from rlaif_lab.store.tables import GENERATIONS, JUDGEMENTS


@dataclass(frozen=True)
class Replay:
    """A window over the rounds, the latest always whole.

    window: how many rounds count, the latest included; 1: only that one, None: all of them.
    share: how many older examples are mixed in, as a multiple of the latest round's; None: all in the window. Which
        ones is decided by their identity.
    """

    window: int | None = 1
    share: float | None = None

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ValueError(
                f"replay.window must be at least 1 (only the latest round) or null (all); got {self.window}"
            )
        if self.share is not None and self.share < 0:
            raise ValueError(f"replay.share must not be negative, or null (all in the window); got {self.share}")

    def rounds_before(self, index: int) -> range:
        """Return the earlier rounds that round ``index`` trains on, oldest first."""
        return range(0 if self.window is None else max(0, index - self.window + 1), index)

    def mix(self, latest: list[Example], older: Sequence[Example], *identity: int | str) -> list[Example]:
        """Return the latest examples with their share of older ones behind them."""
        # In examples of the latest round, so that the mixture stays the same when the number of prompts changes.
        budget = None if self.share is None else round(self.share * len(latest))
        numbered = list(enumerate(older))
        kept = within_budget(
            numbered,
            budget,
            # The item's number too: a round may hold several examples of one prompt.
            lambda item: seed_for("replay", *identity, item[1].round_index, item[1].prompt.id, item[0]),
        )
        return [*latest, *(example for _, example in kept)]


@dataclass(frozen=True)
class Mixing:
    """What a segment trains on: its own examples within the budget, and those of earlier rounds.

    budget: examples at most, for learners that read whole groups; None for those on pairs, which keep to it already.
    """

    replay: Replay
    budget: int | None
    kinds: Sequence[FeedbackKind]
    source: Source
    pairs_are_revisions: bool = False

    def examples(
        self, at: Position, feedback: Feedback, examples_of: Callable[[Feedback], list[Example]]
    ) -> list[Example]:
        """Return the learner's examples of the latest feedback, mixed with those in the replay window. Which ones the
        budget leaves is decided by the prompt."""
        seed = self.source.settings.seed
        # By the prompt, not by its signal: which examples stay must not depend on the judge.
        latest = within_budget(
            examples_of(feedback), self.budget, lambda example: seed_for("budget", seed, at.index, example.prompt.id)
        )
        older = [
            example
            for index in self.replay.rounds_before(at.index)
            for segment in range(self.source.segments)
            # Made again from what is stored, not stored themselves: a learner decides what an example is.
            for example in examples_of(self.stored_feedback(Position(index, segment)))
        ]
        return self.replay.mix(latest, older, seed, at.index, at.segment)

    def stored_feedback(self, at: Position) -> Feedback:
        """Return what an earlier segment was trained on, from the store."""
        store = self.source.store
        generations = store.read_stage(at.index, GENERATIONS, at.segment)
        judgements = store.read_stage(at.index, JUDGEMENTS, at.segment)
        beats = preference_matrices(generations, judgements)
        samples = Samples([g.prompt for g in generations], generations, judgements, beats)
        collected = {kind.name: kind.stored(at, samples, self.source) for kind in self.kinds}
        return Feedback(at.index, generations, beats, collected, self.pairs_are_revisions)
