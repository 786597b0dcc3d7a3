"""W&B as a mirror of metrics.jsonl: x axis = round, every metric, sampled generations with verdicts; and in the run's
summary what it came to.

W&B's offline mode keeps the last rows in memory only, so a SIGKILL loses them. Our own file is the truth: a resumed
run replays it into W&B under the same run id.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rlaif_lab.metrics.catalogue import is_detail, is_failure
from rlaif_lab.tracking.base import SAMPLE_COLUMNS, LoggedRound, Row, Samples, Tracker

if TYPE_CHECKING:
    from rlaif_lab.tracking.run_summary import RunResult


CHANGES_METRIC = "detector/changes"
"""Each prompt's change in quality into this round, as a list: what the seeds of an arm are pooled by."""


SUMMARISED = (
    (re.compile(r"quality/(sampled|greedy)"), "max,last"),  # the best round is not always the last
    (re.compile(r"alarm/.*|detector/.*_alarm"), "max"),  # whether there ever was one
)
"""Metrics of which a run's summary shows something else than W&B's default, the last value."""


class WandbTracker(Tracker):
    """mode: ``offline`` (no prompt, no network) or ``online``. sample_rows: generations logged per round."""

    def __init__(
        self,
        mode: Literal["offline", "online"] = "offline",
        project: str = "rlaif_lab",
        entity: str | None = None,
        tags: Sequence[str] = (),
        sample_rows: int = 32,
    ) -> None:
        if mode not in ("offline", "online"):
            raise ValueError(f"logger.mode must be one of offline, online; got {mode!r} (logger=none turns W&B off)")
        if sample_rows < 0:
            raise ValueError(f"logger.sample_rows must not be negative; got {sample_rows}")
        self.mode, self.project, self.entity, self.tags = mode, project, entity, list(tags)
        self.sample_rows = sample_rows
        self.run: Any = None

    def begin(
        self, directory: Path, config: dict[str, Any], group: str, arm: str, history: Sequence[LoggedRound]
    ) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its one look-up of a host when offline
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        self.directory = directory
        try:
            self.run = wandb.init(
                mode=self.mode,
                project=self.project,
                entity=self.entity,
                tags=self.tags,
                dir=str(directory),
                id=run_id(directory),
                resume="allow" if self.mode == "online" else None,
                name=directory.name,
                group=group,
                job_type=arm,
                config=config,
                settings=wandb.Settings(console="off", x_disable_stats=True),
            )
        except wandb.errors.Error as error:
            raise ValueError(
                f"logger.mode={self.mode}: W&B did not take the run: {' '.join(str(error).split())}"
            ) from error
        self.run.define_metric("round")
        self.run.define_metric(CHANGES_METRIC, step_metric="round", summary="none", hidden=True)
        self.defined: set[str] = set()
        self.hidden: set[str] = set()
        self.last_round = history[-1][0]["round"] if history else 0
        # Online, W&B knows the rounds up to run.step already; offline, each part of a run is a folder of its own.
        known = self.run.step if self.mode == "online" else 0
        for row, samples in history:
            if row["round"] >= known:
                self.log(row, samples)

    def log(self, row: Row, samples: Samples) -> None:
        from rlaif_lab.store.run_folder import CHANGES, RoundStore

        values = {key: value for key, value in row.items() if value is not None}
        for name, value in values.items():
            if name != "round" and (name not in self.defined or (name in self.hidden and is_failure(name, value))):
                summary = next((kind for pattern, kind in SUMMARISED if pattern.fullmatch(name)), None)
                # W&B makes a chart of every metric that is not hidden: people should see the headlines first, and a
                # count of failures only once there was one.
                hidden = is_detail(name) and not is_failure(name, value)
                # Exact names: globs match in random order.
                self.run.define_metric(name, step_metric="round", summary=summary, hidden=hidden)
                self.defined.add(name)
                (self.hidden.add if hidden else self.hidden.discard)(name)
        if samples:
            import wandb

            values["samples"] = wandb.Table(
                columns=list(SAMPLE_COLUMNS), data=[list(sample) for sample in samples[: self.sample_rows]]
            )
        if held := RoundStore(self.directory).read_json(row["round"], CHANGES):
            values[CHANGES_METRIC] = held["changes"]
        self.run.log(values, step=int(row["round"]))
        self.last_round = int(row["round"])

    def end(self, result: RunResult | None) -> None:
        if self.run is not None:
            if result is not None:
                self.show(result)
            self.run.finish(exit_code=1 if result is None else 0)
            self.run = None

    def show(self, result: RunResult) -> None:
        """The result in the run's summary, and each of its tables with a plot."""
        import wandb

        plots = {
            name: wandb.plot.line(
                wandb.Table(columns=list(table.columns), data=[list(row) for row in table.rows]),
                table.x,
                table.y,
                stroke=table.by,
                title=table.title,
            )
            for name, table in result.tables.items()
        }
        if plots:
            self.run.log(plots, step=self.last_round)
        self.run.summary.update(dict(result.values))


def run_id(directory: Path) -> str:
    """One id per run directory, so that a resumed run goes on with the same curve."""
    from rlaif_lab.store.files import write_atomically

    file = directory / "wandb_id"
    if not file.exists():
        write_atomically(file, uuid.uuid4().hex[:12].encode())
    return file.read_text()
