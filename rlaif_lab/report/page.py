"""The report as one self-contained HTML page, which opens without a server. ``page`` lists its sections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from rlaif_lab.report.document import document, text_of
from rlaif_lab.report.figures import Style
from rlaif_lab.report.samples import to_json
from rlaif_lab.report.sections.background import notices, problems, provenance, runs_table
from rlaif_lab.report.sections.browser import browser
from rlaif_lab.report.sections.judged import judged
from rlaif_lab.report.sections.overview import overview, results
from rlaif_lab.report.sections.people import people
from rlaif_lab.report.sections.spent import spent
from rlaif_lab.report.sections.view import View, count, group_section
from rlaif_lab.report.sections.why import why


def page(view: View) -> str:
    """Return the whole document."""
    body = [
        contents(view),
        notices(view),
        overview(view),
        results(view),
        judged(view),
        why(view),
        *(group_section(view, name) for name in ("progress", "evidence", "judge", "self_score", "bias")),
        people(view),
        spent(view),
        *(group_section(view, name) for name in ("coverage", "optimisation")),
        browser(view),
        problems(view),
        provenance(view),
        runs_table(view),
    ]
    complete = sum(row.seeds for row in view.rows)
    counts = f"{count(len(view.rows), 'arm')}, {count(len(view.study.runs), 'run')}, {complete} of them complete"
    return document(
        view.study.title,
        f"Folder {view.study.folder}: {counts}.",
        "\n".join(part for part in body if part),
        style=arm_styles(view.looks, [row.label for row in view.rows]),
        script=text_of("samples.js") if view.samples else "",
        data=to_json(view.samples.content) if view.samples else "",
    )


def contents(view: View) -> str:
    """Return where to go from the top."""
    places = [
        ("overview", "Overview"),
        ("values", "Final values"),
        ("judged", "Who judged"),
        ("gap", "Why it stops"),
        ("judge", "Judge"),
        ("bias", "Bias"),
    ]
    places += [("people", "People"), ("cost", "Cost"), ("coverage", "Coverage"), ("optimisation", "Over-optimisation")]
    known = {*view.groups, "values", "judged", "cost"} | ({"people"} if people(view) else set())
    there = [(name, title) for name, title in places if name in known]
    there += [("samples", "Samples")] if view.samples else []
    there += [("problems", "Incomplete runs"), ("provenance", "Settings and provenance")]
    anchors = {"gap": "why"}
    links = "".join(f'<a href="#{anchors.get(name, name)}">{escape(title)}</a>' for name, title in there)
    return f'<nav class="contents" aria-label="Contents">{links}</nav>'


def arm_styles(looks: Mapping[str, Style], labels: Sequence[str]) -> str:
    """Return colour and dashes of every arm's class, and the rule by which its switch hides it."""
    rules = []
    for i, label in enumerate(labels):
        look = looks[label]
        # On a dark page black would not be seen: the style sheet says what stands for it.
        colour = "var(--black)" if look.colour == "#000000" else look.colour
        rules.append(f".a{i} {{ --c: {colour}; }}")
        if look.dashes:
            # In units, from line widths: a line is 1.8 wide in the style sheet.
            dashes = " ".join(f"{1.8 * length:.3g}" for length in look.dashes)
            rules.append(f".a{i} .line {{ stroke-dasharray: {dashes}; }}")
        rules.append(f"body:has(#show-a{i}:not(:checked)) .chart .a{i} {{ display: none; }}")
    return "\n".join(rules)
