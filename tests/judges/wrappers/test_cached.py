"""Verdicts by content: asked once, whoever asks, and never found under another judge's name."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from chat_model import COMPARISONS, attached_to_chat, trained
from helpers import ScriptedJudge, generation
from servers.asking import comparisons
from servers.processes import free_port
from servers.rule_server import RuleServer, rule_server

from rlaif_lab.judges.api.judge import ApiJudge
from rlaif_lab.judges.asking import judge_generations
from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.prompted.constitution import ConstitutionJudge
from rlaif_lab.judges.prompted.pairwise import PromptedJudge
from rlaif_lab.judges.verdict_store import VerdictStore
from rlaif_lab.judges.wrappers.cached import CachedJudge
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.records import Comparison, Prompt, Score, Verdict

PAIRS = [Comparison(Prompt(f"p{i}", "Say something."), "one", "two") for i in range(10)]


class Counting(ScriptedJudge):
    gives_scores = True

    def __init__(self, identity: str = "counting", status: Any = None) -> None:
        def say(comparison: Comparison) -> Verdict:
            if status is not None:
                return Verdict(None, status, raw="hm")
            return Verdict(0.7, latency_s=1.0, tokens=10, cost_usd=0.1, raw="well", details={"mass": 0.9})

        super().__init__(say)
        self.who = identity
        self.scored: list[Any] = []

    def identity(self) -> str:
        return self.who

    def scores(self, responses: Any) -> list[Score]:
        self.scored += responses
        return [Score(float(len(text)), tokens=3) for _, text in responses]


def cached(inner: Judge, path: Path, **settings: Any) -> CachedJudge:
    judge = CachedJudge(inner, str(path / "verdicts.sqlite"), **settings)
    judge.attach(JudgeContext(0, lambda w: trained(), lambda s: trained(), None))
    return judge


def test_nothing_is_asked_twice_and_what_is_found_costs_nothing(tmp_path: Path) -> None:
    first = Counting()
    asked = cached(first, tmp_path).verdicts(PAIRS)
    assert [v.tokens for v in asked] == [10] * 10
    again = Counting()
    found = cached(again, tmp_path).verdicts(PAIRS)
    assert (len(first.asked), again.asked) == (10, [])
    assert found == [Verdict(0.7, raw="well", details={"mass": 0.9})] * 10


def test_within_one_call_too(tmp_path: Path) -> None:
    inner = Counting()
    assert len(cached(inner, tmp_path).verdicts([PAIRS[0], PAIRS[0], PAIRS[1]])) == 3
    assert inner.asked == PAIRS[:2]


@pytest.mark.parametrize(
    "other",
    [
        Comparison(Prompt("p0", "Say something."), "two", "one"),
        Comparison(Prompt("p0", "Say something."), "one", "two "),
        Comparison(Prompt("p0", "Say something else."), "one", "two"),
        Comparison(Prompt("p0", "Say something.", (("user", "Say something."),)), "one", "two"),
    ],
)
def test_another_order_text_or_prompt_is_another_question(tmp_path: Path, other: Comparison) -> None:
    cached(Counting(), tmp_path).verdicts(PAIRS)
    inner = Counting()
    cached(inner, tmp_path).verdicts([other])
    assert inner.asked == [other]


def test_another_judge_is_asked_anew(tmp_path: Path) -> None:
    cached(Counting(), tmp_path).verdicts(PAIRS)
    inner = Counting("somebody else")
    cached(inner, tmp_path).verdicts(PAIRS)
    assert inner.asked == PAIRS


@pytest.mark.parametrize(("status", "kept"), [("invalid", True), ("refused", True), ("timed_out", False)])
def test_what_a_judge_said_is_kept_and_what_kept_it_from_answering_is_not(
    tmp_path: Path, status: Any, kept: bool
) -> None:
    assert {v.status for v in cached(Counting(status=status), tmp_path).verdicts(PAIRS)} == {status}
    inner = Counting(status=status)
    found = cached(inner, tmp_path).verdicts(PAIRS)
    assert (inner.asked == []) == kept
    assert {(v.status, v.raw) for v in found} == {(status, "hm")}


def test_scores_are_kept_as_well(tmp_path: Path) -> None:
    responses = [(PAIRS[0].prompt, text) for text in ("a", "bb", "a")]
    first = Counting()
    assert [s.value for s in cached(first, tmp_path).scores(responses)] == [1.0, 2.0, 1.0]
    assert len(first.scored) == 2
    again = Counting()
    assert [(s.value, s.tokens) for s in cached(again, tmp_path).scores(responses)] == [(1.0, 0), (2.0, 0), (1.0, 0)]
    assert again.scored == []


def test_prompted_judges_are_told_apart_by_all_that_decides_their_verdicts(tmp_path: Path) -> None:
    judges = [
        PromptedJudge("live", minimum_mass=0.0),
        PromptedJudge("live", minimum_mass=0.0, criteria="correct"),
        PromptedJudge("live", minimum_mass=0.0, template="reasoned"),
        ConstitutionJudge("live", minimum_mass=0.0),
    ]
    alone = [[v.prob_first_wins for v in attached_to_chat(judge).verdicts(COMPARISONS)] for judge in judges]
    for _ in range(2):
        through = [[v.prob_first_wins for v in cached(judge, tmp_path).verdicts(COMPARISONS)] for judge in judges]
        assert all(a == pytest.approx(t, abs=1e-6) for a, t in zip(alone, through, strict=True))
    with_store = VerdictStore(tmp_path / "verdicts.sqlite")
    assert len(with_store) == len(judges) * len(COMPARISONS)


def test_a_rerun_of_a_rounds_judging_is_at_least_fifty_times_faster(tmp_path: Path) -> None:
    generations = [
        generation(f"prompt {i}", *(f"answer {j} of {i}, the baker likes bread." for j in range(4))) for i in range(24)
    ]
    seconds = []
    results = []
    for _ in range(2):
        judge = cached(PromptedJudge("live", minimum_mass=0.0), tmp_path)
        start = time.perf_counter()
        results.append(judge_generations(judge, generations))
        seconds.append(time.perf_counter() - start)
    assert [j.prob_first_wins for j in results[0]] == [j.prob_first_wins for j in results[1]]
    assert sum(j.tokens for j in results[1]) == 0
    assert seconds[0] / seconds[1] >= 50, seconds


KILLED = """
import sys, time
from pathlib import Path
from helpers import attached
sys.path.insert(0, sys.argv[2])
from test_cached import Counting, PAIRS
from rlaif_lab.judges.wrappers.cached import CachedJudge
class Slow(Counting):
    def verdicts(self, comparisons):
        print("asked", len(comparisons), flush=True)
        time.sleep(0.2)
        return super().verdicts(comparisons)
attached(CachedJudge(Slow(), sys.argv[1], save_every=2)).verdicts(PAIRS)
"""


def test_a_killed_process_loses_one_portion_at_most(tmp_path: Path) -> None:
    path, here = tmp_path / "verdicts.sqlite", Path(__file__).parent
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path), str(here)],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": f"{here.parents[1]}:{here.parents[2]}", "PATH": ""},
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert lines == ["asked 2\n"] * 3
    inner = Counting()
    assert len(cached(inner, tmp_path).verdicts(PAIRS)) == 10
    assert len(inner.asked) == 6, "the two portions that were answered are there"


def test_settings_that_cannot_work_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"judge\.save_every"):
        CachedJudge(Counting(), save_every=0)


def test_a_judge_without_identity_is_not_cached(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no stable identity"):
        cached(ScriptedJudge(lambda c: Verdict(0.5, "tie")), tmp_path).verdicts(PAIRS)


# --- many jobs, one server --------------------------------------------------------------------------------------------
def test_eight_jobs_pay_every_verdict_once_though_the_server_is_gone_for_a_while(tmp_path: Path) -> None:
    """Each job asks what the others ask and some of its own; the server ends in the middle and starts again."""
    port, server, second = free_port(), RuleServer(hold_s=0.02), RuleServer()
    found: dict[int, list[Verdict]] = {}

    def job(number: int) -> None:
        served = ApiJudge(f"http://127.0.0.1:{port}/v1", "rule", api_key_env=None, wait_s=60.0, max_concurrency=2)
        judge = CachedJudge(served, str(tmp_path / "shared.sqlite"), save_every=5)

        def none(_: Any) -> Any:
            raise AssertionError("this judge needs no weights")

        judge.attach(JudgeContext(0, none, none, None, tmp_path / f"job_{number}"))
        asked = [*comparisons(20), *comparisons(4, start=100 * (number + 1))]
        found[number] = judge.verdicts(asked[number:] + asked[:number])

    jobs = [threading.Thread(target=job, args=(number,)) for number in range(8)]
    with rule_server(server, port):
        for one in jobs:
            one.start()
        while len(server.asked) < 15:
            time.sleep(0.005)
    time.sleep(0.5)
    with rule_server(second, port):
        for one in jobs:
            one.join(120)
    assert {number: {v.status for v in verdicts} for number, verdicts in found.items()} == {
        number: {"ok"} for number in range(8)
    }
    stores = [VerdictStore(tmp_path / f"job_{number}" / "verdicts.sqlite") for number in range(8)]
    assert sum(map(len, stores)) == 20 + 8 * 4, "every verdict is paid once, over all jobs"
    assert len(VerdictStore(tmp_path / "shared.sqlite")) == 20 + 8 * 4


def test_what_a_process_that_died_was_asking_is_asked_by_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = VerdictStore(tmp_path / "v.sqlite")
    assert store.claim(["x", "y"], "dead", 0.2) == ["x", "y"]
    assert store.claim(["x", "z"], "alive", 60.0) == ["z"]
    time.sleep(0.3)
    assert store.claim(["x", "y", "z"], "alive", 60.0) == ["x", "y", "z"]
    assert store.claim(["x"], "dead", 60.0) == []
    store.release("alive")
    assert store.claim(["x"], "third", 60.0) == ["x"]
