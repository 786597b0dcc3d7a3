"""Everything that is sampled goes through the engine, with the sampler's batch size, and any engine will do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from helpers import ScriptedJudge
from rounds import make_round

from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.logprob import ModelJudge
from rlaif_lab.judges.oracle import RandomJudge
from rlaif_lab.learners.distil import Distil
from rlaif_lab.learners.rloo import RLOO
from rlaif_lab.loop.data import RoundData
from rlaif_lab.loop.parts import spare_samples
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Generation, Position, Verdict
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.engine import Determinism
from rlaif_lab.sampling.exact import Exact
from rlaif_lab.sampling.logps import with_logps
from rlaif_lab.store.tables import GENERATIONS
from rlaif_lab.tasks.arithmetic import Addition


@dataclass
class Noting:
    """Samples as Exact does, notes what it is told, and says nothing about log-probabilities if it is not to."""

    recorded: bool = True
    determinism: Determinism = "item"
    told: list[str] = field(default_factory=list)
    asked: list[tuple[str, SamplingConfig]] = field(default_factory=list)

    def update(self, policy: LanguageModel, version: str) -> None:
        self.told.append(version)

    def generate(
        self, model: LanguageModel, prompts: Sequence[Any], config: SamplingConfig, limit: int, identity: Sequence[Any]
    ) -> list[Generation]:
        self.asked.append((identity[1], config))
        found = Exact().generate(model, prompts, config, limit, identity)
        if self.recorded:
            return found
        return [
            replace(g, responses=tuple(replace(r, logps=(7.0,) * len(r.logps)) for r in g.responses)) for g in found
        ]

    def close(self) -> None:
        self.told.append("closed")


@pytest.mark.parametrize(
    ("judge", "learner", "also"),
    [(RandomJudge(), RLOO(), set()), (ModelJudge("initial"), Distil(), {"demonstrations"})],
    ids=["rloo", "distil"],
)
def test_every_stage_samples_with_the_engine_and_the_samplers_batch_size(
    organism: LanguageModel, task: Addition, tmp_path: Path, judge: Judge, learner: Any, also: set[str]
) -> None:
    engine = Noting()
    sampling = SamplingConfig(k=3, batch_size=7)
    changes: dict[str, Any] = {"learner": learner, "engine": engine, "sampling": sampling, "changes": "gold"}
    round_ = make_round(organism, task, tmp_path, judge, **changes)
    RoundData(round_, 0)
    round_.after(0)
    round_.coverage(1)
    spare_samples(round_.parts, round_.plan, 0, 4, 2)
    everything = {"rounds", "evaluation", "greedy", "baseline", "coverage", "spare samples"}
    assert {purpose for purpose, _ in engine.asked} == everything | also
    assert {config.batch_size for _, config in engine.asked} == {7}


def test_it_is_told_of_new_weights_before_it_samples_and_gives_memory_back_before_training(
    organism: LanguageModel, task: Addition, tmp_path: Path
) -> None:
    engine = Noting()
    round_ = make_round(organism, task, tmp_path, RandomJudge(), engine=engine, sync_every=2)
    data = RoundData(round_, 3)
    data.advance()
    round_.after(3)
    assert engine.told == ["round 3", "round 3", "closed", "round 3, segment 1", "closed", "round 4"]


def test_log_probabilities_that_an_engine_does_not_give_are_computed(
    organism: LanguageModel, task: Addition, tmp_path: Path
) -> None:
    """What is stored, trained on and replayed is then the sampling weights' own, up to rounding."""
    judge = ScriptedJudge(lambda c: Verdict(float(c.first < c.second)))
    stored = []
    for recorded in (True, False):
        round_ = make_round(organism, task, tmp_path / str(recorded), judge, engine=Noting(recorded))
        round_.play(Position(0), round_.plan.prompts(task, 0)[0])
        stored.append(round_.services.store.read_stage(0, GENERATIONS))
    for known, computed in zip(*stored, strict=True):
        for one, other in zip(known.responses, computed.responses, strict=True):
            assert one.token_ids == other.token_ids
            assert other.logps == pytest.approx(one.logps, abs=1e-5)


@pytest.mark.parametrize("rows", [1, 4, 1000])
def test_how_many_rows_are_computed_at_once_changes_nothing(
    untrained: LanguageModel, task: Addition, rows: int
) -> None:
    sampled = Exact().generate(untrained, task.prompts("rounds", 0, 9, 0), SamplingConfig(k=2), 6, (0, "test"))
    blank = [replace(g, responses=tuple(replace(r, logps=()) for r in g.responses)) for g in sampled]
    for known, computed in zip(sampled, with_logps(untrained, blank, rows), strict=True):
        for one, other in zip(known.responses, computed.responses, strict=True):
            assert other.logps == pytest.approx(one.logps, abs=1e-5)


def test_the_batch_size_changes_no_token(organism: LanguageModel, task: Addition) -> None:
    prompts = task.prompts("rounds", 0, 9, 0)
    drawn = [
        Exact().generate(organism, prompts, SamplingConfig(k=3, batch_size=size), 4, (0, "test"))
        for size in (1, 5, 1024)
    ]
    texts = [[r.token_ids for g in found for r in g.responses] for found in drawn]
    assert texts[0] == texts[1] == texts[2]
