"""Puts what a sweep's report holds into the folder of its experiment: results.csv (every metric of every run and round,
six digits), the report's tables, and its figures.

    rlaif-report multirun/NAME/...
    python experiments/collect.py multirun/NAME/... NAME
"""

from __future__ import annotations

import argparse
import csv
import shutil
from pathlib import Path

TABLES = ("table.csv", "verdicts.csv", "attribution.csv", "differences.csv")
FIGURES = ("overview.png", "gap.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="folder of the sweep, with its report/ in it")
    parser.add_argument("name", help="of the experiment")
    parser.add_argument("--figures", nargs="*", default=FIGURES, help="files of the report to keep as well")
    options = parser.parse_args()
    report, folder = options.sweep / "report", Path(__file__).parent / options.name
    folder.mkdir(exist_ok=True)
    for name in (*TABLES, *options.figures):
        shutil.copyfile(report / name, folder / name)
    with (report / "curves.csv").open(newline="") as source, (folder / "results.csv").open("w", newline="") as target:
        rows = list(csv.DictReader(source))
        kept = [column for column in rows[0] if any(row[column] for row in rows)]
        writer = csv.DictWriter(target, kept)
        writer.writeheader()
        writer.writerows({column: short(row[column]) for column in kept} for row in rows)


def short(value: str) -> str:
    """Six significant digits of a number; anything else as it is."""
    try:
        return value if value.isdigit() else f"{float(value):.6g}"
    except ValueError:
        return value


if __name__ == "__main__":
    main()
