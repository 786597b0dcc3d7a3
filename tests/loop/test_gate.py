"""The gate: a judge at chance on the first round's samples is refused, unless that is what it is for."""

from __future__ import annotations

import pytest
from helpers import ScriptedJudge, attached, generation, judgement

from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.oracle import NoisyOracleJudge, OracleJudge, RandomJudge, ReversedJudge
from rlaif_lab.loop.gate import Gate, decided
from rlaif_lab.records import Comparison, Judgement, Prompt, Status, Verdict
from rlaif_lab.tasks.arithmetic import Addition

RIGHT, WRONG = "460", "000"
TASK = Addition(2)


def judged(right: int, wrong: int, ties: int = 0, failed: int = 0, equal: int = 0) -> list[Judgement]:
    """One comparison each of prompts of their own, though all ask for 21 + 43, written 12+34=."""
    probabilities = [0.8] * right + [0.4] * wrong + [0.5] * ties + [None] * failed
    found = [
        judgement(Comparison(Prompt(f"p{i}", "12+34="), RIGHT, WRONG), 0, 1, p) for i, p in enumerate(probabilities)
    ]
    same = [judgement(Comparison(Prompt(f"q{i}", "12+34="), WRONG, "111"), 0, 1, 0.9) for i in range(equal)]
    return found + same


def test_what_counts_as_decided() -> None:
    assert decided(TASK, judged(5, 3, ties=7, failed=11, equal=13)) == (5, 3)
    assert decided(TASK, judged(5, 3) * 4) == (5, 3), "several comparisons of a prompt are not independent"
    swapped = [judgement(j.comparison.swapped(), 0, 1, 1.0 - (j.prob_first_wins or 0)) for j in judged(5, 3)]
    assert decided(TASK, swapped) == (5, 3)


@pytest.mark.parametrize(("right", "wrong"), [(0, 0), (1, 0), (30, 30), (58, 42)])
def test_a_judge_at_chance_is_refused_unless_forced(right: int, wrong: int) -> None:
    judge = ScriptedJudge(lambda c: Verdict(0.5, "tie"))
    with pytest.raises(ValueError, match="scripted"):
        Gate().check(judge, TASK, judged(right, wrong))
    Gate(force=True).check(judge, TASK, judged(right, wrong))


@pytest.mark.parametrize(("right", "wrong"), [(20, 4), (65, 35), (0, 30)])
def test_a_judge_that_knows_something_passes(right: int, wrong: int) -> None:
    """Also one that is wrong all the time: it is not at chance, it is a null of another kind."""
    Gate().check(ScriptedJudge(lambda c: Verdict(0.5, "tie")), TASK, judged(right, wrong))


def test_more_confidence_asks_for_more() -> None:
    judge = ScriptedJudge(lambda c: Verdict(0.5, "tie"))
    Gate(confidence=0.9).check(judge, TASK, judged(60, 40))
    with pytest.raises(ValueError):
        Gate(confidence=0.99).check(judge, TASK, judged(60, 40))


def test_a_null_by_design_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    Gate().check(RandomJudge(), TASK, judged(10, 10))
    assert not NoisyOracleJudge().null
    assert not attached(ReversedJudge(NoisyOracleJudge()), TASK).null
    judge: Judge = ScriptedJudge(lambda c: Verdict(0.5, "tie"))
    monkeypatch.setattr(Addition, "has_gold", False)
    Gate().check(judge, TASK, judged(10, 10))


def test_prompts_of_the_hand_made_case() -> None:
    """The case above says what it means."""
    assert generation("12+34=", RIGHT).prompt.text == TASK.to_prompt(2143).text
    assert TASK.quality(Prompt("x", "12+34="), RIGHT) == 1.0
    assert TASK.quality(Prompt("x", "12+34="), WRONG) == 0.0


# --- a judge that fails -----------------------------------------------------------------------------------------------
def failing_judgement(status: Status, raw: str | None = None) -> Judgement:
    p = 1.0 if status == "ok" else None
    return Judgement(Comparison(Prompt("p", "?"), "a", "b"), 0, 1, p, p, p, status, 0.0, 0, raw)


def test_a_judge_that_fails_on_more_than_the_limit_ends_the_run_in_any_round() -> None:
    failing = (
        [failing_judgement("ok")] * 4
        + [failing_judgement("invalid", "no\nidea")] * 5
        + [failing_judgement("timed_out")]
    )
    with pytest.raises(
        ValueError, match=r"failed on 6 of the 10 comparisons of round 7 \(5 invalid, 1 timed_out; .*no idea"
    ) as error:
        Gate(force=True).check_failures(OracleJudge(), failing, 7)
    assert "\n" not in str(error.value)
    Gate(max_failed=0.6).check_failures(OracleJudge(), failing, 7)
    Gate().check_failures(OracleJudge(), failing[:8], 7)
    Gate().check_failures(OracleJudge(), [failing_judgement("over_budget")] * 9 + [failing_judgement("ok")], 0)
    Gate().check_failures(OracleJudge(), [], 0)
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"gate\.max_failed is a share"):
            Gate(max_failed=wrong)
