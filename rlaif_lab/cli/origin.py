"""Where a run or a sweep was started, and with whose config folders: what its resumption goes back to.

Hydra keeps both in the run's folder (``runtime.cwd`` and ``runtime.config_sources``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlaif_lab.store.outcome import Shell


@dataclass(frozen=True)
class Origin:
    """The folder that a command was run from, and the options that named config folders."""

    cwd: Path | None
    options: tuple[str, ...] = ()


def origin_of(folder: Path) -> Origin:
    """Read where the run or the sweep in ``folder`` (or the newest sweep in it) was started; nothing where it is not
    known."""
    # A run has the first, a sweep the second; otherwise the newest sweep within the folder counts.
    files = [folder / ".hydra" / "hydra.yaml", folder / "multirun.yaml"]
    sweeps = sorted(folder.glob("*/multirun.yaml"), key=lambda file: file.stat().st_mtime, reverse=True)
    file = next((file for file in [*files, *sweeps] if file.is_file()), None)
    try:
        content: Any = yaml.safe_load(file.read_text(encoding="utf-8"))["hydra"] if file else {}
        runtime = content.get("runtime") or {}
        options: list[str] = []
        for source in runtime.get("config_sources") or []:
            # Only folders that a command line named: the lab's own are there anyway.
            if source.get("provider") == "command-line":
                options += ["--config-dir", str(source["path"])]
        if file is not None and file.name == "hydra.yaml":  # a sweep's own are among its overrides
            given = (content.get("overrides") or {}).get("hydra") or []
            options += [override for override in given if str(override).lstrip("+").startswith("hydra.searchpath=")]
        cwd = runtime.get("cwd")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return Origin(None)  # it is told when the overrides are read
    return Origin(Path(cwd) if cwd else None, tuple(options))


def go_back(origin: Origin) -> None:
    """Change to the folder that the run was started in, so that relative paths mean what they meant."""
    if origin.cwd is None or origin.cwd == Path.cwd():
        return
    if not origin.cwd.is_dir():
        # Reported, not refused: a run may have been moved to another machine.
        print(f"started in {str(origin.cwd)!r}, which is not here: relative paths count from {str(Path.cwd())!r}")
        return
    here = Path.cwd()
    os.chdir(origin.cwd)
    # Commands that the run prints are typed where the user is, not where the run was started.
    Shell.folder, Shell.gone_to = here, Path.cwd()
    print(f"relative paths count from {str(origin.cwd)!r}, where it was started", flush=True)
