"""How often the cause that is named is the right one, in simulated loops whose cause is known. Writes cause.csv.

    python experiments/statements/cause.py --arms 40      # no models; some minutes

A loop is a population of problems, each with a log-odds of being answered right. A round samples problems and answers,
asks the judge about every pair that differs, and moves the log-odds as the policy gradient does, p (1 - p) times the
judge's excess over one half, partly for the problem itself and partly for its class; training swings on top. Problems
are slips (the policy is right most of the time) or misconceptions (it is mostly wrong in one and the same way), and
judges differ in how often they are right about either. A judge may also have a weakness: an answer that is never right
and that it prefers to most others, which the policy finds by and by.

As in the report, a few of the rounds are looked at. Cells that the table already holds are not simulated again.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rlaif_lab.plateau.cause import Left, of_seed, remains, what_is_left
from rlaif_lab.plateau.detector import Detector
from rlaif_lab.plateau.hacked import hacked
from rlaif_lab.plateau.trend import trend
from rlaif_lab.plateau.verdict import recent
from rlaif_lab.report.remains import MOST_BEFORE, MOST_LAST
from rlaif_lab.report.samples import spread as evenly
from rlaif_lab.seeding import rng_for

Floats = npt.NDArray[np.float64]
PROBLEMS, PROMPTS, SAMPLES, DELTA = 300, 80, 4, 0.01
SEEDS, SPREADS = (5,), (0.0, 0.01)
PAIRS = list(itertools.combinations(range(SAMPLES), 2))
CONFUSED = 0.9
"""Share of the wrong answers to a misconception's problem that are the misconception's."""
KEY = ("loop", "seeds", "spread")


@dataclass(frozen=True)
class Loop:
    """cause: what is right to name; several where more than one is. slip, misconception: how often the judge is right
    about a pair of either. rate: of learning. share: of misconceptions. sharpening: how much each round moves every
    problem further to the side where it is. unknown: share of problems that are hardly ever answered right at first.
    weakness: how often the judge prefers the answer that is never right; 0 for a judge without one. rounds: how many.
    fitted: whether the rule was made with this loop in view."""

    cause: tuple[str, ...]
    slip: float
    misconception: float
    rate: float
    share: float = 0.4
    sharpening: float = 0.0
    unknown: float = 0.0
    weakness: float = 0.0
    rounds: int = 40
    fitted: bool = True


LOOPS = {
    "own misconception": Loop(("misled",), 0.95, 0.1, 1.2),
    "taught misconception": Loop(("misled",), 0.95, 0.1, 3.0),
    "coverage lost": Loop(("coverage",), 0.95, 0.95, 1.0, sharpening=0.25, unknown=0.35),
    "dead learning rate": Loop(("not taken up",), 0.95, 0.9, 0.0),
    "coin judge": Loop(("judge cannot tell",), 0.5, 0.5, 1.2),
    "reversed": Loop(("misled",), 0.0, 0.0, 1.2),
    "converged oracle": Loop(("solved",), 1.0, 1.0, 3.0),
    "half way": Loop(("still going", "undecided"), 0.9, 0.8, 0.8, rounds=10),
    "hacked": Loop(("misled",), 0.775, 0.7, 1.2, weakness=0.9),
    "weak judge": Loop(("misled",), 0.775, 0.29, 1.2, fitted=False),
    "mild misconception": Loop(("misled",), 0.9, 0.3, 1.2, share=0.25, fitted=False),
    "mild misconception, taught": Loop(("misled",), 0.9, 0.35, 4.0, share=0.25, fitted=False),
    "sharpened early": Loop(("coverage",), 0.9, 0.9, 0.8, sharpening=0.4, unknown=0.5, fitted=False),
    "coverage lost beside a small misconception": Loop(
        ("coverage",), 0.95, 0.1, 1.0, share=0.08, sharpening=0.25, unknown=0.4, fitted=False
    ),
    "tiny learning rate": Loop(("not taken up",), 0.9, 0.8, 0.01, fitted=False),
    "coin on all, sharpening": Loop(
        ("judge cannot tell", "coverage", "unclear"), 0.5, 0.5, 0.5, sharpening=0.1, fitted=False
    ),
    "oracle, slow": Loop(("still going", "undecided"), 1.0, 1.0, 0.3, rounds=12, fitted=False),
    "strong judge, done": Loop(("solved",), 0.98, 0.95, 3.0, fitted=False),
    "hacked, slowly": Loop(("misled",), 0.9, 0.8, 0.5, weakness=0.8, fitted=False),
}


@dataclass(frozen=True)
class Played:
    """quality: true, of rounds 0 .. T. won: win rate of the last round's policy over the first's, by the judge. looked:
    what the samples leave in the rounds that are looked at. last: how many of these are the last."""

    quality: Floats
    won: float
    looked: list[list[Left]]
    last: int


def play(loop: Loop, rng: np.random.Generator, spread: float) -> Played:
    """Play one seed of a loop."""
    wrong = rng.random(PROBLEMS) < loop.share
    odds = np.where(wrong, rng.normal(-1.0, 0.8, PROBLEMS), rng.normal(1.0, 0.8, PROBLEMS))
    unknown = rng.random(PROBLEMS) < loop.unknown
    odds[unknown] = -4.0
    weak = np.full(PROBLEMS, -3.0 if loop.weakness else -math.inf)
    right = np.where(wrong, loop.misconception, loop.slip)
    confused = np.where(wrong & ~unknown, CONFUSED, 0.0)
    count = min(recent(loop.rounds), loop.rounds)
    last = evenly(range(loop.rounds - count, loop.rounds), MOST_LAST)
    looked = {*evenly(range(loop.rounds - count), MOST_BEFORE), *last}
    quality, rounds, begun = [], [], (odds.copy(), weak.copy())
    for index in range(loop.rounds):
        chance, found = _chances(odds, weak)
        quality.append(float(chance.mean()))
        if index in looked:
            asked = rng.choice(PROBLEMS, PROMPTS, replace=False)
            rounds.append(_judged(loop, chance[asked], found[asked], right[asked], confused=confused[asked], rng=rng))
        push = chance * (1.0 - chance) * (2.0 * right - 1.0)
        together = np.where(wrong, push[wrong].mean() if wrong.any() else 0.0, push[~wrong].mean())
        odds = odds + loop.rate * (0.5 * push + 0.5 * together) + loop.sharpening * np.sign(odds)
        weak = weak + loop.rate * (found * (1.0 - found)).mean() * (2.0 * loop.weakness - 1.0) * 4.0
        # A swing moves the whole population; its size in quality is that of the spread.
        odds = odds + spread * rng.standard_normal() / max(0.02, float((chance * (1 - chance)).mean()))
        odds = np.clip(odds, -7.0, 7.0)
    chance, found = _chances(odds, weak)
    quality.append(float(chance.mean()))
    before, before_found = _chances(*begun)
    return Played(np.array(quality), _won(loop, (before, before_found), (chance, found), right), rounds, len(last))


def _chances(odds: Floats, weak: Floats) -> tuple[Floats, Floats]:
    """Return the chance of a right answer, and of the one that the judge is weak for."""
    found = 1.0 / (1.0 + np.exp(-weak))
    return (1.0 - found) / (1.0 + np.exp(-odds)), found


def _won(loop: Loop, one: tuple[Floats, Floats], two: tuple[Floats, Floats], right: Floats) -> float:
    """Return how often the judge prefers an answer of the second policy to one of the first."""
    (first, first_weak), (second, second_weak) = one, two
    plain, other = 1.0 - first - first_weak, 1.0 - second - second_weak
    won = 0.5 * (first * second + plain * other + first_weak * second_weak)
    won = won + right * second * plain + (1.0 - right) * other * first
    won = (
        won + loop.weakness * second_weak * (1.0 - first_weak) + (1.0 - loop.weakness) * first_weak * (1 - second_weak)
    )
    return float(won.mean())


def _judged(
    loop: Loop, chance: Floats, found: Floats, right: Floats, *, confused: Floats, rng: np.random.Generator
) -> list[Left]:
    """Return what the samples of a round's prompts leave, as the judge sees them."""
    drawn, error = rng.random((PROMPTS, SAMPLES)), rng.random((PROMPTS, SAMPLES))
    answers = (drawn < chance[:, None]).astype(float).tolist()
    weaknesses = (drawn > 1.0 - found[:, None]).tolist()
    kinds = (error < confused[:, None]).tolist()
    agrees = (rng.random((PROMPTS, len(PAIRS))) < right[:, None]).tolist()
    prefers = (rng.random((PROMPTS, len(PAIRS))) < loop.weakness).tolist()
    coins = (rng.random((PROMPTS, len(PAIRS))) < 0.5).tolist()
    prompts = []
    for q, weak, kind, told, preferred, coin in zip(answers, weaknesses, kinds, agrees, prefers, coins, strict=True):
        verdicts: list[tuple[int, int, float | None]] = []
        for place, (one, other) in enumerate(PAIRS):
            if weak[one] != weak[other]:
                first = weak[one] == preferred[place]
            else:
                first = (q[one] > q[other] if q[one] != q[other] else coin[place]) == told[place]
            verdicts.append((one, other, 0.9 if first else 0.1))
        misconceived = [
            float(right == 0.0 and not other and same) for right, other, same in zip(q, weak, kind, strict=True)
        ]
        prompts.append(what_is_left(q, verdicts, misconceived))
    return prompts


def named(loop: Loop, seeds: int, spread: float, rng: np.random.Generator) -> str:
    """Return the cause that an arm of such loops is given."""
    played = [play(loop, rng, spread) for _ in range(seeds)]
    gains = np.stack([np.diff(one.quality) for one in played])
    measured = gains + 0.006 * rng.standard_normal(gains.shape)
    state = trend(measured, Detector(delta=DELTA, horizon=40)).state
    window = recent(loop.rounds)
    left = {
        seed: found
        for seed, one in enumerate(played)
        if (found := of_seed(one.looked, one.last, float(measured[seed, -window:].mean())))
    }
    noise = 0.01 * rng.standard_normal((seeds, 2))
    moved = {
        seed: (float(one.quality[-1] - one.quality[0] + noise[seed, 0]), one.won - 0.5 + float(noise[seed, 1]))
        for seed, one in enumerate(played)
    }
    given = remains(left, state, DELTA, hacked=hacked(moved) is not None)
    assert given is not None
    return given.cause


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", type=int, default=40, help="simulated arms per cell")
    arms = parser.parse_args().arms
    table = Path(__file__).parent / "cause.csv"
    known: set[tuple[str, ...]] = set()
    if table.exists():
        with table.open(newline="") as file:
            known = {tuple(row[name] for name in KEY) for row in csv.DictReader(file)}
    with table.open("a", newline="") as file:
        for (name, loop), seeds, spread in itertools.product(LOOPS.items(), SEEDS, SPREADS):
            if (name, str(seeds), str(spread)) in known:
                continue
            rng = rng_for("cause", name, seeds, spread)
            said = Counter(named(loop, seeds, spread, rng) for _ in range(arms))
            row: dict[str, object] = {"loop": name, "seeds": seeds, "spread": spread, "arms": arms}
            row |= {"right": sum(said[cause] for cause in loop.cause) / arms}
            row |= {"named": " ".join(f"{cause}:{count}" for cause, count in said.most_common())}
            row |= {key: value for key, value in asdict(loop).items() if key != "cause"}
            row |= {"cause": " or ".join(loop.cause)}
            writer = csv.DictWriter(file, list(row))
            if not known and file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            print("  ".join(map(str, list(row.values())[:6])), flush=True)


if __name__ == "__main__":
    main()
