"""What a run is called where many are listed: by what tells it from the others, such as ``self_s0``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif_lab.store.files import MULTIRUN

OVERRIDES = Path(".hydra") / "overrides.yaml"
SAID_ALREADY = ("seed", "judge", "arm", "experiment", "variant", "resume", "hydra")
"""Keys that arm and seed stand for."""


def run_name(directory: Path, config: Mapping[str, Any]) -> str:
    """Return arm and seed, and of a sweep's job the values of what else was swept: ``self_s0_beta=0.1``."""
    parts = [str(config.get("arm", directory.name)), f"s{config.get('seed', 0)}"]
    for override in swept(directory):
        key, _, value = override.lstrip("+").partition("=")
        # `judge@judge.of` and `judge/of` are about the judge, as the arm says.
        if key.partition(".")[0].partition("@")[0].partition("/")[0] not in SAID_ALREADY:
            parts.append(f"{key.rpartition('.')[2]}={value}")
    return "_".join(parts)


def sweep_of(directory: Path) -> Path | None:
    """Return the folder of the sweep that a run is a job of; None of a run by itself."""
    # From the run upwards: sweeps may lie within other folders, and the nearest one counts.
    return next((folder for folder in directory.absolute().parents if (folder / MULTIRUN).is_file()), None)


def in_a_sweep(directory: Path) -> bool:
    return sweep_of(directory) is not None


def swept(directory: Path) -> list[str]:
    """Return the overrides of a sweep's job that are not those of every job; none of a run by itself."""
    sweep = sweep_of(directory)
    if sweep is None:
        return []
    # What every job was started with tells no job from another.
    common = _listed(sweep / MULTIRUN, "hydra", "overrides", "task")
    return [override for override in _listed(directory / OVERRIDES) if override not in common]


def _listed(file: Path, *keys: str) -> list[str]:
    """Return a list of texts in a YAML file; empty where it is not there or broken, since it only serves a name."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        for key in keys:
            content = content[key]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return []
    return [str(item) for item in content] if isinstance(content, list) else []
