"""The constructed judge errs on its class alone, and there as often as it says."""

from __future__ import annotations

import pytest
from helpers import attached

from rlaif_lab.judges.asking import both_orders
from rlaif_lab.judges.class_error import ClassErrorJudge
from rlaif_lab.records import Comparison
from rlaif_lab.tasks.arithmetic import Addition

TASK = Addition(3)


def comparisons(kind: str) -> list[Comparison]:
    """Right answers against the misconceived ones of the prompts where they differ, or against a slip."""
    found = []
    for prompt in TASK.prompts("rounds", 0, 4000, 0):
        right, misled = TASK._solve(prompt, misconceived=False), TASK._solve(prompt, misconceived=True)
        slipped = str((int(right[0]) + 1) % 10) + right[1:]
        if right != misled:
            other = misled if kind == "misconception" else slipped
            found.append(Comparison(prompt, right, other))
    return found


@pytest.mark.parametrize("share", [0.0, 0.35, 0.8, 1.0])
def test_the_share_of_wrong_verdicts_on_the_class_is_the_stated_one(share: float) -> None:
    judge = attached(ClassErrorJudge(share), gold=TASK)
    asked = comparisons("misconception")
    verdicts = both_orders(judge, asked)
    wrong = [first.prob_first_wins == 0.0 for first, _ in verdicts]
    assert len(wrong) > 800
    assert abs(sum(wrong) / len(wrong) - share) < 0.05
    assert all(one.prob_first_wins == 1.0 - other.prob_first_wins for one, other in verdicts)  # type: ignore[operator]


def test_every_other_comparison_is_golds() -> None:
    judge = attached(ClassErrorJudge(1.0), gold=TASK)
    assert all(v.prob_first_wins == 1.0 for v, _ in both_orders(judge, comparisons("slip")))
    prompt = TASK.prompts("rounds", 0, 1, 0)[0]
    assert judge.verdicts([Comparison(prompt, "0000", "1111")])[0].status == "tie"


def test_an_impossible_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"judge\.share .* got 1\.5"):
        ClassErrorJudge(1.5)
