"""The judge's own answers to the round's prompts, for a learner that is distilled from them."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif_lab.feedback.base import Collected, FeedbackKind, Samples, Settings, Source
from rlaif_lab.records import Generation, Position, Prompt
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.engine import sample
from rlaif_lab.store.tables import DEMONSTRATIONS


class Demonstrations(FeedbackKind):
    """One answer to each prompt, sampled at temperature 1 from the model that judges."""

    name = "demonstrations"
    stage = DEMONSTRATIONS

    def check(self, settings: Settings, learner: str) -> None:
        if not settings.judge.writes:
            raise ValueError(
                f"learner {learner!r} learns from the judge's own answers, but judge {settings.judge.name!r} has none"
            )

    def collect(self, at: Position, samples: Samples, source: Source) -> Collected:
        # As it judges now: a live judge's answers are those of the current policy.
        settings, model = source.settings, source.settings.judge.language_model()
        config = SamplingConfig(k=1, batch_size=settings.sampling.batch_size)
        identity = (settings.seed, "demonstrations", at.index)

        def compute(some: Sequence[Prompt]) -> list[Generation]:
            return sample(
                source.engine, model, some, config=config, limit=settings.task.max_response_tokens, identity=identity
            )

        found = source.run_stage(at, DEMONSTRATIONS, samples.prompts, compute, "demonstrating")
        return Collected(found.records, {"demonstrating": found.seconds})
