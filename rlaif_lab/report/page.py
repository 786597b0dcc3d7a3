"""The report as one self-contained HTML page. A section is a function here that returns HTML; ``page`` lists them."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

from rlaif_lab.report.arms import Arm, Study, differences, flat
from rlaif_lab.report.figures import GROUPS, FigureGroup, Style, panel_figure, svg
from rlaif_lab.report.load import Run
from rlaif_lab.report.tables import NOT_AVAILABLE, ArmSummary, Estimate, limits_text


def page(study: Study, rows: Sequence[ArmSummary], looks: Mapping[str, Style], baseline: str) -> str:
    """The whole document. rows: one per arm, in the order of the table and the legends."""
    arms = {arm.label: arm for arm in study.arms}
    ordered = [arms[row.label] for row in rows]
    sections = [
        notices(study),
        results(rows, looks, baseline),
        *(curves(group, ordered, looks) for group in GROUPS),
        problems(study),
        provenance(study),
        runs_table(study),
    ]
    complete = sum(row.seeds for row in rows)
    counts = f"{_count(len(rows), 'arm')}, {_count(len(study.runs), 'run')}, {complete} of them complete"
    subtitle = f"Folder {study.folder}: {counts}."
    template = Template((Path(__file__).parent / "page.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(study.title), subtitle=escape(subtitle), body="\n".join(sections))


# --- sections -----------------------------------------------------------------------------------------------------
def notices(study: Study) -> str:
    """What a reader must know before the numbers, or nothing."""
    items = [escape(note) for note in study.notes]
    if study.problems:
        folders = _count(len(study.problems), "run folder")
        items.insert(0, f'{folders} not, or not wholly, in the numbers: <a href="#problems">see the list</a>.')
    if not items:
        return ""
    return f'<div class="notice"><ul>{"".join(f"<li>{item}</li>" for item in items)}</ul></div>'


def problems(study: Study) -> str:
    """Every run folder that is missing from some number, and why."""
    heading = '<h2 id="problems">Incomplete and failed runs</h2>'
    if not study.problems:
        return f"{heading}<p>None.</p>"
    explanation = (
        "An incomplete run counts in the curves as far as it got, so that a mean may jump where it ends; it is left "
        "out of all final values. A failed run has nothing to count."
    )
    table = _text_table(["run folder", "what is wrong"], [[p.name, p.reason] for p in study.problems])
    return f"{heading}<p>{explanation}</p>{table}"


def results(rows: Sequence[ArmSummary], looks: Mapping[str, Style], baseline: str) -> str:
    """The table of arms."""
    compared = any(row.difference is not None for row in rows)
    titles = ["arm", "seeds", "sampled, final", "gain, sampled"]
    titles += [f"final sampled minus {baseline}"] if compared else []
    titles += ["sampled, round 0", "greedy, final", "gain, greedy", "greedy, round 0"]
    titles += ["judge accuracy, last", "KL to round 0", "rounds", "wall s"]
    lines = []
    for row in rows:
        cells = [f"<td>{row.seeds}</td>", _estimate(row.final_sampled, row.seeds)]
        cells += [_estimate(row.gain_sampled, row.seeds, "+.3f")]
        if compared:
            cells += [_estimate(row.difference, row.seeds, "+.3f") if row.difference else "<td>-</td>"]
        cells += [_estimate(row.initial_sampled, row.seeds), _estimate(row.final_greedy, row.seeds)]
        cells += [_estimate(row.gain_greedy, row.seeds, "+.3f"), _estimate(row.initial_greedy, row.seeds)]
        cells += [_estimate(row.judge_accuracy, row.seeds), _estimate(row.kl, row.seeds, "#.3g")]
        cells += [f"<td>{row.rounds}</td>", _estimate(row.seconds, row.seeds, ".0f")]
        lines.append(f'<tr><th scope="row">{_swatch(looks[row.label])}{escape(row.label)}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    difference = (
        f" The difference to {escape(baseline)} is paired by seed, over the seeds both have." if compared else ""
    )
    return (
        "<h2>Final values</h2>"
        "<p>Means over complete runs, with 95% t intervals over seeds (the seed is the unit). Gain is final minus "
        f"round 0 of the same run.{difference} Judge accuracy is that of the last round that was judged; KL is per "
        "sequence, in nats; wall time is that of all rounds, per run.</p>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
        '<p class="soft">The same numbers are in table.csv; every metric of every run and round is in curves.csv.</p>'
    )


def curves(group: FigureGroup, arms: Sequence[Arm], looks: Mapping[str, Style]) -> str:
    """A group of panels, each an embedded SVG."""
    figures = []
    for panel in group.panels:
        image = base64.b64encode(svg(panel_figure(panel, arms, looks), panel.metric).encode()).decode()
        figures.append(
            f'<figure><img src="data:image/svg+xml;base64,{image}" alt="{escape(panel.title)}, by round, one curve per '
            f'arm"><figcaption>{escape(panel.caption)}</figcaption></figure>'
        )
    four = " four" if len(figures) == 4 else ""
    return (
        f"<h2>{escape(group.title)}</h2><p>{escape(group.caption)}</p>"
        f'<div class="panels{four}">{"".join(figures)}</div>'
    )


def provenance(study: Study) -> str:
    """Commands, code, versions, and the settings in which arms differ or agree."""
    commands = "\n".join(study.commands)
    differing = differences(study.arms)
    shared = {
        key: value
        for key, value in flat(study.arms[0].runs[0].config).items()
        if all(flat(run.config).get(key) == value for run in study.runs)
    }
    labels = [arm.label for arm in study.arms]
    table = _text_table(
        ["setting", *labels], [[key, *("-" if v is None else v for v in values)] for key, values in differing.items()]
    )
    return (
        f"<h2>Provenance</h2><h3>Commands</h3><pre>{escape(commands)}</pre>"
        f"<h3>Code and versions</h3>{_text_table(['what', 'value'], _versions(study.runs))}"
        "<h3>Settings in which the arms differ</h3>"
        + (table if differing else "<p>None.</p>")
        + "<details><summary>Settings that all runs share</summary>"
        + f"<pre>{escape(json.dumps(shared, indent=1))}</pre></details>"
    )


def runs_table(study: Study) -> str:
    """Every run in the numbers."""
    lines = []
    for arm in study.arms:
        for run in arm.runs:
            done = f"{max(run.rows)} of {run.rounds}" + ("" if run.complete else ", incomplete")
            lines.append([run.name, arm.label, str(run.seed), done, " ".join(run.overrides)])
    table = _text_table(["run folder", "arm", "seed", "rounds", "overrides"], lines)
    return f"<details><summary>All runs</summary>{table}</details>"


# --- pieces -------------------------------------------------------------------------------------------------------
def _estimate(given: Estimate, seeds: int, form: str = ".3f") -> str:
    """A cell: the mean, its limits below, and the number of seeds where it is not the arm's."""
    if given.n == 0:
        return f"<td>{NOT_AVAILABLE}</td>"
    fewer = f", n={given.n}" if given.n not in (1, seeds) else ""
    return f'<td>{given.interval.mean:{form}}<span class="limits">{limits_text(given, form)}{fewer}</span></td>'


def _swatch(look: Style) -> str:
    dashes = f' stroke-dasharray="{" ".join(str(2 * length) for length in look.dashes)}"' if look.dashes else ""
    return (
        f'<svg class="swatch" width="30" height="10" aria-hidden="true"><line x1="0" y1="5" x2="30" y2="5" '
        f'stroke="{look.colour}" stroke-width="3"{dashes}/></svg>'
    )


def _text_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in titles)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table class="text"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _versions(runs: Sequence[Run]) -> list[list[str]]:
    """Git commit and package versions; where runs differ, every value with the number of runs that had it."""
    held: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for run in runs:
        versions = run.config.get("versions")
        for key, value in [
            ("experiment", run.config.get("experiment_name")),
            ("git commit", run.config.get("git_commit") or "not a clone"),
            *(versions.items() if isinstance(versions, dict) else []),
        ]:
            held[key][str(value)] += 1
    return [
        [
            key,
            next(iter(values))
            if len(values) == 1
            else "; ".join(f"{v} ({_count(n, 'run')})" for v, n in values.items()),
        ]
        for key, values in held.items()
    ]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")
