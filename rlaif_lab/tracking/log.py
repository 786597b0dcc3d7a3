"""A round's row, on its way to metrics.jsonl, the tracker and the terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rlaif_lab.progress import say
from rlaif_lab.store.rows import MetricRow, without_nan
from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.tracking.alarms import Watch
from rlaif_lab.tracking.base import Tracker
from rlaif_lab.tracking.terminal import print_row


@dataclass(frozen=True)
class RoundLog:
    """Logs rows. label: what the terminal calls the run."""

    store: RoundStore
    tracker: Tracker
    watch: Watch
    label: str

    def __call__(self, row: MetricRow, samples: list[list[Any]]) -> None:
        """Log a row: metrics.jsonl first, since it is the truth, and W&B its mirror."""
        row = without_nan(row)
        # Those of the file, which a resumed run did not log itself.
        held = {other["round"]: other for other in self.store.rows()}
        first, before = held.get(0, row), held.get(row["round"] - 1, {})
        alarms = self.watch.alarms(row, first)
        # 0 as well as 1, for every limit that is on: a chart of an alarm needs both.
        row |= {f"alarm/{name}": float(name in alarms) for name in self.watch.names()}
        for name, sentence in alarms.items():
            # Said where it begins, and logged in every round.
            if before.get(f"alarm/{name}"):
                continue
            say(self.label, f"alarm ({name}), round {row['round']}: {sentence}")
        if said := [name for name in ("plateau", "improving", "degrading") if row.get(f"detector/{name}_alarm")]:
            say(self.label, f"detector, round {row['round']}: {', '.join(said)}")
        # A round that is there already, trained again after a crash, is not logged a second time.
        if self.store.append_row(row):
            self.tracker.log(row, samples)
        print_row(row, self.label, header=row["round"] == 0)
