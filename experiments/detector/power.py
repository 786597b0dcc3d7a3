"""How often the detector declares a plateau where there is none, and how soon where there is one; beside a z-test per
round and early stopping with patience. Writes power.csv.

    python experiments/detector/power.py --runs 2000
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rlaif_lab.plateau.detector import Detector, Floats, trace
from rlaif_lab.seeding import rng_for

T, KINK, BEFORE, DELTA, ALPHA = 20, 6, 0.05, 0.02, 0.05
DETECTOR = Detector(delta=DELTA, alpha=ALPHA, horizon=T)
Rule = Callable[[list[Floats]], int | None]
"""Changes by round -> the round in which it declares a plateau."""


def changes(gain: float, n: int, k: int, shared: float, rng: np.random.Generator) -> Floats:
    """(n,) changes of prompts whose chance of a right answer rises by ``gain``. shared: the part of the k draws in
    which the older and the newer policy get the same random number, as the lab's do where the policies agree."""
    chance = np.clip(rng.beta(1.2, 0.6, size=n), 0.06, 0.94)
    before = rng.random((k, n))
    after = np.where(rng.random((k, n)) < shared, before, rng.random((k, n)))
    return ((after < chance + gain).mean(0) - (before < chance).mean(0)).astype(np.float64)


def e_detector(found: list[Floats]) -> int | None:
    return next((e.round_index for e in trace(DETECTOR, [[c] for c in found]) if "plateaued" in e.alarms), None)


def z_test(found: list[Floats]) -> int | None:
    """The first round whose gain is significantly below delta at level alpha (one-sided), each round tested anew."""
    for index, change in enumerate(found, start=1):
        if (change.mean() - DELTA) / (change.std(ddof=1) / math.sqrt(len(change))) < -1.645:
            return index
    return None


def no_gain(found: list[Floats]) -> int | None:
    """The first round whose gain is *not* significantly above 0 at level alpha: "no significant gain"."""
    for index, change in enumerate(found, start=1):
        if change.mean() / (change.std(ddof=1) / math.sqrt(len(change))) < 1.645:
            return index
    return None


def patience(found: list[Floats]) -> int | None:
    """Two rounds in a row without a gain of delta."""
    below = [bool(change.mean() < DELTA) for change in found]
    return next((i + 1 for i in range(1, len(below)) if below[i] and below[i - 1]), None)


RULES: dict[str, Rule] = {
    "e-detector": e_detector,
    "z-test": z_test,
    "no significant gain": no_gain,
    "patience 2": patience,
}


def study(n: int, k: int, shared: float, runs: int) -> list[dict[str, object]]:
    false: dict[str, list[bool]] = {name: [] for name in RULES}
    delay: dict[str, list[float]] = {name: [] for name in RULES}
    for run in range(runs):
        rng = rng_for("detector power", n, k, shared, run)
        still = [changes(DELTA, n, k, shared, rng) for _ in range(T)]
        kinked = [changes(BEFORE if t < KINK else 0.0, n, k, shared, rng) for t in range(T)]
        for name, rule in RULES.items():
            false[name].append(rule(still) is not None)
            at = rule(kinked)
            delay[name].append(math.inf if at is None else at - KINK)
    return [
        {
            "prompts": n,
            "samples": k,
            "shared_draws": shared,
            "rule": name,
            "runs": runs,
            "false_plateaus_at_gain_delta": float(np.mean(false[name])),
            "declared_before_the_kink": float(np.mean([d <= 0 for d in delay[name]])),
            "median_delay_rounds": float(np.median([d for d in delay[name] if d > 0] or [math.nan])),
            "within_3_rounds": float(np.mean([0 < d <= 3 for d in delay[name]])),
        }
        for name in RULES
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    runs = parser.parse_args().runs
    rows = [
        row
        for n, k, shared in ((1000, 4, 0.0), (1000, 8, 0.0), (1000, 4, 0.5), (512, 4, 0.5), (512, 4, 0.0))
        for row in study(n, k, shared, runs)
    ]
    with (Path(__file__).parent / "power.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    for row in rows:
        print("  ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row.values()))


if __name__ == "__main__":
    main()
