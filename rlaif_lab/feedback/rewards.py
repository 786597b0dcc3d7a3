"""The reward model's number for each response, from a model that learns from the judgements round by round."""

from __future__ import annotations

from pathlib import Path

from rlaif_lab.feedback.base import Collected, FeedbackKind, Samples, Source
from rlaif_lab.records import Floats, Position
from rlaif_lab.reward.examples import RewardExample, examples_from
from rlaif_lab.reward.model import RewardModel
from rlaif_lab.store.tables import GENERATIONS, JUDGEMENTS


class Rewards(FeedbackKind):
    """(N, k), of the reward model as of this segment. Earlier rounds are rewarded anew: the model has learnt since."""

    name = "rewards"

    def collect(self, at: Position, samples: Samples, source: Source) -> Collected:
        model = _model(source)
        # Segments of one round share its reward model's history as rounds do.
        earlier = [Position(i, s) for i in range(at.index) for s in range(source.segments)]
        same_round = [Position(at.index, s) for s in range(at.segment)]
        # `data="all"`: everything judged so far; otherwise the labels of this round alone.
        examples = [
            example
            for position in [*(earlier if model.data == "all" else []), *same_round]
            for example in _judged(position, source)
        ]
        examples += examples_from(at.index, samples.generations, samples.judgements)
        metrics = model.fit(examples, at.index, _folder(at, source), _folder_before(at, source))
        return Collected(model.rewards(samples.generations)[0], extra=metrics)

    def stored(self, at: Position, samples: Samples, source: Source) -> Floats:
        # As it now is, without training again: the newest model rewards what is replayed.
        return _model(source).rewards(samples.generations)[0]


def _model(source: Source) -> RewardModel:
    assert source.settings.reward_model is not None
    return source.settings.reward_model


def _judged(at: Position, source: Source) -> list[RewardExample]:
    """Return the labelled pairs of an earlier segment."""
    generations = source.store.read_stage(at.index, GENERATIONS, at.segment)
    return examples_from(at.index, generations, source.store.read_stage(at.index, JUDGEMENTS, at.segment))


def _folder(at: Position, source: Source) -> Path:
    return source.store.round_directory(at.index, at.segment) / "reward_model"


def _folder_before(at: Position, source: Source) -> Path | None:
    """Return where the reward model before this one is; None for the first."""
    if at.segment:
        return _folder(Position(at.index, at.segment - 1), source)
    # The last segment of the round before.
    return _folder(Position(at.index - 1, source.segments - 1), source) if at.index else None
