"""The saved workspace: the sections of the report's page as a view of a W&B project.

Each panel of the page that is over rounds becomes a line plot; runs are grouped by experiment and arm, so that a line
is the mean over seeds and its band reaches from the lowest seed to the highest. (W&B draws no t intervals: those, and
the verdict over seeds, are in the report.) The columns of the run table are the runs' own results.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rlaif_lab.metrics.base import Row
from rlaif_lab.metrics.catalogue import rows, sections
from rlaif_lab.report.curves import ChartPanel, FigureGroup
from rlaif_lab.report.panels import FIGURES, GROUPS, OVERVIEW
from rlaif_lab.tracking.run_summary import RESULTS

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import LinePlot
    from wandb_workspaces.workspaces import Section, Workspace

NAME = "rlaif_lab"
X_AXIS = "round"
COLUMNS = ("run:jobType", "config:seed.value", *(f"summary:{name}" for name in RESULTS), "run:state")
MOST_RUNS = 200  # of W&B's 10 by default: the first ten runs of a sweep are not a sweep

HOW_TO_READ = (
    "**How to read this.** A line is an arm's mean over seeds, its band the range from the lowest seed to the highest; "
    "the x axis is the round. `quality/*` is the truth (gold, fresh held-out prompts every round), "
    "`judge/win_rate_vs_round_0` what the judge thinks. Verdict, plateau round and ceiling of each run are columns of "
    "the table and in its summary. Over seeds, with intervals, they are in the report: `rlaif-report DIR --wandb` logs "
    "it as a run of job type `report` in the same group."
)

TABLES = ("samples", "pass_at_k_table", "reliability_table")


def workspace(entity: str, project: str, group: str | None = None) -> Workspace:
    """Return the view, not saved yet. group: an experiment's name, to show its runs only."""
    import wandb_workspaces.workspaces as ws
    from wandb_workspaces.expr import And, Metric, Ordering

    # A band over seeds needs the runs of an arm as one group.
    by = [Metric("JobType")] if group else [Metric("Group"), Metric("JobType")]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=f"{NAME}: {group}" if group else NAME,
        sections=[
            _results(),
            _headlines(),
            *(_section(each) for each in GROUPS if over_rounds(each)),
            *(_details(title, found) for title, found in details().items()),
            _tables(),
        ],
        settings=ws.WorkspaceSettings(x_axis=X_AXIS, max_runs=MOST_RUNS),
        runset_settings=ws.RunsetSettings(
            filters=And(Metric("Group") == group) if group else "",
            groupby=by,
            order=[Ordering(key, ascending=True) for key in by],
            pinned_columns=list(COLUMNS),
        ),
    )


def definition(made: Workspace) -> dict[str, Any]:
    """Return what W&B is sent, as plain JSON values."""
    spec: dict[str, Any] = made._to_model().model_dump(mode="json", by_alias=True, exclude_none=True)
    return spec


def _results() -> Section:
    """Return the results of the runs, as bars."""
    import wandb_workspaces.reports.v2 as wr

    bars = [
        wr.BarPlot(title=title, metrics=[name], groupby_aggfunc="mean", groupby_rangefunc="minmax")
        for name, title in (
            ("final_quality", "Final true quality"),
            ("gain", "Gain over round 0"),
            ("ceiling", "Ceiling, where identified"),
            ("plateau_round", "Plateau round, where there is one"),
        )
    ]
    return _made("What the runs came to", HOW_TO_READ, bars, is_open=True)


def _headlines() -> Section:
    """Return the metrics that people look at first, in the catalogue's order."""
    wanted = [row for row in rows() if row.level == "headline" and row.name != X_AXIS]
    return _made("Headlines", _explained(wanted), [_line_plot(row) for row in wanted], is_open=True)


def details() -> dict[str, list[Row]]:
    """Return the metrics that no group of the page shows, by section of the catalogue; families of names are left out,
    since a panel needs the name itself."""
    shown = {panel.metric for group in GROUPS for panel in group.panels}
    # A family's name holds a placeholder, which no panel can show.
    found = {
        title: [row for row in of_section if row.level == "detail" and "{" not in row.name and row.name not in shown]
        for title, of_section in sections().items()
    }
    return {title: left for title, left in found.items() if left}


def _details(title: str, found: list[Row]) -> Section:
    return _made(f"Details: {title}", _explained(found), [_line_plot(row) for row in found], is_open=False)


def _explained(found: list[Row]) -> str:
    return "\n".join(f"- **{row.title}** (`{row.name}`, {row.unit}): {row.caption()}" for row in found)


def _line_plot(row: Row) -> LinePlot:
    import wandb_workspaces.reports.v2 as wr

    return wr.LinePlot(
        title=row.title,
        x=X_AXIS,
        y=[row.name.replace("{role}", "judge")],
        groupby_aggfunc="mean",
        groupby_rangefunc="minmax",
    )


def over_rounds(group: FigureGroup) -> list[ChartPanel]:
    """Return the group's panels but for those over something else (k of pass@k, KL), which W&B shows as figures."""
    return [panel for panel in group.panels if panel.axis == "round"]


def _section(group: FigureGroup) -> Section:
    """Return one group of panels of the page."""
    import wandb_workspaces.reports.v2 as wr

    plots = [
        wr.LinePlot(
            title=panel.title,
            x=X_AXIS,
            y=[panel.metric],
            log_y=panel.log or None,
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
        )
        for panel in over_rounds(group)
    ]
    captions = "\n".join(f"- **{panel.title}** (`{panel.metric}`): {panel.caption}" for panel in over_rounds(group))
    return _made(group.title, f"{group.caption}\n\n{captions}", plots, is_open=group is OVERVIEW)


def _tables() -> Section:
    import wandb_workspaces.reports.v2 as wr

    panels = [wr.WeavePanelSummaryTable(table_name=name) for name in TABLES]
    text = (
        "`samples`: answers of a round with the judge's win rate and gold quality. `pass_at_k_table` and "
        "`reliability_table`: of the last round. Below, the figures of the runs of job type `report`."
    )
    figures = wr.MediaBrowser(media_keys=[f"report/{name}" for name in FIGURES])
    return _made("Samples, tables, report", text, [*panels, figures], is_open=False)


def _made(name: str, text: str, panels: list[Any], is_open: bool) -> Section:
    """Return a section that opens with a text."""
    import wandb_workspaces.reports.v2 as wr
    import wandb_workspaces.workspaces as ws

    # Three in a row, as W&B lays them out on a laptop.
    columns = 3
    return ws.Section(
        name=name,
        panels=[wr.MarkdownPanel(markdown=text), *panels],
        is_open=is_open,
        layout_settings=ws.SectionLayoutSettings(columns=columns, rows=math.ceil((1 + len(panels)) / columns)),
        panel_settings=ws.SectionPanelSettings(x_axis=X_AXIS),
    )
