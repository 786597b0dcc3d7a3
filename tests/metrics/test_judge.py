"""What is counted of a judge."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlaif_lab.judges.asking import debias
from rlaif_lab.metrics.judge import judge_metrics, policy_preference, same_slot_rate, win_rate
from rlaif_lab.records import Comparison, Judgement, Prompt, Verdict

COMPARISON = Comparison(Prompt("p", "1+1="), "a", "b")
FAILED, ABSTAINED = Verdict(None, "invalid"), Verdict(None, "refused")


def judged(first: float | Verdict, second: float | Verdict) -> Judgement:
    """``second``: as said with the slots swapped."""
    one, two = (v if isinstance(v, Verdict) else Verdict(v) for v in (first, second))
    return debias(COMPARISON, 0, 1, one, two)


def test_rates_by_hand() -> None:
    judgements = [
        judged(0.9, 0.2),  # ok
        judged(0.9, 0.9),  # slot one twice: a tie
        judged(0.5, 0.5),  # a tie in both orders
        judged(FAILED, 0.9),
        judged(ABSTAINED, 0.9),
    ]
    assert judge_metrics(judgements) == {
        "judge/tie_rate": 0.4,
        "judge/refused_rate": 0.2,
        "judge/timed_out_rate": 0.0,
        "judge/over_budget_rate": 0.0,
        "judge/invalid_rate": 0.2,
        "judge/same_slot_rate": 0.5,
    }


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(0.9, 0.1)], 0.0),  # a both times
        ([(0.9, 0.8)], 1.0),  # slot one both times
        ([(0.2, 0.3)], 1.0),  # slot two both times
        ([(0.9, 0.1), (0.9, 0.9), (0.1, 0.9), (0.4, 0.2)], 0.5),
        ([(0.9, 0.5), (0.5, 0.5), (0.9, 0.9)], 1.0),  # only the last is decided in both orders
    ],
)
def test_the_same_slot_rate_by_hand(pairs: list[tuple[float, float]], expected: float) -> None:
    assert same_slot_rate([judged(*pair) for pair in pairs]) == expected


def test_without_decided_comparisons_there_is_no_rate() -> None:
    assert math.isnan(same_slot_rate([]))
    assert math.isnan(same_slot_rate([judged(0.5, 0.5), judged(FAILED, FAILED)]))
    assert math.isnan(win_rate([]))
    assert math.isnan(win_rate([(FAILED, Verdict(0.5, "tie"))]))
    assert judge_metrics([])["judge/tie_rate"] == 0.0


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(0.9, 0.1)], 1.0),
        ([(0.1, 0.9)], 0.0),
        ([(0.6, 0.6)], 0.5),  # position alone
        ([(0.9, 0.6)], 1.0),  # (.9 + .4) / 2 > .5
        ([(0.9, 0.1), (0.1, 0.9), (0.5, 0.5), (1.0, 0.0)], 0.625),
    ],
)
def test_win_rates_by_hand(pairs: list[tuple[float, float]], expected: float) -> None:
    assert win_rate([(Verdict(a), Verdict(b)) for a, b in pairs]) == expected


def test_comparisons_without_a_verdict_are_left_out_of_the_win_rate() -> None:
    assert win_rate([(Verdict(1.0), Verdict(0.0)), (FAILED, Verdict(1.0)), (Verdict(1.0), ABSTAINED)]) == 1.0


def test_preference_for_the_policy_s_own_mistakes_by_hand() -> None:
    """Policy worse in three comparisons, of which it is picked in two and tied in one; better in two, picked in one."""

    def both(p: float) -> tuple[Verdict, Verdict]:
        return Verdict(p), Verdict(1.0 - p)

    said = [both(0.9), both(0.8), (Verdict(0.5, "tie"), Verdict(0.5, "tie")), both(0.7), both(0.2), both(0.9)]
    differences = [-1.0, -1.0, -1.0, 1.0, 1.0, 0.0]  # the last: equally good, in none of them
    failed = (Verdict(None, "invalid"), Verdict(0.5, "tie"))
    found = policy_preference([*said, failed], [*differences, -1.0])
    assert found["judge/wrongly_for_policy"] == pytest.approx(2.5 / 3)
    assert found["judge/wrongly_for_round_0"] == 0.5
    assert found["judge/self_preference"] == pytest.approx(2.5 / 3 - 0.5)
    assert all(np.isnan(v) for v in policy_preference(said, [float("nan")] * 6).values())
