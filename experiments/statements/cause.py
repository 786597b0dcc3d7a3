"""How often the cause that is named is the right one, in simulated loops whose cause is known. Writes cause.csv.

    python experiments/statements/cause.py --arms 40      # no models; some minutes

A loop is a population of problems, each with a log-odds of being answered right. A round samples problems and answers,
asks the judge about every pair that differs, and moves the log-odds as the policy gradient does, p (1 - p) times the
judge's excess over one half, partly for the problem itself and partly for its class; training swings on top. Problems
are slips (the policy is right most of the time) or misconceptions (it is mostly wrong in one and the same way), and
judges differ in how often they are right about either.
"""

from __future__ import annotations

import argparse
import csv
import itertools
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rlaif_lab.plateau.cause import Left, of_seed, remains, what_is_left
from rlaif_lab.plateau.detector import Detector
from rlaif_lab.plateau.trend import trend
from rlaif_lab.seeding import rng_for

Floats = npt.NDArray[np.float64]
PROBLEMS, PROMPTS, SAMPLES, DELTA = 300, 80, 4, 0.01
SEEDS = (5,)
PAIRS = list(itertools.combinations(range(SAMPLES), 2))


@dataclass(frozen=True)
class Loop:
    """cause: what is right to name; several where more than one is. slip, misconception: how often the judge is right
    about a pair of either. rate: of learning. share: of misconceptions. sharpening: how much each round moves every
    problem further to the side where it is. unknown: share of problems that are hardly ever answered right at first.
    rounds: how many. fitted: whether the rule was made with this loop in view."""

    cause: tuple[str, ...]
    slip: float
    misconception: float
    rate: float
    share: float = 0.4
    sharpening: float = 0.0
    unknown: float = 0.0
    rounds: int = 40
    fitted: bool = True


LOOPS = {
    "own misconception": Loop(("misled",), 0.95, 0.1, 1.2),
    "coverage lost": Loop(("coverage",), 0.95, 0.95, 1.0, sharpening=0.25, unknown=0.35),
    "dead learning rate": Loop(("not taken up",), 0.95, 0.9, 0.0),
    "coin judge": Loop(("judge cannot tell",), 0.5, 0.5, 1.2),
    "reversed": Loop(("misled",), 0.0, 0.0, 1.2),
    "converged oracle": Loop(("solved",), 1.0, 1.0, 3.0),
    "half way": Loop(("still going", "undecided"), 0.9, 0.8, 0.8, rounds=10),
    "weak judge": Loop(("misled",), 0.775, 0.29, 1.2, fitted=False),
    "mild misconception": Loop(("misled",), 0.9, 0.3, 1.2, share=0.25, fitted=False),
    "sharpened early": Loop(("coverage",), 0.9, 0.9, 0.8, sharpening=0.4, unknown=0.5, fitted=False),
    "tiny learning rate": Loop(("not taken up",), 0.9, 0.8, 0.01, fitted=False),
    "coin on all, sharpening": Loop(
        ("judge cannot tell", "coverage", "unclear"), 0.5, 0.5, 0.5, sharpening=0.1, fitted=False
    ),
    "oracle, slow": Loop(("still going", "undecided"), 1.0, 1.0, 0.3, rounds=12, fitted=False),
    "strong judge, done": Loop(("solved",), 0.98, 0.95, 3.0, fitted=False),
}


def play(loop: Loop, rng: np.random.Generator, spread: float) -> tuple[Floats, list[list[Left]]]:
    """True quality of rounds 0 .. T, and what each round's samples leave."""
    wrong = rng.random(PROBLEMS) < loop.share
    odds = np.where(wrong, rng.normal(-1.0, 0.8, PROBLEMS), rng.normal(1.0, 0.8, PROBLEMS))
    odds[rng.random(PROBLEMS) < loop.unknown] = -4.0
    right = np.where(wrong, loop.misconception, loop.slip)
    quality, rounds = [], []
    for _ in range(loop.rounds):
        chance = 1.0 / (1.0 + np.exp(-odds))
        quality.append(float(chance.mean()))
        asked = rng.choice(PROBLEMS, PROMPTS, replace=False)
        answers = (rng.random((PROMPTS, SAMPLES)) < chance[asked, None]).astype(float).tolist()
        agrees = (rng.random((PROMPTS, len(PAIRS))) < right[asked, None]).tolist()
        coins = (rng.random((PROMPTS, len(PAIRS))) < 0.5).tolist()
        prompts = []
        for q, told, coin in zip(answers, agrees, coins, strict=True):
            verdicts = [
                (one, other, 0.9 if (q[one] > q[other] if q[one] != q[other] else heads) == right_one else 0.1)
                for (one, other), right_one, heads in zip(PAIRS, told, coin, strict=True)
            ]
            prompts.append(what_is_left(q, verdicts))
        rounds.append(prompts)
        push = chance * (1.0 - chance) * (2.0 * right - 1.0)
        together = np.where(wrong, push[wrong].mean() if wrong.any() else 0.0, push[~wrong].mean())
        odds = odds + loop.rate * (0.5 * push + 0.5 * together) + loop.sharpening * np.sign(odds)
        # A swing moves the whole population; its size in quality is that of the spread.
        odds = odds + spread * rng.standard_normal() / max(0.02, float((chance * (1 - chance)).mean()))
        odds = np.clip(odds, -7.0, 7.0)
    quality.append(float((1.0 / (1.0 + np.exp(-odds))).mean()))
    return np.array(quality), rounds


def named(loop: Loop, seeds: int, spread: float, rng: np.random.Generator) -> str:
    """The cause that an arm of such loops is given."""
    played = [play(loop, rng, spread) for _ in range(seeds)]
    gains = np.stack([np.diff(quality) for quality, _ in played])
    measured = gains + 0.006 * rng.standard_normal(gains.shape)
    state = trend(measured, Detector(delta=DELTA, horizon=40)).state
    recent = max(2, -(-loop.rounds // 4))
    left = {
        seed: found
        for seed, (_, rounds) in enumerate(played)
        if (found := of_seed(rounds, recent, float(measured[seed, -recent:].mean())))
    }
    found = remains(left, state, DELTA)
    assert found is not None
    return found.cause


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", type=int, default=40, help="simulated arms per cell")
    arms = parser.parse_args().arms
    rows = []
    for name, loop in LOOPS.items():
        for seeds in SEEDS:
            for spread in (0.0, 0.01):
                rng = rng_for("cause", name, seeds, spread)
                said = Counter(named(loop, seeds, spread, rng) for _ in range(arms))
                rows.append(
                    {"loop": name, "seeds": seeds, "spread": spread, "arms": arms}
                    | {"right": sum(said[cause] for cause in loop.cause) / arms}
                    | {"named": " ".join(f"{cause}:{count}" for cause, count in said.most_common())}
                    | {key: value for key, value in asdict(loop).items() if key != "cause"}
                    | {"cause": " or ".join(loop.cause)}
                )
                print("  ".join(map(str, list(rows[-1].values())[:6])), flush=True)
    with (Path(__file__).parent / "cause.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
