"""``rlaif-report DIR``: figures, tables and a page from finished (or unfinished) runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit code 0 with the paths of what was written; 2 with one sentence on stderr where DIR cannot be reported on."""
    parser = argparse.ArgumentParser(
        prog="rlaif-report",
        description="Curves with confidence intervals, a table and one self-contained HTML page, in DIR/report/.",
    )
    parser.add_argument("dir", metavar="DIR", type=Path, help="a multirun folder, or any folder with runs at any depth")
    parser.add_argument(
        "--baseline", metavar="ARM", help="the arm that the others are compared with (default: self, if there is one)"
    )
    parser.add_argument(
        "--floor", metavar="ARM", help="the arm from which PGR counts the gap up to oracle (default: the baseline)"
    )
    parser.add_argument(
        "--wandb",
        choices=("offline", "online"),
        nargs="?",
        const="offline",
        help="log the report to W&B as well, as a run of job type report in the runs' group (offline unless said)",
    )
    options = parser.parse_args(arguments)
    try:
        print(report(options.dir, options.baseline, options.floor, options.wandb))
    except ValueError as error:
        print(f"rlaif-report: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"rlaif-report: cannot read or write {error.filename!r}: {error.strerror}", file=sys.stderr)
        sys.exit(2)


def report(
    directory: Path,
    baseline: str | None = None,
    floor: str | None = None,
    wandb_mode: Literal["offline", "online"] | None = None,
) -> str:
    """Writes ``directory``/report/ and returns what the terminal shows. wandb_mode: where a run of W&B shows it too.
    ValueError where there is nothing to report."""
    # Imported here so that --help answers at once.
    from rlaif_lab.report.arms import study
    from rlaif_lab.report.figures import GROUPS, group_figure, save, styles
    from rlaif_lab.report.load import load
    from rlaif_lab.report.page import page
    from rlaif_lab.report.tables import summaries, terminal_reasons, terminal_table, write_curves, write_table
    from rlaif_lab.report.verdict_tables import multiplicity, write_verdict_tables
    from rlaif_lab.report.verdicts import arm_verdicts, differences

    directory = directory.resolve()
    whole = study(load(directory), directory.name)
    names = sorted({name for arm in whole.arms for name in (arm.name, arm.label)})
    for given in (baseline, floor):
        if given is not None and given not in names:
            raise ValueError(f"no arm {given!r} to compare with; there is {', '.join(names)}")
    baseline = baseline or "self"
    rows = summaries(whole, baseline)
    verdicts = arm_verdicts(whole, baseline, floor)
    compared = differences(whole, verdicts)
    looks = styles(whole.arms)
    folder = directory / "report"
    folder.mkdir(exist_ok=True)
    write_table(folder / "table.csv", rows, verdicts, baseline)
    write_curves(folder / "curves.csv", whole)
    write_verdict_tables(folder, whole, verdicts, compared)
    arms = {arm.label: arm for arm in whole.arms}
    for group in GROUPS:
        figure = group_figure(group, [arms[row.label] for row in rows], looks)
        for ending in ("png", "svg"):
            save(figure, folder / f"{group.name}.{ending}")
    (folder / "report.html").write_text(page(whole, rows, looks, baseline), encoding="utf-8")
    lines = [terminal_table(rows, verdicts, baseline), "", terminal_reasons(rows, verdicts), ""]
    lines += multiplicity(compared)
    lines += [f"! {problem.name}: {problem.reason}" for problem in whole.problems]
    lines += [f"! {note}" for note in whole.notes]
    if wandb_mode:
        from rlaif_lab.wandb_reading.sweep_run import log_report

        lines.append(str(log_report(folder, whole, verdicts, wandb_mode)))
    return "\n".join([*lines, str(folder / "report.html")])
