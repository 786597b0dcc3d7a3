"""The lab from Python: compose a config, run it in this process, or sweep."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlaif_lab.cli.command import sentence, without_null
from rlaif_lab.config import check, config_dir, packages_of
from rlaif_lab.config.secrets import check_arguments
from rlaif_lab.config.trusted import trust
from rlaif_lab.results import RunFolder, SweepResults, read_run, read_sweep


def compose(overrides: Sequence[str] = ()) -> DictConfig:
    """Compose and check a run's config.

    Args:
        overrides: as on the command line, e.g. ``["judge=stronger", "rounds=3"]``.

    Raises:
        ValueError: in one sentence, for anything that is wrong and can be found without loading weights.
    """
    # Before Hydra sees them: it would write them into files.
    check_arguments(overrides)
    # Hydra keeps one global state, which an earlier call, or a notebook, may have left.
    GlobalHydra.instance().clear()
    kept = [argument for override in overrides for argument in without_null(override)]
    with initialize_config_dir(config_dir(), version_base="1.3"):
        try:
            cfg = hydra_compose("config", overrides=kept)
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(sentence(error)) from error
    check(cfg)
    return cfg


def run(config: DictConfig | Sequence[str], directory: str | Path) -> RunFolder:
    """Run in this process, or continue the run that ``directory`` holds, and return the run's folder, read.

    Args:
        config: what ``compose`` gave, or overrides.
        directory: the run's folder, which is made. One that holds this run already needs ``resume=true``.
    """
    from rlaif_lab.loop.run import Run

    cfg = config if isinstance(config, DictConfig) else compose(config)
    check(cfg)
    Run(cfg, Path(directory).absolute()).run()
    trust(",".join(packages_of(OmegaConf.to_container(cfg))))  # they have just run in this process
    return read_run(directory)


def sweep(overrides: Sequence[str], directory: str | Path, baseline: str | None = None) -> SweepResults:
    """Sweep over overrides with commas, each job in a process of its own, and return what came of it.

    Args:
        overrides: as after ``rlaif-lab -m``, e.g. ``["judge=self,stronger", "seed=0,1"]``.
        directory: the sweep's folder; jobs that have finished in it are not run again.
        baseline: the arm that others are compared with.

    Raises:
        ValueError: where jobs did not finish; their sentences are in the terminal.
    """
    place = str(Path(directory).absolute()).replace("\\", "\\\\").replace("'", "\\'")
    # Quoted for Hydra's grammar, in which = and , in a folder's name would mean something.
    command = [sys.executable, "-m", "rlaif_lab", "-m", *overrides, f"hydra.sweep.dir='{place}'", "resume=true"]
    code = subprocess.run(command).returncode
    if code:
        raise ValueError(f"the sweep in {str(directory)!r} ended with exit code {code}; continue with rlaif-resume")
    return read_sweep(directory, baseline)
