"""How often the trend verdict is wrong, and how soon it is right. Writes trend_false.csv and trend_power.csv.

    python experiments/statements/trend.py --arms 2000      # no models; about ten minutes

False: in every round the arm gains exactly delta (a plateau or an improvement would be wrong), 1.5 delta (a plateau
would be), or nothing (a fall or an improvement would be); an alarm in any of 40 rounds counts, so this bounds every
stopping time. Power: 0.04 a round for twelve rounds, then nothing.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from truths import START, changed, observed

from rlaif_lab.plateau.detector import Detector, State
from rlaif_lab.plateau.trend import gains, raised
from rlaif_lab.seeding import rng_for

ROUNDS, DELTA, STOP = 40, 0.01, 12
SETTINGS = Detector(delta=DELTA, alpha=0.05, horizon=ROUNDS)
SEEDS = (1, 3, 5, 10)
CELLS = (
    [("independent", spread) for spread in (0.0, 0.01, 0.02, 0.03)]
    + [("mean-reverting", spread) for spread in (0.01, 0.0135, 0.02, 0.03)]
    + [(swing, 0.02) for swing in ("heavy-tailed", "large falls", "large jumps", "calming", "growing")]
    + [("positive .3", 0.02), ("positive .5", 0.02), ("shared", 0.01)]
)
SPEEDS = (0.5, 1.5)
"""Range of the seeds' gains, in multiples of their mean, where seeds differ."""


@dataclass(frozen=True)
class Cell:
    """One kind of noise. not_logged: share of rounds. levels: gains are differences of the quality of rounds, each from
    ``levels`` answers, in place of changes on shared prompts. seeds_differ: in speed."""

    swing: str
    spread: float
    not_logged: float = 0.0
    levels: int = 0
    seeds_differ: bool = False


OTHER = (
    Cell("independent", 0.02, not_logged=0.15),
    Cell("mean-reverting", 0.0135, not_logged=0.3),
    Cell("independent", 0.0, levels=1900),
    Cell("mean-reverting", 0.0135, levels=1900),
    Cell("independent", 0.02, levels=1900, not_logged=0.15),
    Cell("independent", 0.0, levels=64),
    Cell("mean-reverting", 0.0135, seeds_differ=True),
)


def cells() -> list[Cell]:
    return [*(Cell(swing, spread) for swing, spread in CELLS), *OTHER]


def measured(cell: Cell, gain: np.ndarray, seeds: int, arms: int, rng: np.random.Generator) -> np.ndarray:
    """Gains as a report gets them, (arms, seeds, R)."""
    given = gain
    if cell.seeds_differ and seeds > 1:
        factor = rng.uniform(*SPEEDS, (arms, seeds, 1))
        given = gain * factor / factor.mean(1, keepdims=True)
    if not cell.levels:
        return changed(rng, given, cell.swing, cell.spread, arms=arms, seeds=seeds, missing=cell.not_logged)
    zero = np.zeros((*given.shape[:-1], 1))
    curve = START + np.concatenate([zero, np.cumsum(given, -1)], -1)
    return gains(
        observed(
            rng,
            curve,
            cell.swing,
            cell.spread,
            arms=arms,
            seeds=seeds,
            samples=cell.levels,
            missing=cell.not_logged,
        )
    )


def false_alarms(arms: int) -> list[dict[str, object]]:
    wrong: tuple[tuple[str, float, tuple[State, ...]], ...] = (
        ("delta", DELTA, ("plateaued", "improving")),
        ("1.5 delta", 1.5 * DELTA, ("plateaued",)),
        ("0", 0.0, ("degrading", "improving")),
    )
    rows = []
    for seeds in SEEDS:
        for cell in cells():
            for name, gain, states in wrong:
                rng = rng_for("trend", seeds, str(cell), name)
                found = measured(cell, np.full(ROUNDS, gain), seeds, arms, rng)
                for state in states:
                    rate = float(raised(found, SETTINGS, state).any(-1).mean())
                    share = SETTINGS.alpha * (
                        SETTINGS.plateau_share if state == "plateaued" else (1 - SETTINGS.plateau_share) / 2
                    )
                    rows.append(
                        {
                            "seeds": seeds,
                            **asdict(cell),
                            "gain": name,
                            "wrong_verdict": state,
                            "arms": arms,
                            "false_alarms": rate,
                            "allowed": round(share, 4),
                        }
                    )
    return rows


def power(arms: int) -> list[dict[str, object]]:
    rows = []
    gain = np.where(np.arange(ROUNDS) < STOP, 0.04, 0.0)
    for seeds in SEEDS:
        for cell in cells():
            rng = rng_for("trend power", seeds, str(cell))
            found = measured(cell, gain, seeds, arms, rng)
            alarms = raised(found, SETTINGS, "plateaued")
            called = np.where(alarms.any(-1), alarms.argmax(-1) + 1.0, np.inf)
            rising = raised(found, SETTINGS, "improving")[:, :STOP].any(-1)
            rows.append(
                {
                    "seeds": seeds,
                    **asdict(cell),
                    "arms": arms,
                    "called_before_it_stopped": float((called <= STOP).mean()),
                    "called_by_round_40": float(np.isfinite(called).mean()),
                    "median_rounds_after_the_stop": _quantile(called, 0.5) - STOP,
                    "nine_in_ten_rounds_after_the_stop": _quantile(called, 0.9) - STOP,
                    "improving_shown_while_it_was": float(rising.mean()),
                }
            )
    return rows


def _quantile(values: np.ndarray, share: float) -> float:
    return float(np.quantile(values, share, method="higher"))


def write(name: str, rows: list[dict[str, object]]) -> None:
    with (Path(__file__).parent / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", type=int, default=2000, help="simulated arms per cell")
    arms = parser.parse_args().arms
    rows = false_alarms(arms)
    write("trend_false.csv", rows)
    for row in sorted(rows, key=lambda row: -float(str(row["false_alarms"])) / float(str(row["allowed"])))[:12]:
        print("  ".join(map(str, row.values())))
    rows = power(arms)
    write("trend_power.csv", rows)
    for row in rows:
        print("  ".join(map(str, row.values())))


if __name__ == "__main__":
    main()
