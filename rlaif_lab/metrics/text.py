"""Length and diversity of a round's responses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlaif_lab.records import Generation


def text_metrics(generations: Sequence[Generation]) -> dict[str, float]:
    """Return lengths in tokens (EOS included), rate of responses cut off by the limit, and three measures of
    diversity."""
    lengths = np.array([len(r.token_ids) for g in generations for r in g.responses])
    return {
        "text/mean_length": float(lengths.mean()),
        "text/p95_length": float(np.percentile(lengths, 95)),
        "text/unfinished_rate": float(np.mean([not r.finished for g in generations for r in g.responses])),
        "text/unique_rate": float(np.mean([unique_rate([r.text for r in g.responses]) for g in generations])),
        "text/distinct_2": float(np.mean([distinct_n([r.token_ids for r in g.responses], 2) for g in generations])),
        # Per response, in nats: how surprising the policy's own samples are to it.
        "text/sampled_nll": float(np.mean([-sum(r.logps) for g in generations for r in g.responses])),
    }


def unique_rate(texts: Sequence[str]) -> float:
    """Return the share of different answers among k, 1/k to 1."""
    return len(set(texts)) / len(texts)


def distinct_n(rows: Sequence[Sequence[int]], n: int) -> float:
    """Return the share of different n-grams among all n-grams of a prompt's responses (Li et al. 1510.03055); 0 where
    there is none."""
    grams = [tuple(row[i : i + n]) for row in rows for i in range(len(row) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
