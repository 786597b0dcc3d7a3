"""What the figures draw: means over the seeds of an arm, with 95% t intervals, by round or by something else."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlaif_lab.plateau.detector import State
from rlaif_lab.plateau.verdict import Trace, Traces
from rlaif_lab.report.arms import Arm
from rlaif_lab.report.tables import blank, inert
from rlaif_lab.statistics.intervals import Interval, t_interval

Axis = Literal["round", "k", "sqrt_kl"]
AXIS_TITLES: dict[Axis, str] = {"round": "round", "k": "k, samples per prompt", "sqrt_kl": "√KL to round 0 (√nats)"}


@dataclass(frozen=True)
class DrawnCurve:
    """Points of one arm, all of equal length: ``mean`` over the ``n`` seeds that have a value there, with its interval;
    nan where undefined, so that a curve has a hole there.

    x: where each point lies. rounds: the round it belongs to. faint: a state to compare with (round 0), drawn thin.
    """

    x: list[float]
    rounds: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]
    n: list[int]
    faint: bool = False

    @property
    def empty(self) -> bool:
        return all(math.isnan(value) for value in self.mean)

    def last(self) -> int | None:
        """Return the position of the last defined point."""
        return next((i for i in reversed(range(len(self.mean))) if math.isfinite(self.mean[i])), None)


@dataclass(frozen=True)
class Mark:
    """What was found of an arm, drawn into the chart of its quality. plateau: the round, if there is one. ceiling:
    Q_inf, where it is identified."""

    plateau: int | None
    ceiling: Interval | None

    def words(self) -> tuple[str, ...]:
        """Return what there is to say, for the place where the arm is named."""
        found = () if self.ceiling is None else (f"ceiling {self.ceiling.mean:.3f}",)
        return found if self.plateau is None else (*found, f"plateau: round {self.plateau}")

    def ceiling_from(self, points: DrawnCurve) -> float:
        """Return where along the curve the ceiling's line begins."""
        middle = points.x[len(points.x) // 2]
        return middle if self.plateau is None else min(middle, float(self.plateau))


@dataclass(frozen=True)
class ChartPanel:
    """One metric of every arm.

    metric: as in metrics.jsonl; for ``axis="k"`` without its ``_{k}``. caption: what it says, for people who read the
    page for the first time. reference: a level worth a thin line (chance, no change), or the metric that holds it.
    bounds: the range the metric can take. axis: what lies below: the round, the k of pass@k, or the square root of the
    KL to round 0. log: a logarithmic scale. bands: whether an interval over seeds means something. pooled: instead of
    the mean over seeds, the detector's process over all of them, where the arm has one.
    """

    metric: str
    title: str
    caption: str
    reference: float | str | None = None
    bounds: tuple[float, float] = (0.0, 1.0)
    axis: Axis = "round"
    log: bool = False
    bands: bool = True
    pooled: State | None = None


@dataclass(frozen=True)
class FigureGroup:
    """Panels that answer one question: ``name``.png, ``name``.svg and ``name``.csv, and a section of the page."""

    name: str
    title: str
    caption: str
    panels: tuple[ChartPanel, ...]


LEAST_HEIGHT = 0.05
"""Of a panel, in the metric's unit: else a curve that hardly moves would look as if it did."""
LOG_FLOOR = 0.1  # of evidence: a process that has just begun anew stands at 0


@dataclass(frozen=True)
class Drawn:
    """A panel with what it draws. curves: label -> curves of that arm, none of them without a point; arms that have
    none are left out. reference: where the thin line lies."""

    panel: ChartPanel
    curves: Mapping[str, Sequence[DrawnCurve]]
    reference: float | None

    def limits(self, also: Sequence[float] = ()) -> tuple[float, float]:
        """Return the limits of the y axis: all means, the reference line and ``also`` in view; bands too, as far as
        they do not flatten the curves (with two seeds a t interval can be many times wider than anything measured)."""
        drawn = [points for curves in self.curves.values() for points in curves]
        values = [*also, *(value for points in drawn for value in _finite(points.mean))]
        must = values if self.reference is None else [*values, self.reference]
        if self.panel.log:
            # Factors, which are the same distance anywhere on a logarithmic scale.
            return max(LOG_FLOOR, min(must)) / 1.5, max(must) * 1.6
        bands = [end for points in drawn if self.panel.bands for end in _finite([*points.low, *points.high])]
        reach = 0.6 * (max(values) - min(values))
        low = min(must + [max(end, min(values) - reach) for end in bands])
        high = max(must + [min(end, max(values) + reach) for end in bands])
        least = max(LEAST_HEIGHT, 0.1 * max(map(abs, must)))
        if high - low < least:
            low, high = (low + high - least) / 2, (low + high + least) / 2
        low, high = max(low, self.panel.bounds[0]), min(high, self.panel.bounds[1])
        margin = 0.05 * (high - low)
        return low - margin, high + margin


@dataclass(frozen=True)
class DrawnGroup:
    """A group with what its panels draw; panels that have nothing to draw are left out."""

    group: FigureGroup
    panels: tuple[Drawn, ...]

    @property
    def name(self) -> str:
        return self.group.name


def draw(
    groups: Iterable[FigureGroup], arms: Sequence[Arm], pooled: Mapping[str, Traces] | None = None
) -> dict[str, DrawnGroup]:
    """Return the groups by name, those without anything to draw left out. pooled: label -> the arm's detector."""
    found = {}
    for group in groups:
        panels = tuple(drawn for panel in group.panels if (drawn := _drawn(panel, arms, pooled or {})).curves)
        if panels:
            found[group.name] = DrawnGroup(group, panels)
    return found


def _drawn(panel: ChartPanel, arms: Sequence[Arm], pooled: Mapping[str, Traces]) -> Drawn:
    held = {arm.label: [c for c in curves(panel, arm, pooled.get(arm.label)) if not c.empty] for arm in arms}
    reference = panel.reference
    if isinstance(reference, str):
        levels = _finite(run.value(reference, i) for arm in arms for run in arm.runs for i in run.rows)
        levels += [t[panel.pooled].threshold for t in pooled.values() if panel.pooled is not None and panel.pooled in t]
        # The last of the levels: a pooled process's own threshold, where there is one.
        reference = levels[-1] if levels else None
    return Drawn(panel, {label: found for label, found in held.items() if found}, reference)


# --- points -------------------------------------------------------------------------------------------------------
def curves(panel: ChartPanel, arm: Arm, traces: Traces | None = None) -> list[DrawnCurve]:
    """Return what the panel draws of an arm, over all its runs, the incomplete ones too."""
    if panel.pooled is not None and traces and panel.pooled in traces:
        return [_of_trace(traces[panel.pooled], len(arm.complete))]
    if panel.axis == "round":
        return [curve(arm, panel.metric)]
    if panel.axis == "sqrt_kl":
        return [by_sqrt_kl(arm, panel.metric)]
    return [by_k(arm, panel.metric, first=True), by_k(arm, panel.metric, first=False)]


def _of_trace(trace: Trace, seeds: int) -> DrawnCurve:
    """Return the curve from round 1 on, one process over all seeds."""
    rounds = list(range(1, len(trace.evidence) + 1))
    none = [math.nan] * len(rounds)
    return DrawnCurve(
        [float(i) for i in rounds], rounds, list(trace.evidence), low=none, high=none, n=[seeds] * len(rounds)
    )


def curve(arm: Arm, metric: str) -> DrawnCurve:
    """Return the curve by round."""
    rounds = _rounds(arm)
    return _curve([(index, float(index), [run.value(metric, index) for run in arm.runs]) for index in rounds])


def by_sqrt_kl(arm: Arm, metric: str) -> DrawnCurve:
    """Return the curve by the square root of the mean KL to round 0 that the policy had reached, as over-optimisation
    is plotted (Gao et al. 2210.10760); rounds stay in order, so that a policy which comes back towards its base draws
    a loop."""
    points = []
    for index in _rounds(arm):
        kl = t_interval(_finite(run.value("kl/per_sequence", index) for run in arm.runs)).mean
        if math.isfinite(kl):
            # The KL is an estimate from samples, which may fall below 0.
            points.append((index, math.sqrt(max(0.0, kl)), [run.value(metric, index) for run in arm.runs]))
    return _curve(points)


def by_k(arm: Arm, metric: str, first: bool) -> DrawnCurve:
    """Return ``metric``_{k} over the k there are, in round 0 or in the last round of every run. Without any, those of
    the evaluation's few samples: ``quality/pass_at_{k}``."""
    powers = [2**i for i in range(11)]
    index = 0 if first else max(_rounds(arm))
    if not any(f"{metric}_1" in row for run in arm.runs for row in run.rows.values()):
        metric = "quality/pass_at"
    points = [
        (index, float(k), [run.value(f"{metric}_{k}", 0 if first else max(run.rows)) for run in arm.runs])
        for k in powers
    ]
    return _curve([point for point in points if _finite(point[2])], faint=first)


def _curve(points: Sequence[tuple[int, float, Sequence[float]]], faint: bool = False) -> DrawnCurve:
    """Return a curve from (round, x, one value per run)."""
    held = [_finite(values) for _, _, values in points]
    intervals = [t_interval(values) for values in held]
    return DrawnCurve(
        [x for _, x, _ in points],
        [index for index, _, _ in points],
        [i.mean for i in intervals],
        low=[i.low for i in intervals],
        high=[i.high for i in intervals],
        n=[len(values) for values in held],
        faint=faint,
    )


def _rounds(arm: Arm) -> list[int]:
    return sorted({index for run in arm.runs for index in run.rows})


def _finite(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)]


# --- as CSV -------------------------------------------------------------------------------------------------------
COLUMNS = ("metric", "arm", "round", "x", "mean", "low", "high", "n")


def write_drawn(path: Path, drawn: DrawnGroup) -> None:
    """Write the numbers that a figure draws, a row per point; low and high are empty where there is no interval. x is
    the round, or what lies below where that is something else."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for panel in drawn.panels:
            for label, held in panel.curves.items():
                for points in held:
                    for i, mean in enumerate(points.mean):
                        if math.isfinite(mean):
                            at = [points.rounds[i], f"{points.x[i]:g}"]
                            ends = [blank(points.low[i]), blank(points.high[i])]
                            writer.writerow([panel.panel.metric, inert(label), *at, mean, *ends, points.n[i]])
