"""Try every bad single value of tests/bad_values.py, and print how many are told clearly.

python experiments/faults/bad_values.py [--all] [--shard 0/4]
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from bad_values import answer, bad_values, choices


def main() -> int:
    """Print each value that is not told as it should be, and the figures. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="print each value")
    parser.add_argument("--shard", default="0/1", help="I/N: every N-th choice from the I-th on")
    given = parser.parse_args()
    first, step = map(int, given.shard.split("/"))
    counts: Counter[str] = Counter()
    for choice in choices()[first::step]:
        for bad in bad_values(choice):
            told = answer(bad)
            counts[told.kind] += 1
            counts["named"] += told.kind == "clear" and told.names_key
            if given.all or told.kind != "clear" or not told.names_key:
                print(
                    f"{told.kind:9} {bad.choice:28} {bad.key}={bad.value} ({bad.why}): {told.message[-200:]}",
                    flush=True,
                )
    tried = counts["clear"] + counts["traceback"] + counts["accepted"]
    print(
        f"{tried} bad values: {counts['clear']} clear, {counts['traceback']} tracebacks, "
        f"{counts['accepted']} accepted; {counts['named']} ({counts['named'] / tried:.1%}) name the key"
    )
    return 0 if counts["clear"] == tried and counts["named"] >= 0.99 * tried else 1


if __name__ == "__main__":
    sys.exit(main())
