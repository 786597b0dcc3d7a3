"""``rlaif-workspace``: saves the lab's workspace in a W&B project, or writes its definition."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rlaif_lab.cli.endings import told
from rlaif_lab.cli.help import lab_version
from rlaif_lab.progress import printable

PACKAGE = "wandb-workspaces"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``rlaif-workspace``.

    Exit code 0 with the address of the workspace (or the path of the file); 2 with one sentence on stderr.
    """
    parser = argparse.ArgumentParser(
        prog="rlaif-workspace",
        description="Save a workspace in a W&B project: headline charts first, rounds on the x axis, runs grouped by "
        "arm, their verdicts as columns. Each call saves a new workspace.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {lab_version()}")
    parser.add_argument("--entity", metavar="NAME", help="the user or team in W&B (default: that of your key)")
    parser.add_argument(
        "--project", metavar="NAME", default="rlaif_lab", help="the project, as in logger.project (default: rlaif_lab)"
    )
    parser.add_argument("--group", metavar="NAME", help="show only the experiment with this experiment_name")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="write the definition into this file, and send nothing to W&B"
    )
    options = parser.parse_args(arguments)
    with told("rlaif-workspace"):
        try:
            print(write(options.json, options) if options.json else save(options))
        except ValueError as error:
            print(printable(f"rlaif-workspace: {error}"), file=sys.stderr)
            sys.exit(2)


def write(file: Path, options: argparse.Namespace) -> str:
    """Write the definition as JSON, without a network. Returns the path."""
    from rlaif_lab.tracking.wandb_workspace import definition, workspace

    _check_package()
    made = workspace(options.entity or "", options.project, options.group)
    file.write_text(json.dumps(definition(made), indent=1) + "\n", encoding="utf-8")
    return str(file)


def save(options: argparse.Namespace) -> str:
    """Send it to W&B (``WANDB_BASE_URL`` names another server) and return its address. ValueError, one sentence, for
    no key, no entity, or a server that does not take it."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    _check_package()
    from rlaif_lab.tracking.wandb_workspace import workspace

    entity = options.entity or _own_entity()
    made = workspace(entity, options.project, options.group)
    try:
        made.save()
    except Exception as error:  # of its own kinds, by version
        raise ValueError(_reason(f"W&B did not save the workspace in {entity}/{options.project}", error)) from error
    return str(made.url)


def _own_entity() -> str:
    import wandb

    try:
        entity = wandb.Api().default_entity
    except Exception as error:
        raise ValueError(_reason("W&B did not let you in", error)) from error
    if not entity:
        raise ValueError("your W&B key belongs to no entity; say which one with --entity")
    return str(entity)


def _check_package() -> None:
    try:
        import wandb_workspaces  # noqa: F401
    except ImportError:
        raise ValueError(f"the package {PACKAGE} is missing: pip install 'rlaif-lab[wandb]'") from None


def _reason(what: str, error: Exception) -> str:
    """Return one sentence; W&B's own may be several, with keys' lengths and no keys."""
    return f"{what}: {' '.join(str(error).split()) or type(error).__name__}"
