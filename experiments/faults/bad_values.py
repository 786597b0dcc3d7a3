"""Try every bad single value of tests/bad_values.py, and print how many are told clearly.

python experiments/faults/bad_values.py [--all]
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from bad_values import Bad, answer, bad_values, choices


def main() -> None:
    """Print the figures, and each value that is not told as it should be (``--all``: each value)."""
    every = [bad for choice in choices() for bad in bad_values(choice)]
    counts: Counter[str] = Counter()
    unnamed: list[Bad] = []
    for bad in every:
        told = answer(bad)
        counts[told.kind] += 1
        if told.kind == "clear" and not told.names_key:
            unnamed.append(bad)
        if told.kind != "clear" or not told.names_key or "--all" in sys.argv:
            print(f"{told.kind:9} {bad.choice:28} {bad.key}={bad.value} ({bad.why}): {told.message[-200:]}")
    named = counts["clear"] - len(unnamed)
    print(
        f"{len(every)} bad values: {counts['clear']} clear, {counts['traceback']} tracebacks, "
        f"{counts['accepted']} accepted; {named / len(every):.1%} name the key"
    )


if __name__ == "__main__":
    main()
