"""Lightning's own loggers as mirrors of metrics.jsonl: CSV, TensorBoard, MLflow, or any other.

Our own file is the truth. A resumed run, whose logger may have lost its last rows, is written anew from it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_lab.store.rows import MetricRow
from rlaif_lab.tracking.base import LoggedRound, Samples, Tracker

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

    from rlaif_lab.tracking.run_summary import RunResult


class LightningTracker(Tracker):
    """A logger of Lightning's that writes into a folder of the run's.

    logger: makes it, given ``save_dir`` (in YAML: its ``_target_`` with ``_partial_: true``).
    folder: its name in the run's folder. requires: packages that it needs.
    """

    def __init__(self, logger: Callable[..., Logger], folder: str, requires: Sequence[str] = ()) -> None:
        check_installed(requires, folder)
        if not folder or Path(folder).name != folder:
            raise ValueError(f"logger.folder must be the name of a folder; got {folder!r}")
        self.make, self.folder = logger, folder
        self.logger: Logger | None = None

    def begin(
        self, directory: Path, config: dict[str, Any], group: str, arm: str, history: Sequence[LoggedRound]
    ) -> None:
        # Rewritten from our own rows: what a killed logger lost, or wrote twice, does not show.
        shutil.rmtree(directory / self.folder, ignore_errors=True)
        self.logger = self.make(save_dir=str(directory / self.folder))
        for row, samples in history:
            self.log(row, samples)

    def log(self, row: MetricRow, samples: Samples) -> None:
        assert self.logger is not None
        # Lightning's loggers take numbers; what was undefined is left out.
        values = {name: float(value) for name, value in row.items() if value is not None}
        self.logger.log_metrics(values, step=int(row["round"]))
        # After every round, since a killed run must not lose what it has logged.
        self.logger.save()

    def end(self, result: RunResult | None) -> None:
        if self.logger is not None:
            self.logger.finalize("failed" if result is None else "success")
            self.logger = None


class MLflowTracker(Tracker):
    """MLflow, by Lightning's logger. Its run goes by the run folder's path, so that a resumed run goes on with it.

    tracking_uri: a server's or a database's; None: MLFLOW_TRACKING_URI, else files in the run's folder.
    experiment: MLflow's, in which the run stands; the arm is a tag.
    """

    def __init__(self, tracking_uri: str | None = None, experiment: str = "rlaif_lab") -> None:
        check_installed(("mlflow",), "mlflow")
        self.tracking_uri, self.experiment = tracking_uri, experiment
        self.logger: Any = None

    def begin(
        self, directory: Path, config: dict[str, Any], group: str, arm: str, history: Sequence[LoggedRound]
    ) -> None:
        from pytorch_lightning.loggers import MLFlowLogger

        from rlaif_lab.store.files import write_atomically

        uri = self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            # Newer versions refuse a folder of files unless this is set.
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
            uri = f"file:{directory.resolve() / 'mlflow'}"
        held = directory / "mlflow_run_id"
        self.logger = MLFlowLogger(
            experiment_name=self.experiment,
            run_name=directory.name,
            tracking_uri=uri,
            tags={"arm": arm, "group": group},
            run_id=held.read_text() if held.exists() else None,
        )
        # At once: a run that is killed before its first round goes on under the same id.
        write_atomically(held, str(self.logger.run_id).encode())
        # Rounds that MLflow has already: logging them again would draw their points twice.
        known = {point.step for point in self.logger.experiment.get_metric_history(self.logger.run_id, "round")}
        for row, samples in history:
            if row["round"] not in known:
                self.log(row, samples)

    def log(self, row: MetricRow, samples: Samples) -> None:
        values = {name: float(value) for name, value in row.items() if value is not None}
        self.logger.log_metrics(values, step=int(row["round"]))

    def end(self, result: RunResult | None) -> None:
        if self.logger is not None:
            self.logger.finalize("failed" if result is None else "success")
            self.logger = None


def check_installed(packages: Sequence[str], name: str) -> None:
    """Raise ValueError, one sentence, for a package that is not installed."""
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ValueError(f"logger={name} needs {', '.join(missing)}: pip install 'rlaif-lab[loggers]'")
