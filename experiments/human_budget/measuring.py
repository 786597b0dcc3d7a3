"""How far from gold is the win rate against round 0: the judge's own, that of a few human labels, and both together
(prediction-powered inference)? Over all rounds and seeds of the arm that uses people to measure.

    python experiments/human_budget/measuring.py SWEEP
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np

from rlaif_lab.report.load import load
from rlaif_lab.statistics.intervals import t_interval

TRUTH = "quality/win_rate_vs_round_0"
MEASURES = {
    "judge": "judge/win_rate_vs_round_0",
    "human labels": "human/win_rate_vs_round_0",
    "both (PPI)": "ppi/win_rate_vs_round_0",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--arm", default="evaluate_05")
    options = parser.parse_args()
    runs = [run for run in load(options.sweep).runs if run.arm == options.arm]
    rows = []
    for name, metric in MEASURES.items():
        rounds = range(1, runs[0].last_round + 1)
        errors = np.array([[run.value(metric, i) - run.value(TRUTH, i) for i in rounds] for run in runs])
        bias, square = t_interval(np.nanmean(errors, 1).tolist()), float(np.sqrt(np.nanmean(errors**2)))
        row: dict[str, object] = {"measured_by": name, "bias": bias.mean, "bias_low": bias.low, "bias_high": bias.high}
        rows.append(row | {"root_mean_square_error": square, "seeds": len(runs), "rounds": len(rounds)})
    held = [
        run.value("ppi/win_rate_vs_round_0_low", i)
        <= run.value(TRUTH, i)
        <= run.value("ppi/win_rate_vs_round_0_high", i)
        for run in runs
        for i in range(1, run.last_round + 1)
    ]
    rows[-1]["share_of_intervals_that_hold_gold"] = float(np.mean(held))
    with (Path(__file__).parent / "measuring.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
