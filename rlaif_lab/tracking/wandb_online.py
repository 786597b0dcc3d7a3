"""Runs of a W&B project, read over its API as the same records as offline ones."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from rlaif_lab.tracking.wandb_files import WandbRun, own


def online_runs(project: str, group: str | None = None) -> list[WandbRun]:
    """Return every run of ``entity/project``, or of one experiment in it, sorted by group, job type and name; tables
    and media stay at W&B.

    ``WANDB_BASE_URL`` names another server. Raises ValueError, one sentence, where W&B does not answer.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    try:
        # lazy=False: configs and summaries with the list, not in a request for each run.
        found = wandb.Api().runs(project, filters={"group": group} if group else {}, lazy=False)
        runs = [
            WandbRun(
                id=run.id,
                name=run.name,
                group=run.group or "",
                job_type=run.job_type or "",
                config=own(run.config),
                history=[own(item) for item in run.scan_history()],
                summary=own(plain(run.summary)),
            )
            for run in found
        ]
    except Exception as error:  # of its own kinds, by version
        raise ValueError(f"W&B did not give the runs of {project!r}: {' '.join(str(error).split())}") from error
    if not runs:
        where = f" in group {group!r}" if group else ""
        raise ValueError(f"there is no run in {project!r}{where}")
    return sorted(runs, key=lambda run: (run.group, run.job_type, run.name))


def plain(values: Any) -> Any:
    """Return plain values: W&B's summaries are mappings of its own, at every level."""
    return {str(key): plain(values[key]) for key in values.keys()} if _is_mapping(values) else values  # noqa: SIM118


def _is_mapping(values: Any) -> bool:
    return isinstance(values, Mapping) or (hasattr(values, "keys") and hasattr(values, "__getitem__"))
