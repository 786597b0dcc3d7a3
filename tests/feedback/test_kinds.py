"""Kinds of feedback: found by name, collected for who needs them, and a new one is one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rounds import make_round
from torch import Tensor

from rlaif_lab.feedback.base import Collected, Example, Feedback, FeedbackKind, Samples, Settings, Source
from rlaif_lab.feedback.kinds import kind_named, kinds_for
from rlaif_lab.feedback.pairing import Pairing
from rlaif_lab.feedback.replay import Replay
from rlaif_lab.judges.oracle import RandomJudge
from rlaif_lab.learners.base import Batch, Learner
from rlaif_lab.loop.data import RoundData
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Position
from rlaif_lab.tasks.arithmetic import Addition


class Lengths(FeedbackKind):
    """How many tokens each response has. It is made anew from the samples, so it needs no file of its own."""

    name = "lengths"

    def check(self, settings: Settings, learner: str) -> None:
        if settings.sampling.k < 2:
            raise ValueError(f"learner {learner!r} compares lengths")

    def collect(self, at: Position, samples: Samples, source: Source) -> Collected:
        lengths = self.stored(at, samples, source)
        return Collected(lengths, {"measuring": 0.5}, {"lengths/longest": float(max(map(max, lengths)))})

    def stored(self, at: Position, samples: Samples, source: Source) -> list[list[int]]:
        return [[len(response.token_ids) for response in g.responses] for g in samples.generations]


class LikesLong(Learner):
    name = "likes_long"
    needs = (f"{__name__}.Lengths",)
    needs_reference = False

    def examples(self, feedback: Feedback) -> list[Example]:
        return [
            Example(g.prompt, g.responses, tuple(map(float, lengths)), feedback.round_index)
            for g, lengths in zip(feedback.generations, feedback.collected["lengths"], strict=True)
        ]

    def loss(self, logps: Tensor, batch: Batch, values: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        return -(batch.signal * logps.sum(-1)).mean(), {}


@pytest.mark.parametrize("name", ["pairs", "scores", "rewards", "revisions", "demonstrations"])
def test_each_is_a_file_of_its_name(name: str) -> None:
    kind = kind_named(name)
    assert (kind.name, type(kind).__module__) == (name, f"rlaif_lab.feedback.{name}")


@pytest.mark.parametrize(
    ("names", "pairing", "collected"),
    [
        (("judgements",), Pairing(), ["pairs"]),
        (("judgements", "pairs"), Pairing(), ["pairs"]),
        (("judgements", "pairs"), Pairing(source="revisions"), ["pairs", "revisions"]),
        (("judgements",), Pairing(source="revisions"), ["pairs"]),
        (("demonstrations",), Pairing(), ["pairs", "demonstrations"]),
        (("judgements", "rewards"), Pairing(), ["pairs", "rewards"]),
    ],
)
def test_what_is_collected_is_what_the_learner_trains_on(names: Any, pairing: Pairing, collected: list[str]) -> None:
    assert [kind.name for kind in kinds_for(names, pairing)] == collected


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pears", r"no kind of feedback 'pears' \(did you mean 'pairs'\?\); there is judgements, pairs, "),
        ("nowhere.Votes", "no kind of feedback 'nowhere.Votes'"),
        (f"{__name__}.Votes", r"has no kind of feedback .*Votes'; it has \['Lengths'\]"),
    ],
)
def test_an_unknown_one_is_told_in_a_sentence(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind_named(name)


def test_a_new_one_reaches_its_learner_its_metrics_and_later_rounds(
    organism: LanguageModel, task: Addition, tmp_path: Path
) -> None:
    round_ = make_round(
        organism, task, tmp_path, RandomJudge(), learner=LikesLong(), replay=Replay(window=None), prompts_per_round=6
    )
    for index in range(2):
        data = RoundData(round_, index)
    examples = [e for segment in data.segments for e in segment.examples]
    assert [e.round_index for e in examples] == [1] * 6 + [0] * 6
    assert all(e.signal == tuple(len(r.token_ids) for r in e.responses) for e in examples)
    row = round_.row(data.before, data.segments)
    assert row["lengths/longest"] == max(s for e in examples[:6] for s in e.signal)
    assert row["time/measuring_s"] == 0.5
