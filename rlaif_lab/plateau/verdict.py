"""The verdict on an arm: improving, plateaued at round r, degrading or undecided.

It is that of the online detector (detector.py), pooled over the arm's seeds: the evidence of the seeds is averaged
before it is compared with the threshold. An average of Shiryaev-Roberts processes is one again, so the bound on false
alarms holds for the arm as it does for a run. Each process of a run starts anew at 0 after an alarm of its own; an
average of processes that start anew at different times would be none of these things. So the factor by which the
evidence grew in each round is taken out of the log first,

    e_t = R_t / (R_{t-1} + 1)         with R_{t-1} = 0 after an alarm,

and the pooled process is run on these. A run that ended early keeps its evidence as it stood.

The state is that of the most recent alarm of the three processes. That an arm improved once says nothing about now, so
"improving" needs an alarm within the last max(2, T / 4) rounds; else, and without any alarm, the arm is undecided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Process = Literal["plateau", "improving", "degrading"]
PROCESSES: tuple[Process, ...] = ("plateau", "improving", "degrading")
"""Where several raise an alarm in one round, the last named holds."""
State = Literal["improving", "plateaued", "degrading", "undecided"]
NO_DETECTOR = "no detector"


@dataclass(frozen=True)
class Trace:
    """The pooled process of one kind. evidence: R_t after rounds 1, 2, ..., before a new start. alarms: rounds.
    since: for each alarm, the round after which its evidence begins (the most likely change point)."""

    evidence: tuple[float, ...]
    threshold: float
    alarms: tuple[int, ...]
    since: tuple[int, ...]


@dataclass(frozen=True)
class Verdict:
    """state; round: of the alarm it rests on (for a plateau the first since the last alarm of another kind), None if
    undecided. since: the round after which the evidence for it begins. reason: one clause. traces: empty without a
    detector. agreeing: of ``seeds``, in how many the run's own last alarm says the same.
    """

    state: State
    round: int | None
    since: int | None
    reason: str
    traces: dict[Process, Trace]
    seeds: int
    agreeing: int
