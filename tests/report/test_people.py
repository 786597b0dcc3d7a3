"""What a report says of people's labels: whether it is better, who judged, and how many labels it would take."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rlaif_lab.report.arms import Arm
from rlaif_lab.report.load import Run
from rlaif_lab.report.sections.people import SET, asked, better, needed, shown, who_labelled, win_rate
from rlaif_lab.report.verdicts import run_verdict
from rlaif_lab.statistics.intervals import Interval

PPI = "ppi/win_rate_vs_round_0"
REAL = {"judge": {"_target_": "x.HumanBudget", "human": {"_target_": "rlaif_lab.judges.people.PeopleJudge"}}}


def run(seed: int, rate: float, stderr: float = 0.05, **config: Any) -> Run:
    rows = {PPI: rate, f"{PPI}_stderr": stderr, f"{PPI}_low": rate - 0.1, f"{PPI}_high": rate + 0.1}
    last = rows | {"cost/evaluation_human_labels": 100.0}
    return Run(f"run {seed}", "arm", seed, 1, {**REAL, **config}, {0: {}, 1: last})


def test_a_single_run_has_its_own_interval_and_seeds_have_theirs() -> None:
    assert win_rate([run(0, 0.7)], PPI) == pytest.approx((0.7, 0.6, 0.8))
    several = win_rate([run(seed, rate) for seed, rate in enumerate((0.6, 0.7, 0.8))], PPI)
    assert several.mean == pytest.approx(0.7)
    assert several.high - several.mean == pytest.approx(4.303 * 0.1 / math.sqrt(3), rel=1e-3)


@pytest.mark.parametrize(("rate", "answer"), [(0.7, "yes"), (0.3, "no, worse"), (0.55, "not shown either way")])
def test_it_is_better_where_the_interval_says_so(rate: float, answer: str) -> None:
    assert better(win_rate([run(0, rate)], PPI)) == answer
    assert shown(win_rate([run(0, 0.7)], PPI)) == "0.700 (0.600 to 0.800)"
    assert shown(Interval(0.9, 0.9, 0.9)) == "0.900 (interval not known)"
    assert better(Interval(0.9, 0.9, 0.9)) == "not shown either way"


def test_the_labels_that_would_tell_delta_grow_with_its_inverse_square() -> None:
    """100 labels give a standard error of 0.05; delta = 0.05 needs (1.96 + 0.84)^2 as many."""
    assert needed([run(0, 0.7, detector={"delta": 0.05})], PPI) == "100 a run; about 785 would tell 0.05 from none"
    assert needed([run(0, 0.7, stderr=math.nan)], PPI) == "not known"
    assert "is not known" in needed([run(0, 0.5, stderr=0.0)], PPI), "a few labels that all agree are no certainty"


def test_who_stood_for_people_is_said() -> None:
    simulated = {"_target_": "rlaif_lab.judges.annotator.SimulatedAnnotator"}
    assert who_labelled(REAL, PPI) == "real people"
    assert who_labelled({"judge": {"_target_": "x.HumanBudget", "human": simulated}}, PPI) == (
        "simulated people (gold, 10% of preferences flipped)"
    )
    assert who_labelled({"judge": {"_target_": "rlaif_lab.judges.people.PeopleJudge"}}, PPI) == "real people"
    assert who_labelled({}, PPI) == "people as set up"
    assert who_labelled({"human_set": {"by": simulated | {"flip": 0.0}}}, SET).startswith("simulated people")


def test_runs_without_people_are_left_out() -> None:
    arm = Arm("arm", {}, [run(0, 0.7), run(1, math.nan)])
    assert [one.seed for one in asked(arm, PPI)] == [0]


def test_a_verdict_by_simulated_people_says_so() -> None:
    rows = [{"round": i, "human/win_rate_vs_round_0": 0.5, "human/win_rate_vs_round_0_stderr": 0.01} for i in range(4)]
    simulated = {"_target_": "rlaif_lab.judges.annotator.SimulatedAnnotator"}
    for human, words in ((REAL["judge"]["human"], "by the people's"), (simulated, "by the simulated people's")):
        judge = {"_target_": "x.HumanBudget", "human": human}
        config = {"arm": "a", "seed": 0, "judge": judge, "detector": {"measure": "people", "delta": 0.1}}
        assert words in run_verdict(config, rows).headline
