"""Gold's head-to-head win rate between the final policies of two arms, on the same held-out prompts of the same seed.

python experiments/rlaif_vs_rlhf/head_to_head.py SWEEP ai_strong human ai_medium human mix_50_self human
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from rlaif_lab.config import build
from rlaif_lab.metrics.quality import gold_qualities
from rlaif_lab.report.load import Run, load
from rlaif_lab.statistics.intervals import t_interval
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.store.tables import EVALUATED


def win_rate(first: Run, second: Run) -> float:
    """P(a sample of the first is better) + half of P(equally good), over prompts and all pairs of samples."""
    task = build(OmegaConf.create(first.config["task"]), "task")
    assert first.path is not None and second.path is not None
    ends = [RoundStore(run.path).read_stage(run.last_round, EVALUATED) for run in (first, second) if run.path]
    assert [g.prompt for g in ends[0]] == [g.prompt for g in ends[1]], "not the same prompts"
    one, other = (gold_qualities(task, generations) for generations in ends)
    return float(np.mean(0.5 + 0.5 * np.sign(one[:, :, None] - other[:, None, :])))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("arms", nargs="+", help="FIRST SECOND FIRST SECOND ...")
    options = parser.parse_args()
    runs = {(run.arm, run.seed): run for run in load(options.sweep).runs}
    rows = []
    for first, second in zip(options.arms[::2], options.arms[1::2], strict=True):
        seeds = sorted(seed for arm, seed in runs if arm == first and (second, seed) in runs)
        rates = [win_rate(runs[first, seed], runs[second, seed]) for seed in seeds]
        mean, low, high = t_interval(rates)
        rows.append({"first": first, "second": second, "seeds": len(seeds), "win_rate": mean, "low": low, "high": high})
    with (Path(__file__).parent / "head_to_head.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
