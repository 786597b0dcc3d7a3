"""From the runs of a study to everything that the report shows, computed."""

from __future__ import annotations

from rlaif_lab.report.arms import Study
from rlaif_lab.report.cost import costs, stage_times
from rlaif_lab.report.curves import draw
from rlaif_lab.report.figures import styles
from rlaif_lab.report.panels import GROUPS
from rlaif_lab.report.samples import samples
from rlaif_lab.report.sections.view import View, chosen, drawn_arms
from rlaif_lab.report.tables import summaries
from rlaif_lab.report.verdicts import arm_verdicts, differences


def viewed(
    whole: Study,
    baseline: str | None = None,
    floor: str | None = None,
    *,
    delta: float | None = None,
    null: str | None = None,
) -> View:
    """Compute what the report shows of a study, wherever its runs were read from.

    Raises:
        ValueError: there is no arm of that name.
    """
    names = sorted({name for arm in whole.arms for name in (arm.name, arm.label)})
    for given in (baseline, floor, null):
        if given is not None and given not in names:
            raise ValueError(f"no arm {given!r} to compare with; there is {', '.join(names)}")
    baseline = baseline or "self"
    rows = summaries(whole, baseline)
    verdicts = arm_verdicts(whole, baseline, floor, delta=delta, null=null)
    said = {verdict.label: verdict for verdict in verdicts}
    of_label = {arm.label: arm for arm in whole.arms}
    arms = [of_label[row.label] for row in rows]
    strong = chosen(rows, baseline, {arm.label: arm.name for arm in arms})
    shown = drawn_arms(arms, strong)
    return View(
        study=whole,
        rows=rows,
        arms=arms,
        verdicts=[said[arm.label] for arm in arms],
        compared=differences(whole, verdicts),
        looks=styles(whole.arms),
        baseline=baseline,
        strong=strong,
        groups=draw(GROUPS, shown, {label: verdict.verdict.traces for label, verdict in said.items()}),
        times=stage_times(shown),
        costs=costs(arms),
        samples=samples(arms),
    )
