"""What it cost: the judge's calls, tokens, money and people's time, and where the wall time went."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

from rlaif_lab.metrics.labellers import is_simulated, labellers
from rlaif_lab.report.arms import Arm
from rlaif_lab.report.chart import swatch
from rlaif_lab.report.cost import Cost
from rlaif_lab.report.figures import STAGE_COLOURS
from rlaif_lab.report.sections.view import View, arm_header, estimate_cell, files, number_table
from rlaif_lab.report.tables import Estimate

Column = tuple[str, Callable[[Cost], Estimate], str]
COLUMNS: tuple[Column, ...] = (
    ("judge calls", lambda cost: cost.calls, ",.0f"),
    ("accepted labels", lambda cost: cost.labels, ",.0f"),
    ("judge tokens", lambda cost: cost.judge_tokens, ",.0f"),
    ("judge tokens per label", lambda cost: cost.tokens_per_label, ".3g"),
    ("$", lambda cost: cost.usd, ".3g"),
    ("$ per label", lambda cost: cost.usd_per_label, ".2g"),
    ("human minutes", lambda cost: cost.human_minutes, ".3g"),
    ("human minutes per label", lambda cost: cost.minutes_per_label, ".2g"),
    ("sampled tokens", lambda cost: cost.sampled_tokens, ",.0f"),
    ("trained tokens", lambda cost: cost.trained_tokens, ",.0f"),
)
HATCHES = (
    "none",
    "repeating-linear-gradient(45deg, #fff9 0 2px, #0000 2px 7px)",
    "repeating-linear-gradient(-45deg, #fff9 0 2px, #0000 2px 7px)",
    "repeating-linear-gradient(90deg, #fff9 0 2px, #0000 2px 6px)",
    "repeating-linear-gradient(0deg, #fff9 0 2px, #0000 2px 6px)",
)
"""Over a stage's colour, so that colour is not all that tells stages apart."""


def spent(view: View) -> str:
    shown = [column for column in COLUMNS if any(column[1](cost).n for cost in view.costs)]
    # Most judges are free and ask nobody: these columns would hold nothing but zeros.
    paid = ("$", "human")
    shown = [c for c in shown if not c[0].startswith(paid) or any(_any(c[1](cost)) for cost in view.costs)]
    if not shown and not view.times:
        return ""
    parts = [
        '<h2 id="cost">What did it cost?</h2><p>Per run, all its training rounds: means over runs with 95% t '
        "intervals. A judge is called twice per comparison, once in either order. An accepted label is a comparison "
        "that gave a preference: no tie, no failure.</p>"
    ]
    if shown:
        rows = []
        for cost, summary in zip(view.costs, view.rows, strict=True):
            cells = (estimate_cell(read(cost), summary.seeds, form) for _, read, form in shown)
            rows.append(arm_header(view, cost.label) + "".join(cells))
        parts.append(number_table(["arm", *(title for title, _, _ in shown)], rows))
    if any(title.startswith("human") for title, _, _ in shown) and any(_simulated(arm) for arm in view.arms):
        parts.append("<p>Minutes and dollars of simulated people are what real ones are taken to need.</p>")
    if view.times:
        parts.append(bars(view) + files("cost"))
    return "".join(parts)


def _simulated(arm: Arm) -> bool:
    return is_simulated(labellers(arm.runs[0].config).get("people"))


def _any(given: Estimate) -> bool:
    return given.n > 0 and given.interval.mean > 0


def bars(view: View) -> str:
    """Draw wall time by stage."""
    longest = max(arm.total for arm in view.times) or 1.0
    stages = list(view.times[0].seconds)
    looks = {
        stage: f"--c:{STAGE_COLOURS[i % len(STAGE_COLOURS)]};--hatch:{HATCHES[i % len(HATCHES)]}"
        for i, stage in enumerate(stages)
    }
    names = {stage: escape(stage.replace("_", " ")) for stage in stages}
    keys = "".join(f'<li class="key"><i style="{looks[stage]}"></i>{names[stage]}</li>' for stage in stages)
    rows = []
    for arm in view.times:
        parts = "".join(
            f'<i style="width:{100 * seconds / longest:.2f}%;{looks[stage]}" '
            f'title="{names[stage]}: {seconds:.1f} s"></i>'
            for stage, seconds in arm.seconds.items()
            if seconds > 0
        )
        said = ", ".join(f"{names[stage]} {seconds:.1f} s" for stage, seconds in arm.seconds.items())
        rows.append(
            f'<div class="of"><span>{swatch(view.key(arm.label), view.looks[arm.label].marker)}{escape(arm.label)}: '
            f'{arm.total:.0f} s</span><div class="stack" role="img" aria-label="{said}">{parts}</div></div>'
        )
    return (
        "<h3>Wall time by stage</h3><p>Mean seconds per run, all rounds.</p>"
        f'<ul class="keys">{keys}</ul><div class="bars">{"".join(rows)}</div>'
    )
