"""What the judge did this round: failures, ties, position, calibration, and how much it favours the policy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlaif_lab.judges.asking import decisions
from rlaif_lab.records import STATUSES, Judgement, Verdict, asked_in_one_order


def judge_metrics(judgements: Sequence[Judgement]) -> dict[str, float]:
    """Return rates of each status but ``ok``, and the same-slot rate: how often both orders chose the same *slot*, over
    the comparisons decided in both orders."""
    n = max(1, len(judgements))
    rates = {
        f"judge/{status}_rate": sum(j.status == status for j in judgements) / n for status in STATUSES if status != "ok"
    }
    return {**rates, "judge/same_slot_rate": same_slot_rate(judgements)}


def same_slot_rate(judgements: Sequence[Judgement]) -> float:
    """Return the share of comparisons whose verdict follows the slot and not the response; 0 for a judge without
    position bias."""
    decided = [
        (j.prob_first_wins_shown_first, j.prob_first_wins_shown_second)
        for j in judgements
        # A tie, or no verdict, follows no slot.
        if j.prob_first_wins_shown_first not in (None, 0.5) and j.prob_first_wins_shown_second not in (None, 0.5)
        if not asked_in_one_order(j)
    ]
    if not decided:
        return float("nan")
    return float(np.mean([(a > 0.5) != (b > 0.5) for a, b in decided if a is not None and b is not None]))


def policy_preference(
    verdict_pairs: Sequence[tuple[Verdict, Verdict]], quality_differences: Sequence[float]
) -> dict[str, float]:
    """Return how the judge favours the policy where it is wrong to. Of comparisons of the policy's answer (``first``)
    with the round-0 policy's, both orders asked: how often it picks the policy's worse answer over a better one of
    round 0, and round 0's worse answer over a better one of the policy's; a tie is half a pick.

    ``self_preference`` is the first minus the second: a judge that is merely weak errs on both, one that is partial to
    the policy (a live self judge to its own answers) on the first. quality_differences: policy minus round 0, nan
    without gold; nan throughout then.
    """
    wrongly: dict[bool, list[float]] = {True: [], False: []}  # is the policy's answer the worse one?
    for (shown_first, shown_second), difference in zip(verdict_pairs, quality_differences, strict=True):
        a, b = shown_first.prob_first_wins, shown_second.prob_first_wins
        # Equal quality, or no verdict: nothing can be wrong about the pick.
        if a is None or b is None or not difference:
            continue
        picks_policy = float(decisions(np.array((a + 1.0 - b) / 2)))
        if not np.isnan(difference):
            # In both cases: how often the worse answer was picked.
            wrongly[difference < 0].append(picks_policy if difference < 0 else 1.0 - picks_policy)
    policy, start = (float(np.mean(w)) if w else float("nan") for w in (wrongly[True], wrongly[False]))
    return {
        "judge/wrongly_for_policy": policy,
        "judge/wrongly_for_round_0": start,
        "judge/self_preference": policy - start,
    }


def win_rate(verdict_pairs: Sequence[tuple[Verdict, Verdict]], identical: int = 0) -> float:
    """Return P(first wins) + half the ties, by the decision of both orders' mean; comparisons without a verdict are
    left out.

    Each element: the verdict with ``first`` in slot one, and the verdict with the slots swapped. identical:
    comparisons of equal answers, which are ties. nan where nothing is left.
    """
    values = [
        ((a.prob_first_wins + 1.0 - b.prob_first_wins) / 2)
        for a, b in verdict_pairs
        if a.prob_first_wins is not None and b.prob_first_wins is not None
    ]
    wins = float(decisions(np.array(values)).sum()) + identical / 2
    return wins / (len(values) + identical) if values or identical else float("nan")
