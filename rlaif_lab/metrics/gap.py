"""The generation-verification gap, and why a loop stops: diversity, judge informativeness, update loss.

Inputs everywhere: ``qualities`` (N, k), gold quality of each sample in [0, 1]; ``matrices``, N arrays (k, k) of
``prob_beats`` (see pairing.py), nan where there is no verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlaif_lab.pairing import Floats, win_rates


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


def pairwise_gap(qualities: Floats, matrices: Sequence[Floats]) -> Gap:
    """Plateau attribution on best-of-two (SCIENCE: gap = E[p(1-p)(2a-1)] = D x I)."""
    k = qualities.shape[1]
    first, second = np.triu_indices(k, 1)
    difference = qualities[:, first] - qualities[:, second]  # (N, pairs)
    beats = np.stack([matrix[first, second] for matrix in matrices])
    picks_first = 0.5 + 0.5 * np.sign(beats - 0.5)  # the judge's decision: 1, 0.5 or 0; nan without a verdict
    gain = np.where(np.isnan(picks_first), 0.0, (picks_first - 0.5) * difference)
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


def best_of_k_gap(qualities: Floats, matrices: Sequence[Floats]) -> tuple[float, float]:
    """Generation-verification gap of best-of-k, absolute and relative (Song et al. 2412.02674).

    Absolute: E[quality of the sample with the highest win rate] - E[quality]; ties share equally.
    Relative: per prompt, the share of what a perfect verifier would gain, 0/0 := 0, averaged over prompts.
    """
    gains, shares = [], []
    for quality, matrix in zip(qualities, matrices, strict=True):
        rates = win_rates(matrix, hard=True)
        best = np.ones(len(rates), dtype=bool) if np.isnan(rates).all() else rates == np.nanmax(rates)
        gain = float(quality[best].mean() - quality.mean())
        possible = float(quality.max() - quality.mean())
        gains.append(gain)
        shares.append(gain / possible if possible > 0 else 0.0)
    return float(np.mean(gains)), float(np.mean(shares))
