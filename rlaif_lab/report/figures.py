"""Curves by round: a mean per arm, with the 95% t interval over seeds as a band."""

from __future__ import annotations

import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_lab.report.arms import Arm
from rlaif_lab.report.statistics import t_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
"""Okabe and Ito's, told apart by colour-blind readers too; without their yellow, which is too pale for lines."""
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (2, 1.5), (7, 2, 1.5, 2), (10, 2, 2, 2, 2, 2))
"""Line on, line off, ..., in line widths; () is solid."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")


@dataclass(frozen=True)
class Style:
    """How an arm looks in every figure. dashes as in DASHES."""

    colour: str
    dashes: tuple[float, ...]
    marker: str


@dataclass(frozen=True)
class Panel:
    """One metric by round. reference: a level worth a thin line (chance, no change). caption: what it says, for people
    who read the page for the first time. bounds: the range the metric can take."""

    metric: str
    title: str
    caption: str
    reference: float | None = None
    bounds: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class FigureGroup:
    """Panels that answer one question: a section of the page, and ``name``.png, ``name``.svg."""

    name: str
    title: str
    caption: str
    panels: tuple[Panel, ...]


GROUPS = (
    FigureGroup(
        "curves",
        "Does the loop improve?",
        "Quality is gold quality on fresh held-out prompts; only an oracle judge knows it. The win rate is what the "
        "training judge believes. Where it climbs while quality stands still, the judge is pleased and nothing else. "
        "Curves are means over seeds; bands are 95% t intervals over seeds (none with one seed; a wide band leaves the "
        "panel).",
        (
            Panel("quality/sampled", "True quality, sampled", "Mean gold quality of samples at temperature 1."),
            Panel(
                "judge/win_rate_vs_round_0",
                "Judge-perceived win rate against round 0",
                "How often the training judge prefers the policy's answer to a round-0 answer; ties count one half.",
                0.5,
            ),
            Panel("quality/greedy", "True quality, greedy", "Mean gold quality of the most likely answer."),
        ),
    ),
    FigureGroup(
        "judge",
        "How good is the judge?",
        "On the comparisons of the round itself, so both the judge and the difficulty of its pairs may drift.",
        (
            Panel(
                "judge/accuracy",
                "Judge accuracy",
                "How often the judge picks the better of two samples whose gold quality differs. Chance is 0.5.",
                0.5,
            ),
            Panel("judge/tie_rate", "Ties", "Share of comparisons the judge calls equal."),
            Panel(
                "judge/same_slot_rate",
                "Same slot in both orders",
                "Share of verdicts that follow the position and not the answer. 0 is no position bias.",
            ),
        ),
    ),
    FigureGroup(
        "gap",
        "Why would it stop?",
        "What choosing the judge's favourite of two samples would gain is D × I. The loop stops when samples agree "
        "(D to 0), when the judge cannot tell them apart (I to 0), or when training does not take up what the judge "
        "offers (eps as large as the gap).",
        (
            Panel("gap/diversity_D", "Diversity D", "Half the mean quality difference of two samples of a prompt."),
            Panel(
                "gap/informativeness_I",
                "Judge informativeness I",
                "1 for a perfect judge, 0 at chance, below 0 for one that prefers the worse.",
                0.0,
                (-1.0, 1.0),
            ),
            Panel(
                "gap/best_of_2",
                "Gap D × I",
                "Quality of the judge's pick of two samples, minus the mean quality.",
                0.0,
                (-1.0, 1.0),
            ),
            Panel(
                "gap/update_loss_eps",
                "Update loss eps",
                "The gap minus the quality gained by the round's training. Below 0: training gained more than that.",
                0.0,
                (-2.0, 2.0),
            ),
        ),
    ),
)


def styles(arms: Sequence[Arm]) -> dict[str, Style]:
    """By alphabetical label, so that an arm looks the same in every figure of a report."""
    return {
        label: Style(COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)])
        for i, label in enumerate(sorted(arm.label for arm in arms))
    }


@dataclass(frozen=True)
class Curve:
    """Rounds, and the mean over the seeds that have a value there, with its interval: all of equal length, nan where
    undefined, so that a curve has a hole there."""

    rounds: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


def curve(arm: Arm, metric: str) -> Curve:
    """Over all runs of the arm, the incomplete ones too."""
    rounds = sorted({index for run in arm.runs for index in run.rows})
    points = [
        t_interval([value for run in arm.runs if math.isfinite(value := run.value(metric, index))]) for index in rounds
    ]
    return Curve(rounds, [p.mean for p in points], [p.low for p in points], [p.high for p in points])


# --- drawing --------------------------------------------------------------------------------------------------------
def panel_figure(panel: Panel, arms: Sequence[Arm], looks: Mapping[str, Style]) -> Figure:
    """One panel with its legend. arms: in the order of the legend."""
    return _figure((panel,), arms, looks, legend_columns=2)


def group_figure(group: FigureGroup, arms: Sequence[Arm], looks: Mapping[str, Style]) -> Figure:
    """All panels of a group in a row (four: in a square) above one legend."""
    return _figure(group.panels, arms, looks, legend_columns=4)


def save(figure: Figure, path: Path) -> None:
    """As PNG or SVG by the ending; the same report gives the same bytes."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": path.name}):
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})


def svg(figure: Figure, salt: str) -> str:
    """An SVG element without metadata, which names outside addresses."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


def _figure(panels: Sequence[Panel], arms: Sequence[Arm], looks: Mapping[str, Style], legend_columns: int) -> Figure:
    from matplotlib.figure import Figure

    columns = 2 if len(panels) == 4 else len(panels)
    rows = -(-len(panels) // columns)
    labels = [textwrap.fill(arm.label, 44) for arm in arms]
    if any(len(label) > 24 for label in labels):
        legend_columns = max(1, legend_columns // 2)
    legend_lines = sum(
        max(label.count("\n") + 1 for label in labels[i : i + legend_columns])
        for i in range(0, len(labels), legend_columns)
    )
    figure = Figure(figsize=(5.2 * columns, 3.7 * rows + 0.24 * legend_lines), layout="constrained")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(len(panels))]
    for panel, ax in zip(panels, axes, strict=True):
        _draw(ax, panel, arms, looks)
    handles = [_line([], [], looks[arm.label], label) for arm, label in zip(arms, labels, strict=True)]
    legend = figure.legend(
        handles, labels, loc="outside lower center", ncols=legend_columns, frameon=False, fontsize=10, handlelength=3.6
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # an arm may have dollars in its name
    return figure


def _draw(ax: Axes, panel: Panel, arms: Sequence[Arm], looks: Mapping[str, Style]) -> None:
    from matplotlib.ticker import MaxNLocator

    drawn: list[Curve] = []
    for arm in arms:
        points = curve(arm, panel.metric)
        if all(math.isnan(value) for value in points.mean):
            continue
        look = looks[arm.label]
        every = max(1, len(points.rounds) // 12)
        ax.add_line(_line(points.rounds, points.mean, look, arm.label, every))
        ax.fill_between(points.rounds, points.low, points.high, color=look.colour, alpha=0.13, linewidth=0)
        drawn.append(points)
    if drawn:
        rounds = [index for points in drawn for index in points.rounds]
        margin = 0.03 * max(1, max(rounds) - min(rounds))
        ax.set_xlim(min(rounds) - margin, max(rounds) + margin)
        ax.set_ylim(*y_limits(panel, arms, drawn))
    else:
        ax.text(0.5, 0.5, "not measured, or undefined", ha="center", va="center", transform=ax.transAxes, color="#555")
    if panel.reference is not None:
        ax.axhline(panel.reference, color="#777", linewidth=0.9, linestyle=(0, (1, 2)), zorder=0)
    ax.set_title(panel.title, fontsize=12, loc="left")
    ax.set_xlabel("round")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def y_limits(panel: Panel, arms: Sequence[Arm], drawn: Sequence[Curve]) -> tuple[float, float]:
    """All seeds' values and the reference line in view; bands too, as far as they do not flatten the curves (with two
    seeds a t interval can be many times wider than anything measured)."""
    values = [v for arm in arms for run in arm.runs for i in run.rows if math.isfinite(v := run.value(panel.metric, i))]
    bands = [end for points in drawn for end in (*points.low, *points.high) if math.isfinite(end)]
    must = values if panel.reference is None else [*values, panel.reference]
    reach = 0.4 * (max(values) - min(values))
    low = min(must + [max(end, min(values) - reach) for end in bands])
    high = max(must + [min(end, max(values) + reach) for end in bands])
    margin = 0.05 * (high - low) or 0.01
    return max(low, panel.bounds[0]) - margin, min(high, panel.bounds[1]) + margin


def _line(x: Sequence[float], y: Sequence[float], look: Style, label: str, every: int = 1) -> Any:
    from matplotlib.lines import Line2D

    style = (0, look.dashes) if look.dashes else "solid"
    return Line2D(
        x,
        y,
        color=look.colour,
        linestyle=style,
        linewidth=1.8,
        marker=look.marker,
        markersize=5,
        markevery=every,
        label=label,
    )
