"""A random judge that makes its job fail, once: the second time it is asked, all goes well."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from rlaif_lab.judges.oracle import RandomJudge
from rlaif_lab.records import Comparison, Verdict


class MortalJudge(RandomJudge):
    """dies: ``never``, ``killed`` (its process, by SIGKILL) or ``raises`` (a ValueError), in the round's judging."""

    def __init__(self, dies: str, name: str = "mortal") -> None:
        super().__init__(name)
        self.dies = dies

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        died_before = Path(os.environ["RLAIF_LAB_CACHE"]) / f"{os.environ['SWEEP_UNDER_TEST']} {self.dies}"
        if self.dies != "never" and len(comparisons) > 100 and not died_before.exists():
            died_before.touch()
            if self.dies == "raises":
                raise ValueError("the judge has gone home")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().verdicts(comparisons)
