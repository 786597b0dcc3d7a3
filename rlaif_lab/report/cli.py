"""``rlaif-report DIR``: figures, tables and a page from finished (or unfinished) runs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


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
    options = parser.parse_args(arguments)
    try:
        print(report(options.dir, options.baseline))
    except ValueError as error:
        print(f"rlaif-report: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"rlaif-report: cannot read or write {error.filename!r}: {error.strerror}", file=sys.stderr)
        sys.exit(2)


def report(directory: Path, baseline: str | None = None) -> str:
    """Writes ``directory``/report/ and returns what the terminal shows. ValueError where there is nothing to report."""
    # Imported here so that --help answers at once.
    from rlaif_lab.report.arms import study
    from rlaif_lab.report.figures import GROUPS, group_figure, save, styles
    from rlaif_lab.report.load import load
    from rlaif_lab.report.page import page
    from rlaif_lab.report.tables import summaries, terminal_table, write_curves, write_table

    directory = directory.resolve()
    whole = study(load(directory), directory.name)
    names = sorted({name for arm in whole.arms for name in (arm.name, arm.label)})
    if baseline is not None and baseline not in names:
        raise ValueError(f"no arm {baseline!r} to compare with; there is {', '.join(names)}")
    baseline = baseline or "self"
    rows = summaries(whole, baseline)
    looks = styles(whole.arms)
    folder = directory / "report"
    folder.mkdir(exist_ok=True)
    write_table(folder / "table.csv", rows, baseline)
    write_curves(folder / "curves.csv", whole)
    arms = {arm.label: arm for arm in whole.arms}
    for group in GROUPS:
        figure = group_figure(group, [arms[row.label] for row in rows], looks)
        for ending in ("png", "svg"):
            save(figure, folder / f"{group.name}.{ending}")
    (folder / "report.html").write_text(page(whole, rows, looks, baseline), encoding="utf-8")
    lines = [terminal_table(rows, baseline), ""]
    lines += [f"! {problem.name}: {problem.reason}" for problem in whole.problems]
    lines += [f"! {note}" for note in whole.notes]
    return "\n".join([*lines, str(folder / "report.html")])
