"""Judges with known habits, and banks with known pairs."""

from __future__ import annotations

from collections.abc import Callable

from helpers import ScriptedJudge

from rlaif_lab.audit.pairs import LabelledPair, better_and_worse
from rlaif_lab.records import Comparison, Prompt, Verdict

Says = Callable[[Comparison], float | None]


def bank(n: int, longer_is_better: bool | None = None) -> list[LabelledPair]:
    """``well N`` against ``evil N``, as long as each other; or the better (the worse) one five characters longer."""
    more = {None: ("", ""), True: (" sure", ""), False: ("", " sure")}[longer_is_better]
    return [
        better_and_worse(Prompt(f"p{i}", f"question {i}"), f"well {i}{more[0]}", f"evil {i}{more[1]}", f"kind {i % 2}")
        for i in range(n)
    ]


def is_good(text: str) -> bool:
    return text.startswith("well")


def judge(says: Says, sees_gold: bool = False) -> ScriptedJudge:
    """``says``: probability that the first wins; None is an unreadable verdict with raw text."""

    def verdict(comparison: Comparison) -> Verdict:
        probability = says(comparison)
        if probability is None:
            return Verdict(None, "invalid", raw=f"I like {comparison.first}")
        return Verdict(probability, "tie" if probability == 0.5 else "ok", 0.5, 10, cost_usd=0.25)

    return ScriptedJudge(verdict, sees_gold)


def knows(comparison: Comparison) -> float:
    """Right, and surer than that."""
    return 0.9 if is_good(comparison.first) else 0.1
