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
from rlaif_lab.store.rows import MetricRow
from rlaif_lab.tracking.base import SAMPLE_COLUMNS, LoggedRound, Samples, Tracker
from rlaif_lab.tracking.naming import in_a_sweep, run_name

if TYPE_CHECKING:
    from rlaif_lab.tracking.run_summary import RunResult


CHANGES_METRIC = "detector/changes"
"""Each prompt's change in quality into this round, as a list: what the seeds of an arm are pooled by."""


SUMMARISED = (
    (re.compile(r"quality/(sampled|greedy)"), "max,last"),  # the best round is not always the last
    (re.compile(r"alarm/.*|detector/.*_alarm"), "max"),  # whether there ever was one
)
"""Metrics of which a run's summary shows something else than W&B's default, the last value."""


MODES = {"offline": "offline", "online": "online", "disabled": "disabled", "dryrun": "offline", "run": "online"}
"""What ``WANDB_MODE`` may say; the last two are W&B's own old names."""


class WandbTracker(Tracker):
    """Every setting but ``sample_rows`` may be left null: then W&B's own environment variable decides, which job
    scripts set, and where there is none the default that is named here.

    mode: ``offline`` (the default: no prompt, no network), ``online`` or ``disabled`` (WANDB_MODE, WANDB_DISABLED).
    project: ``rlaif_lab`` (WANDB_PROJECT). entity: that of your key (WANDB_ENTITY). tags: none (WANDB_TAGS, with
    commas). group: the experiment's name (WANDB_RUN_GROUP). name: what tells the run from others, such as ``self_s0``
    (WANDB_NAME; in a sweep it comes before that). notes: none (WANDB_NOTES). job_type: the arm (WANDB_JOB_TYPE).
    dir: the run's folder (WANDB_DIR). sample_rows: generations logged per round.

    WANDB_RUN_ID is taken for a run by itself; jobs of a sweep have ids of their own, or they would be one run.
    """

    def __init__(
        self,
        mode: Literal["offline", "online", "disabled"] | None = None,
        project: str | None = None,
        entity: str | None = None,
        tags: Sequence[str] = (),
        group: str | None = None,
        name: str | None = None,
        notes: str | None = None,
        job_type: str | None = None,
        dir: str | None = None,
        sample_rows: int = 32,
    ) -> None:
        if mode is not None and mode not in ("offline", "online", "disabled"):
            raise ValueError(
                f"logger.mode must be one of offline, online, disabled; got {mode!r} (logger=none turns W&B off)"
            )
        if sample_rows < 0:
            raise ValueError(f"logger.sample_rows must not be negative; got {sample_rows}")
        said = os.environ.get("WANDB_MODE") or "offline"
        if mode is None and said not in MODES:
            raise ValueError(f"WANDB_MODE must be one of {', '.join(MODES)}; got {said!r}")
        # W&B's own switch for turning it off.
        if mode is None and os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes"):
            said = "disabled"
        self.mode = mode or MODES[said]
        self.project = project or os.environ.get("WANDB_PROJECT") or "rlaif_lab"
        self.entity = entity or os.environ.get("WANDB_ENTITY") or None
        self.tags = list(tags) or [tag.strip() for tag in os.environ.get("WANDB_TAGS", "").split(",") if tag.strip()]
        self.group = group or os.environ.get("WANDB_RUN_GROUP") or None
        self.name, self.job_type = name, job_type or os.environ.get("WANDB_JOB_TYPE") or None
        self.notes = notes or os.environ.get("WANDB_NOTES") or None
        self.dir = dir or os.environ.get("WANDB_DIR") or None
        self.sample_rows = sample_rows
        self.run: Any = None

    def begin(
        self, directory: Path, config: dict[str, Any], group: str, arm: str, history: Sequence[LoggedRound]
    ) -> None:
        if self.mode == "disabled":
            return
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its one look-up of a host when offline
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        self.directory = directory
        # W&B need not keep what the terminal shows, unless somebody asks for it: the run's log has it.
        quiet: dict[str, Any] = {"console": "off"} if "WANDB_CONSOLE" not in os.environ else {}
        try:
            self.run = wandb.init(
                mode=self.mode,  # type: ignore[arg-type]
                project=self.project,
                entity=self.entity,
                tags=self.tags,
                notes=self.notes,
                dir=self.dir or str(directory),
                id=run_id(directory),
                # Offline, a resumed run is a folder of its own, under the same id.
                resume="allow" if self.mode == "online" else None,
                name=self.name or _name(directory, config),
                group=self.group or group,
                job_type=self.job_type or arm,
                config=config,
                settings=wandb.Settings(x_disable_stats=True, **quiet),
            )
        # A key that is missing, or a server that refuses: the run has not started, so nothing is lost.
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

    def log(self, row: MetricRow, samples: Samples) -> None:
        from rlaif_lab.store.run_folder import CHANGES, RoundStore

        if self.run is None:
            return
        # W&B has no null: what was undefined is not logged.
        values = {key: value for key, value in row.items() if value is not None}
        for name, value in values.items():
            # Once for each name; again for a failure that was hidden, since its first count brings its chart.
            if name != "round" and (name not in self.defined or (name in self.hidden and is_failure(name, value))):
                summary = next((kind for pattern, kind in SUMMARISED if pattern.fullmatch(name)), None)
                # W&B makes a chart of every metric that is not hidden: people should see the headlines first, and a
                # count of failures only once there was one.
                hidden = is_detail(name) and not is_failure(name, value)
                # Exact names: globs match in random order. Overwritten, since W&B keeps what was hidden before hidden.
                self.run.define_metric(name, step_metric="round", summary=summary, hidden=hidden, overwrite=True)
                self.defined.add(name)
                (self.hidden.add if hidden else self.hidden.discard)(name)
        if samples:
            import wandb

            values["samples"] = wandb.Table(
                columns=list(SAMPLE_COLUMNS), data=[list(sample) for sample in samples[: self.sample_rows]]
            )
        # Each prompt's change is what reports pool seeds by: in W&B too, for those that read only that.
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
        """Show the result in the run's summary, and each of its tables with a plot."""
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
            # In the last round's step: a later one would add a point to every curve.
            self.run.log(plots, step=self.last_round)
        self.run.summary.update(dict(result.values))


def _name(directory: Path, config: dict[str, Any]) -> str:
    own, given = run_name(directory, config), os.environ.get("WANDB_NAME")
    if not given:
        return own
    return f"{given} {own}" if in_a_sweep(directory) else given


def run_id(directory: Path) -> str:
    """Return one id per run directory, so that a resumed run goes on with the same curve."""
    from rlaif_lab.store.checksums import read_checked
    from rlaif_lab.store.files import write_atomically

    file = directory / "wandb_id"
    if not file.exists():
        # A run by itself may be told its id; jobs of a sweep would then be one run.
        given = None if in_a_sweep(directory) else os.environ.get("WANDB_RUN_ID")
        write_atomically(file, (given or uuid.uuid4().hex[:12]).encode())
    return read_checked(file).decode()
