"""Judgements -> who beats whom, and how often.

Both functions are about one array: ``prob_beats[p, i, j]`` = probability that sample i of prompt p is better than its
sample j.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlaif_lab.judges.asking import decisions
from rlaif_lab.records import Floats, Generation, Judgement


def preference_matrices(generations: Sequence[Generation], judgements: Sequence[Judgement]) -> Floats:
    """Return ``prob_beats`` of all prompts, (N, k, k). Equal texts: 0.5. Never judged, or without verdict: nan."""
    known: dict[tuple[str, str, str], float] = {}
    for judgement in judgements:
        if judgement.prob_first_wins is not None:
            c = judgement.comparison
            # Both directions, so that the matrix is consistent: P(i beats j) + P(j beats i) = 1.
            known[c.prompt.id, c.first, c.second] = judgement.prob_first_wins
            known[c.prompt.id, c.second, c.first] = 1.0 - judgement.prob_first_wins
    rows = []
    for g in generations:
        name, texts = g.prompt.id, [response.text for response in g.responses]
        # By text: equal texts were judged once, and all of their copies have that verdict.
        rows.append([[0.5 if a == b else known.get((name, a, b), np.nan) for b in texts] for a in texts])
    return np.array(rows)


def win_rates(prob_beats: Floats, hard: bool = False) -> Floats:
    """Return the mean probability of beating each *other* sample, (..., k, k) -> (..., k); nan for one without any
    verdict.

    hard: count a win, a tie or a loss (1, 0.5, 0) instead of the probability, which leaves of a judge its
    ordering and drops its calibration.
    """
    # Nobody beats itself: the diagonal is left out of the mean.
    probabilities = np.where(np.eye(prob_beats.shape[-1], dtype=bool), np.nan, prob_beats)
    if hard:
        probabilities = decisions(probabilities)
    counts = (~np.isnan(probabilities)).sum(axis=-1)
    totals = np.nansum(probabilities, axis=-1)
    # `where`: 0 / 0 would warn and give nan as well, but nan is meant here.
    return np.divide(totals, counts, out=np.full(counts.shape, np.nan), where=counts > 0)
