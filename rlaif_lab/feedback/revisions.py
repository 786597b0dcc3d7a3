"""The policy's own answers, criticised and rewritten by itself."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif_lab.feedback.base import Collected, FeedbackKind, Samples, Settings, Source
from rlaif_lab.feedback.revision import critique_and_revise
from rlaif_lab.records import Generation, Position, Revision
from rlaif_lab.store.tables import REVISIONS


class Revisions(FeedbackKind):
    """One revision of the first response to each prompt (Constitutional AI, Bai et al. 2212.08073)."""

    name = "revisions"
    stage = REVISIONS

    def check(self, settings: Settings, learner: str) -> None:
        if settings.revision is None:
            raise ValueError(f"learner {learner!r} learns from revisions: add revision=constitutional")

    def collect(self, at: Position, samples: Samples, source: Source) -> Collected:
        settings, author = source.settings, source.author(at.index)
        config = settings.revision
        assert config is not None

        def compute(some: Sequence[Generation]) -> list[Revision]:
            return critique_and_revise(
                author,
                some,
                config,
                seed=settings.seed,
                round_index=at.index,
                engine=source.engine,
                rows=settings.sampling.batch_size,
            )

        found = source.run_stage(at, REVISIONS, samples.generations, compute, "revising")
        return Collected(found.records, {"revising": found.seconds})
