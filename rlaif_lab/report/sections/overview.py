"""The first screen: who got how far, who stopped, in one sentence, two charts and a line per arm."""

from __future__ import annotations

from html import escape

from rlaif_lab.plateau.comparisons import GapRecovered
from rlaif_lab.report.chart import swatch
from rlaif_lab.report.sections.people import in_a_sentence
from rlaif_lab.report.sections.view import (
    View,
    arm_header,
    chart,
    count,
    estimate_cell,
    files,
    number_table,
    text_table,
)
from rlaif_lab.report.tables import ArmSummary, Estimate
from rlaif_lab.report.verdicts import ArmVerdict

SIGNS = {"improving": "↗", "plateaued": "→", "degrading": "↘", "undecided": "?"}
GOES_ON = {
    "improving": "is still improving",
    "degrading": "is getting worse",
    "undecided": "has no verdict yet",
}


def overview(view: View) -> str:
    drawn = view.groups.get("overview")
    parts = [f'<p class="headline">{headline(view)}</p>', arm_switches(view)]
    if drawn is not None:
        both = "".join(
            f"<figure><h3>{escape(each.panel.title)}</h3>"
            f"{chart(view, each, overview=True, marked=each.panel.metric == 'quality/sampled')}"
            f"<figcaption>{escape(each.panel.caption)}</figcaption></figure>"
            for each in drawn.panels
        )
        left = len(view.arms) - len(view.drawn)
        left_out = (
            f" {left} of {len(view.arms)} arms are not in the charts; every arm is in the tables." if left else ""
        )
        thick = " and ".join(f"<b>{escape(label)}</b>" for label in view.strong)
        parts.append(
            f'<h2 id="overview" class="first">{escape(drawn.group.title)}</h2><div class="panels two wide">{both}</div>'
            f"<p>{escape(drawn.group.caption)}</p>"
            f'<p class="soft">Thick: {thick}. Means over seeds, with 95% t intervals as bands. A ring marks the round '
            "of a plateau, a dotted level with its band the ceiling that all curves not excluded agree on."
            f"{left_out}</p>" + files("overview")
        )
    return "".join([*parts, verdict_list(view)])


def headline(view: View) -> str:
    """Return the result in a sentence or two, as HTML."""
    rows = {row.label: row for row in view.rows}
    said = {verdict.label: verdict for verdict in view.verdicts}
    ends = [_end(rows[label], said[label]) for label in view.strong if rows[label].final_sampled.n]
    if not ends:
        return in_a_sentence(view) or "There is no gold quality here, so only what the judges believe is known."
    sentences = f"{'; '.join(ends)}."
    compared = next((rows[label].difference for label in view.strong if rows[label].difference), None)
    if compared is not None and compared.n:
        mean, low, high = compared.interval
        within = f" [{low:+.3f}, {high:+.3f}]" if compared.n > 1 else ""
        sentences += f" Difference <b>{mean:+.3f}</b>{within}, paired over {count(compared.n, 'seed')}."
    return sentences


def _end(row: ArmSummary, said: ArmVerdict) -> str:
    goes_on = f"plateaued at round {said.round}" if said.state == "plateaued" else GOES_ON[said.state]
    if said.state == "undecided" and said.cause == "still going" and said.remains is not None:
        gain = said.remains.gain
        goes_on = f"still gains {gain.mean:+.3f} a round ({gain.low:+.3f} to {gain.high:+.3f}), with no verdict yet"
    if said.hacked is not None:
        goes_on += f", {escape(said.hacked.sentence)}"
    return f"<b>{escape(row.label)}</b> reaches <b>{row.final_sampled.interval.mean:.3f}</b> and {goes_on}"


def verdict_list(view: View) -> str:
    """Return a line per arm."""
    first = {arm.label for arm in view.drawn}
    here = "".join(_verdict(view, said) for said in view.verdicts if said.label in first)
    more = "".join(_verdict(view, said) for said in view.verdicts if said.label not in first)
    left = f'<details><summary>All other arms</summary><ul class="verdicts">{more}</ul></details>' if more else ""
    return f'<h3>Verdict on each arm</h3><ul class="verdicts">{here}</ul>{left}'


def _verdict(view: View, said: ArmVerdict) -> str:
    return (
        f"<li>{swatch(view.key(said.label), view.looks[said.label].marker)}<div><b>{escape(said.label)}</b> "
        f'<span class="state {said.state}">{SIGNS[said.state]}</span>{escape(said.headline)}</div>'
        f'<div class="why">{escape(said.outlook[:1].upper() + said.outlook[1:])}.</div></li>'
    )


def arm_switches(view: View) -> str:
    """Show and hide an arm in all charts, by style alone. It is the legend as well."""
    drawn = {arm.label for arm in view.drawn}
    switches = "".join(
        f'<label><input type="checkbox" id="show-{view.key(row.label)}" checked autocomplete="off">'
        f"{swatch(view.key(row.label), view.looks[row.label].marker)}{escape(row.label)}</label>"
        for row in view.rows
        if row.label in drawn
    )
    return f'<div class="arms" role="group" aria-label="Arms shown in the charts">{switches}</div>'


def results(view: View) -> str:
    """Return the table of arms."""
    rows, baseline = view.rows, view.baseline
    compared = any(row.difference is not None for row in rows)
    capped = any(said.saturation.identified for said in view.verdicts)
    recovered = any(said.pgr is not None for said in view.verdicts)
    titles = ["arm", "verdict", "seeds", "sampled, final", "gain, sampled"]
    titles += [f"final sampled minus {baseline}"] if compared else []
    titles += ["ceiling"] if capped else []
    titles += ["PGR"] if recovered else []
    titles += ["sampled, round 0", "greedy, final", "gain, greedy", "greedy, round 0"]
    titles += ["judge accuracy, last", "KL to round 0", "rounds", "wall s"]
    lines = []
    for row, said in zip(rows, view.verdicts, strict=True):
        cells = [f'<td class="short">{escape(said.short)}</td>', f"<td>{row.seeds}</td>"]
        cells += [estimate_cell(row.final_sampled, row.seeds)]
        cells += [estimate_cell(row.gain_sampled, row.seeds, "+.3f")]
        if compared:
            cells += [estimate_cell(row.difference, row.seeds, "+.3f") if row.difference else "<td>-</td>"]
        if capped:
            fit = said.saturation
            cells += [estimate_cell(Estimate(fit.ceiling, fit.seeds if fit.identified else 0), row.seeds)]
        if recovered:
            pgr = said.pgr
            cells += ["<td>-</td>" if pgr is None else estimate_cell(Estimate(pgr.interval, _seeds(pgr)), row.seeds)]
        cells += [estimate_cell(row.initial_sampled, row.seeds), estimate_cell(row.final_greedy, row.seeds)]
        cells += [estimate_cell(row.gain_greedy, row.seeds, "+.3f"), estimate_cell(row.initial_greedy, row.seeds)]
        cells += [estimate_cell(row.judge_accuracy, row.seeds), estimate_cell(row.kl, row.seeds, "#.3g")]
        cells += [f"<td>{row.rounds}</td>", estimate_cell(row.seconds, row.seeds, ".0f")]
        lines.append(arm_header(view, row.label) + "".join(cells))
    explained = (
        f" The difference to {escape(baseline)} is paired by seed, over the seeds both have." if compared else ""
    )
    explained += " A ceiling stands where all curves not excluded promise much the same." if capped else ""
    explained += " PGR is the share of the gap between floor and oracle that the arm closes." if recovered else ""
    return (
        '<h2 id="values">Final values</h2>'
        "<p>Means over complete runs, with 95% t intervals over seeds (the seed is the unit). Gain is final minus "
        f"round 0 of the same run.{explained} Judge accuracy is that of the last round that was judged; KL is per "
        "sequence, in nats; wall time is that of all rounds, per run.</p>"
        + number_table(titles, lines)
        + '<p class="files soft">The same numbers: <a href="table.csv">table.csv</a>; every metric of every run and '
        'round: <a href="curves.csv">curves.csv</a></p>' + pairs(view)
    )


def _seeds(given: GapRecovered) -> int:
    """Return the number of seeds; 0 where it is undefined."""
    return 0 if given.reason else given.seeds


QUANTITIES = {
    "quality_sampled_final": "sampled, final",
    "quality_greedy_final": "greedy, final",
    "quality_sampled_gain": "gain, sampled",
}
MOST_PAIRS = 200


def pairs(view: View) -> str:
    """Return every arm against every other."""
    given = view.compared
    if not given:
        return ""
    rows = []
    for one in given[:MOST_PAIRS]:
        # With a single seed the limits are nan, which equals nothing.
        limits = f" [{one.interval.low:+.3f}, {one.interval.high:+.3f}]" if one.interval.low == one.interval.low else ""
        p = "n/a" if one.p_holm != one.p_holm else f"{one.p_holm:.3g}"
        numbers = [f"{one.interval.mean:+.3f}{limits}", str(one.seeds), p]
        rows.append([QUANTITIES.get(one.quantity, one.quantity), f"{one.first} minus {one.second}", *numbers])
    left = f" The first {MOST_PAIRS} of {len(given)} are here." if len(given) > MOST_PAIRS else ""
    table = text_table(["quantity", "arms", "difference", "seeds", "p, adjusted"], rows)
    return (
        "<details><summary>Every arm against every other</summary><p>Paired by seed, with 95% t intervals; p values "
        "are adjusted for all comparisons of a quantity (Holm). All of them: "
        f'<a href="differences.csv">differences.csv</a>.{left}</p>{table}</details>'
    )
