"""A sweep's report as a run of W&B, so that what needs several seeds is beside the runs it is about."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rlaif_lab.report.arms import Study
from rlaif_lab.report.verdicts import ArmVerdict
from rlaif_lab.tracking.wandb_files import REPORT
from rlaif_lab.tracking.wandb_tracker import run_id

TABLES = ("table.csv", "verdicts.csv", "differences.csv")
"""Logged as tables too; the other files hold what the figures draw, and are in the artifact."""


def log_report(
    folder: Path, study: Study, verdicts: Sequence[ArmVerdict], mode: Literal["offline", "online"] = "offline"
) -> Path:
    """Log one run of job type ``report``, in the group of the study's experiment and the project of its runs.

    folder: the report as written: its figures (PNG), tables (CSV) and page are logged, and all of it as an artifact.
    Returns W&B's folder of the run. Another call goes on with the same run. ValueError, one sentence, where W&B
    refuses.
    """
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    try:
        run = wandb.init(
            mode=mode,
            project=of_runs(study, "project") or os.environ.get("WANDB_PROJECT") or "rlaif_lab",
            entity=of_runs(study, "entity"),
            dir=str(folder),
            # The report on a folder has one id: made again, it goes on with the same run.
            id=run_id(folder),
            resume="allow" if mode == "online" else None,
            name=f"report on {study.folder}",
            group=study.title,
            job_type=REPORT,
            config={"arms": [arm.label for arm in study.arms], "runs": [run.name for run in study.runs]},
            # No console output and no statistics of the machine: it is a report.
            settings=wandb.Settings(console="off", x_disable_stats=True),
        )
    except wandb.errors.Error as error:
        raise ValueError(f"W&B did not take the report: {' '.join(str(error).split())}") from error
    # `wandb_id` is this run's own, and no part of the report.
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != "wandb_id")
    logged: dict[str, Any] = {}
    for path in files:
        if path.suffix == ".png":
            logged[f"report/{path.stem}"] = wandb.Image(str(path))
        elif path.name in TABLES:
            logged[f"report/{path.stem}"] = wandb.Table(*read_csv(path))
        elif path.suffix == ".html":
            logged["report/page"] = wandb.Html(str(path), inject=False)
    run.log(logged)
    artifact = wandb.Artifact(f"report-{run.id}", type=REPORT)
    for path in files:
        artifact.add_file(str(path))
    run.log_artifact(artifact)
    run.summary.update({f"verdict/{said.label}": said.headline for said in verdicts})
    held = Path(run.dir).parent
    run.finish()
    return held


def of_runs(study: Study, key: str) -> str | None:
    """Return what all runs were logged with (``logger.<key>``); None where they differ, or went to no W&B."""
    loggers = [run.config.get("logger") for run in study.runs]
    found = {logger.get(key) if isinstance(logger, dict) else None for logger in loggers}
    # None where they differ: the report belongs to no one of their projects.
    return found.pop() if len(found) == 1 else None


def read_csv(path: Path) -> tuple[list[str], list[list[float | str | None]]]:
    """Return columns and rows; numbers as numbers, empty cells as None."""
    with path.open(newline="", encoding="utf-8") as file:
        columns, *rows = csv.reader(file)
    return columns, [[_cell(text) for text in row] for row in rows]


def _cell(text: str) -> float | str | None:
    try:
        return float(text) if text else None
    except ValueError:
        return text
