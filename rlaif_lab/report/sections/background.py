"""What a reader must know to trust the numbers: what is missing, what was run, with which code and settings."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from html import escape

from rlaif_lab.report.arms import differences, flat
from rlaif_lab.report.load import Run
from rlaif_lab.report.sections.view import View, count, text_table


def notices(view: View) -> str:
    """Return what a reader must know before the numbers, or nothing."""
    study = view.study
    items = [escape(note) for note in study.notes]
    if study.problems:
        folders = count(len(study.problems), "run folder")
        items.insert(0, f'{folders} not, or not wholly, in the numbers: <a href="#problems">see the list</a>.')
    if not items:
        return ""
    return f'<div class="notice"><ul>{"".join(f"<li>{item}</li>" for item in items)}</ul></div>'


def problems(view: View) -> str:
    """Return every run folder that is missing from some number, and why."""
    heading = '<h2 id="problems">Incomplete and failed runs</h2>'
    if not view.study.problems:
        return f"{heading}<p>None.</p>"
    explanation = (
        "An incomplete run counts in the curves as far as it got, so that a mean may jump where it ends; it is left "
        "out of all final values. A failed run has nothing to count."
    )
    table = text_table(["run folder", "what is wrong"], [[p.name, p.reason] for p in view.study.problems])
    return f"{heading}<p>{explanation}</p>{table}"


def provenance(view: View) -> str:
    """Return commands, code, versions, and the settings in which arms differ or agree."""
    study = view.study
    commands = "\n".join(study.commands)
    differing = differences(study.arms)
    settings = [flat(run.config) for run in study.runs]
    shared = {key: value for key, value in settings[0].items() if all(one.get(key) == value for one in settings)}
    labels = [arm.label for arm in study.arms]
    table = text_table(
        ["setting", *labels], [[key, *("-" if v is None else v for v in values)] for key, values in differing.items()]
    )
    return (
        '<h2 id="provenance">In what do the arms differ?</h2>'
        + (table if differing else "<p>In nothing but the seed.</p>")
        + "<details><summary>Settings that all runs share</summary>"
        + f"<pre>{escape(json.dumps(shared, indent=1))}</pre></details>"
        f"<h2>Provenance</h2><h3>Commands</h3><pre>{escape(commands)}</pre>"
        f"<h3>Code and versions</h3>{text_table(['what', 'value'], _versions(study.runs))}"
    )


def runs_table(view: View) -> str:
    """Return every run in the numbers."""
    lines = []
    for arm in view.study.arms:
        for run in arm.runs:
            done = f"{max(run.rows)} of {run.rounds}" + ("" if run.complete else ", incomplete")
            lines.append([run.name, arm.label, str(run.seed), done, " ".join(run.overrides)])
    table = text_table(["run folder", "arm", "seed", "rounds", "overrides"], lines)
    return f"<details><summary>All runs</summary>{table}</details>"


def _versions(runs: Sequence[Run]) -> list[list[str]]:
    """Return Git commit and package versions; where runs differ, every value with the number of runs that had it."""
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
            else "; ".join(f"{v} ({count(n, 'run')})" for v, n in values.items()),
        ]
        for key, values in held.items()
    ]
