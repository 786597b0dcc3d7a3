"""What the arms of one seed have in common is computed once, and is the same as if each computed its own."""

from __future__ import annotations

import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest
from rounds import make_round

from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.oracle import OracleJudge, RandomJudge
from rlaif_lab.learners.dpo import DPO
from rlaif_lab.loop.data import RoundData
from rlaif_lab.loop.evaluation import Evaluation
from rlaif_lab.loop.round import Round
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.exact import Exact
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.store.sweep_cache import SweepCache
from rlaif_lab.store.tables import COVERAGE, EVALUATED, GENERATIONS
from rlaif_lab.tasks.arithmetic import Addition

STAGES = (GENERATIONS, EVALUATED, COVERAGE)


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What the policy has been sampled for, as it happens: the draws' identities. Left out are the greedy and the first
    policy's answers, which belong to each arm's own evaluation."""
    calls: list[tuple[Any, ...]] = []
    original = Exact.generate

    def counted(self: Exact, *given: Any) -> Any:
        if given[-1][1] not in ("greedy", "baseline"):
            calls.append(tuple(given[-1]))
        return original(self, *given)

    monkeypatch.setattr(Exact, "generate", counted)
    return calls


def made(
    organism: LanguageModel, task: Addition, folder: Path, judge: Judge, shared: SweepCache | None, **changes: Any
) -> Round:
    return make_round(organism, task, folder, judge, cache=shared, **changes)


def opened(*run: Any, **changes: Any) -> tuple[dict[str, Any], Path]:
    """Round 0 of a run: its metrics but for times, and where it is."""
    rounds = made(*run, **changes)
    data = RoundData(rounds, 0)
    metrics = rounds.row(data.before, data.segments)
    values = {name: value for name, value in metrics.items() if not name.startswith("time/")}
    return values, rounds.services.store.round_directory(0)


def test_a_second_arm_takes_what_the_first_sampled_and_comes_to_the_same(
    organism: LanguageModel, task: Addition, tmp_path: Path, sampled: list[tuple[Any, ...]]
) -> None:
    alone, apart = opened(organism, task, tmp_path / "alone", OracleJudge(), None, learner=DPO())
    shared = SweepCache(tmp_path / ".shared", "what decides")
    _, first = opened(organism, task, tmp_path / "first", RandomJudge(), shared)
    sampled.clear()
    metrics, second = opened(organism, task, tmp_path / "second", OracleJudge(), shared, learner=DPO())
    assert sampled == []
    assert metrics == pytest.approx(alone, rel=0, abs=0, nan_ok=True)
    for stage in STAGES:
        files = [folder / f"{stage.name}.parquet" for folder in (first, second)]
        assert files[0].samefile(files[1])
        own = RoundStore(apart.parent).read_stage(0, stage)
        assert own and own == RoundStore(second.parent).read_stage(0, stage)


@pytest.mark.parametrize(
    ("changes", "again"),
    [
        ({}, {"rounds": 0, "evaluation": 0}),
        ({"sampling": SamplingConfig(k=3, temperature=0.9)}, {"rounds": 1, "evaluation": 0}),
        ({"prompts_per_round": 15}, {"rounds": 1, "evaluation": 0}),
        ({"sync_every": 2}, {"rounds": 1, "evaluation": 0}),
        ({"evaluation": Evaluation(prompts=8, samples=3, final_samples=4)}, {"rounds": 0, "evaluation": 1}),
        ({"shared": "another identity"}, {"rounds": 1, "evaluation": 1}),
    ],
    ids=("same", "temperature", "prompts", "segments", "evaluation", "identity"),
)
def test_only_what_is_the_same_is_shared(
    organism: LanguageModel,
    task: Addition,
    tmp_path: Path,
    sampled: list[tuple[Any, ...]],
    changes: dict[str, Any],
    again: dict[str, int],
) -> None:
    shared = SweepCache(tmp_path / ".shared", "what decides")
    opened(organism, task, tmp_path / "first", RandomJudge(), shared)
    sampled.clear()
    if "shared" in changes:
        changes = {"shared": SweepCache(shared.folder, changes["shared"])}
    opened(organism, task, tmp_path / "second", RandomJudge(), **({"shared": shared} | changes))
    for what, count in again.items():
        assert sum(1 for _, stage, _ in sampled if stage == what) == count


def test_a_later_round_is_each_arms_own(organism: LanguageModel, task: Addition, tmp_path: Path) -> None:
    shared = SweepCache(tmp_path / ".shared", "what decides")
    rounds = made(organism, task, tmp_path / "run", RandomJudge(), shared)
    RoundData(rounds, 0)
    held = set(shared.folder.iterdir())
    both = {"baseline"}  # what the untrained policy answers is everybody's in every round
    kept = {file.stem.partition("-")[0] for file in held if file.suffix == ".parquet"}
    assert kept == {stage.name for stage in STAGES} | both
    RoundData(rounds, 1)
    new = {file.stem.partition("-")[0] for file in set(shared.folder.iterdir()) - held}
    assert new == both


def test_a_corrupt_file_is_computed_again_once_it_is_deleted(
    organism: LanguageModel, task: Addition, tmp_path: Path
) -> None:
    shared = SweepCache(tmp_path / ".shared", "what decides")
    first, folder = opened(organism, task, tmp_path / "run", RandomJudge(), shared)
    file = folder / "generations.parquet"
    file.write_bytes(file.read_bytes()[:100])  # and so the shared one, which is the same file
    with pytest.raises(ValueError, match=r"generations\.parquet' is corrupt"):
        opened(organism, task, tmp_path / "run", RandomJudge(), shared)
    file.unlink()
    again, _ = opened(organism, task, tmp_path / "run", RandomJudge(), shared)
    assert again == pytest.approx(first, rel=0, abs=0, nan_ok=True)


def _compute(shared: SweepCache, file: Path, log: Path, dies: bool) -> None:
    with shared.compute_once(file, "the same"):
        if not file.exists():
            with log.open("a") as lines:
                lines.write("computed\n")
            time.sleep(0.3)
            if dies:
                multiprocessing.current_process().kill()
                time.sleep(60)
            file.parent.mkdir(exist_ok=True)
            file.write_text("result")


@pytest.mark.parametrize("dies", [False, True])
def test_of_several_processes_one_computes_and_another_takes_over_if_it_dies(tmp_path: Path, dies: bool) -> None:
    shared, log = SweepCache(tmp_path / ".shared", ""), tmp_path / "log"
    context = multiprocessing.get_context("fork")
    jobs = [
        context.Process(target=_compute, args=(shared, tmp_path / str(i) / "file.parquet", log, dies and i == 0))
        for i in range(4)
    ]
    jobs[0].start()
    while not log.exists():
        time.sleep(0.01)
    for job in jobs[1:]:
        job.start()
    for job in jobs:
        job.join()
    assert log.read_text().count("computed") == 1 + dies
    files = [tmp_path / str(i) / "file.parquet" for i in range(int(dies), 4)]
    assert {file.read_text() for file in files} == {"result"}
    assert len({file.stat().st_ino for file in files}) == 1
