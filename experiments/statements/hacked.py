"""Which of the committed runs are called hacked, each by itself. Writes hacked.csv, a row for each arm. No models.

python experiments/statements/hacked.py
"""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path

from rlaif_lab.plateau.hacked import hacked

METRICS = ("quality/sampled", "judge/win_rate_vs_round_0")
STUDIES = Path(__file__).parent.parent


def changes(results: Path) -> dict[tuple[str, str], tuple[float, float]]:
    """Return, by arm and seed, how quality and the judge's win rate have changed from round 0 to the last round."""
    rows: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    with results.open(newline="") as file:
        for row in csv.DictReader(file):
            rows[row["arm"], row["seed"]].append(row)
    found = {}
    for run, its in rows.items():
        its.sort(key=lambda row: int(row["round"]))
        first, last = ([float(row.get(metric) or math.nan) for metric in METRICS] for row in (its[0], its[-1]))
        found[run] = (last[0] - first[0], last[1] - first[1])
    return found


def main() -> None:
    counted: list[dict[str, object]] = []
    seen = set()
    for results in sorted(STUDIES.glob("*/results*.csv"), key=lambda path: (path.name, path)):
        arms: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for (arm, seed), change in changes(results).items():
            # Some runs are shown in two studies.
            if (arm, seed, change) not in seen:
                arms[arm].append(change)
            seen.add((arm, seed, change))
        for arm, its in arms.items():
            said = [change for change in its if hacked({0: change}) is not None]
            whole = hacked(dict(enumerate(its))) is not None
            fell = min((change[0] for change in said), default="")
            counted.append(
                {"study": results.parent.name, "arm": arm, "runs": len(its), "hacked": len(said), "arm_hacked": whole}
                | {"largest_fall": fell}
            )
    with (Path(__file__).parent / "hacked.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(counted[0]))
        writer.writeheader()
        writer.writerows(counted)
    for row in counted:
        if row["hacked"]:
            print("  ".join(map(str, row.values())))
    print(f"{sum(int(str(r['hacked'])) for r in counted)} of {sum(int(str(r['runs'])) for r in counted)} runs")


if __name__ == "__main__":
    main()
