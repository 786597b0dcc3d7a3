"""What sways a judge besides quality: position, length, its own authorship; and how far a policy follows.

Arrays are per comparison, (N,): ``shown_first`` and ``shown_second`` as in position.py, ``gold_difference`` as in
agreement.py, ``length_difference`` in characters and ``self_difference`` in {-1, 0, 1} (1: the first response is the
judge's own), both first minus second.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlaif_lab.judges.asking import decisions
from rlaif_lab.metrics.agreement import Rate, clustered, picks_right, rate
from rlaif_lab.records import Floats
from rlaif_lab.statistics.intervals import Interval

NAN = float("nan")


# --- the bias model -----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Coefficient:
    """In log-odds. nan where the comparisons do not identify it."""

    value: float = NAN
    stderr: float = NAN


@dataclass(frozen=True)
class BiasModel:
    """logit P(judge picks slot one) = position + quality dq + length tanh(dlen / sd) + authorship (s_one - s_two).

    d: slot one minus slot two. length_sd: root mean square of dlen, in characters. n: comparisons, each in both orders.
    """

    position: Coefficient
    quality: Coefficient
    length: Coefficient
    authorship: Coefficient
    length_sd: float
    n: int


def bias_model(
    shown_first: Floats,
    shown_second: Floats,
    gold_difference: Floats,
    length_difference: Floats,
    self_difference: Floats,
    prompts: Sequence[Hashable],
    *,
    soft: bool = False,
) -> BiasModel:
    """Fit a logistic regression to verdicts, every comparison in both orders; a tie is half a vote for each slot.

    soft: the outcome is the judge's probability and not its decision, for a learner that reads probabilities.

    The length term is that of Dubois et al. (2404.04475). Firth's penalty keeps the estimates finite where a covariate
    explains every verdict (an oracle). Standard errors are the larger of the model's own and those with the prompt as
    the unit, since both orders of a comparison share their noise. A covariate that does not vary, or that the ones
    before it determine, has no coefficient. Comparisons without verdict are left out; where some have gold, those
    without it too.
    """
    # Both orders or none: half a comparison would look like a lean to a slot.
    kept = ~np.isnan(shown_first) & ~np.isnan(shown_second)
    if not np.isnan(gold_difference[kept]).all():
        # Where some have gold, quality has to be held fixed: the others would enter it as 0.
        kept &= ~np.isnan(gold_difference)
    n = int(kept.sum())
    if n == 0:
        return BiasModel(Coefficient(), Coefficient(), Coefficient(), authorship=Coefficient(), length_sd=NAN, n=0)
    # Root mean square and not deviation: lengths of first minus second have no mean of their own.
    length_sd = float(np.sqrt(np.mean(length_difference[kept] ** 2)))
    slopes = np.stack(
        [
            np.nan_to_num(gold_difference[kept]),
            # tanh, so that one very long response does not carry the fit.
            np.tanh(length_difference[kept] / length_sd) if length_sd > 0 else np.zeros(n),
            self_difference[kept],
        ],
        axis=1,
    )
    ones = np.ones((n, 1))
    # Each comparison twice, slots swapped: all covariates but position turn their sign.
    covariates = np.concatenate([np.hstack([ones, slopes]), np.hstack([ones, -slopes])])  # (2n, 4)
    first, second = shown_first[kept], shown_second[kept]
    if not soft:
        first, second = decisions(first), decisions(second)
    # In both orders the probability of slot one.
    picks_one = np.concatenate([first, 1.0 - second])
    units = [prompt for prompt, keep in zip(prompts, kept.tolist(), strict=True) if keep]
    used = _independent_columns(covariates)
    # The prompt is the unit in both halves: the two orders of a comparison share it.
    values, stderrs = firth_logistic(covariates[:, used], picks_one, [*units, *units])
    found = {column: Coefficient(v, s) for column, v, s in zip(used, values.tolist(), stderrs.tolist(), strict=True)}
    # By column: what is not identified has no coefficient.
    position, quality, length, authorship = (found.get(column, Coefficient()) for column in range(4))
    return BiasModel(position, quality, length, authorship=authorship, length_sd=length_sd, n=n)


def _independent_columns(covariates: Floats) -> list[int]:
    """Return, from the left, each column that the ones before it do not determine."""
    used: list[int] = []
    for column in range(covariates.shape[1]):
        # Adding it must raise the rank: otherwise the columns before it determine it.
        if np.linalg.matrix_rank(covariates[:, [*used, column]]) > len(used):
            used.append(column)
    return used


def firth_logistic(
    covariates: Floats, outcomes: Floats, clusters: Sequence[Hashable], steps: int = 100
) -> tuple[Floats, Floats]:
    """Return coefficients and standard errors, (p,) each, of a logistic regression with Firth's penalty (Biometrika
    1993).

    covariates: (N, p) of full rank. outcomes: (N,) in [0, 1]. Standard errors: per coefficient the larger of the
    model's and the cluster-robust one.
    """
    weights = np.zeros(covariates.shape[1])
    for _ in range(steps):
        chances = _sigmoid(covariates @ weights)
        # Weights of the observed information.
        variance = chances * (1.0 - chances)
        inverse = np.linalg.inv((covariates * variance[:, None]).T @ covariates)
        # The hat matrix's diagonal, which Firth's penalty is made of.
        leverage = variance * np.einsum("ij,jk,ik->i", covariates, inverse, covariates)
        # Newton's step on the penalised score.
        step = inverse @ (covariates.T @ (outcomes - chances + leverage * (0.5 - chances)))
        step *= min(1.0, 2.0 / float(np.abs(step).max() + 1e-12))  # far from the optimum Newton overshoots
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    chances = _sigmoid(covariates @ weights)
    inverse = np.linalg.inv((covariates * (chances * (1.0 - chances))[:, None]).T @ covariates)
    # Scores summed by cluster: the meat of the sandwich.
    scores = covariates * (outcomes - chances)[:, None]
    codes = _codes(clusters)
    sums = np.zeros((int(codes.max()) + 1, covariates.shape[1]))
    np.add.at(sums, codes, scores)
    groups = len(sums)
    robust = inverse @ (sums.T @ sums) @ inverse * (groups / (groups - 1) if groups > 1 else 1.0)
    # The larger of both: the robust one is too small with few clusters, the model's where verdicts share their noise.
    return weights, np.sqrt(np.maximum(np.diag(inverse), np.diag(robust)))


def _sigmoid(logits: Floats) -> Floats:
    # Held within +-30, beyond which exp would overflow or a variance be 0.
    return 1.0 / (1.0 + np.exp(-np.clip(logits, -30.0, 30.0)))


def _codes(clusters: Sequence[Hashable]) -> npt.NDArray[np.int64]:
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(cluster, len(number)) for cluster in clusters])


# --- length -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class LengthBias:
    """longer_right, shorter_right: accuracy where the better response is the longer one, and where it is the shorter.
    longer_preferred: share of verdicts for the longer response. Equal lengths are in none of them."""

    longer_right: Rate
    shorter_right: Rate
    longer_preferred: Rate


def length_bias(
    prob_first_wins: Floats, gold_difference: Floats, length_difference: Floats, prompts: Sequence[Hashable]
) -> LengthBias:
    right = picks_right(prob_first_wins, gold_difference)
    same_sign = np.sign(gold_difference) * np.sign(length_difference)
    return LengthBias(
        longer_right=rate(np.where(same_sign > 0, right, np.nan), prompts),
        shorter_right=rate(np.where(same_sign < 0, right, np.nan), prompts),
        # Gold replaced by length: "right" is then the longer one.
        longer_preferred=rate(picks_right(prob_first_wins, length_difference), prompts),
    )


def length_drift(lengths_now: npt.ArrayLike, lengths_at_start: npt.ArrayLike) -> float:
    """Return how far a policy's mean response length has moved since round 0, in standard deviations of round 0; nan
    where those lengths do not vary."""
    now, start = np.asarray(lengths_now, dtype=float), np.asarray(lengths_at_start, dtype=float)
    # In units of round 0's spread, so that tasks with short and long answers compare.
    deviation = float(start.std(ddof=1)) if len(start) > 1 else 0.0
    return float((now.mean() - start.mean()) / deviation) if len(now) and deviation > 0 else NAN


def amplification(policy_drift: float, judge_bias: float) -> float:
    """Return policy drift / judge bias along one property, e.g. ``length_drift`` over the bias model's length
    coefficient: standard deviations moved per unit of log-odds. Above 0 where the policy went where the judge leans;
    nan for a judge without a lean."""
    # A lean of 0 amplifies nothing; 0 and nan are both refused.
    return policy_drift / judge_bias if judge_bias and math.isfinite(judge_bias) else NAN


# --- self-preference ----------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class SelfPreference:
    """own_wrongly: P(picks the worse response | the worse one is its own, the better one is not). other_wrongly: the
    same where the worse is another's. difference: the first minus the second, with the prompt as the unit."""

    own_wrongly: Rate
    other_wrongly: Rate
    difference: Interval


def self_preference(
    prob_first_wins: Floats,
    gold_difference: Floats,
    own_first: npt.NDArray[np.bool_],
    own_second: npt.NDArray[np.bool_],
    prompts: Sequence[Hashable],
) -> SelfPreference:
    """Return the judge's favour for its own wrong answers ("harmful" self-preference, Chen et al. 2504.03846) beyond
    what its plain errors explain.

    A weak judge picks wrong answers, and a model's own wrong answers are those it finds convincing: what counts is the
    difference to how often another's equally wrong answer wins against the same kind of right answer. Best measured on
    bank pairs that come in twos: one prompt, one right answer, a wrong one of each author.
    """
    # How wrong a pick is: 1 for the worse response, 0.5 for a tie.
    wrongly = 1.0 - picks_right(prob_first_wins, gold_difference)
    worse_is_own = np.where(gold_difference > 0, own_second, own_first)
    better_is_own = np.where(gold_difference > 0, own_first, own_second)
    # The better response must not be its own: otherwise it could favour itself by being right.
    own = np.where(worse_is_own & ~better_is_own, wrongly, np.nan)
    other = np.where(~worse_is_own & ~better_is_own, wrongly, np.nan)
    rates = rate(own, prompts), rate(other, prompts)
    if not (rates[0].n and rates[1].n):
        return SelfPreference(*rates, Interval(NAN, NAN, NAN))
    # The difference of two means: observations of either move it, with opposite signs.
    influence = np.nan_to_num((own - rates[0].value) / rates[0].n) - np.nan_to_num(
        (other - rates[1].value) / rates[1].n
    )
    return SelfPreference(*rates, clustered(rates[0].value - rates[1].value, influence, prompts))
