"""A default round of now against one of an earlier commit, in turns on the same machine.

    git worktree add --detach ../old 8bfe2f5
    python experiments/speed/against_old.py --old ../old [--repeats 3] [--rounds 6] [--csv FILE]

Addition, self judge, RLOO, 1024 prompts x 4 samples, 512 x 4 evaluated, one thread, no W&B. Each repetition runs both
once, the order changing; what starting up costs is left out, since a run of one round is taken from one of many. Times
are of the processor (user and system), so that other work on the machine counts little; wall times are told beside.
The organisms of the two commits are not the same weights, but of the same size, and so are their answers.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
OVERRIDES = ("judge=self", "export=false")


@dataclass(frozen=True)
class Took:
    """Seconds of one run, and of its stages, by their metric's name, over all rounds."""

    cpu: float
    wall: float
    stages: dict[str, float]


def run(code: Path, rounds: int) -> Took:
    """Run a commit's lab for so many rounds, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "rlaif_lab", *OVERRIDES, f"rounds={rounds}", f"hydra.run.dir={folder}/run"]
        own = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, env=own, cwd=code, check=True, stdout=subprocess.DEVNULL)
        wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        rows = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    names = {name for row in rows for name in row if name.startswith("time/")}
    return Took(cpu, wall, {name: sum(row.get(name) or 0.0 for row in rows) for name in names})


def per_round(code: Path, rounds: int) -> Took:
    """Return what a round costs beyond the first."""
    many, one = run(code, rounds), run(code, 1)
    stages = {name: (many.stages[name] - one.stages.get(name, 0.0)) / (rounds - 1) for name in many.stages}
    return Took((many.cpu - one.cpu) / (rounds - 1), (many.wall - one.wall) / (rounds - 1), stages)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--old", type=Path, required=True, help="a folder that holds the earlier commit")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--csv", type=Path)
    arguments = parser.parse_args()
    sides = {"old": arguments.old.resolve(), "new": ROOT}
    for code in sides.values():
        run(code, 1)  # organisms are built, files are read
    found: dict[str, list[Took]] = {name: [] for name in sides}
    for repeat in range(arguments.repeats):
        for name in sorted(sides, reverse=bool(repeat % 2)):
            found[name].append(per_round(sides[name], arguments.rounds))
            print(f"{name}: {found[name][-1].cpu:.2f} s of the processor a round", flush=True)
    rows = []
    for what in ("cpu", "wall"):
        old, new = ([getattr(took, what) for took in found[name]] for name in ("old", "new"))
        ratios = [a / b for a, b in zip(old, new, strict=True)]
        medians = [f"{statistics.median(values):.2f}" for values in (old, new, ratios)]
        rows.append([what, *medians, " ".join(f"{ratio:.2f}" for ratio in ratios)])
    for stage in sorted({name for took in (*found["old"], *found["new"]) for name in took.stages}):
        was, now = (statistics.median(took.stages.get(stage, 0.0) for took in found[name]) for name in ("old", "new"))
        rows.append([stage, f"{was:.2f}", f"{now:.2f}", f"{was / now:.2f}" if now else "", ""])
    header = ["seconds a round", "old", "new", "times faster", "by repetition"]
    for row in (header, *rows):
        print(f"{row[0]:<28}{row[1]:>8}{row[2]:>8}{row[3]:>14}  {row[4]}")
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main()
