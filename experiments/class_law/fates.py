"""How right a judge is on each class of the frozen bank before training, and where its loop ends: fates.csv, fates.png.

python experiments/class_law/fates.py
"""

from __future__ import annotations

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
SLIP, MISCONCEPTION = "audit/accuracy_frozen_slip", "audit/accuracy_frozen_misconception"
SHOWN = {
    SLIP: "right_on_slips",
    MISCONCEPTION: "right_on_misconception",
    "audit/accuracy_on_policy": "right_in_round_0",
}


def fates(results: Path) -> list[dict[str, object]]:
    """Return one row for each run: what its judge knew in round 0, and the quality after the last round."""
    with results.open(newline="") as file:
        rows = {(row["arm"], int(row["seed"]), int(row["round"])): row for row in csv.DictReader(file)}
    last = max(index for _, _, index in rows)
    found = []
    for (arm, block, index), row in rows.items():
        if index == 0:
            end = rows[arm, block, last]
            known = {name: float(row[metric]) for metric, name in SHOWN.items()}
            ends = {"sampled_at_end": float(end["quality/sampled"]), "greedy_at_end": float(end["quality/greedy"])}
            found.append({"arm": arm, "block": block} | known | {"sampled": float(row["quality/sampled"])} | ends)
    return found


def main() -> None:
    constructed, organisms = (fates(HERE / name) for name in ("results.csv", "results_organisms.csv"))
    with (HERE / "fates.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["half", *constructed[0]])
        writer.writeheader()
        writer.writerows({"half": "constructed"} | row for row in constructed)
        writer.writerows({"half": "organisms"} | row for row in organisms)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    for axis, title, rows in zip(
        axes, ("constructed judges", "organisms as judges"), (constructed, organisms), strict=True
    ):
        for slips_right, colour, label in (
            (True, "#0072b2", "right on 0.95 of slips or more"),
            (False, "#d55e00", "on fewer"),
        ):
            some = [row for row in rows if (float(str(row["right_on_slips"])) >= 0.95) == slips_right]
            if some:
                points = [
                    [float(str(row[name])) for row in some] for name in ("right_on_misconception", "greedy_at_end")
                ]
                axis.scatter(*points, color=colour, alpha=0.7, label=label)
        axis.set(title=title, xlabel="right on the bank's misconception pairs, round 0")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("greedy quality after 40 rounds")
    axes[1].legend(loc="center right", fontsize="small")
    figure.savefig(HERE / "fates.png", dpi=110)


if __name__ == "__main__":
    main()
