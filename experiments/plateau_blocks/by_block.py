"""Draw each block's curve by itself: the mean of two fates is neither. Writes by_block.png from results.csv.

python experiments/plateau_blocks/by_block.py
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
ARMS = ("self", "weaker", "stronger", "medium")
UNLEARNT = {"stronger": (0, 3, 5), "weaker": (0, 5)}
"""Blocks whose judge gives the right answer (stronger), or its own (weaker), next to no probability: the lab names
these when it builds them, before any training."""


def main() -> None:
    curves: dict[tuple[str, int], dict[int, float]] = defaultdict(dict)
    with (HERE / "results.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            curves[row["arm"], int(row["seed"])][int(row["round"])] = float(row["quality/sampled"])
    figure, axes = plt.subplots(1, len(ARMS), figsize=(11, 3), sharey=True, layout="constrained")
    for axis, arm in zip(axes, ARMS, strict=True):
        for (name, block), curve in sorted(curves.items()):
            if name == arm:
                lost = block in UNLEARNT.get(arm, ())
                axis.plot(
                    list(curve), list(curve.values()), color="#d55e00" if lost else "#0072b2", ls="--" if lost else "-"
                )
        axis.set_title(arm)
        axis.set_xlabel("round")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("true quality, sampled")
    figure.savefig(HERE / "by_block.png", dpi=110)


if __name__ == "__main__":
    main()
