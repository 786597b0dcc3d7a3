"""How often a ceiling is printed for a loop that has not ended, and how often it holds the truth. Writes ceilings.csv.

    python experiments/statements/ceilings.py --arms 40      # no models; about an hour of one core

Truths are the curves of truths.py: those of the families that the rule knows, and others. Cells that the table already
holds are not simulated again, so a run that was ended goes on where it was; delete the table to begin anew.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from pathlib import Path

import numpy as np
from truths import curves, observed

from rlaif_lab.plateau.saturation import Curve, saturation
from rlaif_lab.seeding import rng_for

DELTA = 0.01
ROUNDS = (12, 20, 40)
SEEDS = (1, 5, 10)
NOISE = (
    ("independent", 0.0),
    ("independent", 0.01),
    ("independent", 0.02),
    ("independent", 0.03),
    ("mean-reverting", 0.01),
    ("mean-reverting", 0.02),
    ("mean-reverting", 0.03),
    ("heavy-tailed", 0.01),
    ("calming", 0.01),
    ("positive .3", 0.01),
    ("shared", 0.01),
)
KEY = ("truth", "rounds", "seeds", "swing", "spread")


def cell(name: str, last: int, seeds: int, swing: str, spread: float, *, arms: int) -> dict[str, object]:
    """One truth under one kind of noise."""
    rng = rng_for("ceilings", name, last, seeds, swing, spread)
    curve, end = curves(last)[name]
    quality = observed(rng, curve, swing, spread, arms=arms, seeds=seeds)
    rounds = np.arange(last + 1.0)
    found = [saturation({s: Curve(rounds, y) for s, y in enumerate(arm)}, DELTA) for arm in quality]
    known = [one for one in found if one.identified]
    left = end - float(curve[-1])
    holds = [one.ceiling.low <= end <= one.ceiling.high for one in known]
    return {
        "truth": name,
        "rounds": last,
        "seeds": seeds,
        "swing": swing,
        "spread": spread,
        "arms": arms,
        "left_in_truth": round(left, 4),
        "identified": len(known) / arms,
        "identified_but_not_ended": len(known) / arms if abs(left) > 0.04 else 0.0,
        "identified_and_wrong": sum(not hold for hold in holds) / arms,
        "covers_where_identified": float(np.mean(holds)) if holds else "",
        "width_where_identified": float(np.mean([k.ceiling.high - k.ceiling.low for k in known])) if known else "",
        "exhausted": sum(one.exhausted for one in found) / arms,
        "exhausted_falsely": sum(one.exhausted for one in found) / arms if abs(left) >= DELTA else 0.0,
    }


def done(table: Path) -> dict[tuple[str, ...], dict[str, object]]:
    """Return the rows of the table by their cell, in its order; none where there is no table."""
    if not table.exists():
        return {}
    with table.open(newline="") as file:
        return {tuple(row[name] for name in KEY): dict(row) for row in csv.DictReader(file)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", type=int, default=40, help="simulated arms per cell")
    arms = parser.parse_args().arms
    table = Path(__file__).parent / "ceilings.csv"
    known = done(table)
    with table.open("a", newline="") as file:
        for (swing, spread), last, seeds in itertools.product(NOISE, ROUNDS, SEEDS):
            for name in curves(last):
                key = (name, str(last), str(seeds), swing, str(spread))
                if key in known:
                    continue
                known[key] = cell(name, last, seeds, swing, spread, arms=arms)
                writer = csv.DictWriter(file, list(known[key]))
                if len(known) == 1:
                    writer.writeheader()
                writer.writerow(known[key])
                file.flush()
    rows = list(known.values())
    for column in ("identified_but_not_ended", "identified_and_wrong", "exhausted_falsely"):
        worst = sorted(rows, key=lambda row: -float(str(row[column])))[:6]
        print(column)
        for row in worst:
            print("  ", "  ".join(map(str, row.values())))


if __name__ == "__main__":
    main()
