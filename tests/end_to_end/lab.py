"""How the end-to-end tests run the lab: as its users do, in processes of its own, with an organism of a few steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SMALL = (
    "task.digits=2",
    "policy.steps=30",
    "policy.width=32",
    "policy.layers=2",
    "policy.heads=2",
    "prompts_per_round=96",
    "rounds=3",
    "evaluation.prompts=24",
    "evaluation.samples=2",
    "evaluation.final_samples=8",
    "trainer.batch_size=16",
    "logger=none",
    "gate.force=true",
    "export=false",
    "bank.pairs=8",
)
"""A run of seconds. Its policy knows next to nothing, which is beside the point of the tests that use it."""

KILLER = Path(__file__).with_name("killer.py")


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "RLAIF_LAB_CACHE": str(cache), "OMP_NUM_THREADS": "1", "HYDRA_FULL_ERROR": "0"}


def lab(cache: Path, *overrides: str, cwd: Path, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    return _run([sys.executable, "-m", "rlaif_lab", *overrides], cache, cwd, timeout)


def killed_lab(cache: Path, stage: str, call: int, *overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The lab, ended by SIGKILL inside call number ``call`` of a stage (``never``: not at all)."""
    return _run([sys.executable, str(KILLER), stage, str(call), *overrides], cache, cwd, 300)


def _run(command: list[str], cache: Path, cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=environment(cache), capture_output=True, text=True, timeout=timeout)


def rows(run: Path) -> list[dict[str, Any]]:
    """The run's metrics without the times, which no two runs share."""
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines]


def weights(run: Path) -> bytes:
    return (run / "policy" / "model.safetensors").read_bytes()
