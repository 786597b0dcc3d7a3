"""What a run was made with, from its config, in words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlaif_lab.export.markdown import escape, table
from rlaif_lab.store.files import read_json_file


def run_config(run_directory: Path) -> dict[str, Any]:
    """Return the run's resolved config. ValueError where the folder holds none."""
    path = run_directory / "config.json"
    if not run_directory.is_dir():
        raise ValueError(f"run folder {str(run_directory)!r} does not exist")
    if not path.is_file():
        below = sorted(file.parent for file in run_directory.glob("*/config.json"))
        hint = f"; the folders below it do, e.g. {str(below[0])!r}" if below else ""
        raise ValueError(f"{str(run_directory)!r} does not hold a run (no config.json){hint}")
    return read_json_file(path, "restore it from a copy, or run rlaif-resume on the folder, which writes it anew")


def starting_point(policy: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the model that a policy was fine-tuned from before the first round, or the policy itself."""
    # What a policy was fine-tuned from may have been fine-tuned itself.
    while isinstance(policy.get("of"), Mapping):
        policy = policy["of"]
    return policy


def how_it_was_made(config: dict[str, Any]) -> str:
    parts = [[part, describe(config[part])] for part in ("task", "policy", "judge", "learner", "sampler", "pairing")]
    parts += [
        ["trainer", describe(config["trainer"])],
        ["rounds", f"{config['rounds']}, of {config['prompts_per_round']} fresh prompts each"],
        ["seed", str(config["seed"])],
        ["experiment, arm", f"{config['experiment_name']}, {config['arm']}"],
        ["code", f"commit {config.get('git_commit') or 'unknown'}"],
        ["versions", ", ".join(f"{name} {version}" for name, version in config.get("versions", {}).items())],
    ]
    return table(["part", "what it is"], [[part, escape(text)] for part, text in parts])


def describe(node: Mapping[str, Any]) -> str:
    """Return a config node in words: name (class): key value, ... with nodes below it in brackets."""
    name = node.get("name")
    kind = str(node.get("_target_", "")).rpartition(".")[2]
    title = f"{name} ({kind})" if name and kind else str(name or kind)
    settings = [
        f"{key} [{describe(value)}]" if isinstance(value, Mapping) else f"{key} {value}"
        for key, value in node.items()
        if key not in ("name", "_target_") and value is not None
    ]
    return ": ".join(part for part in (title, ", ".join(settings)) if part)
