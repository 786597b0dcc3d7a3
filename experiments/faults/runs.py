"""What the fault experiments have in common: a run of seconds, started in a process that may be killed."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from rlaif_lab.cli.lab import main
from rlaif_lab.cli.sweep import import_libraries
from rlaif_lab.store.rows import read_metrics

TINY = (
    *("task.digits=2", "policy.steps=30", "policy.width=32", "policy.layers=2", "policy.heads=2", "bank.pairs=8"),
    *(
        "prompts_per_round=64",
        "rounds=3",
        "evaluation.prompts=16",
        "evaluation.samples=2",
        "evaluation.final_samples=4",
    ),
    *("trainer.batch_size=16", "logger=none", "gate.force=true"),
    *("learner.reference=initial", "judge.weights=previous"),
)
"""Every kind of file that a run keeps: the judge is the policy of a round before, whose weights are stored."""
SMALLEST = (
    *("policy.steps=10", "policy.width=16", "policy.layers=1", "policy.heads=1", "prompts_per_round=16", "sampler.k=2"),
    *("evaluation.prompts=8", "evaluation.final_samples=2", "evaluation.final_prompts=8", "trainer.batch_size=8"),
    "bank.pairs=4",
)
"""The same in a third of the time: for what is done hundreds of times."""


def prepare() -> Path:
    """Import what takes seconds, once, and return a folder for the runs. Organisms are built there."""
    import_libraries()
    place = Path(tempfile.mkdtemp(prefix="rlaif_lab_faults_"))
    os.environ["RLAIF_LAB_CACHE"] = str(place / "cache")
    return place


def start(folder: Path, *overrides: str) -> multiprocessing.process.BaseProcess:
    """Run the command ``rlaif-lab`` in a child process, its output in ``folder``.log."""
    child = multiprocessing.get_context("fork").Process(target=_command, args=(folder, overrides))
    child.start()
    return child


def _command(folder: Path, overrides: tuple[str, ...]) -> None:
    with folder.with_suffix(".log").open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    sys.argv = ["rlaif-lab", *TINY, f"hydra.run.dir='{folder}'", "resume=true", *overrides]
    main()


def whole(folder: Path, *overrides: str) -> float:
    """Run to the end. Returns the seconds it took."""
    begun = time.monotonic()
    child = start(folder, *overrides)
    child.join()
    assert child.exitcode == 0, folder.with_suffix(".log").read_text()
    return time.monotonic() - begun


def killed(folder: Path, after: float, *overrides: str) -> bool:
    """Run, and kill by SIGKILL after so many seconds. False where it was faster."""
    child = start(folder, *overrides)
    child.join(after)
    child.kill()
    child.join()
    return child.exitcode == -signal.SIGKILL


def result(folder: Path) -> dict[str, Any]:
    """What two runs have to have in common: every number but times, weights, verdicts, and which files there are."""
    rows = [
        {k: v for k, v in row.items() if not k.startswith("time/")} for row in read_metrics(folder / "metrics.jsonl")
    ]
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    weights = hashlib.sha256((folder / "policy" / "model.safetensors").read_bytes()).hexdigest()
    modes = {str(path.relative_to(folder)): path.stat().st_mode for path in folder.rglob("*")}
    return {"rows": json.dumps(rows), "files": files, "weights": weights, "modes": modes}
