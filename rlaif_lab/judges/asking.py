"""How a judge is asked: each pair once, in both orders, averaged, and failures kept."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from rlaif_lab.judges.base import Judge
from rlaif_lab.records import (
    FAILURES,
    Comparison,
    Details,
    Floats,
    Generation,
    Judgement,
    Score,
    Status,
    Verdict,
)


def comparisons_of(generation: Generation) -> list[tuple[int, int]]:
    """Return the pairs of samples worth a judge's time: every pair of *different* texts once, by their first
    occurrence."""
    first_seen: dict[str, int] = {}
    for sample, response in enumerate(generation.responses):
        # The first occurrence stands for all equal texts, so a pair's samples do not depend on which copy came first to
        # the judge.
        first_seen.setdefault(response.text, sample)
    return list(combinations(first_seen.values(), 2))


def judge_generations(judge: Judge, generations: Sequence[Generation]) -> list[Judgement]:
    """Return all distinct pairs of each prompt's responses, judged in both orders."""
    asked = [(g, i, j) for g in generations for i, j in comparisons_of(g)]
    comparisons = [Comparison(g.prompt, g.responses[i].text, g.responses[j].text) for g, i, j in asked]
    return [
        debias(comparison, i, j, shown_first, shown_second)
        for (_, i, j), comparison, (shown_first, shown_second) in zip(
            asked, comparisons, both_orders(judge, comparisons), strict=True
        )
    ]


def score_generations(judge: Judge, generations: Sequence[Generation]) -> list[Score]:
    """Return direct scores of all samples, k per prompt in their order; equal texts are scored once."""
    # Equal texts once, in order of appearance: a dictionary with no values is an ordered set.
    asked = list(dict.fromkeys((g.prompt, r.text) for g in generations for r in g.responses))
    found = dict(zip(asked, judge.scores(asked) if asked else [], strict=True))
    return [found[g.prompt, r.text] for g in generations for r in g.responses]


def both_orders(judge: Judge, comparisons: Sequence[Comparison]) -> list[tuple[Verdict, Verdict]]:
    """Return each comparison's verdict as given and with the slots swapped."""
    if not comparisons:
        return []
    # One call for both orders, so that a judge can compute what they share (a prompt's keys, say) once.
    verdicts = judge.verdicts([*comparisons, *(c.swapped() for c in comparisons)])
    assert len(verdicts) == 2 * len(comparisons)
    return list(zip(verdicts[: len(comparisons)], verdicts[len(comparisons) :], strict=True))


def debias(
    comparison: Comparison, sample_first: int, sample_second: int, shown_first: Verdict, shown_second: Verdict
) -> Judgement:
    """Average the two orders. One failed order fails the judgement: it is recorded, never a silent label."""
    p_first = shown_first.prob_first_wins
    # Both as P(the first wins): the second order's verdict is about its own slot one.
    p_second = None if shown_second.prob_first_wins is None else 1.0 - shown_second.prob_first_wins
    probability: float | None
    status: Status
    if p_first is not None and p_second is not None:
        probability = (p_first + p_second) / 2
        status = "tie" if probability == 0.5 else "ok"
    else:
        probability = None
        # FAILURES is in the order of how much each tells about a judge: of two failed orders, that one names the
        # judgement.
        status = next(s for s in FAILURES if s in (shown_first.status, shown_second.status))
    raws = [verdict.raw for verdict in (shown_first, shown_second) if verdict.raw is not None]
    return Judgement(
        comparison=comparison,
        sample_first=sample_first,
        sample_second=sample_second,
        prob_first_wins=probability,
        prob_first_wins_shown_first=p_first,
        prob_first_wins_shown_second=p_second,
        status=status,
        latency_s=shown_first.latency_s + shown_second.latency_s,
        tokens=shown_first.tokens + shown_second.tokens,
        raw="\n---\n".join(raws) if raws else None,
        cost_usd=shown_first.cost_usd + shown_second.cost_usd,
        details=_merged(shown_first.details, shown_second.details),
    )


def _merged(shown_first: Details | None, shown_second: Details | None) -> Details | None:
    """Return what both orders have to say: once if it is the same, else by order."""
    # Local judges usually say the same in both orders; a record need not hold it twice.
    if shown_first == shown_second:
        return shown_first
    return {"shown_first": dict(shown_first or {}), "shown_second": dict(shown_second or {})}


def decisions(probabilities: Floats) -> Floats:
    """Return what a judge with these probabilities picks: 1, 0.5 (tie) or 0; nan stays nan. Any shape."""
    return 0.5 + 0.5 * np.sign(probabilities - 0.5)
