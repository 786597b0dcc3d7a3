"""Draws an experiment's figures from its committed results.csv, with what the report of today would say of them.

    python experiments/redraw.py plateau_self_vs_stronger

What needs more than the table, such as a verdict from each prompt's change in quality, is left out.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from pathlib import Path

from rlaif_lab.report.arms import study
from rlaif_lab.report.figures import save
from rlaif_lab.report.load import Run, Runs
from rlaif_lab.report.sections.view import figure_of
from rlaif_lab.report.viewing import viewed

KEYS = ("arm", "seed", "round", "run", "complete")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the experiment")
    parser.add_argument("--figures", nargs="*", default=("overview", "gap"), help="of the report")
    options = parser.parse_args()
    folder = Path(__file__).parent / options.name
    view = viewed(study(runs_of(folder / "results.csv"), options.name))
    for figure in options.figures:
        save(figure_of(view, figure), folder / f"{figure}.png")


def runs_of(table: Path) -> Runs:
    """Return the rows of a results.csv as the runs that they were."""
    found: dict[tuple[str, int, str], dict[int, dict[str, float]]] = defaultdict(dict)
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            values = {name: float(value) for name, value in row.items() if name not in KEYS and value}
            found[row["arm"], int(row["seed"]), row["run"]][int(row["round"])] = values
    last = max(index for rows in found.values() for index in rows)
    runs = [
        Run(run, arm, seed, rounds=last, config={"arm": arm, "seed": seed, "rounds": last}, rows=rows)
        for (arm, seed, run), rows in sorted(found.items())
    ]
    return Runs(runs, [], [])


if __name__ == "__main__":
    main()
