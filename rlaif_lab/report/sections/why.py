"""Why each arm does not improve: shares of what is left, the parts of a round's gain, and what families promise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from rlaif_lab.plateau.attribution import Phase
from rlaif_lab.plateau.saturation import Promise
from rlaif_lab.report.chart import swatch
from rlaif_lab.report.sections.view import View, arm_header, charts, files, number_table, text_table
from rlaif_lab.statistics.intervals import Interval


def why(view: View) -> str:
    drawn = view.groups.get("gap")
    if drawn is None:
        return ""
    parts = [f'<h2 id="why">{escape(drawn.group.title)}</h2><p>{escape(drawn.group.caption)}</p>', reasons(view)]
    parts += [charts(view, drawn), files("gap"), shares(view), phases(view), promises(view), families(view)]
    return "".join(parts)


def reasons(view: View) -> str:
    """Return a sentence for each arm."""
    items = []
    for said in view.verdicts:
        mark = swatch(view.key(said.label), view.looks[said.label].marker)
        cause = f'<span class="state">{escape(said.cause)}</span>' if said.remains else ""
        items.append(
            f'<li>{mark}<div><b>{escape(said.label)}</b> {cause}</div><div class="why">{escape(said.why)}</div></li>'
        )
    return f'<ul class="verdicts">{"".join(items)}</ul>'


SHARES = {
    "coverage": "in no sample",
    "prefers_wrong": "judge prefers the worse",
    "not_taken_up": "preferred, not taken up",
    "cannot_tell": "judge cannot tell",
}


def shares(view: View) -> str:
    """Return what is left of each arm's quality, in shares."""
    rows = []
    for said in view.verdicts:
        if said.remains:
            cells = f"<td>{_interval(said.remains.left, '.3f')}</td>"
            cells += "".join(f"<td>{_interval(getattr(said.remains, name), '.2f')}</td>" for name in SHARES)
            cells += f"<td>{_interval(said.remains.preference, '+.2f')}</td>"
            rows.append(arm_header(view, said.label) + cells)
    if not rows:
        return ""
    return (
        "<h3>What is left, and why</h3><p>1 minus quality in the last rounds, and the shares of it: in no sample of a "
        "prompt; where right and wrong samples are both there, by which of them the judge prefers. Preference is the "
        "judge's for the better answer, from -1 to 1, weighted by what is at stake. 95% t intervals over seeds. A "
        "cause is named only for an arm that is shown not to improve.</p>"
        + number_table(["arm", "left", *SHARES.values(), "preference"], rows)
    )


def _interval(given: Interval, form: str) -> str:
    if not math.isfinite(given.mean):
        return "n/a"
    limits = f"[{given.low:{form}}, {given.high:{form}}]" if math.isfinite(given.low) else ""
    return f'{given.mean:{form}}<span class="limits">{limits}</span>'


def promises(view: View) -> str:
    """Return what each family of curves promises for each arm: a small figure of intervals, and why there is no
    ceiling."""
    figures = []
    for said in view.verdicts:
        found = said.saturation
        kept = [one for one in found.promises if not one.excluded]
        if kept:
            reason = found.reason or f"ceiling {found.ceiling.mean:.3f} {found.condition}"
            excluded = ", ".join(one.family for one in found.promises if one.excluded) or "none"
            figures.append(
                f"<figure><h4>{escape(said.label)}</h4>{_bars(kept)}"
                f"<figcaption>{escape(reason)}. Excluded: {escape(excluded)}.</figcaption></figure>"
            )
    if not figures:
        return ""
    return (
        "<details><summary>What each kind of curve promises</summary><p>For each family, where its curves end, or are "
        "at twice the rounds seen: all those that the seeds' mean curve does not exclude. A ceiling is printed only "
        "where these agree.</p>"
        f'<div class="panels">{"".join(figures)}</div></details>'
    )


def _bars(kept: Sequence[Promise]) -> str:
    """Draw intervals of the level from 0 to 1, one line per family."""
    height, left, width = 16, 130, 220
    parts = []
    for index, one in enumerate(kept):
        low, high = (left + width * min(max(value, 0.0), 1.0) for value in (one.level.low, one.level.high))
        y = height * index + 11
        parts.append(f'<text class="note" x="{left - 6}" y="{y + 4}" text-anchor="end">{escape(one.family)}</text>')
        # At least one unit long, so that it can be seen.
        parts.append(f'<path d="M{low:.1f} {y}H{max(high, low + 1.0):.1f}" stroke="currentColor" stroke-width="4"/>')
    y = height * len(kept) + 12
    for value in (0.0, 0.5, 1.0):
        parts.append(f'<text class="note" x="{left + width * value:.0f}" y="{y}" text-anchor="middle">{value:g}</text>')
    said = "; ".join(f"{one.family} {one.level.low:.2f} to {one.level.high:.2f}" for one in kept)
    return (
        f'<svg viewBox="0 0 {left + width + 16} {y + 6}" role="img" aria-label="{escape(said)}">{"".join(parts)}</svg>'
    )


def phases(view: View) -> str:
    """Return early against late, in numbers, for those who want to check the sentence."""
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
    """Return which kind of curve each arm follows."""
    rows = [[said.label, said.families.sentence] for said in view.verdicts if said.families]
    if not rows:
        return ""
    return (
        "<details><summary>Which kind of curve is it?</summary><p>Families of curves, fitted to all seeds but one and "
        "compared by their error on that one: all errors and parameters are in "
        f'<a href="fits.csv">fits.csv</a>.</p>{text_table(["arm", "finding"], rows)}</details>'
    )
