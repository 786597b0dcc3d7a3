"""The judge's direct score of each response, as a reward (d-RLAIF, Lee et al. 2309.00267)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from rlaif_lab.feedback.base import Collected, FeedbackKind, Samples, Settings, Source
from rlaif_lab.judges.asking import score_generations
from rlaif_lab.records import Floats, Position, Score
from rlaif_lab.store.tables import SCORES


class Scores(FeedbackKind):
    """(N, k), nan where the judge gave none."""

    name = "scores"
    stage = SCORES

    def check(self, settings: Settings, learner: str) -> None:
        if not settings.judge.gives_scores:
            raise ValueError(
                f"learner.reward=score needs a judge that scores single responses; judge {settings.judge.name!r} "
                "compares two. Use learner.reward=win_rate"
            )

    def collect(self, at: Position, samples: Samples, source: Source) -> Collected:
        score = functools.partial(score_generations, source.settings.judge)
        found = source.run_stage(at, SCORES, samples.generations, score, "scoring")
        return Collected(_as_array(found.records, len(samples.generations)), {"scoring": found.seconds})

    def stored(self, at: Position, samples: Samples, source: Source) -> Floats:
        return _as_array(super().stored(at, samples, source), len(samples.generations))


def _as_array(scores: Sequence[Score], prompts: int) -> Floats:
    # k to a prompt, in the order of the samples.
    return np.array([np.nan if score.value is None else score.value for score in scores]).reshape(prompts, -1)
