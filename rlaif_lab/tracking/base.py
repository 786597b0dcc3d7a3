"""Where the rows of a run go besides metrics.jsonl."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_lab.store.rows import MetricRow

if TYPE_CHECKING:
    from rlaif_lab.tracking.run_summary import RunResult


SAMPLE_COLUMNS = ("round", "prompt", "sample", "response", "right_answer", "win_rate", "gold_quality")


Samples = Sequence[Sequence[Any]]  # rows of SAMPLE_COLUMNS


LoggedRound = tuple[MetricRow, Samples]


class Tracker(ABC):
    """Where rows go besides metrics.jsonl. A new one is a subclass plus one YAML in conf/logger/."""

    @abstractmethod
    def begin(
        self, directory: Path, config: dict[str, Any], group: str, arm: str, history: Sequence[LoggedRound]
    ) -> None:
        """Open the run. ``history``: what an earlier part of it logged."""

    @abstractmethod
    def log(self, row: MetricRow, samples: Samples) -> None:
        """Log one round."""

    @abstractmethod
    def end(self, result: RunResult | None) -> None:
        """Close the run. ``result``: what it came to; None where it failed."""


class NoTracker(Tracker):
    """metrics.jsonl only."""

    def begin(
        self, directory: Path, config: dict[str, Any], group: str, arm: str, history: Sequence[LoggedRound]
    ) -> None: ...

    def log(self, row: MetricRow, samples: Samples) -> None: ...

    def end(self, result: RunResult | None) -> None: ...
