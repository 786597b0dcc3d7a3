"""Kill a run at random moments, resume it, and compare the folder with one of a run that nobody touched.

    python experiments/faults/kills.py [KILLS]

Of three folders one is killed once, one twice and one three times in a row, at moments drawn evenly over the run.
"""

from __future__ import annotations

import random
import shutil
import sys

import runs


def main(kills: int) -> int:
    place = runs.prepare()
    straight = place / "straight"
    runs.whole(straight, *runs.SMALLEST)  # and the organisms
    shutil.rmtree(straight)
    seconds = runs.whole(straight, *runs.SMALLEST)
    expected = runs.result(straight)
    rng = random.Random(0)
    made = folders = equal = 0
    while made < kills:
        folder = place / f"run_{folders}"
        folders += 1
        mine = sum(
            runs.killed(folder, rng.uniform(0.05, 1.0) * seconds, *runs.SMALLEST) for _ in range(1 + folders % 3)
        )
        runs.whole(folder, *runs.SMALLEST)
        found = runs.result(folder)
        made += mine
        differing = [key for key, value in expected.items() if found[key] != value]
        equal += mine if not differing else 0
        if differing:
            print(f"{folder.name}, killed {mine} times: {', '.join(differing)} differ", flush=True)
            extra = set(map(str, found["files"])) ^ set(map(str, expected["files"]))
            print(f"  files in one of the two only: {sorted(extra)}", flush=True)
        else:
            shutil.rmtree(folder)
        print(f"{equal} / {made}", end="\r", flush=True)
    print(f"kills after which the folder is equal / tried: {equal} / {made}, in {folders} folders")
    if equal == made:
        shutil.rmtree(place)
    return 0 if equal == made else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 102))
