"""Is it better? What people say, who they are, and how many labels it would take."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape
from statistics import NormalDist
from typing import Any

from rlaif_lab.metrics.labellers import labellers
from rlaif_lab.report.arms import Arm
from rlaif_lab.report.load import Run
from rlaif_lab.report.sections.view import View, arm_header, number_table
from rlaif_lab.statistics.intervals import Interval, t_interval

SET = "human_set/win_rate"
AGREEMENT = "human_set/judge_agreement"
RATES = (
    ("ppi/win_rate_vs_round_0", "people and AI judge, by PPI"),
    ("human/win_rate_vs_round_0", "people alone"),
    (SET, "people alone, on the set that all arms share"),
)
LABELS = "cost/evaluation_human_labels"
SET_LABELS = "cost/human_set_labels"
# Standard errors that an effect must be away from 0: two-sided at 5 %, found with a probability of 80 %.
POWERED = NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8)


def people(view: View) -> str:
    """Return the section; "" where nobody was asked to evaluate."""
    rows = [row for arm in view.arms for row in arm_rows(view, arm)]
    if not rows:
        return ""
    return (
        '<h2 id="people">Is it better, by people?</h2><p>How often people prefer the answer of the policy after all '
        "training to the one of round 0; 0.5 is no change. Over seeds the mean and its 95% t interval, of a single run "
        "its own 95% interval. People see a random share of the answers; PPI makes of their labels and the AI "
        "judge's verdicts on all of them one unbiased rate. A set that all arms share is of the same prompts for each "
        "of them, and what several arms ask is labelled once.</p>"
        + number_table(["arm", "who judged", "win rate", "better than round 0?", "labels"], rows)
        + judge_and_people(view)
    )


def judge_and_people(view: View) -> str:
    """Return how often each arm's judge prefers what people prefer on the fixed pairs; "" without such a set."""
    rows = []
    for arm in view.arms:
        runs = asked(arm, AGREEMENT)
        if runs:
            pairs = runs[0].value(f"{AGREEMENT}_pairs", runs[0].last_round)
            cells = (who(runs[0].config, "judge"), shown(win_rate(runs, AGREEMENT)), f"{pairs:.0f}")
            rows.append(arm_header(view, arm.label) + "".join(f"<td>{escape(cell)}</td>" for cell in cells))
    if not rows:
        return ""
    return (
        "<p>How often each arm's judge prefers what people prefer, on two answers of the untrained policy to each "
        "prompt of the shared set: the same pairs for all arms, and none that a judge was trained with.</p>"
        + number_table(["arm", "judge", "agrees with people", "pairs on which both prefer one"], rows)
    )


def in_a_sentence(view: View) -> str:
    """Return the answer for the headline of a report without gold, as HTML; "" where nobody was asked."""
    said = []
    for arm in view.arms:
        for metric, _ in RATES:
            runs = asked(arm, metric)
            if runs:
                rate = win_rate(runs, metric)
                by = who_labelled(runs[0].config, metric)
                said.append(
                    f"<b>{escape(arm.label)}</b> against round 0, by {by}: <b>{shown(rate)}</b>, better: {better(rate)}"
                )
                break
    return f"There is no gold quality here; people say: {'; '.join(said)}." if said else ""


def asked(arm: Arm, metric: str) -> list[Run]:
    """Return the whole runs of an arm in which people gave this rate."""
    return [run for run in arm.complete if math.isfinite(run.value(metric, run.last_round))]


def arm_rows(view: View, arm: Arm) -> list[str]:
    """Return a row for each way to reckon it."""
    found = []
    for metric, how in RATES:
        runs = asked(arm, metric)
        if runs:
            rate = win_rate(runs, metric)
            cells = (f"{who_labelled(runs[0].config, metric)}: {how}", shown(rate), better(rate), needed(runs, metric))
            found.append(arm_header(view, arm.label) + "".join(f"<td>{escape(cell)}</td>" for cell in cells))
    return found


def win_rate(runs: list[Run], metric: str) -> Interval:
    """Return the rate after the last round, over seeds, or that of a single run with its own interval."""
    values = [run.value(metric, run.last_round) for run in runs]
    if len(values) > 1:
        return t_interval(values)
    run = runs[0]
    low, high = (run.value(f"{metric}_{end}", run.last_round) for end in ("low", "high"))
    # For a run that logged a standard error and no limits.
    half = 1.96 * run.value(f"{metric}_stderr", run.last_round)
    known = math.isfinite(low) and math.isfinite(high)
    return Interval(values[0], low if known else values[0] - half, high if known else values[0] + half)


def shown(rate: Interval) -> str:
    if not rate.low < rate.high:  # a few labels that all agree, or answers that are all equal, are no certainty
        return f"{rate.mean:.3f} (interval not known)"
    return f"{rate.mean:.3f} ({rate.low:.3f} to {rate.high:.3f})"


def better(rate: Interval) -> str:
    """Return the answer in a few words."""
    if 0.5 < rate.low < rate.high:
        return "yes"
    if rate.low < rate.high < 0.5:
        return "no, worse"
    return "not shown either way"


def who_labelled(config: Mapping[str, Any], metric: str) -> str:
    """Return who stood for people."""
    return who(config, "set_people" if metric.startswith("human_set/") else "people")


def who(config: Mapping[str, Any], role: str) -> str:
    """Return who had a role in a run."""
    return labellers(config).get(role, "people as set up")


def needed(runs: list[Run], metric: str) -> str:
    """Return how many labels there were, and how many would tell a gain of delta from none in a run."""
    run = runs[0]
    counted = SET_LABELS if metric == SET else LABELS
    labels, stderr = (run.value(name, run.last_round) for name in (counted, f"{metric}_stderr"))
    delta = float((run.config.get("detector") or {}).get("delta", 0.01))
    if not (math.isfinite(labels) and math.isfinite(stderr)):
        return "not known"
    if stderr == 0.0:
        return f"{labels:.0f} a run, which all say the same: how many would tell {delta:g} from none is not known"
    # The standard error falls with the square root of the labels.
    return f"{labels:.0f} a run; about {labels * (POWERED * stderr / delta) ** 2:,.0f} would tell {delta:g} from none"
