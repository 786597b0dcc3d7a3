"""Why an arm does not improve, as shares of what is left.

What is left is 1 - Q. Prompt by prompt it falls into what no choice among the K samples could bring, and what choosing
could: with q the gold qualities of the samples,

    1 - mean(q)  =  (1 - max(q))  +  (max(q) - mean(q))
                    coverage         choice

and choice is of one of three kinds, by what the judge says of the pairs that differ in quality: it mostly prefers the
worse (`judge prefers wrong`), it mostly prefers the better and training does not take it up (`not taken up`), or
neither (`judge cannot tell`). The four shares add up to 1. They are what happened, in the last rounds, with intervals
over seeds.

A cause is a reading of them, and it is named only for an arm that is shown not to be improving; `misled` alone needs no
more than that nothing is gained. In this order:

- `solved`        what is left is at most `LITTLE`
- `still going`   the trend says improving; or it says nothing, and the last rounds gain more than 0
- `misled`        the arm is hacked (hacked.py); or where there is a choice, the judge prefers the worse answer (its
                  preference, weighted by what is at stake in each prompt, lies below 0); or most of what is left is
                  held by the task's misconception, and between right and misconceived answers the judge preferred
                  these, in all rounds taken together: what was taught so well that no sample is right any more;
                  or most of what is left is coverage, and where right answers were already in the minority the judge
                  preferred the others, likewise
- `undecided`     the trend says nothing
- `judge cannot tell`  that preference is near 0, and known to be
- `not taken up`  best of two by this judge would gain at least twice delta a round, and the arm gains less than a fifth
- `coverage`      more than half of what is left is beyond any choice among the samples
- `unclear`       none of these

D and I averaged over all pairs (attribution.py) cannot tell these apart: I stays high for a judge that is right about
slips and always wrong about its misconception.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rlaif_lab.plateau.trend import TrendState
from rlaif_lab.statistics.intervals import Interval, t_interval

Kind = Literal["coverage", "judge prefers wrong", "not taken up", "judge cannot tell", "solved"]
"""Of one prompt in one round."""
KINDS: tuple[Kind, ...] = get_args(Kind)
Cause = Literal[
    "solved", "still going", "undecided", "misled", "judge cannot tell", "not taken up", "coverage", "unclear"
]
CAUSES: tuple[Cause, ...] = get_args(Cause)

# 1 - Q: below it nobody would ask for causes.
LITTLE = 0.06
NEAR = 0.2
"""Preference (from -1 to 1) that is near 0."""
UPTAKE = 0.2
SIDE = 0.25
"""Preference within a prompt from which the judge has a side there."""


@dataclass(frozen=True)
class Left:
    """One prompt in one round. left: 1 - mean quality. beyond: what no choice among the samples brings. preference: of
    the judge among pairs that differ in quality, from -1 (always the worse) to 1; 0 where it says nothing. gap: what
    best of two by this judge gains over the mean. kind: the largest part."""

    left: float
    beyond: float
    preference: float
    gap: float
    minority: bool
    kind: Kind
    misconceived: float = 0.0
    """Of ``left``, what is held by answers that are right under the task's misconception."""
    between: tuple[int, int] = (0, 0)
    """Comparisons of a right answer with such a one; of these, decided rightly minus decided wrongly."""


def what_is_left(
    quality: Sequence[float],
    verdicts: Sequence[tuple[int, int, float | None]],
    misconceived: Sequence[float] | None = None,
) -> Left:
    """Return what is left of a prompt, and why.

    Args:
        quality: Of each sample, gold, in [0, 1].
        verdicts: Samples compared and the probability that the first is better; None for no verdict.
        misconceived: Of each sample, its quality under the task's misconception; None where the task has none.
    """
    taught = list(misconceived) if misconceived is not None else [0.0] * len(quality)
    # 1 for a right answer, -1 for one that is right under the misconception only, 0 for any other.
    kinds = [(right == 1.0) - (error == 1.0) for right, error in zip(quality, taught, strict=True)]
    compared = decided = 0
    mean, best = math.fsum(quality) / len(quality), max(quality)
    sides, gains = [], []
    for one, other, probability in verdicts:
        difference = quality[one] - quality[other]
        # A tie, and no verdict, speak for neither.
        said = 0 if probability is None else (probability > 0.5) - (probability < 0.5)
        # Best of two takes the judge's pick in place of a random one of the pair: half of the difference.
        gains.append(said * difference / 2.0)
        # A right answer against a misconceived one: the comparison that teaches or unteaches.
        if kinds[one] * kinds[other] < 0:
            compared += 1
            # Rightly decided: +1, wrongly: -1.
            decided += said * kinds[one]
        # Pairs of equal quality have no better answer to be preferred.
        if difference != 0.0:
            sides.append(said if difference > 0.0 else -said)
    preference = sum(sides) / len(sides) if sides else 0.0
    left, beyond = 1.0 - mean, 1.0 - best
    choice = left - beyond
    kind: Kind
    if left <= 0.0:
        kind = "solved"
    # The larger of both parts names the prompt; ties go to coverage, which no judge can repair.
    elif beyond >= choice:
        kind = "coverage"
    elif preference <= -SIDE:
        kind = "judge prefers wrong"
    else:
        kind = "not taken up" if preference >= SIDE else "judge cannot tell"
    gap = math.fsum(gains) / len(gains) if gains else 0.0
    # Only what is wrong of an answer counts as left.
    held = math.fsum((1.0 - right) * error for right, error in zip(quality, taught, strict=True)) / len(quality)
    return Left(
        left,
        beyond,
        preference,
        gap=gap,
        minority=0.0 < mean < 0.5,
        kind=kind,
        misconceived=held,
        between=(compared, decided),
    )


@dataclass(frozen=True)
class SeedLeft:
    """One seed. left, shares and preference: of the last rounds' prompts. gap: by best of two, per round. drawn_away:
    preference where right answers are in the minority, in all rounds; nan where that is nowhere. gain: true quality
    gained per round in the last rounds, nan where unknown."""

    left: float
    coverage: float
    prefers_wrong: float
    not_taken_up: float
    cannot_tell: float
    preference: float
    gap: float
    drawn_away: float
    gain: float
    misconceived: float = 0.0
    """Share of what is left that answers hold which are right under the task's misconception."""
    for_right: float = math.nan
    """Preference for right over misconceived answers, in all rounds; nan where it was never asked."""


def of_seed(rounds: Sequence[Sequence[Left]], recent: int, gain: float) -> SeedLeft | None:
    """Return what is left of one seed; None without a prompt.

    Args:
        rounds: Prompts of each stored round, in order.
        recent: How many of them are the last.
        gain: Per round in these, nan where unknown.
    """
    # The last rounds tell what is so now; what was taught is looked for in all of them, below.
    last = [prompt for prompts in rounds[-recent:] for prompt in prompts]
    if not last:
        return None
    parts = dict.fromkeys(("coverage", "judge prefers wrong", "not taken up", "judge cannot tell"), 0.0)
    stakes, sided = 0.0, 0.0
    for prompt in last:
        choice = prompt.left - prompt.beyond
        parts["coverage"] += prompt.beyond
        stakes += choice
        # Weighed by what is at stake in the prompt: where no choice matters, a preference does not.
        sided += choice * prompt.preference
        if prompt.preference <= -SIDE:
            parts["judge prefers wrong"] += choice
        elif prompt.preference >= SIDE:
            parts["not taken up"] += choice
        else:
            parts["judge cannot tell"] += choice
    total = math.fsum(parts.values())
    shares = {name: value / total if total > 0.0 else 0.0 for name, value in parts.items()}
    # Prompts on which right answers were already few: there a judge that prefers the rest can drive them out.
    minority = [prompt for prompts in rounds for prompt in prompts if prompt.minority]
    weight = math.fsum(prompt.left - prompt.beyond for prompt in minority)
    compared, decided = (sum(prompt.between[which] for prompts in rounds for prompt in prompts) for which in (0, 1))
    left = math.fsum(prompt.left for prompt in last)
    drawn = math.fsum((prompt.left - prompt.beyond) * prompt.preference for prompt in minority)
    return SeedLeft(
        left=math.fsum(prompt.left for prompt in last) / len(last),
        coverage=shares["coverage"],
        prefers_wrong=shares["judge prefers wrong"],
        not_taken_up=shares["not taken up"],
        cannot_tell=shares["judge cannot tell"],
        preference=sided / stakes if stakes > 0.0 else 0.0,
        gap=math.fsum(prompt.gap for prompt in last) / len(last),
        drawn_away=drawn / weight if weight > 0.0 else math.nan,
        gain=gain,
        misconceived=math.fsum(prompt.misconceived for prompt in last) / left if left > 0.0 else 0.0,
        for_right=decided / compared if compared else math.nan,
    )


@dataclass(frozen=True)
class Remains:
    """An arm, over its seeds: each with its 95 % t interval (no limits with one seed).

    cause: see the module; sentence: with the numbers it rests on. left: 1 - Q. coverage, prefers_wrong, not_taken_up,
    cannot_tell: shares of it. The others as in `SeedLeft`.
    """

    cause: Cause
    sentence: str
    left: Interval
    coverage: Interval
    prefers_wrong: Interval
    not_taken_up: Interval
    cannot_tell: Interval
    preference: Interval
    gap: Interval
    drawn_away: Interval
    misconceived: Interval
    for_right: Interval
    gain: Interval
    seeds: int


def remains(seeds: Mapping[int, SeedLeft], state: TrendState, delta: float, *, hacked: bool = False) -> Remains | None:
    """Return what is left of an arm, and why; None without a seed. Pure, and the same whatever the order of the seeds.

    Args:
        seeds: Seed -> what is left of it.
        state: Of the trend.
        delta: Gain per round that counts.
        hacked: Whether the judge's own win rate has risen while quality fell (hacked.py).
    """
    known = [seeds[seed] for seed in sorted(seeds)]
    if not known:
        return None

    def over(name: str) -> Interval:
        values = [float(getattr(seed, name)) for seed in known]
        # Seeds in which a quantity is undefined do not take part in it.
        return t_interval([value for value in values if math.isfinite(value)])

    found = {name: over(name) for name in SHARES}
    gain = over("gain")
    cause = _cause(found, gain, state, delta=delta, hacked=hacked)
    return Remains(cause, _sentence(cause, found, gain, hacked), **found, gain=gain, seeds=len(known))


SHARES = (
    "left",
    "coverage",
    "prefers_wrong",
    "not_taken_up",
    "cannot_tell",
    "preference",
    "gap",
    "drawn_away",
    "misconceived",
    "for_right",
)
"""What is averaged over seeds, but for the gain."""


def _low(interval: Interval) -> float:
    # With one seed there are no limits: the value itself is all there is to go by.
    return interval.mean if math.isnan(interval.low) else interval.low


def _high(interval: Interval) -> float:
    return interval.mean if math.isnan(interval.high) else interval.high


def _cause(found: Mapping[str, Interval], gain: Interval, state: TrendState, *, delta: float, hacked: bool) -> Cause:
    # In the order of the module's list: what is said first is the stronger statement.
    if hacked:
        return "misled"
    if found["left"].mean <= LITTLE:
        return "solved"
    # Undecided, but the last rounds gain: an early run is not called stuck.
    if state == "improving" or (state == "undecided" and gain.low > 0.0):
        return "still going"
    preference, coverage = found["preference"], found["coverage"]
    choice = 1.0 - coverage.mean
    # With next to nothing to choose, a preference is an accident. Half of NEAR below 0: known to be wrong, not only
    # near 0.
    if choice > 0.05 and _high(preference) < -NEAR / 2:
        return "misled"
    if _taught(found):
        return "misled"
    # Lost for good: right answers have gone, and where they were few, the judge spoke against them.
    if coverage.mean > 0.5 and _high(found["drawn_away"]) < -NEAR / 2:
        return "misled"
    if state == "undecided":
        return "undecided"
    # Known to be near 0: the whole interval, not the mean alone.
    if choice > 0.05 and _low(preference) > -NEAR and _high(preference) < NEAR:
        return "judge cannot tell"
    # Twice delta: a gap that training could take up and that would count.
    if _low(found["gap"]) >= 2.0 * delta and gain.mean < UPTAKE * found["gap"].mean and _low(preference) > 0.0:
        return "not taken up"
    # Where a misconception that the judge shares may be most of what is left, it may be why no sample is right.
    if _low(coverage) > 0.5 and not _may_be_taught(found):
        return "coverage"
    return "unclear"


def _taught(found: Mapping[str, Interval]) -> bool:
    """Return whether most of what is left is the misconception's, which the judge prefers to what is right."""
    return _low(found["misconceived"]) > 0.5 and _high(found["for_right"]) < -NEAR / 2


def _may_be_taught(found: Mapping[str, Interval]) -> bool:
    """Return whether that is not excluded. A task without misconceptions has no such numbers, and False here."""
    return _high(found["misconceived"]) > 0.5 and _low(found["for_right"]) < -NEAR / 2


def _sentence(cause: Cause, found: Mapping[str, Interval], gain: Interval, hacked: bool) -> str:
    left = f"{_with(found['left'])} of the quality is left to gain"
    shares = (
        f"of that, {_share(found['coverage'])} is in no sample, {_share(found['prefers_wrong'])} where the judge "
        f"prefers the worse answer, {_share(found['not_taken_up'])} where it prefers the better one and training does "
        f"not take it up, {_share(found['cannot_tell'])} where it cannot tell"
    )
    reading = {
        "solved": "solved: little is left",
        "still going": f"still going: the last rounds gain {_with(gain, True)} each",
        "undecided": f"undecided, as the trend is: the last rounds gain {_with(gain, True)} each",
        "misled": _misled(found, hacked),
        "judge cannot tell": (
            f"judge cannot tell: its preference for the better answer is {_with(found['preference'], True)} "
            "(from -1 to 1)"
        ),
        "not taken up": (
            f"not taken up: best of two by this judge would gain {_with(found['gap'], True)} a round, the policy gains "
            f"{_with(gain, True)}"
        ),
        "coverage": "coverage: no sample is right where most is left",
        "unclear": "unclear",
    }[cause]
    return f"{reading}; {left}; {shares}"


def _misled(found: Mapping[str, Interval], hacked: bool) -> str:
    if hacked:
        return "misled: the judge prefers the policy to what it was at first, and gold does not"
    if _taught(found):
        return (
            f"misled: {_share(found['misconceived'])} of what is left is the task's misconception, and the judge's "
            f"preference for right over misconceived answers was {_with(found['for_right'], True)} (from -1 to 1)"
        )
    return (
        "misled: where it matters, the judge's preference for the better answer is "
        f"{_with(_most_negative(found), True)} (from -1 to 1)"
    )


def _most_negative(found: Mapping[str, Interval]) -> Interval:
    some = [found["preference"], found["drawn_away"]]
    return min((one for one in some if not math.isnan(one.mean)), key=lambda one: one.mean)


def _with(interval: Interval, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    if math.isnan(interval.mean):
        return "an unknown amount"
    text = f"{interval.mean:{form}}"
    return text if math.isnan(interval.low) else f"{text} ({interval.low:{form}} to {interval.high:{form}})"


def _share(interval: Interval) -> str:
    if math.isnan(interval.low):
        return f"{interval.mean:.0%}"
    return f"{interval.mean:.0%} ({max(0.0, interval.low):.0%} to {min(1.0, interval.high):.0%})"
