"""The audit's figures. Colours and SVG as in the report."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlaif_lab.audit.audit import Audit
from rlaif_lab.audit.measures import AuditMeasure
from rlaif_lab.metrics.agreement import wilson
from rlaif_lab.metrics.position import SlotChoices
from rlaif_lab.report.figures import COLOURS
from rlaif_lab.statistics.calibration import ReliabilityBin

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.2
INK, SOFT, LINE = COLOURS[0], "#777777", "#e4e4e4"


def reliability_figure(bins: Sequence[ReliabilityBin]) -> Figure:
    """Draw the stated probability against how often it came true, with Wilson intervals; the diagonal is perfect."""
    figure, ax = _empty(3.9)
    ax.plot([0.5, 1.0], [0.5, 1.0], color=SOFT, linewidth=1, linestyle=(0, (1, 2)), label="perfect", zorder=1)
    if bins:
        # Wilson's interval stays within [0, 1], even in bins that are all right or all wrong.
        low, high = zip(*(wilson(b.frequency * b.count, b.count)[1:] for b in bins), strict=True)
        stated = [b.probability for b in bins]
        ax.vlines(stated, low, high, color=INK, linewidth=1.4, zorder=2)
        ax.plot(stated, [b.frequency for b in bins], color=INK, linestyle="", marker="o", markersize=6, zorder=3)
    else:
        _nothing(ax)
    # The preferred response has a probability of at least one half.
    ax.set_xlim(0.48, 1.03)
    ax.set_ylim(-0.03, 1.03)
    ax.set_xlabel("probability given to the preferred response")
    ax.set_ylabel("how often it is the better one")
    ax.grid(color=LINE, linewidth=0.7)
    return figure


def position_figure(slots: SlotChoices) -> Figure:
    """Return how the verdicts of both orders go together, in counts."""
    rows = [
        ("same response\nboth times", slots.same_response, COLOURS[0], ""),
        ("slot one\nboth times", slots.slot_one, COLOURS[1], "//"),
        ("slot two\nboth times", slots.slot_two, COLOURS[6], "\\\\"),
        ("a tie", slots.undecided, "#bbbbbb", ""),
        ("no verdict", slots.failed, "#eeeeee", ".."),
    ]
    figure, ax = _empty(3.1)
    total = max(1, sum(count for _, count, _, _ in rows))
    for at, (_, count, colour, hatch) in enumerate(rows):
        ax.barh(at, count / total, color=colour, hatch=hatch, edgecolor="#333", linewidth=0.6, height=0.66)
        ax.annotate(
            f"{count} ({count / total:.0%})",
            (count / total, at),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    ax.set_yticks(range(len(rows)), [label for label, *_ in rows])
    ax.invert_yaxis()
    ax.set_xlim(0, 1.22)
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
    ax.set_xlabel("share of pairs")
    ax.grid(axis="x", color=LINE, linewidth=0.7)
    return figure


def orders_figure(shown_first: Sequence[float], shown_second: Sequence[float]) -> Figure:
    """Draw one point per pair: P(first response wins) in one order against the other. On the diagonal the order does
    not matter; a lean to slot one is below it."""
    figure, ax = _empty(3.9)
    ax.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    ax.axhline(0.5, color=LINE, linewidth=0.9, zorder=0)
    ax.axvline(0.5, color=LINE, linewidth=0.9, zorder=0)
    points = [(a, b) for a, b in zip(shown_first, shown_second, strict=True) if not (math.isnan(a) or math.isnan(b))]
    if points:
        across, up = zip(*points, strict=True)
        ax.scatter(across, up, s=26, color=INK, alpha=0.35, linewidth=0, zorder=2, clip_on=False)
    else:
        _nothing(ax)
    ax.text(0.97, 0.03, "slot one\nboth times", ha="right", va="bottom", fontsize=9, color="#444")
    ax.text(0.03, 0.97, "slot two\nboth times", ha="left", va="top", fontsize=9, color="#444")
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.02, 1.02)
    ax.set_aspect("equal")
    ax.set_xlabel("P(response wins), shown in slot one")
    ax.set_ylabel("the same, shown in slot two")
    return figure


def accuracy_figure(rows: Sequence[AuditMeasure]) -> Figure:
    """Draw accuracy by condition with 95% intervals, a row each; the thin line is chance."""
    shown = [row for row in rows if not math.isnan(row.value)]
    figure, ax = _empty(1.1 + 0.34 * max(3, len(shown)))
    ax.axvline(0.5, color=SOFT, linewidth=1, linestyle=(0, (1, 2)), zorder=1)
    for at, row in enumerate(shown):
        if not math.isnan(row.low):
            ax.hlines(at, max(0.0, row.low), min(1.0, row.high), color=INK, linewidth=1.8, zorder=2)
        ax.plot(
            [row.value], [at], color=INK, marker="s" if at == 0 else "o", markersize=7 if at == 0 else 5.5, zorder=3
        )
    if not shown:
        _nothing(ax)
    ax.set_yticks(range(len(shown)), [f"{_short(row.title)} (n={row.n})" for row in shown], fontsize=9)
    for text in ax.get_yticklabels():
        text.set_parse_math(False)  # a subset may have dollars in its name
    ax.set_ylim(max(2.5, len(shown) - 0.4), -0.6)
    ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel("accuracy")
    ax.grid(axis="x", color=LINE, linewidth=0.7)
    return figure


def accuracy_rows(audit: Audit) -> list[AuditMeasure]:
    """Return what ``accuracy_figure`` shows: the whole, each slot, each length, each subset."""
    keys = (
        "accuracy",
        "accuracy_better_first",
        "accuracy_better_second",
        "accuracy_longer_right",
        "accuracy_shorter_right",
    )
    titles = (
        "all",
        "better one in slot one",
        "better one in slot two",
        "longer one is better",
        "shorter one is better",
    )
    found = [audit.measure(key) for key in keys]
    named = [
        AuditMeasure(m.key, title, m.value, low=m.low, high=m.high, n=m.n)
        for m, title in zip(found, titles, strict=True)
    ]
    return [*named, *audit.subsets]


def _empty(height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    ax = figure.add_subplot()
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    return figure, ax


def _nothing(ax: Axes) -> None:
    ax.text(0.5, 0.5, "not available", ha="center", va="center", transform=ax.transAxes, color="#555")


def _short(text: str, limit: int = 28) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
