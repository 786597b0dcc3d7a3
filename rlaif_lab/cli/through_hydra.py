"""Run a command's function on the config that Hydra composes, without Hydra's own words for what ends it."""

from __future__ import annotations

import functools
from collections.abc import Callable

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from rlaif_lab.config import config_dir


def through_hydra(
    task: Callable[[DictConfig], float | None], config_name: str, *, keep_in_sweeps: bool = False
) -> None:
    """Compose the command line's config, call ``task`` on it, and raise what it raises.

    Hydra would print an exception in words of its own before the command's sentence, so the exception is kept from it
    and raised afterwards. In a sweep Hydra has to see it, since it tells the sweeper; with ``keep_in_sweeps``, for
    jobs that run one after the other in this process, it is kept there as well, and the jobs after it are left out.
    """
    ended: list[Exception] = []

    @functools.wraps(task)
    def kept(cfg: DictConfig) -> float | None:
        if ended:
            return None
        try:
            return task(cfg)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.MULTIRUN and not keep_in_sweeps:
                raise
            ended.append(error)
            return None

    hydra.main(version_base="1.3", config_path=config_dir(), config_name=config_name)(kept)()
    # After Hydra has put its own things away.
    if ended:
        raise ended[0]
