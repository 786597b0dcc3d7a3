"""What the sections are made from, and the small pieces of HTML that they share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from rlaif_lab.plateau.comparisons import Difference
from rlaif_lab.report.arms import Arm, Study
from rlaif_lab.report.chart import Line, line_chart, swatch
from rlaif_lab.report.cost import Cost, StageTimes
from rlaif_lab.report.curves import ChartPanel, Drawn, DrawnGroup, Mark
from rlaif_lab.report.figures import Style, group_figure
from rlaif_lab.report.samples import Samples, spread
from rlaif_lab.report.tables import NOT_AVAILABLE, ArmSummary, Estimate, limits_text
from rlaif_lab.report.units import unit_of
from rlaif_lab.report.verdicts import ArmVerdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class View:
    """rows: one per arm, in the order of all tables and legends; ``arms`` and ``verdicts`` in the same order.
    compared: seed-paired differences between arms. groups: the figures that have something to show. strong: labels of
    the arms that the overview is about.
    """

    study: Study
    rows: Sequence[ArmSummary]
    arms: Sequence[Arm]
    verdicts: Sequence[ArmVerdict]
    compared: Sequence[Difference]
    looks: Mapping[str, Style]
    baseline: str
    strong: Sequence[str]
    groups: Mapping[str, DrawnGroup]
    times: Sequence[StageTimes]
    costs: Sequence[Cost]
    samples: Samples | None

    def key(self, label: str) -> str:
        """Return the CSS class of an arm."""
        return f"a{[row.label for row in self.rows].index(label)}"

    @property
    def drawn(self) -> list[Arm]:
        """Return the arms in the charts."""
        return drawn_arms(self.arms, self.strong)

    @property
    def marks(self) -> dict[str, Mark]:
        """Return label -> plateau and ceiling, where either was found."""
        return marks(self.verdicts)


MOST_ARMS = 24
"""In charts: more could not be told apart, and would make a page too large to send."""


def drawn_arms(arms: Sequence[Arm], strong: Sequence[str]) -> list[Arm]:
    """Return those in the charts: all, or where there are too many ``strong`` and the others evenly from the best to
    the worst. arms: the best first."""
    others = [arm.label for arm in arms if arm.label not in strong]
    kept = {*strong, *spread(others, MOST_ARMS - len(strong))}
    return [arm for arm in arms if arm.label in kept]


def marks(verdicts: Iterable[ArmVerdict]) -> dict[str, Mark]:
    found = {}
    for said in verdicts:
        plateau = said.round if said.state == "plateaued" else None
        fit = said.saturation
        ceiling = fit.ceiling if fit.identified and math.isfinite(fit.ceiling.mean) else None
        if plateau is not None or ceiling is not None:
            found[said.label] = Mark(plateau, ceiling)
    return found


def chosen(rows: Sequence[ArmSummary], baseline: str, names: Mapping[str, str]) -> list[str]:
    """Return the labels that the overview is about: the baseline, and the best other arm by final true quality. An
    oracle, who knows the truth, is not chosen where there is another. names: label -> the arm's name."""
    first = [row.label for row in rows if names[row.label] == baseline or row.label == baseline][:1]
    others = [row.label for row in rows if row.label not in first and row.final_sampled.n]
    honest = [label for label in others if names[label] != "oracle"]
    return [*first, *(honest or others)[: 2 - len(first)]]


def figure_of(view: View, name: str) -> Figure:
    """Return a group of panels as a file shows it; the overview with plateaus and ceilings."""
    strong, marks = (view.strong, view.marks) if name == "overview" else (None, None)
    return group_figure(view.groups[name], [arm.label for arm in view.drawn], view.looks, strong, marks)


# --- charts ---------------------------------------------------------------------------------------------------------
def group_section(view: View, name: str) -> str:
    """Return heading, charts, and links to the same figure as files."""
    if name not in view.groups:
        return ""
    drawn = view.groups[name]
    heading = f'<h2 id="{name}">{escape(drawn.group.title)}</h2><p>{escape(drawn.group.caption)}</p>'
    return f"{heading}{charts(view, drawn)}{files(name)}"


def charts(view: View, drawn: DrawnGroup) -> str:
    figures = "".join(
        f"<figure><h3>{escape(each.panel.title)}</h3>{chart(view, each)}"
        f"<figcaption>{escape(each.panel.caption)}</figcaption></figure>"
        for each in drawn.panels
    )
    return f'<div class="panels{" four" if len(drawn.panels) == 4 else ""}">{figures}</div>'


def chart(view: View, drawn: Drawn, overview: bool = False, marked: bool = False) -> str:
    """Draw a chart. overview: the arms that it is about thick and labelled. marked: with their plateaus and
    ceilings."""
    panel = drawn.panel
    lines = [
        Line(view.key(arm.label), arm.label, view.looks[arm.label].marker, points)
        for arm in view.drawn
        for points in drawn.curves.get(arm.label, ())
    ]
    found = {label: mark for label, mark in view.marks.items() if label in view.strong} if marked else {}
    ceilings = [mark.ceiling.mean for mark in found.values() if mark.ceiling]
    return line_chart(
        lines,
        drawn.limits(ceilings),
        title=description(panel, lines),
        unit=unit_of(panel.metric),
        axis=panel.axis,
        reference=drawn.reference,
        log=panel.log,
        bands=panel.bands,
        strong=[view.key(label) for label in view.strong] if overview else None,
        marks={view.key(label): mark for label, mark in found.items()},
        size=(400.0, 262.0) if overview else (360.0, 220.0),
    )


def description(panel: ChartPanel, lines: Sequence[Line]) -> str:
    """Return the chart in words, for those who do not see it."""
    said: list[str] = []
    for line in lines:
        last = line.points.last()
        if last is not None and not line.points.faint and len(said) < 12:
            said.append(f"{line.label} {line.points.mean[last]:.3g}")
    return f"{panel.title}, one curve per arm. Last values: {', '.join(said)}."


def files(name: str, endings: Sequence[str] = ("png", "svg", "csv")) -> str:
    """Link to the figure as files, which lie beside the page."""
    links = " ".join(f'<a href="{name}.{ending}">{name}.{ending}</a>' for ending in endings)
    return f'<p class="files soft">As files beside this page: {links}</p>'


def arm_header(view: View, label: str) -> str:
    """Return an arm's name with its line, as the first cell of a row."""
    look = view.looks[label]
    return f'<th scope="row">{swatch(view.key(label), look.marker)}{escape(label)}</th>'


# --- text -----------------------------------------------------------------------------------------------------------
def estimate_cell(given: Estimate, seeds: int, form: str = ".3f") -> str:
    """Return a cell: the mean, its limits below, and the number of seeds where it is not the arm's."""
    if given.n == 0:
        return f"<td>{NOT_AVAILABLE}</td>"
    # One seed is mentioned in place of the limits.
    fewer = f", n={given.n}" if given.n not in (1, seeds) else ""
    return f'<td>{given.interval.mean:{form}}<span class="limits">{limits_text(given, form)}{fewer}</span></td>'


def text_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return scrolling(f'<table class="text"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')


def number_table(titles: Sequence[str], rows: Iterable[str]) -> str:
    """Return a table of numbers. rows: cells as HTML."""
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return scrolling(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")


def scrolling(table: str) -> str:
    """Return the table in a box in which it scrolls, by the keyboard too, where it is wider than the screen."""
    return f'<div class="scroll" tabindex="0">{table}</div>'


def count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")
