"""``rlaif-lab ... --estimate``: what a run of this config would take, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from rlaif_lab.config import check, config_dir
from rlaif_lab.config.places import config_folders

FLAG = "--estimate"


def print_estimate(arguments: Sequence[str]) -> None:
    """Compose the config of a command line, check it, and print what its run would take. Of a sweep: its first job.

    Raises:
        ValueError: for whatever is wrong with the config, as a run would.
    """
    cfg = first_job(arguments)
    check(cfg)
    from rlaif_lab.loop.checks import check_together
    from rlaif_lab.loop.estimate import estimate
    from rlaif_lab.loop.parts import choose

    chosen = choose(cfg)
    check_together(cfg, chosen)
    print(f"{cfg.experiment_name}, {cfg.arm}: an estimate from the config; no weights were loaded")
    print(estimate(cfg, chosen))


def first_job(arguments: Sequence[str]) -> DictConfig:
    """Return the config of a command line; of what is swept over, on it or in its experiment, with the first choice."""
    overrides = [argument for argument in arguments if "=" in argument and not argument.startswith("-")]
    overrides = [first_choice(override) for override in overrides]
    folders = [f"file://{folder}" for folder in config_folders(list(arguments))]
    if folders:
        overrides.append(f"hydra.searchpath=[{','.join(folders)}]")
    GlobalHydra.instance().clear()
    with initialize_config_dir(config_dir(), version_base="1.3"):
        whole = compose("config", overrides=overrides, return_hydra_config=True)
        params = OmegaConf.select(whole, "hydra.sweeper.params") or {}
        # What the command line says wins over an experiment's sweep.
        given = {override.lstrip("+~").partition("=")[0] for override in overrides}
        swept = [first_choice(f"{key}={value}") for key, value in params.items() if str(key) not in given]
        cfg = compose("config", overrides=[*swept, *overrides], return_hydra_config=True) if swept else whole
    with read_write(cfg), open_dict(cfg):
        OmegaConf.set_readonly(cfg, False)
        del cfg["hydra"]
    return cfg


def first_choice(override: str) -> str:
    """Return an override with the first of the values that it sweeps over."""
    parsed = OverridesParser.create().parse_override(override)
    if not parsed.is_sweep_override():
        return override
    return f"{parsed.input_line.partition('=')[0]}={next(iter(parsed.sweep_string_iterator()))}"
