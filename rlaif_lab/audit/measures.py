"""What an audit says of a judge: numbers with their intervals, in sections. The numbers come from metrics/."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from rlaif_lab.audit.judged import Judged
from rlaif_lab.metrics.agreement import Rate, kappa_with_gold, picks_right, rate
from rlaif_lab.metrics.bias import Coefficient, bias_model, length_bias, self_preference
from rlaif_lab.metrics.position import same_slot, slot_choices, slot_one_probability, stability
from rlaif_lab.records import FAILURES, Floats, Judgement
from rlaif_lab.statistics.calibration import ReliabilityBin, brier, ece, ece_if_calibrated, reliability_bins
from rlaif_lab.statistics.intervals import Interval

NAN = float("nan")
ONE_ORDER_ONLY = "one order of each pair is asked, so this cannot be known"
OFF = "not asked, by the plan"
NO_AUTHORS = "no response is known to be the judge's own"
# The 97.5 % quantile of the normal distribution.
Z = 1.959964  # of a 95% interval around an estimate with a large-sample standard error


@dataclass(frozen=True)
class AuditMeasure:
    """One number. low, high: its 95% interval, nan where there is none. n: how many comparisons it is of.
    note: what it says, or how it was made. missing: why there is none, where that needs saying."""

    key: str
    title: str
    value: float
    low: float = NAN
    high: float = NAN
    n: int | None = None
    note: str = ""
    missing: str = ""


@dataclass(frozen=True)
class Section:
    """key: in audit.json. caption: for people who see such numbers for the first time."""

    key: str
    title: str
    caption: str
    measures: tuple[AuditMeasure, ...]


def of_rate(key: str, title: str, given: Rate, note: str = "", missing: str = "") -> AuditMeasure:
    method = f"{given.method} interval" if given.n else ""
    return AuditMeasure(
        key,
        title,
        *given.interval,
        n=given.n,
        note="; ".join(part for part in (note, method) if part),
        missing=missing,
    )


def of_coefficient(key: str, title: str, given: Coefficient, n: int, note: str, missing: str) -> AuditMeasure:
    half = Z * given.stderr
    return AuditMeasure(
        key, title, given.value, low=given.value - half, high=given.value + half, n=n, note=note, missing=missing
    )


# --- sections -----------------------------------------------------------------------------------------------------
def accuracy(judged: Judged) -> Section:
    right = picks_right(judged.prob_first_wins, judged.gold_difference)
    shown_first = picks_right(judged.shown_first, judged.gold_difference)
    shown_second = picks_right(judged.shown_second, judged.gold_difference)
    first_is_better = judged.gold_difference > 0
    # nan where either order failed: half a comparison is not right in both orders.
    both = np.where(np.isnan(shown_first) | np.isnan(shown_second), np.nan, (shown_first == 1) & (shown_second == 1))
    kappa = kappa_with_gold(judged.prob_first_wins, judged.gold_difference)
    prompts = judged.prompts
    return Section(
        "accuracy",
        "Does it pick the better response?",
        "Chance is 0.5. The verdict is the mean of both orders; its tie counts one half, comparisons without a verdict "
        "and pairs of equal quality are left out.",
        (
            of_rate("accuracy", "accuracy", rate(right, prompts)),
            of_rate("accuracy_both_orders", "right in both orders", rate(both, prompts), "chance is 0.25"),
            of_rate(
                "accuracy_better_first",
                "accuracy, better one in slot one",
                # By slot of the *better* response: position bias shows as a difference of the two.
                rate(np.where(first_is_better, shown_first, shown_second), prompts),
                "one order by itself",
            ),
            of_rate(
                "accuracy_better_second",
                "accuracy, better one in slot two",
                rate(np.where(first_is_better, shown_second, shown_first), prompts),
                "one order by itself",
            ),
            AuditMeasure(
                "kappa",
                "Cohen's kappa",
                kappa.value,
                # A normal interval may leave the range of kappa.
                low=max(-1.0, kappa.value - Z * kappa.stderr),
                high=min(1.0, kappa.value + Z * kappa.stderr),
                n=kappa.n,
                note="0 at chance, 1 for full agreement; a tie is a third answer, right only where gold ties too",
            ),
        ),
    )


def by_group(judged: Judged, groups: Sequence[str]) -> list[AuditMeasure]:
    """Return the accuracy in each group of comparisons, in alphabetical order. groups: (N,) names, empty for none."""
    right = picks_right(judged.prob_first_wins, judged.gold_difference)
    names = np.array(groups, dtype=object)
    return [
        of_rate(name, name, rate(np.where(names == name, right, np.nan), judged.prompts))
        for name in sorted(set(groups) - {""})
    ]


def reliability(judged: Judged) -> list[ReliabilityBin]:
    return reliability_bins(*_confidence(judged))


def calibration(judged: Judged, with_null: bool = True) -> Section:
    """Measure calibration. with_null: also what chance alone would give, which takes longer."""
    stated, happened = _confidence(judged)
    known = _known(judged)
    # Gold as an outcome in {0, 0.5, 1}, for the first response.
    score = brier(judged.prob_first_wins[known], 0.5 + 0.5 * np.sign(judged.gold_difference[known]))
    # Signed, unlike ECE: above 0 the judge is overconfident.
    gap = float(stated.mean() - happened.mean()) if len(stated) else NAN
    measures = [
        AuditMeasure("brier", "Brier score", score, n=len(stated), note="0 is perfect, 0.25 is knowing nothing"),
        AuditMeasure(
            "ece",
            "calibration error (ECE)",
            ece(stated, happened),
            n=len(stated),
            note="10 bins of equal mass; 0 is perfect",
        ),
        AuditMeasure(
            "overconfidence", "confidence minus accuracy", gap, n=len(stated), note="above 0: surer than it is right"
        ),
    ]
    if with_null:
        null = ece_if_calibrated(stated)
        note = "what a calibrated judge with these probabilities and this many pairs would get"
        measures.insert(2, AuditMeasure("ece_if_calibrated", "ECE by chance alone", null, n=len(stated), note=note))
    return Section(
        "calibration",
        "Do its probabilities mean what they say?",
        "Of the probability (both orders averaged) that it gives to the response it prefers, against how often that "
        "one is the better.",
        tuple(measures),
    )


def _confidence(judged: Judged) -> tuple[Floats, Floats]:
    """Return the probability of the preferred response, and whether it is the better one (0.5: equally good, or no
    preference). Which of two responses comes first then has no say."""
    known = _known(judged)
    probability, gold = judged.prob_first_wins[known], np.sign(judged.gold_difference[known])
    # 0 for a tie, whose outcome is then one half, whatever gold says.
    prefers = np.sign(probability - 0.5)
    return np.maximum(probability, 1.0 - probability), 0.5 + 0.5 * prefers * gold


def _known(judged: Judged) -> npt.NDArray[np.bool_]:
    """Tell where both a verdict and gold are there: (N,)."""
    return ~np.isnan(judged.prob_first_wins) & ~np.isnan(judged.gold_difference)


def position(judged: Judged) -> Section:
    """Measure position bias. A judge that is asked one order says nothing of this: its verdict in the other one is the
    same by definition."""
    if judged.one_order:
        # As if never asked: nan throughout, with the reason beside it.
        judged = replace(judged, shown_first=np.full(len(judged), NAN), shown_second=np.full(len(judged), NAN))
    unknown = ONE_ORDER_ONLY if judged.one_order else ""
    slots = same_slot(judged.shown_first, judged.shown_second)
    same = rate(np.where(np.isnan(slots), np.nan, slots > 0), judged.prompts)
    # The share of slot one among verdicts that follow a slot: noise alone would give one half.
    of_inconsistent = rate(np.where(slots > 0, slots == 1, np.nan), judged.prompts)
    # From a share in [0, 1] to [-1, 1].
    signed = Interval(*(2.0 * end - 1.0 for end in of_inconsistent.interval))
    counts = slot_choices(judged.shown_first, judged.shown_second)
    counted = (
        f"slot one both times {counts.slot_one}, slot two both times {counts.slot_two}, one response both times "
        f"{counts.same_response}, a tie {counts.undecided}"
    )
    return Section(
        "position",
        "Does the verdict follow the slot?",
        "Every pair is shown in both orders. A verdict that stays with the slot has nothing to do with the responses.",
        (
            of_rate("same_slot_rate", "same slot in both orders", same, "" if unknown else counted, unknown),
            AuditMeasure(
                "signed_position",
                "signed preference",
                *signed,
                n=of_inconsistent.n,
                note="of the verdicts that follow a slot: 1 always slot one, -1 always slot two, 0 both alike (noise)",
                missing=unknown or "no verdict follows a slot",
            ),
            AuditMeasure(
                "slot_one_probability",
                "probability given to slot one",
                slot_one_probability(judged.shown_first, judged.shown_second),
                n=len(judged) - counts.failed,
                note="" if unknown else "0.5 is no lean; sees one that turns no verdict round",
                missing=unknown,
            ),
        ),
    )


def length(judged: Judged) -> Section:
    found = length_bias(judged.prob_first_wins, judged.gold_difference, judged.length_difference, judged.prompts)
    missing = "" if judged.length_difference.any() else "no pair differs in length"
    return Section(
        "length",
        "Does it prefer the longer response?",
        "Length in characters. Pairs of equal length are left out.",
        (
            of_rate(
                "accuracy_longer_right", "accuracy where the longer is better", found.longer_right, missing=missing
            ),
            of_rate(
                "accuracy_shorter_right", "accuracy where the shorter is better", found.shorter_right, missing=missing
            ),
            of_rate("longer_preferred", "picks the longer", found.longer_preferred, missing=missing),
        ),
    )


def bias(judged: Judged, soft: bool = False) -> Section:
    """Fit what sways the judge. soft: to its probabilities and not to its decisions."""
    fit = bias_model(
        judged.shown_first,
        judged.shown_second,
        judged.gold_difference,
        length_difference=judged.length_difference,
        self_difference=judged.self_difference,
        prompts=judged.prompts,
        soft=soft,
    )
    same_length = "the bank's lengths do not vary, or only with quality"
    scale = f"longer; by tanh(difference / {fit.length_sd:.0f} characters)"
    return Section(
        "bias_model",
        "What sways it, all else equal",
        "One logistic model of all verdicts in both orders, in log-odds: 0 is no influence, 1 turns even odds into 73 "
        "to 27. Each with the others held fixed.",
        (
            AuditMeasure("b_position", "slot one", NAN, missing=ONE_ORDER_ONLY)
            if judged.one_order
            else of_coefficient(
                "b_position", "slot one", fit.position, n=fit.n, note="shown in slot one", missing="no verdicts"
            ),
            of_coefficient(
                "b_quality", "quality", fit.quality, n=fit.n, note="right against wrong", missing="the bank has no gold"
            ),
            of_coefficient("b_length", "length", fit.length, n=fit.n, note=scale, missing=same_length),
            of_coefficient(
                "b_self", "own authorship", fit.authorship, n=fit.n, note="the judge's own", missing=NO_AUTHORS
            ),
        ),
    )


def authorship(judged: Judged) -> Section:
    known = (judged.own_first | judged.own_second).any()  # else it is not known who wrote what
    found = self_preference(
        judged.prob_first_wins if known else np.full(len(judged), np.nan),
        judged.gold_difference,
        judged.own_first,
        judged.own_second,
        judged.prompts,
    )
    return Section(
        "self_preference",
        "Does it prefer its own mistakes?",
        "How often it picks a wrong response over a right one when the wrong one is its own, against how often it does "
        "so when it is another's: a weak judge errs on both, a partial one on its own.",
        (
            of_rate("wrongly_own", "picks its own wrong response", found.own_wrongly, missing=NO_AUTHORS),
            of_rate("wrongly_other", "picks another's wrong response", found.other_wrongly, missing=NO_AUTHORS),
            AuditMeasure(
                "self_preference",
                "self-preference",
                *found.difference,
                n=found.own_wrongly.n + found.other_wrongly.n,
                note="the difference; t interval over prompts",
                missing=NO_AUTHORS,
            ),
        ),
    )


def repetition(asked: Sequence[Floats]) -> Section:
    """Measure stability. asked: the verdicts of each repetition, as in metrics/position.py; fewer than two: not
    measured."""
    value = stability(asked) if len(asked) > 1 else NAN
    note = (
        f"asked {len(asked)} times, as runs of different seeds would: a judge that draws at random draws anew; one "
        "that does not, or that a cache answers for whatever the seed, gives 1"
    )
    measure = AuditMeasure(
        "stability", "same verdict again", value, n=len(asked[0]) if asked else 0, note=note, missing=OFF
    )
    return Section(
        "repetition", "Does it say the same when asked again?", "The same questions, same order.", (measure,)
    )


def failures(judged: Judged) -> Section:
    titles = {"invalid": "unreadable", "timed_out": "timed out", "over_budget": "over budget"}
    shares = [
        AuditMeasure(f"{status}_rate", titles.get(status, status), judged.status_share(status), n=len(judged))
        for status in FAILURES
    ]
    return Section(
        "failures",
        "What came of the questions?",
        "Shares of all comparisons. One failed order fails the comparison; a failure is never turned into a label.",
        (AuditMeasure("tie_rate", "ties", judged.status_share("tie"), n=len(judged)), *shares),
    )


def cost(judgements: Sequence[Judgement]) -> Section:
    """Measure tokens, seconds and money per verdict, which is one order of a comparison."""
    # Both orders of each comparison.
    verdicts = 2 * len(judgements)
    totals = {
        "tokens": float(sum(j.tokens for j in judgements)),
        "seconds": math.fsum(j.latency_s for j in judgements),
        "usd": math.fsum(j.cost_usd for j in judgements),
    }
    units = {"tokens": "tokens", "seconds": "seconds", "usd": "US dollars"}
    per = [
        AuditMeasure(
            f"{key}_per_verdict", f"{units[key]} per verdict", total / verdicts if verdicts else NAN, n=verdicts
        )
        for key, total in totals.items()
    ]
    whole = [AuditMeasure(f"{key}_total", f"{units[key]}, all", total, n=verdicts) for key, total in totals.items()]
    return Section(
        "cost",
        "What did it cost?",
        "Of the comparisons of the bank; a verdict is one order of a comparison. What a cache answered costs nothing.",
        (AuditMeasure("verdicts", "verdicts", float(verdicts)), *per, *whole),
    )


def injection(flips: dict[str, float], pairs: int = 0, missing: str = "") -> Section:
    """Measure injection. flips: attack -> share of verdicts turned round (audit/injection.py). pairs: how many were
    attacked. missing: why none was."""
    # Attacks on which nothing could be measured do not pull the mean.
    defined = [value for value in flips.values() if not math.isnan(value)]
    mean = math.fsum(defined) / len(defined) if defined else NAN
    return Section(
        "injection",
        "Can a response talk it round?",
        "The response that it rejects is made to address the judge; the share of verdicts that this turns round, by "
        "what is added.",
        (
            AuditMeasure("injection_mean", "all attacks", mean, n=pairs, missing=missing),
            *(
                AuditMeasure(f"injection_{name}", name.replace("_", " "), value, n=pairs)
                for name, value in flips.items()
            ),
        ),
    )
