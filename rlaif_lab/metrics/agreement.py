"""Agreement of a judge with gold: accuracy with its interval, Cohen's kappa, and whether a judge is at chance.

Everywhere: ``prob_first_wins`` (N,) is the judge's probability, nan where it gave no verdict; ``gold_difference`` (N,)
is quality of the first response minus quality of the second, in [-1, 1], nan where there is no gold.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from rlaif_lab.judges.asking import decisions
from rlaif_lab.records import Floats
from rlaif_lab.statistics.intervals import Interval, t_quantile

Ties = Literal["category", "drop"]
"""What a tie is to kappa. ``category``: a third answer, right only where gold ties too. ``drop``: no answer at all."""


@dataclass(frozen=True)
class Rate:
    """A share with its confidence interval. n: how many it is a share of. method: how the interval was made."""

    interval: Interval
    n: int
    method: str

    @property
    def value(self) -> float:
        return self.interval.mean


def picks_right(prob_first_wins: Floats, gold_difference: Floats) -> Floats:
    """Return 1 where the judge picks the better response, 0 the worse, 0.5 for its tie; nan without verdict, without
    gold, or where the two are equally good."""
    picks_first = decisions(prob_first_wins)
    # With equal quality neither pick is right or wrong; nan replaces below whatever stands here.
    right = np.where(gold_difference > 0, picks_first, 1.0 - picks_first)
    return np.where((gold_difference == 0) | np.isnan(gold_difference), np.nan, right)


def rate(values: Floats, clusters: Sequence[Hashable], confidence: float = 0.95) -> Rate:
    """Return the mean of ``values`` in [0, 1] (nan is left out) with its interval; all nan where nothing is left.

    Each value in a cluster (prompt) of its own: Wilson's score interval, in which a tie is half a success.
    Clusters with several values: a t interval around the pooled mean, with the cluster as the unit.
    """
    kept = ~np.isnan(values)
    left, groups = values[kept], [c for c, keep in zip(clusters, kept.tolist(), strict=True) if keep]
    if not len(left):
        return Rate(Interval(math.nan, math.nan, math.nan), 0, "none")
    mean = float(left.mean())
    # Independent values: the score interval, which is right near 0 and 1 as well.
    if len(set(groups)) == len(groups):
        return Rate(wilson(float(left.sum()), len(left), confidence), len(left), "Wilson")
    # (value - mean) / N: how far each value moves the mean.
    return Rate(clustered(mean, (left - mean) / len(left), groups, confidence), len(left), "t over prompts")


def wilson(successes: float, n: int, confidence: float = 0.95) -> Interval:
    """Return Wilson's score interval (1927) of a binomial share; all nan where n = 0."""
    if n == 0:
        return Interval(math.nan, math.nan, math.nan)
    from scipy.stats import norm  # slow to import

    z = float(norm.ppf((1.0 + confidence) / 2.0))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # Rounding may lead beyond [0, 1] by a bit.
    return Interval(share, max(0.0, centre - half), min(1.0, centre + half))


def clustered(estimate: float, influence: Floats, clusters: Sequence[Hashable], confidence: float = 0.95) -> Interval:
    """Return a t interval with the cluster as the unit (Liang and Zeger 1986), for an estimate that is a mean, or a
    difference of means.

    influence: (N,) how far each observation moves the estimate; for a mean, (value - mean) / N. nan limits with a
    single cluster.
    """
    sums: dict[Hashable, float] = {}
    for cluster, value in zip(clusters, influence.tolist(), strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + value
    groups = len(sums)
    if groups < 2:
        return Interval(estimate, math.nan, math.nan)
    # The sandwich with the correction for few clusters, as in statistics/clusters.py.
    stderr = math.sqrt(groups / (groups - 1) * math.fsum(s * s for s in sums.values()))
    half = t_quantile(groups - 1, confidence) * stderr
    return Interval(estimate, estimate - half, estimate + half)


# --- kappa --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Kappa:
    """value: (agreement - chance) / (1 - chance), 1 for full agreement, 0 for what chance would give; nan where chance
    alone agrees fully. stderr: large-sample. n: items."""

    value: float
    stderr: float
    n: int


def kappa_with_gold(prob_first_wins: Floats, gold_difference: Floats, ties: Ties = "category") -> Kappa:
    """Return Cohen's kappa of first / tie / second. Items without a verdict or without gold are left out."""
    if ties not in get_args(Ties):
        raise ValueError(f"ties must be one of {', '.join(get_args(Ties))}; got {ties!r}")
    kept = ~np.isnan(prob_first_wins) & ~np.isnan(gold_difference)
    # -1, 0, 1: second, tie, first.
    said, is_so = np.sign(prob_first_wins[kept] - 0.5), np.sign(gold_difference[kept])
    if ties == "drop":
        both = (said != 0) & (is_so != 0)
        said, is_so = said[both], is_so[both]
    counts = np.zeros((3, 3), dtype=np.int64)
    # add.at, since several comparisons fall into one cell.
    np.add.at(counts, (said.astype(int) + 1, is_so.astype(int) + 1), 1)
    return cohen_kappa(counts)


def cohen_kappa(counts: npt.ArrayLike) -> Kappa:
    """Return kappa of a table of counts, one rater's categories by the other's: (C, C). Cohen (1960); the standard
    error is that of Fleiss, Cohen and Everitt (1969)."""
    table = np.asarray(counts, dtype=float)
    n = int(table.sum())
    if n == 0:
        return Kappa(math.nan, math.nan, 0)
    shares = table / n
    rows, columns = shares.sum(1), shares.sum(0)
    agreement, chance = float(np.trace(shares)), float(rows @ columns)
    # Both always say the same one thing: there is nothing to agree on beyond chance.
    if chance >= 1.0:
        return Kappa(math.nan, math.nan, n)
    # The three terms of Fleiss, Cohen and Everitt (1969), eq. 15.
    diagonal = np.diag(shares) * ((1 - chance) - (rows + columns) * (1 - agreement)) ** 2
    crossed = shares * (columns[:, None] + rows[None, :]) ** 2
    off_diagonal = (1 - agreement) ** 2 * (crossed.sum() - np.trace(crossed))
    variance = diagonal.sum() + off_diagonal - (agreement * chance - 2 * chance + agreement) ** 2
    stderr = math.sqrt(max(0.0, float(variance)) / n) / (1 - chance) ** 2
    return Kappa((agreement - chance) / (1 - chance), stderr, n)


# --- the gate -----------------------------------------------------------------------------------------------------
def at_chance(correct: int, wrong: int, confidence: float = 0.95) -> bool:
    """Return whether the exact interval (Clopper and Pearson 1934) of a judge's accuracy holds 0.5, which it always
    does when nothing was counted.

    Counts must be independent: of several comparisons of one prompt, count one (see ``one_per_prompt``). Ties are not
    counted. ValueError for negative counts or a confidence outside (0, 1).
    """
    interval = clopper_pearson(correct, wrong, confidence)
    # Two-sided: a judge that is reliably wrong is not at chance, and the gate is for those that know nothing.
    return not (interval.low > 0.5 or interval.high < 0.5)


def clopper_pearson(correct: int, wrong: int, confidence: float = 0.95) -> Interval:
    """Return the exact interval of a binomial share; (nan, 0, 1) where nothing was counted."""
    if correct < 0 or wrong < 0:
        raise ValueError(f"counts must not be negative; got {correct} correct, {wrong} wrong")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1; got {confidence}")
    from scipy.stats import beta  # slow to import

    tail = (1.0 - confidence) / 2.0
    # At the ends the exact interval is one-sided.
    low = float(beta.ppf(tail, correct, wrong + 1)) if correct else 0.0
    high = float(beta.ppf(1.0 - tail, correct + 1, wrong)) if wrong else 1.0
    return Interval(correct / (correct + wrong) if correct + wrong else math.nan, low, high)


def one_per_prompt(right: Floats, prompts: Sequence[Hashable]) -> tuple[int, int]:
    """Return (correct, wrong), one decided comparison of each prompt: the first in order. right: as ``picks_right``."""
    first: dict[Hashable, float] = {}
    for prompt, value in zip(prompts, right.tolist(), strict=True):
        # Ties decide nothing, and a later pair of the prompt may.
        if value in (0.0, 1.0):
            first.setdefault(prompt, value)
    correct = sum(value == 1.0 for value in first.values())
    return correct, len(first) - correct


def gate_message(judge: str, correct: int, wrong: int, confidence: float = 0.95) -> str:
    """Say why a run is refused, in one sentence, with what can be done."""
    if correct + wrong == 0:
        found = "gave no verdict on any two responses of different quality"
    else:
        share, low, high = clopper_pearson(correct, wrong, confidence)
        found = (
            f"picked the better response in {correct} of {correct + wrong} comparisons ({share:.3f}, {confidence:.0%} "
            f"interval {low:.3f} to {high:.3f})"
        )
    return (
        f"judge {judge!r} is at chance on round 0: it {found}, so training would follow noise; choose another judge, "
        "look at it with rlaif-audit, or train all the same with gate.force=true"
    )
