"""Run every experiment for real, as small as it can be, under one launcher after the other.

    python experiments/faults/launching.py [--every] [EXPERIMENT ...]

Each experiment is one sweep of its first arm with two seeds: two jobs, so that a launcher that works side by side does.
The launchers take turns, so that each has some experiments; --every: each experiment under each of them. Policies are
tiny, also where the experiment has a real model. Exits with code 1 where a job did not finish.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from hydra import compose, initialize_config_dir  # noqa: E402
from hydra.core.global_hydra import GlobalHydra  # noqa: E402
from omegaconf import OmegaConf  # noqa: E402

from rlaif_lab.config import build, config_dir  # noqa: E402

LAUNCHERS = {
    "basic": ("hydra/launcher=basic",),
    "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
    "submitit": ("hydra/launcher=submitit_local",),
    "ray": ("hydra/launcher=ray", "+hydra.launcher.ray.init.num_cpus=2"),
}
SMALL = (
    *("rounds=1", "prompts_per_round=8", "sampler.k=2", "gate.force=true", "logger=none", "bank=none", "export=false"),
    *("evaluation.prompts=4", "evaluation.samples=1", "evaluation.final_samples=0", "evaluation.measured=null"),
    *("trainer.batch_size=4", "detector=none"),
)
ORGANISM = ("policy.steps=150", "policy.width=32", "policy.layers=1", "policy.heads=2")


def composed(*overrides: str) -> Any:
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        return compose("config", overrides=list(overrides), return_hydra_config=True)


def first_arm(experiment: str) -> dict[str, str]:
    """Return the swept keys of an experiment, each with its first value."""
    params = composed(f"experiment={experiment}").hydra.sweeper.get("params") or {}
    return {str(key): str(values).partition(",")[0] for key, values in params.items()}


def smaller(cfg: Any, model: Path) -> list[str]:
    """Return what makes the parts of one experiment small: its policy, and its judge where that has weights."""
    found = []
    task = build(cfg.task, "task")
    for role in ("policy", "judge.weights", "heldout_judge.weights", "judge.of.weights"):
        node = OmegaConf.select(cfg, role)
        if not OmegaConf.is_dict(node):
            continue
        if "Organism" in node._target_:
            if build(node, role).missing_recipe(task) is None:
                continue  # it comes with the package, and has learnt something
            found += [f"{role}.{setting.partition('.')[2]}" for setting in ORGANISM]
        elif "of" in node:
            found += [f"{role}.of.path={model}", f"{role}.of.dtype=float32", f"{role}.demonstrations=8"]
        else:
            found += [f"{role}.path={model}", f"{role}.dtype=float32"]
    if "dataset" in cfg.task:
        found.append("task.max_response_tokens=4")
    found += ["trainer.accelerator=cpu", "trainer.precision=32-true"]
    return found


def swept(experiment: str, launcher: str, model: Path, folder: Path) -> tuple[int, int, str]:
    """Run one sweep. Returns how many of how many jobs finished, and the last line where they did not."""
    arm = first_arm(experiment)
    chosen = [f"{key}={value}" for key, value in arm.items() if key != "seed"]
    cfg = composed(f"experiment={experiment}", *chosen, "hydra/launcher=basic")
    own = [*chosen, "seed=0,1", *SMALL, *smaller(cfg, model)]
    command = [sys.executable, "-m", "rlaif_lab", "-m", f"experiment={experiment}", *own, *LAUNCHERS[launcher]]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, f"hydra.sweep.dir={folder}"], env=environment, cwd=folder.parent, capture_output=True, text=True
    )
    finished = [json.loads(file.read_text()) for file in folder.glob("*/finished.json")]
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return len(finished), 2, "" if done.returncode == 0 and len(finished) == 2 else f"code {done.returncode}: {last}"


def main() -> int:
    from chat_model import make_chat_model

    experiments = sorted(file.stem for file in (Path(config_dir()) / "experiment").glob("*.yaml"))
    names = list(LAUNCHERS)
    turns = [(e, names[i % len(names)]) for i, e in enumerate(experiments)]
    if "--every" in sys.argv:
        turns = [(experiment, launcher) for experiment in experiments for launcher in names]
    wanted = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    turns = [(experiment, launcher) for experiment, launcher in turns if not wanted or experiment in wanted]
    failed = jobs = 0
    with tempfile.TemporaryDirectory() as name:
        model = make_chat_model(Path(name) / "model")
        os.environ.setdefault("RLAIF_LAB_CACHE", f"{name}/cache")
        for experiment, launcher in turns:
            begun = time.monotonic()
            finished, of, problem = swept(experiment, launcher, model, Path(name) / f"{experiment}_{launcher}")
            failed, jobs = failed + of - finished, jobs + of
            print(
                f"{experiment} under {launcher}: {finished} of {of}, {time.monotonic() - begun:.0f} s {problem}",
                flush=True,
            )
    print(f"{len(turns)} sweeps, {jobs - failed} of {jobs} jobs finished")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
