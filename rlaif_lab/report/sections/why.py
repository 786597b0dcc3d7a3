"""Why each arm stopped: the attribution over rounds, as charts, sentences and numbers."""

from __future__ import annotations

import math
from html import escape

from rlaif_lab.plateau.attribution import Phase
from rlaif_lab.report.chart import swatch
from rlaif_lab.report.sections.view import View, arm_header, charts, files, number_table, text_table


def why(view: View) -> str:
    drawn = view.groups.get("gap")
    if drawn is None:
        return ""
    parts = [f'<h2 id="why">{escape(drawn.group.title)}</h2><p>{escape(drawn.group.caption)}</p>', reasons(view)]
    parts += [charts(view, drawn), files("gap"), phases(view), families(view)]
    return "".join(parts)


def reasons(view: View) -> str:
    """A sentence for each arm."""
    items = []
    for said in view.verdicts:
        mark = swatch(view.key(said.label), view.looks[said.label].marker)
        cause = f'<span class="state">{escape(said.attribution.cause)}</span>' if said.attribution else ""
        items.append(
            f'<li>{mark}<div><b>{escape(said.label)}</b> {cause}</div><div class="why">{escape(said.why)}</div></li>'
        )
    return f'<ul class="verdicts">{"".join(items)}</ul>'


def phases(view: View) -> str:
    """Early against late, in numbers, for those who want to check the sentence."""
    rows = []
    for said in view.verdicts:
        found = said.attribution
        if found is not None:
            names = (found.diversity, found.informativeness, found.gap, found.update_loss, found.gain)
            windows = [f"{first} to {last}" for first, last in (found.early, found.late)]
            rows.append(
                arm_header(view, said.label)
                + f"<td>{windows[0]}<br>{windows[1]}</td>"
                + "".join(_phase(phase) for phase in names)
            )
    if not rows:
        return ""
    titles = ["arm", "rounds", "D", "I", "gap D × I", "eps", "gain per round"]
    return (
        "<details><summary>Early and late rounds in numbers</summary><p>Means over the first and over the last rounds, "
        "with the change, paired by seed, and its 95% interval below.</p>" + number_table(titles, rows) + "</details>"
    )


def _phase(phase: Phase) -> str:
    change = phase.change
    if not math.isfinite(phase.late.mean):
        return "<td>n/a</td>"
    limits = f" [{change.low:+.3f}, {change.high:+.3f}]" if math.isfinite(change.low) else ""
    values = f"{phase.early.mean:.3f}<br>{phase.late.mean:.3f}"
    return f'<td>{values}<span class="limits">{change.mean:+.3f}{limits}</span></td>'


def families(view: View) -> str:
    """Which kind of curve each arm follows."""
    rows = [[said.label, said.families.sentence] for said in view.verdicts if said.families]
    if not rows:
        return ""
    return (
        "<details><summary>Which kind of curve is it?</summary><p>Families of curves, fitted to all seeds but one and "
        "compared by their error on that one: all errors and parameters are in "
        f'<a href="fits.csv">fits.csv</a>.</p>{text_table(["arm", "finding"], rows)}</details>'
    )
