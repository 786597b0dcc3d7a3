"""What a run cost: the judge's calls, tokens, money and people's minutes, per accepted label too; time per stage."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlaif_lab.report.arms import Arm
from rlaif_lab.report.load import Run
from rlaif_lab.report.tables import Estimate, estimate, inert

NOT_A_STAGE = ("time/round_s",)
NO_LABEL = ("tie", "invalid", "refused", "timed_out", "over_budget")


@dataclass(frozen=True)
class StageTimes:
    """seconds: stage -> mean over the arm's runs of the seconds spent in it in all rounds; every arm has the same
    stages, in the order of the loop."""

    label: str
    seconds: dict[str, float]

    @property
    def total(self) -> float:
        return math.fsum(self.seconds.values())


@dataclass(frozen=True)
class Cost:
    """Of one run of an arm, as means over its runs (of the whole ones where there are any).

    comparisons: judged pairs of responses; calls: verdicts asked for, two per comparison. labels: comparisons that gave
    a preference: no tie, no failure. judge_tokens, usd, human_minutes: in all. The ``per_label`` ones are nan where no
    label was given, and estimates of n = 0 where it is not measured.
    """

    label: str
    calls: Estimate
    labels: Estimate
    judge_tokens: Estimate
    usd: Estimate
    human_minutes: Estimate
    tokens_per_label: Estimate
    usd_per_label: Estimate
    minutes_per_label: Estimate
    sampled_tokens: Estimate
    trained_tokens: Estimate


STAGES = (
    "sampling",
    "revising",
    "demonstrating",
    "judging",
    "scoring",
    "batching",
    "training",
    "evaluation",
    "evaluation_ahead",
    "coverage",
)


def stage_times(arms: Sequence[Arm]) -> list[StageTimes]:
    """Return the times per arm; stages that no arm has are left out. Empty where no run logged any."""
    runs = [run for arm in arms for run in _counted(arm)]
    logged = {metric for run in runs for row in run.rows.values() for metric in row if metric.startswith("time/")}
    names = {metric.removeprefix("time/").removesuffix("_s") for metric in logged - set(NOT_A_STAGE)}
    stages = [*(stage for stage in STAGES if stage in names), *sorted(names - set(STAGES))]
    if not stages:
        return []
    return [
        StageTimes(arm.label, {stage: _mean([_total(run, f"time/{stage}_s", 0.0) for run in _counted(arm)])
                               for stage in stages})
        for arm in arms
    ]  # fmt: skip


def costs(arms: Sequence[Arm]) -> list[Cost]:
    return [cost(arm) for arm in arms]


def cost(arm: Arm) -> Cost:
    runs = _counted(arm)

    def total(metric: str) -> Estimate:
        return estimate(_total(run, metric) for run in runs)

    def per_label(metric: str) -> Estimate:
        return estimate(_total(run, metric) / count if (count := labels(run)) else math.nan for run in runs)

    return Cost(
        arm.label,
        calls=estimate(2 * _total(run, "pairs/judged") for run in runs),
        labels=estimate(labels(run) for run in runs),
        judge_tokens=total("tokens/judging"),
        usd=total("cost/judging_usd"),
        human_minutes=total("cost/human_minutes"),
        tokens_per_label=per_label("tokens/judging"),
        usd_per_label=per_label("cost/judging_usd"),
        minutes_per_label=per_label("cost/human_minutes"),
        sampled_tokens=total("tokens/sampling"),
        trained_tokens=total("tokens/training"),
    )


def labels(run: Run) -> float:
    """Return the comparisons of all rounds that gave a preference."""
    counts = []
    for index in run.rows:
        lost = [run.value(f"judge/{status}_rate", index) for status in NO_LABEL]
        judged = run.value("pairs/judged", index)
        if math.isfinite(judged):
            # Rates are shares of the judged comparisons; one that was not logged took none away.
            counts.append(judged * (1.0 - math.fsum(rate for rate in lost if math.isfinite(rate))))
    return math.fsum(counts) if counts else math.nan


def _counted(arm: Arm) -> list[Run]:
    return arm.complete or arm.runs


def _total(run: Run, metric: str, otherwise: float = math.nan) -> float:
    values = [value for index in run.rows if math.isfinite(value := run.value(metric, index))]
    return math.fsum(values) if values else otherwise


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def write_times(path: Path, times: Sequence[StageTimes]) -> None:
    """Write cost.csv: seconds per run of every arm and stage."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "stage", "seconds_per_run"])
        writer.writerows([inert(arm.label), stage, seconds] for arm in times for stage, seconds in arm.seconds.items())
