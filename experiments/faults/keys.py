"""Give a key in every wrong place of tests/cli/test_secrets.py, and look for it on disk and in what was said.

    python experiments/faults/keys.py

Each command is run as it would be typed, every second one as a sweep, in a folder of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from cli.test_secrets import KEY, WRONG_PLACES  # noqa: E402

TRACES = (KEY, KEY[3:], "hunter2", "0123456789abcdef0123456789abcdef01234567", "correct horse battery")


def traces(folder: Path, said: str) -> list[str]:
    """Return where the key was left: names of files and folders, their content, and what was printed."""
    found = ["the terminal"] if any(trace in said for trace in TRACES) else []
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        if any(trace in str(path) or trace.encode() in content for trace in TRACES):
            found.append(str(path.relative_to(folder)))
    return found


def main() -> int:
    left = refused = 0
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OPENAI_API_KEY": "correct horse battery"}
    for i, override in enumerate(WRONG_PLACES):
        with tempfile.TemporaryDirectory() as name:
            command = [sys.executable, "-m", "rlaif_lab", *["-m"] * (i % 2), "judge=api", "judge.model=m", override]
            environment["WANDB_DIR"] = name
            done = subprocess.run(command, cwd=name, env=environment, capture_output=True, text=True)
            where = traces(Path(name), done.stdout + done.stderr)
        left += bool(where)
        refused += done.returncode == 2
        if where or done.returncode != 2:
            print(f"place {i}: exit code {done.returncode}, left in {where}", flush=True)
    print(f"keys found on disk or in the terminal: {left} of {len(WRONG_PLACES)} wrong places; refused: {refused}")
    return 0 if not left and refused == len(WRONG_PLACES) else 1


if __name__ == "__main__":
    sys.exit(main())
