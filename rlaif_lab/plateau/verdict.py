"""What the e-detector says about an arm: which of its rounds gained less than delta, more than delta, or lost.

It is about single rounds, and is called no more than that: whether the loop has stopped is the trend's question
(trend.py). It is that of the online detector (detector.py) over all seeds of the arm. Where every prompt's change is at
hand (round_*/changes.json) the seeds are pooled by one bet on all their prompts (`pooled`), which tests the gain
averaged over the seeds. Where only the logged evidence is, the evidence of the seeds is averaged before it is compared
with the threshold (`averaged`): an average of Shiryaev-Roberts processes is one again, so the bound on false alarms
holds as it does for a run, but it takes longer to speak. For a single run the latter is the run's own detector.

The state is that of the most recent alarm of the three processes. That an arm improved once says nothing about now, so
"improving" needs an alarm within the last max(2, T / 4) rounds; else, and without any alarm, the arm is undecided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlaif_lab.plateau import detector
from rlaif_lab.plateau.detector import STATES, Detector
from rlaif_lab.records import Floats

State = Literal["improving", "plateaued", "degrading", "undecided"]
NO_DETECTOR = "no detector"


@dataclass(frozen=True)
class Trace:
    """One process. evidence: R_t after rounds 1, 2, ..., before a new start. alarms: rounds in which it reached
    ``threshold``. since: for each alarm, the round after which its evidence begins (the most likely change point)."""

    evidence: tuple[float, ...]
    threshold: float
    alarms: tuple[int, ...]
    since: tuple[int, ...]


Traces = Mapping[detector.State, Trace]


@dataclass(frozen=True)
class Logged:
    """What one run logged of one process, rounds 1, 2, ...: evidence R_t, nan where a round is missing; alarms."""

    evidence: tuple[float, ...]
    alarms: tuple[bool, ...]
    threshold: float


@dataclass(frozen=True)
class TraceVerdict:
    """What the detector says about an arm, or about one run.

    round: of the alarm it rests on; for a plateau the first since the last alarm of another kind. None if undecided.
    since: the round after which the evidence for it begins: the most likely round of the change itself.
    reason: one clause. traces: one per process, empty without a detector.
    """

    state: State
    round: int | None
    since: int | None
    reason: str
    traces: Traces


def verdict(traces: Traces, last_round: int) -> TraceVerdict:
    """Return the verdict from the processes of an arm (or run) that reached ``last_round``."""
    if not traces:
        return TraceVerdict("undecided", None, None, NO_DETECTOR, {})
    alarms = sorted(
        (index, STATES.index(state), since)
        # In order of rounds; within one, in that of STATES, whose last holds.
        for state, trace in traces.items()
        for index, since in zip(trace.alarms, trace.since, strict=True)
    )
    if not alarms:
        return TraceVerdict("undecided", None, None, "no alarm in any round", traces)
    state = STATES[alarms[-1][1]]
    window = recent(last_round)
    # Too long ago to say anything about now.
    if state == "improving" and alarms[-1][0] <= last_round - window:
        reason = f"it improved until round {alarms[-1][0]}; nothing is shown of the rounds since"
        return TraceVerdict("undecided", None, None, reason, traces)
    unbroken = list(alarms)
    # A plateau counts from its first alarm since anything else was said.
    if state == "plateaued":
        others = [position for position, alarm in enumerate(alarms) if STATES[alarm[1]] != state]
        unbroken = alarms[others[-1] + 1 :] if others else alarms
        index, _, since = unbroken[0]
        reason = f"the gain per round is below delta after round {since}"
    else:
        index, _, since = alarms[-1]
        rising = "the gain per round is above delta"
        reason = f"{rising if state == 'improving' else 'quality falls'} after round {since}"
    return TraceVerdict(state, index, since, f"{reason} (alarm in round {index})", traces)


def recent(last_round: int) -> int:
    """Return how many rounds back an alarm may lie to say something about now; also what "the first" and "the last
    rounds" of a run are in this package."""
    return max(2, math.ceil(last_round / 4))


# --- pooling the seeds ------------------------------------------------------------------------------------------------
def pooled(settings: Detector, changes: Sequence[Mapping[int, Floats]]) -> Traces:
    """Pool: one bet on all prompts of all seeds.

    changes: per seed, round (1, 2, ...) -> each prompt's change in quality in [-1, 1], (n,). A seed that ended early
    takes part as far as it got. Empty where nothing was measured.
    """
    last = max((max(seed, default=0) for seed in changes), default=0)
    by_round = [[seed[index] for seed in changes if index in seed] for index in range(1, last + 1)]
    if not by_round:
        return {}
    # A round without a change is no evidence either way.
    found = detector.trace(settings, [seeds or [np.empty(0)] for seeds in by_round])
    traces = {}
    for state in STATES:
        raised = [evidence for evidence in found if state in evidence.alarms]
        traces[state] = Trace(
            tuple(evidence.value(state) for evidence in found),
            settings.threshold(state),
            tuple(evidence.round_index for evidence in raised),
            tuple(evidence.since[state] for evidence in raised),
        )
    return traces


def averaged(logged: Sequence[Mapping[detector.State, Logged]]) -> Traces:
    """Return the mean over the seeds of each process, from what the runs logged. A run that ended early keeps its
    evidence.

    The processes of a run start anew after its own alarms, and a mean of processes that start anew at different times
    would be no detector. So the factor by which the evidence grew in each round is taken out of the log,
    e_t = R_t / (R_{t-1} + 1) with R_{t-1} = 0 after an alarm, and every seed's process is run again on these, all
    starting anew together, after an alarm of the mean.
    """
    if not logged:
        return {}
    return {state: _average([seed[state] for seed in logged]) for state in STATES}


def factors(logged: Logged) -> list[float]:
    """Return e_t of each round; 1, which is no evidence, for a round that was not logged."""
    found, before = [], 0.0
    for value, alarm in zip(logged.evidence, logged.alarms, strict=True):
        # R_t = (R_{t-1} + 1) e_t, solved for e_t.
        found.append(1.0 if math.isnan(value) else value / (before + 1.0))
        # After an alarm the process started again.
        before = 0.0 if alarm else (before if math.isnan(value) else value)
    return found


def _average(runs: Sequence[Logged]) -> Trace:
    grown = [factors(run) for run in runs]
    # The strictest of the runs' thresholds, where they differ.
    threshold = max(run.threshold for run in runs)
    sums = np.zeros(len(runs))
    likelihood = [0.0]  # of a change after round 0, 1, ...: the mean over seeds of the evidence from there on
    products = np.ones((1, len(runs)))
    evidence, alarms, since = [], [], []
    for index in range(1, max(len(run) for run in grown) + 1):
        present = np.array([index <= len(run) for run in grown])
        # A run that has ended adds no evidence, and keeps what it has.
        factor = np.array([run[index - 1] if index <= len(run) else 1.0 for run in grown])
        sums = np.where(present, (sums + 1.0) * factor, sums)
        products = products * factor
        likelihood = products.mean(1).tolist()
        evidence.append(float(sums.mean()))
        if evidence[-1] >= threshold:
            alarms.append(index)
            # The change point with most evidence, counted back from here.
            since.append(index - len(likelihood) + int(np.argmax(likelihood)))
            sums, products = np.zeros(len(runs)), np.ones((0, len(runs)))
        # A change may have happened after this round: its evidence begins at 1.
        products = np.vstack([products, np.ones((1, len(runs)))])
    return Trace(tuple(evidence), threshold, tuple(alarms), tuple(since))
