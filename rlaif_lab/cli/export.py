"""``rlaif-export RUN_DIR``: a run's preferences as data sets, and a card for its policy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rlaif_lab.cli.endings import told
from rlaif_lab.cli.help import lab_version
from rlaif_lab.progress import printable


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``rlaif-export``.

    Exit code 0 with the paths of what was written; 2 with one sentence on stderr where RUN_DIR has no export.
    """
    parser = argparse.ArgumentParser(
        prog="rlaif-export",
        description="Write the preferences of one run, for TRL and datasets, into RUN_DIR/export/, and a model card "
        "into RUN_DIR/policy/. A finished run has both; the command writes them anew, or for an unfinished run.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {lab_version()}")
    parser.add_argument("run", metavar="RUN_DIR", type=Path, help="the folder of one run, finished or not")
    options = parser.parse_args(arguments)
    from rlaif_lab.export import export_run

    with told("rlaif-export"):
        try:
            folder = export_run(options.run)
        except ValueError as error:
            print(printable(f"rlaif-export: {error}"), file=sys.stderr)
            sys.exit(2)
    print(folder)
    card = options.run / "policy" / "README.md"
    print(card if card.is_file() else f"no model card: {str(options.run)!r} has not saved its policy yet")


if __name__ == "__main__":
    main()
