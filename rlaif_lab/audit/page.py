"""The audit as one self-contained HTML page, in the report's dress."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from rlaif_lab.audit.audit import Audit
from rlaif_lab.audit.figures import accuracy_figure, accuracy_rows, orders_figure, position_figure, reliability_figure
from rlaif_lab.audit.measures import AuditMeasure, Section
from rlaif_lab.audit.text import bank_line, number
from rlaif_lab.report.document import document
from rlaif_lab.report.figures import svg
from rlaif_lab.store.strangers import make
from rlaif_lab.tasks.base import Task
from rlaif_lab.tasks.reading import readable_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
.measures { max-width: 46rem; }
.measures table td { white-space: nowrap; }
.measures th:first-child { min-width: 8rem; max-width: 28rem; }
.note { display: block; font-size: .78rem; color: var(--soft); font-weight: 400; overflow-wrap: anywhere; }
.panels > * { min-width: 0; }
.panels img { background: #fff; border-radius: 6px; padding: 4px; }
.notice.fine { border-color: var(--good); background: var(--tint); }
pre { white-space: pre-wrap; overflow-wrap: anywhere; }
"""


def page(audit: Audit, config: Mapping[str, Any]) -> str:
    """Return the whole document."""
    sections = [
        headline(audit),
        *(section(s, audit) for s in audit.sections),
        failures(audit),
        worst(audit, task_of(config)),
        provenance(config),
    ]
    return document(
        f"Audit of judge {audit.name}", f"{audit.judge}. Bank: {bank_line(audit)}.", "\n".join(sections), style=STYLE
    )


# --- sections -----------------------------------------------------------------------------------------------------
def headline(audit: Audit) -> str:
    """Return the few numbers that most readers come for, in words."""
    accuracy, same = audit.measure("accuracy"), audit.measure("same_slot_rate")
    items = []
    if math.isnan(accuracy.value):
        items.append("It gave no verdict on any pair whose better response is known.")
    else:
        # The lower limit has to lie above chance: a mean above it may be luck.
        chance = "" if accuracy.low > 0.5 else " That interval does not lie above chance, which is 0.5."
        items.append(
            f"It picks the better response in <b>{accuracy.value:.1%}</b> of pairs {_interval(accuracy)}.{chance}"
        )
    if not math.isnan(same.value):
        items.append(f"In <b>{same.value:.1%}</b> of pairs the verdict follows the slot and not the response.")
    failed = [
        m for s in audit.sections if s.key == "failures" for m in s.measures if m.key != "tie_rate" and m.value > 0
    ]
    if failed:
        items.append("Without a verdict: " + ", ".join(f"{m.title} {m.value:.1%}" for m in failed) + ".")
    doubtful = math.isnan(accuracy.value) or not accuracy.low > 0.5
    kind = "notice" if doubtful else "notice fine"
    return f'<div class="{kind}"><ul>{"".join(f"<li>{item}</li>" for item in items)}</ul></div>'


def section(given: Section, audit: Audit) -> str:
    """Return a table, and the figures that belong to it."""
    figures = {
        "accuracy": lambda: [
            _figure(
                accuracy_figure(accuracy_rows(audit)),
                "Accuracy by condition",
                "Accuracy overall, by slot, by length and by subset, with 95% intervals. The dotted line is chance.",
            )
        ],
        "calibration": lambda: [
            _figure(
                reliability_figure(audit.reliability),
                "Reliability plot",
                f"Bins of equal mass (of {_sizes(audit)} pairs) with 95% intervals. Below the dotted line the judge is "
                "surer than it is right.",
            )
        ],
        "position": lambda: [
            _figure(position_figure(audit.slots), "Verdicts of both orders", "What the two orders of a pair chose."),
            _figure(
                orders_figure(audit.judged.shown_first.tolist(), audit.judged.shown_second.tolist()),
                "Probability in one order against the other",
                "A point per pair. On the dotted line the order does not matter; below it the judge leans to slot one, "
                "above it to slot two.",
            ),
        ],
    }
    drawn = "".join(figures[given.key]()) if given.key in figures else ""
    panels = f'<div class="panels"><div>{measures_table(given.measures)}</div>{drawn}</div>'
    return f"<h2>{escape(given.title)}</h2><p>{escape(given.caption)}</p>{panels}"


def failures(audit: Audit) -> str:
    """Return what the judge said where no verdict could be had."""
    if not audit.examples:
        return ""
    parts = "".join(
        f"<h3>{escape(status)}</h3>" + "".join(f"<pre>{escape(_cut(raw))}</pre>" for raw in raws)
        for status, raws in audit.examples.items()
    )
    return f"<h2>Failed verdicts, verbatim</h2>{parts}"


def task_of(config: Mapping[str, Any]) -> Task | None:
    """Return the task, which knows how its texts are read; None for one that cannot be made from the config here."""
    try:
        return make(config.get("task"), Task, "task")  # type: ignore[type-abstract]
    # The page is written all the same: a task of a package that is not here only reads its texts better.
    except (ValueError, OSError):
        return None


def worst(audit: Audit, task: Task | None, count: int = 8) -> str:
    """Return the pairs that it got wrong with the greatest confidence, as a person would write them."""
    wrong = []
    for pair, judgement in zip(audit.pairs, audit.judgements, strict=True):
        if judgement.prob_first_wins is not None and pair.prob_first_is_better != 0.5:
            wrong.append((abs(judgement.prob_first_wins - pair.prob_first_is_better), pair))
    # Above one half it is on the wrong side; the surest first.
    wrong = sorted((entry for entry in wrong if entry[0] > 0.5), key=lambda entry: -entry[0])[:count]
    if not wrong:
        return ""
    rows = []
    for probability, pair in wrong:
        both = (pair.comparison.first, pair.comparison.second)
        better, worse = both if pair.prob_first_is_better == 1.0 else both[::-1]
        texts = (pair.comparison.prompt.text, better, worse)
        cells = [text if task is None else readable_text(task, text) for text in texts]
        rows.append(f"<tr>{''.join(f'<td>{escape(_cut(cell))}</td>' for cell in cells)}<td>{probability:.3f}</td></tr>")
    head = "".join(f'<th scope="col">{t}</th>' for t in ("prompt", "better", "picked instead", "its probability"))
    table = f'<table class="text"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<h2>Its surest mistakes</h2><p>All verdicts are in verdicts.csv.</p><div class="scroll">{table}</div>'


def provenance(config: Mapping[str, Any]) -> str:
    text = json.dumps(config, indent=1, ensure_ascii=False)
    return f"<details><summary>Config, versions and commit</summary><pre>{escape(text)}</pre></details>"


# --- pieces -------------------------------------------------------------------------------------------------------
def measures_table(rows: Sequence[AuditMeasure]) -> str:
    lines = []
    for m in rows:
        said = m.missing if math.isnan(m.value) and m.missing else m.note
        note = f'<span class="note">{escape(_cut(said, 240))}</span>' if said else ""
        limits = f'<span class="limits">{_interval(m)}</span>' if not math.isnan(m.low) else ""
        count = "" if m.n is None else str(m.n)
        lines.append(
            f'<tr><th scope="row">{escape(m.title)}{note}</th><td>{number(m)}{limits}</td><td>{count}</td></tr>'
        )
    head = "".join(f'<th scope="col">{title}</th>' for title in ("measure", "value, 95% interval", "n"))
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f'<div class="scroll measures">{table}</div>'


def _sizes(audit: Audit) -> str:
    sizes = sorted({b.count for b in audit.reliability})
    return f"{sizes[0]} to {sizes[-1]}" if len(sizes) > 1 else str(sizes[0] if sizes else 0)


def _interval(m: AuditMeasure) -> str:
    return "" if math.isnan(m.low) else f"[{m.low:.3f}, {m.high:.3f}]"


def _figure(figure: Figure, title: str, caption: str) -> str:
    # As an image, so that a figure's styles and ids cannot clash with the page's.
    image = base64.b64encode(svg(figure, title).encode()).decode()
    return (
        f'<figure><img src="data:image/svg+xml;base64,{image}" alt="{escape(title)}">'
        f"<figcaption><b>{escape(title)}.</b> {escape(caption)}</figcaption></figure>"
    )


def _cut(text: str, limit: int = 600) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"
