"""What a run was made with: versions, the commit, and what decides an untrained policy's samples to the last bit."""

from __future__ import annotations

import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlaif_lab.models.sources import ModelSource
from rlaif_lab.tasks.base import Task
from rlaif_lab.training.settings import TrainerConfig

VERSIONED = ("torch", "transformers", "pytorch-lightning", "hydra-core", "wandb", "numpy", "rlaif-lab")


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for package in VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit() -> str | None:
    """Return the commit of the clone this code runs from, with a mark if it was changed; None when installed."""
    here = Path(__file__).resolve().parent
    # `--exclude` keeps tags out of the answer: a commit, not a version.
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def resolved(cfg: DictConfig) -> dict[str, Any]:
    """Return a config as plain containers, all references resolved."""
    content = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def untrained_policy_identity(cfg: DictConfig, source: ModelSource, task: Task, trainer: TrainerConfig) -> str:
    """Return all that decides what the untrained policy writes, to the last bit, but for prompts and sampler."""
    import torch

    # With threads: sums in float32 depend on their number.
    content, keys = resolved(cfg), ("policy", "task", "seed", "threads", "engine")
    device = (trainer.accelerator, trainer.precision)
    several = trainer.devices > 1  # then CUDA may not be opened here, before ranks are forked
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() and not several else ""
    machine = (platform.machine(), torch.backends.cpu.get_cpu_capability(), gpu)
    return repr(([content[key] for key in keys], source.identity(task), task.identity(), device, machine, versions()))
