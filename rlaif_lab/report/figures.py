"""The files beside the page: each group of panels as one matplotlib figure, drawn once and saved as PNG and SVG."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_lab.report.arms import Arm
from rlaif_lab.report.cost import StageTimes
from rlaif_lab.report.curves import AXIS_TITLES, LOG_FLOOR, ChartPanel, Drawn, DrawnCurve, DrawnGroup, Mark
from rlaif_lab.report.units import unit_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = (
    *("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00"),
    *("#76B100", "#6C04FF", "#74622C", "#FF1462", "#3C6464", "#A749BA", "#B04C43"),
    *("#165EEC", "#FF04D5", "#326916", "#B9968B", "#C21078", "#FF0419"),
)
"""Okabe and Ito's, told apart by colour-blind readers too, without their yellow, which is too pale for lines; then
those that lie furthest from all before them (CIELAB) among the colours that can be seen on white and on black."""
STAGE_COLOURS = ("#44546A", "#8497B0", "#BCC7D6", "#7F6F5F", "#BFAF9F", "#5F7F6F", "#9FBFAF", "#6F5F7F", "#AF9FBF")
"""Of what is no arm: muted, so that no bar is taken for one."""
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (2, 1.5), (7, 2, 1.5, 2), (10, 2, 2, 2, 2, 2))
"""Line on, line off, ..., in line widths; () is solid."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
HATCHES = ("", "///", "\\\\\\", "xxx", "...", "---", "|||", "+++")
COLUMNS = 3


@dataclass(frozen=True)
class Style:
    """How an arm looks in every figure. dashes as in DASHES."""

    colour: str
    dashes: tuple[float, ...]
    marker: str


def styles(arms: Sequence[Arm]) -> dict[str, Style]:
    """Return label -> its look, the same in every figure of a report, whatever it compares with what: by alphabet."""
    labels = sorted(arm.label for arm in arms)
    return {
        label: Style(COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)], MARKERS[i % len(MARKERS)])
        for i, label in enumerate(labels)
    }


# --- files ----------------------------------------------------------------------------------------------------------
def save(figure: Figure, path: Path) -> None:
    """Save as PNG or SVG by the ending; the same report gives the same bytes."""
    import matplotlib

    # matplotlib names an SVG's elements by hashes, which are random without a salt of ours.
    with matplotlib.rc_context({"svg.hashsalt": path.name}):
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})


def svg(figure: Figure, salt: str) -> str:
    """Return an SVG element without metadata, which names outside addresses."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)


# --- curves ---------------------------------------------------------------------------------------------------------
def group_figure(
    drawn: DrawnGroup,
    labels: Sequence[str],
    looks: Mapping[str, Style],
    strong: Sequence[str] | None = None,
    marks: Mapping[str, Mark] | None = None,
) -> Figure:
    """Return all panels of a group above one legend. labels: of the arms, in the order of the legend. strong: those
    drawn thick and with a band, the others thin; None: all alike. marks: label -> what was found of it, drawn into the
    first panel for the strong arms."""
    from matplotlib.figure import Figure

    panels = drawn.panels
    # Four stand better two by two than three and one.
    columns = 2 if len(panels) == 4 else min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    found = {label: mark for label, mark in (marks or {}).items() if label in (strong or ())}
    names = [textwrap.fill(f"{label}{_found(found.get(label))}", 44) for label in labels]
    legend_columns = max(1, round(columns * (4 if max(map(len, names)) <= 24 else 2) / 3))
    # A row of the legend is as high as the highest name in it.
    lines = sum(
        max(name.count("\n") + 1 for name in names[i : i + legend_columns])
        for i in range(0, len(names), legend_columns)
    )
    width, height = 4.4 * columns, 3.2 * rows + 0.22 * lines + 0.15
    figure = Figure(figsize=(width, height))
    # Placed by hand: matplotlib's own layout engine takes longer than all the drawing.
    bottom = (0.22 * lines + 0.65) / height
    figure.subplots_adjust(
        left=0.78 / width, right=1 - 0.12 / width, top=1 - 0.34 / height, bottom=bottom, wspace=0.28, hspace=0.42
    )
    for i, panel in enumerate(panels):
        _draw(
            figure.add_subplot(rows, columns, i + 1),
            panel,
            labels,
            looks=looks,
            strong=strong,
            marks=found if i == 0 else {},
        )
    _legend(figure, labels, names, looks, legend_columns)
    return figure


def _found(mark: Mark | None) -> str:
    """Return what was found of an arm, for the legend: in the drawing it could lie on another arm's curve."""
    parts = mark.words() if mark else ()
    return f" ({', '.join(parts)})" if parts else ""


def _legend(
    figure: Figure, labels: Sequence[str], names: Sequence[str], looks: Mapping[str, Style], columns: int
) -> None:
    handles = [_line([], [], looks[label], name) for label, name in zip(labels, names, strict=True)]
    legend = figure.legend(
        handles, names, loc="lower center", ncols=columns, frameon=False, fontsize=10, handlelength=3.6
    )
    for text in legend.get_texts():
        text.set_parse_math(False)  # an arm may have dollars in its name


def _draw(
    ax: Axes,
    drawn: Drawn,
    labels: Sequence[str],
    looks: Mapping[str, Style],
    strong: Sequence[str] | None,
    marks: Mapping[str, Mark],
) -> None:
    panel = drawn.panel
    x = [value for held in drawn.curves.values() for points in held for value in points.x]
    _scale(ax, panel, x, drawn.limits([mark.ceiling.mean for mark in marks.values() if mark.ceiling]))
    for label in (label for label in labels if label in drawn.curves):
        thick = strong is None or label in strong
        for points in drawn.curves[label]:
            _draw_curve(ax, points, looks[label], label=label, thick=thick, band=panel.bands and thick)
            if not points.faint and label in marks:
                _draw_mark(ax, marks[label], points, looks[label])
    if drawn.reference is not None:
        ax.axhline(drawn.reference, color="#777", linewidth=0.9, linestyle=(0, (1, 2)), zorder=0)
    ax.set_title(panel.title, fontsize=11, loc="left")
    ax.set_xlabel(AXIS_TITLES[panel.axis])
    ax.set_ylabel(unit_of(panel.metric))
    ax.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)


def _scale(ax: Axes, panel: ChartPanel, x: Sequence[float], limits: tuple[float, float]) -> None:
    from matplotlib.ticker import MaxNLocator, NullFormatter

    # 0.03 where all points have the same x: an axis needs a width.
    margin = 0.03 * (max(x) - min(x)) or 0.03
    if panel.axis == "k":
        ax.set_xscale("log", base=2)
        ax.set_xlim(min(x) / 1.1, max(x) * 1.1)
        ax.set_xticks(sorted(set(x)), [f"{k:g}" for k in sorted(set(x))])
    else:
        ax.set_xlim(min(x) - margin, max(x) + margin)
    if panel.axis == "round":
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    if panel.log:
        ax.set_yscale("log")
        # Within one power of ten matplotlib would write a number at minor ticks too.
        ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(*limits)


def _draw_curve(ax: Axes, points: DrawnCurve, look: Style, label: str, thick: bool, band: bool) -> None:
    every = max(1, len(points.x) // 12)
    # A logarithmic scale has no 0.
    y = [max(value, LOG_FLOOR) for value in points.mean] if ax.get_yscale() == "log" else points.mean
    line = _line(points.x, y, look, label, every)
    if points.faint:
        line.set(linewidth=0.9, linestyle=(0, (2, 2)), markerfacecolor="white")
    elif not thick:
        line.set(linewidth=1.0, alpha=0.6, markersize=3.5)
    ax.add_line(line)
    if band and not points.faint:
        ax.fill_between(points.x, points.low, points.high, color=look.colour, alpha=0.13, linewidth=0)


def _draw_mark(ax: Axes, mark: Mark, points: DrawnCurve, look: Style) -> None:
    end = points.x[-1]
    if mark.ceiling is not None:
        begin, (level, low, high) = mark.ceiling_from(points), mark.ceiling
        ax.plot([begin, end], [level, level], color=look.colour, linewidth=1.2, linestyle=(0, (1, 2)))
        ax.fill_between([begin, end], low, high, color=look.colour, alpha=0.1, linewidth=0)
    if mark.plateau in points.rounds:
        at = points.rounds.index(mark.plateau)
        x, y = points.x[at], points.mean[at]
        ax.plot([x], [y], "o", markersize=13, markerfacecolor="none", markeredgecolor=look.colour, markeredgewidth=1.5)


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


# --- bars -----------------------------------------------------------------------------------------------------------
def time_figure(times: Sequence[StageTimes]) -> Figure:
    """Draw wall time per run, stacked by stage, a bar per arm."""
    from matplotlib.figure import Figure

    stages = list(times[0].seconds)
    height = 0.42 * len(times) + 1.5
    figure = Figure(figsize=(8.8, height))
    figure.subplots_adjust(left=0.24, right=0.98, top=1 - 0.15 / height, bottom=1.25 / height)
    ax = figure.add_subplot()
    start = [0.0] * len(times)
    for i, stage in enumerate(stages):
        widths = [arm.seconds[stage] for arm in times]
        colour, hatch = STAGE_COLOURS[i % len(STAGE_COLOURS)], HATCHES[i % len(HATCHES)]
        ax.barh(
            range(len(times)), widths, left=start, label=stage, color=colour, hatch=hatch, edgecolor="white", height=0.7
        )
        start = [a + b for a, b in zip(start, widths, strict=True)]
    labels = [textwrap.shorten(arm.label, 30) for arm in times]
    ax.set_yticks(range(len(times)), labels)
    for text in ax.get_yticklabels():
        text.set_parse_math(False)
    # The first arm on top.
    ax.invert_yaxis()
    ax.set_xlabel("seconds per run, all rounds")
    ax.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="lower center", ncols=5, frameon=False, fontsize=9)
    return figure
