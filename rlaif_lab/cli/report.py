"""``rlaif-report DIR``: figures, tables and a page from finished (or unfinished) runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rlaif_lab.cli.endings import told
from rlaif_lab.cli.help import lab_version
from rlaif_lab.store.files import real_path, writing

if TYPE_CHECKING:
    from rlaif_lab.report.sections.view import View


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``rlaif-report``.

    Exit code 0 with the paths of what was written; 2 with one sentence on stderr where DIR cannot be reported on.
    """
    parser = argparse.ArgumentParser(
        prog="rlaif-report",
        description="Write curves with confidence intervals, a table and a self-contained HTML page into DIR/report/.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {lab_version()}")
    parser.add_argument(
        "dir", metavar="DIR", type=Path, help="the folder of a sweep, or any folder that holds runs at any depth"
    )
    parser.add_argument(
        "--baseline", metavar="ARM", help="the arm with which the others are compared (default: self, if there is one)"
    )
    parser.add_argument(
        "--floor", metavar="ARM", help="the arm from which PGR counts the gap up to oracle (default: the baseline)"
    )
    parser.add_argument(
        "--null",
        metavar="ARM",
        help="the arm whose drift per round is stated beside delta: how much training moves quality under a judge "
        "that knows nothing (default: random, if there is one)",
    )
    parser.add_argument(
        "--delta",
        type=float,
        help="gain per round below which an arm counts as stopped, instead of the runs' own detector.delta; shows how "
        "much a verdict depends on it (the result is the verdict at the delta that was fixed before the run)",
    )
    parser.add_argument(
        "--wandb",
        choices=("offline", "online"),
        nargs="?",
        const="offline",
        help="also log the report to W&B, as a run of job type report in the group of the runs (default: offline)",
    )
    parser.add_argument(
        "--trust",
        metavar="PACKAGES",
        help="Python packages, separated by commas, whose tasks may be run to grade samples, besides the lab's own; "
        "the environment variable RLAIF_LAB_TRUST does the same",
    )
    options = parser.parse_args(arguments)
    # After parsing, so that --help answers at once.
    from rlaif_lab.config.trusted import trust
    from rlaif_lab.progress import printable

    trust(options.trust)
    with told("rlaif-report"):
        try:
            print(
                printable(
                    report(
                        options.dir,
                        options.baseline,
                        options.floor,
                        options.wandb,
                        delta=options.delta,
                        null=options.null,
                    )
                ),
                flush=True,
            )
        except ValueError as error:
            print(printable(f"rlaif-report: {error}"), file=sys.stderr)
            sys.exit(2)


def report(
    directory: Path,
    baseline: str | None = None,
    floor: str | None = None,
    wandb_mode: Literal["offline", "online"] | None = None,
    *,
    delta: float | None = None,
    null: str | None = None,
) -> str:
    """Write ``directory``/report/ and return what the terminal shows. wandb_mode: where a run of W&B shows it too.
    delta: in place of the runs' own. null: the arm whose drift is told beside delta. ValueError where there is nothing
    to report."""
    directory = real_path(directory)
    view = read(directory, baseline, floor, delta=delta, null=null)
    folder = directory / "report"
    with writing(folder):
        folder.mkdir(exist_ok=True)
        lines = written(folder, view)
    if wandb_mode:
        from rlaif_lab.tracking.wandb_sweep import log_report

        lines.append(str(log_report(folder, view.study, view.verdicts, wandb_mode)))
    return "\n".join([*lines, str(folder / "report.html")])


def written(folder: Path, view: View) -> list[str]:
    """Write all files of a report, the page last; return what the terminal shows."""
    from rlaif_lab.report.cost import write_times
    from rlaif_lab.report.curves import write_drawn
    from rlaif_lab.report.figures import save, time_figure
    from rlaif_lab.report.page import page
    from rlaif_lab.report.panels import FIGURES
    from rlaif_lab.report.sections.view import figure_of
    from rlaif_lab.report.tables import terminal_reasons, terminal_table, write_curves, write_table
    from rlaif_lab.report.verdict_tables import multiplicity, write_verdict_tables

    write_table(folder / "table.csv", view.rows, view.verdicts, view.baseline)
    write_curves(folder / "curves.csv", view.study)
    write_verdict_tables(folder, view.study, view.verdicts, view.compared)
    # Figures of panels that this report has not drawn would look like its own.
    for stale in (path for name in FIGURES for path in folder.glob(f"{name}.*")):
        stale.unlink()  # an earlier report may have had something to draw where this one has not
    for name, drawn in view.groups.items():
        figure = figure_of(view, name)
        # PNG for documents, SVG for pages and print.
        for ending in ("png", "svg"):
            save(figure, folder / f"{name}.{ending}")
        write_drawn(folder / f"{name}.csv", drawn)
    if view.times:
        figure = time_figure(view.times)
        for ending in ("png", "svg"):
            save(figure, folder / f"cost.{ending}")
        write_times(folder / "cost.csv", view.times)
    # Last: the page shows what was written before.
    (folder / "report.html").write_text(page(view), encoding="utf-8")
    lines = [
        terminal_table(view.rows, view.verdicts, view.baseline),
        "",
        terminal_reasons(view.rows, view.verdicts),
        "",
    ]
    lines += multiplicity(view.compared)
    # What is missing is said at the end, where it is seen.
    lines += [f"! {problem.name}: {problem.reason}" for problem in view.study.problems]
    return [*lines, *(f"! {note}" for note in view.study.notes)]


def read(
    directory: Path,
    baseline: str | None = None,
    floor: str | None = None,
    *,
    delta: float | None = None,
    null: str | None = None,
) -> View:
    """Compute everything that the report shows. ValueError as in ``report``."""
    # Imported here so that --help answers at once.
    from rlaif_lab.report.arms import study
    from rlaif_lab.report.load import load
    from rlaif_lab.report.viewing import viewed

    return viewed(study(load(directory), directory.name), baseline, floor, delta=delta, null=null)
