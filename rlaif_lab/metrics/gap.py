"""The generation-verification gap, and why a loop stops: diversity, judge informativeness, update loss.

Inputs everywhere: ``qualities`` (N, k), gold quality of each sample in [0, 1]; ``prob_beats`` (N, k, k) as in
pairing.py, nan where there is no verdict.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlaif_lab.feedback.matrices import win_rates
from rlaif_lab.judges.asking import decisions
from rlaif_lab.records import Floats


@dataclass(frozen=True)
class Gap:
    """Of best-of-two selection by the judge, over all pairs of samples of a prompt.

    accuracy: P(judge picks the better | qualities differ, there is a verdict); a tie counts one half.
    discordant_rate: P(qualities differ).
    diversity: D = E|q - q'| / 2, which for binary quality is E[p (1 - p)].
    gap: E[quality of the judge's pick] - E[quality].
    informativeness: I = gap / D, for binary quality and a verdict on every pair exactly 2 x accuracy - 1;
        nan where D = 0.
    """

    accuracy: float
    discordant_rate: float
    diversity: float
    gap: float
    informativeness: float


def pairwise_gap(qualities: Floats, prob_beats: Floats) -> Gap:
    """Attribute a plateau on best-of-two (gap = E[p(1-p)(2a-1)] = D x I)."""
    k = qualities.shape[1]
    # Every pair once: (k (k - 1) / 2) columns.
    first, second = np.triu_indices(k, 1)
    difference = qualities[:, first] - qualities[:, second]  # (N, pairs)
    picks_first = decisions(prob_beats[:, first, second])
    # Where the judge says nothing it picks at random, and gains nothing.
    gain = np.where(np.isnan(picks_first), 0.0, (picks_first - 0.5) * difference)
    # Equal quality, or no verdict: left out of accuracy, but not of the gap.
    decided = (difference != 0) & ~np.isnan(picks_first)
    correct = np.where(difference > 0, picks_first, 1.0 - picks_first)
    diversity = float(np.abs(difference).mean() / 2)
    gap = float(gain.mean())
    return Gap(
        accuracy=float(correct[decided].mean()) if decided.any() else float("nan"),
        discordant_rate=float((difference != 0).mean()),
        diversity=diversity,
        gap=gap,
        informativeness=gap / diversity if diversity > 0 else float("nan"),
    )


def best_of_k_gap(qualities: Floats, prob_beats: Floats) -> tuple[float, float]:
    """Return the generation-verification gap of best-of-k, absolute and relative (Song et al. 2412.02674).

    Absolute: E[quality of the sample with the highest win rate] - E[quality]; ties share equally.
    Relative: per prompt, the share of what a perfect verifier would gain, 0/0 := 0, averaged over prompts.
    """
    rates = np.nan_to_num(win_rates(prob_beats, hard=True), nan=-1.0)  # without any verdict: all are equally good
    best = rates == rates.max(axis=1, keepdims=True)
    mean = qualities.mean(axis=1)
    # Samples that tie for best share the pick.
    gain = (qualities * best).sum(axis=1) / best.sum(axis=1) - mean
    possible = qualities.max(axis=1) - mean
    # 0 / 0 := 0: where all samples are equally good there is nothing to gain.
    share = np.divide(gain, possible, out=np.zeros_like(gain), where=possible > 0)
    return float(gain.mean()), float(share.mean())
