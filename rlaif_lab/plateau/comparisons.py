"""Arms against arms: seed-paired differences, performance gap recovered, and aggregates across tasks.

Seeds are paired: arms of one seed share prompts and sampling noise, so that differences of the same seed are less noisy
than the arms are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from rlaif_lab.records import Floats
from rlaif_lab.seeding import rng_for
from rlaif_lab.statistics.intervals import Interval, paired_difference, t_interval, t_quantile

UNDEFINED = Interval(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Difference:
    """``first`` minus ``second`` in one quantity, over the ``seeds`` that both have. p: of the paired t test,
    two-sided; p_holm: adjusted for all comparisons of that quantity (Holm 1979). Both nan below 2 seeds."""

    quantity: str
    first: str
    second: str
    interval: Interval
    seeds: int
    p: float
    p_holm: float


def all_differences(quantity: str, arms: Mapping[str, Mapping[int, float]]) -> list[Difference]:
    """Return every pair of arms (label -> seed -> value) with at least one seed in common, in the order of ``arms``."""
    found = []
    # Pairs of arms in a fixed order, so that a difference's sign means the same everywhere.
    for first, second in combinations(arms, 2):
        values = paired_difference(arms[first], arms[second])
        if values:
            p = t_test(values)
            found.append(
                Difference(
                    quantity, first, second, interval=t_interval(values), seeds=len(values), p=p, p_holm=math.nan
                )
            )
    # All comparisons of one quantity are one family; other quantities have their own.
    adjusted = holm([difference.p for difference in found])
    return [replace(difference, p_holm=p) for difference, p in zip(found, adjusted, strict=True)]


def t_test(values: Sequence[float]) -> float:
    """Return the p value, two-sided, of a mean of 0; nan for fewer than 2 values."""
    from scipy.special import stdtr  # slow to import

    n = len(values)
    if n < 2:
        return math.nan
    mean, spread = float(np.mean(values)), float(np.std(values, ddof=1))
    # No spread over seeds: equal by construction, or different beyond any doubt.
    if spread == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return float(2.0 * stdtr(n - 1, -abs(mean) / (spread / math.sqrt(n))))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return adjusted p values: rejecting those below alpha keeps the probability of any false rejection below alpha.
    nan stays nan and counts for nothing."""
    known = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    highest = 0.0
    for rank, (p, index) in enumerate(known):
        # Step down: each is at least as large as those below it, so that none is rejected before a smaller one.
        highest = max(highest, min(1.0, (len(known) - rank) * p))
        adjusted[index] = highest
    return adjusted


# --- performance gap recovered ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class GapRecovered:
    """PGR = (Q_run - Q_floor) / (Q_ceiling - Q_floor): 0 at the floor arm, 1 at the ceiling arm (Burns et al.
    2312.09390).

    interval: Fieller's, over seeds that all three arms have; all nan where undefined, and ``reason`` says why: with
    fewer than 2 seeds, or where the interval of the denominator contains 0. floor, ceiling: labels.
    """

    interval: Interval
    floor: str
    ceiling: str
    seeds: int
    reason: str = ""


def gap_recovered(
    run: Mapping[int, float],
    floor: tuple[str, Mapping[int, float]],
    ceiling: tuple[str, Mapping[int, float]],
    confidence: float = 0.95,
) -> GapRecovered:
    """Return the gap recovered, from final qualities by seed. floor, ceiling: label and values."""
    # Seeds of all three arms: the ratio is of one and the same seeds.
    seeds = [seed for seed in run if seed in floor[1] and seed in ceiling[1]]
    interval, reason = UNDEFINED, ""
    if len(seeds) < 2:
        reason = f"{len(seeds)} seed{'' if len(seeds) == 1 else 's'} in common"
    else:
        gained = np.array([run[seed] - floor[1][seed] for seed in seeds])
        possible = np.array([ceiling[1][seed] - floor[1][seed] for seed in seeds])
        interval = fieller(gained, possible, confidence)
        # Fieller's set is then no interval, as the floor and the ceiling may be one.
        if math.isnan(interval.mean):
            reason = f"{ceiling[0]} is not shown to differ from {floor[0]}"
    return GapRecovered(interval, floor[0], ceiling[0], len(seeds), reason)


def fieller(numerators: Floats, denominators: Floats, confidence: float = 0.95) -> Interval:
    """Return the interval of a ratio of means of paired values (Fieller 1954): all ratios r for which a t test of
    mean(numerator - r denominator) = 0 does not reject. Exact for normal values; covers the uncertainty of both.

    All nan where the denominator's own interval contains 0, for then the set is no interval. Shapes: (n,), n >= 2.
    """
    n = len(numerators)
    a, b = float(numerators.mean()), float(denominators.mean())
    covariance = np.cov(numerators, denominators, ddof=1) / n
    t2 = t_quantile(n - 1, confidence) ** 2
    # (a - r b)^2 <= t^2 (v_aa - 2 r v_ab + r^2 v_bb), a quadratic in r
    square = b * b - t2 * float(covariance[1, 1])
    middle = a * b - t2 * float(covariance[0, 1])
    constant = a * a - t2 * float(covariance[0, 0])
    # The denominator is not shown to differ from 0 at this confidence.
    if b == 0.0 or square <= 0.0:
        return UNDEFINED
    root = math.sqrt(max(0.0, middle * middle - square * constant))
    return Interval(a / b, (middle - root) / square, (middle + root) / square)


# --- across tasks -----------------------------------------------------------------------------------------------------
def interquartile_mean(scores: Floats) -> Floats:
    """Return the mean of the middle half: a quarter of the values, rounded down, is left out at either end (Agarwal et
    al. 2108.13264). Shapes: (..., n) -> (...)."""
    # Rounded down, so that with fewer than four values all count.
    cut = scores.shape[-1] // 4
    result: Floats = np.sort(scores, axis=-1)[..., cut : scores.shape[-1] - cut].mean(-1)
    return result


def stratified_bootstrap(
    tasks: Sequence[Floats],
    statistic: Callable[[Floats], Floats] = interquartile_mean,
    confidence: float = 0.95,
    resamples: int = 5000,
    seed: int = 0,
) -> Interval:
    """Return a statistic over the runs of several tasks with its percentile interval: in each resample the runs of
    every task are drawn anew, with replacement, and the tasks stay (Agarwal et al. 2108.13264).

    tasks: scores of the runs of each, (runs,), in one unit. The interval speaks of these tasks, not of tasks at large,
    and is somewhat too narrow below about 10 runs per task.
    """
    rng = rng_for(seed, "stratified_bootstrap")
    # Within each task, so that tasks keep their weights.
    drawn = [task[rng.integers(0, len(task), (resamples, len(task)))] for task in tasks]
    values = statistic(np.concatenate(drawn, axis=1))
    tail = (1.0 - confidence) / 2
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return Interval(float(statistic(np.concatenate(tasks))), float(low), float(high))
