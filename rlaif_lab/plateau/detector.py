"""Online: is the gain per round still at least delta? E-detectors, one step per round, as pure functions.

"No significant gain" is no plateau: what has to be rejected is H0, *gain per round >= delta*. Each round brings n fresh
prompts and on each the change d_i in [-1, 1] of the policy's quality in that round's training. Under H0 a bet against
it, prod_i (1 - lambda (d_i - delta)), has a mean of at most 1 whatever the distribution (Waudby-Smith & Ramdas
2010.09686). The bets of a round are one factor e_t of the Shiryaev-Roberts recursion R_t = (R_{t-1} + 1) e_t, for which
R_t - t is a supermartingale (Shin, Ramdas & Rinaldo 2203.03532). An alarm at R_t >= T / alpha followed by a new start
at 0 therefore happens at most alpha times in T rounds, on average, and so with a probability of at most alpha.

Two mirrors of it bet against *gain <= delta* (its alarms say "improving") and *gain >= 0* ("degrading"). So a gain
above delta is improvement, one below it a plateau, and a plateau that falls is degradation; no gain is two of these at
once, as one between 0 and delta would be if "improving" only had to beat 0.

How much is bet, lambda, is what grows fastest if the gain is 0 (for the mirrors: 2 delta, -delta), by the spread of the
changes in the rounds *before*, so that it is fixed when the round's prompts are drawn; and half and double of it. Each
of these bets runs through its own recursion and R_t is their mean: mixing costs its logarithm once per alarm, not once
per round.

Several seeds of an arm are pooled by one bet on all their prompts: with lambda the same for all seeds, the product over
seeds has a mean of at most 1 as soon as the gain *averaged over the seeds* is at least delta (the arithmetic mean of
the factors bounds the geometric one). It grows with the number of seeds, which the mean of the seeds' own R_t does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from rlaif_lab.records import Floats

State = Literal["improving", "plateaued", "degrading"]
FRESH = 0.05
"""Share of a round's evaluation prompts that may have been asked before, by chance: from there on alpha is void."""
STATES: tuple[State, ...] = get_args(State)
"""What an alarm of each process says. Where several are raised in one round, the last named holds."""

ChangeMeasure = Literal["gold", "heldout_judge", "people"]
"""What a change is: of gold quality, or twice the excess over one half of the preference for the newer policy's answer
over the older one's: the held-out judge's, or people's on the share that they are asked about."""

STAKES = (0.5, 1.0, 2.0)
"""Multiples of the best lambda that are bet."""
PRIOR_SQUARE, PRIOR_PROMPTS = 0.1, 64
"""Before the first round: mean square of a change, and how many prompts that is worth."""


@dataclass(frozen=True)
class Detector:
    """delta: gain per round below which the loop counts as having stopped; fixed before the run. alpha: probability of
    any false alarm within the horizon, all three processes together; ``plateau_share`` of it is the plateau's, the
    mirrors have half of the rest each. horizon: rounds the bound holds for, which a run may not exceed. It is no run's
    own number of rounds, so that a run can be extended without its earlier evidence being weighed anew.
    stop_on_plateau: end the run when the trend (trend.py) has plateaued. measure: see ChangeMeasure.
    """

    delta: float = 0.01
    alpha: float = 0.05
    plateau_share: float = 0.6
    horizon: int = 20
    stop_on_plateau: bool = False
    measure: ChangeMeasure = "gold"

    def __post_init__(self) -> None:
        if not 0.0 < self.delta < 0.5:
            raise ValueError(f"detector.delta is a gain per round and must lie in (0, 0.5); got {self.delta}")
        if not 0.0 < self.alpha < 1.0:
            raise ValueError(f"detector.alpha is a probability and must lie in (0, 1); got {self.alpha}")
        if not 0.0 < self.plateau_share < 1.0:
            raise ValueError(f"detector.plateau_share must lie in (0, 1); got {self.plateau_share}")
        if self.horizon < 1:
            raise ValueError(f"detector.horizon must be at least 1 round; got {self.horizon}")
        if self.measure not in get_args(ChangeMeasure):
            raise ValueError(
                f"detector.measure must be one of {', '.join(get_args(ChangeMeasure))}; got {self.measure!r}"
            )

    def threshold(self, state: State) -> float:
        """Return the evidence from which on there is an alarm."""
        # Half of the rest for each mirror; all three shares add up to alpha.
        share = self.plateau_share if state == "plateaued" else (1.0 - self.plateau_share) / 2
        # T / (alpha x share): such a process reaches it alpha x share times in T rounds at most, on average.
        return self.horizon / (self.alpha * share)


@dataclass(frozen=True)
class Evidence:
    """What is known after a round.

    sums: Shiryaev-Roberts sums, per state one for each of STAKES, before a new start. square, prompts: mean square of
    the changes so far and how many there are, with the prior. alarms: states whose alarm this round raised. latest: the
    most recent alarm, and ``latest_round``, None before the first.
    since: per state, the round after which its evidence begins, by maximum likelihood under the middle stake: where the
    stretch that raised an alarm started. log_runs: the logarithm of that likelihood.
    """

    round_index: int
    sums: dict[State, tuple[float, ...]]
    square: float
    prompts: int
    alarms: tuple[State, ...]
    latest: State | None
    latest_round: int | None
    log_runs: dict[State, float]
    since: dict[State, int]

    def value(self, state: State) -> float:
        """Return R_t, the mean over the stakes."""
        # A mean of e-detectors is one again, and needs no choice of a stake.
        return math.fsum(self.sums[state]) / len(STAKES)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @staticmethod
    def from_json(content: dict[str, Any]) -> Evidence:
        sums = {state: tuple(values) for state, values in content["sums"].items()}
        return Evidence(**{**content, "sums": sums, "alarms": tuple(content["alarms"])})


def nothing_yet() -> Evidence:
    """Return the state before the first change."""
    none = (0.0,) * len(STAKES)
    zeros: dict[State, float] = dict.fromkeys(STATES, 0.0)
    return Evidence(
        0,
        dict.fromkeys(STATES, none),
        PRIOR_SQUARE,
        prompts=PRIOR_PROMPTS,
        alarms=(),
        latest=None,
        latest_round=None,
        log_runs=zeros,
        since=dict.fromkeys(STATES, 0),
    )


def step(detector: Detector, before: Evidence, changes: Sequence[Floats], round_index: int | None = None) -> Evidence:
    """Go one round further.

    changes: per seed (one array for a single run) the change on each fresh prompt, (n,) in [-1, 1]. round_index: of the
    policy after the change; None: the round after ``before``'s. Raises ValueError for a change outside [-1, 1] or nan.
    """
    pooled = np.concatenate([np.asarray(seed, dtype=np.float64) for seed in changes])
    # nan compares false, and is refused too.
    if not (np.abs(pooled) <= 1.0).all():
        raise ValueError("changes in quality must lie in [-1, 1]; a bet on anything else proves nothing")
    sums: dict[State, tuple[float, ...]] = {}
    alarms: list[State] = []
    log_runs: dict[State, float] = {}
    since: dict[State, int] = {}
    index = before.round_index + 1 if round_index is None else round_index
    for state in STATES:
        # By the spread of the rounds before: bets are fixed before this round's changes are seen.
        logs = [log_bet(pooled, detector.delta, state, stake, before.square) for stake in STAKES]
        restarted = state in before.alarms
        old = (0.0,) * len(STAKES) if restarted else before.sums[state]
        # e^500 is far beyond any threshold, and keeps the sum from overflowing.
        sums[state] = tuple((value + 1.0) * math.exp(min(log, 500.0)) for value, log in zip(old, logs, strict=True))
        run = 0.0 if restarted else max(0.0, before.log_runs[state])  # the stretch with most evidence for it
        # The middle stake: which stretch speaks for a state is asked of one bet, not of three.
        log_runs[state] = run + logs[1]
        # The stretch starts again where the evidence so far is against the state.
        since[state] = before.since[state] if run > 0.0 else index - 1
        if math.fsum(sums[state]) / len(STAKES) >= detector.threshold(state):
            alarms.append(state)
    count = before.prompts + len(pooled)
    # After the bets, so that this round's spread sets the stakes of the next only.
    square = (before.square * before.prompts + float(np.square(pooled).sum())) / count
    # Several at once: the last of STATES holds, so that a fall is not called a plateau.
    latest, latest_round = (alarms[-1], index) if alarms else (before.latest, before.latest_round)
    return Evidence(
        index,
        sums,
        square,
        prompts=count,
        alarms=tuple(alarms),
        latest=latest,
        latest_round=latest_round,
        log_runs=log_runs,
        since=since,
    )


def log_bet(changes: Floats, delta: float, state: State, stake: float, square: float) -> float:
    """Return the logarithm of the round's factor e_t of one process and one stake, in nats.

    square: mean square of the changes before this round, which sets lambda.
    """
    # The bet that grows fastest is about mean / second moment; at a gain of 0 these are delta and square + delta^2.
    best = stake * delta / (square + delta**2)
    excess = {"improving": delta - changes, "plateaued": changes - delta, "degrading": changes}[state]
    most = {"improving": 1.0 + delta, "plateaued": 1.0 - delta, "degrading": 1.0}[state]
    # No factor below 0.1: a single prompt cannot take all of the evidence.
    return float(np.log1p(-min(best, 0.9 / most) * excess).sum())


def trace(detector: Detector, changes: Sequence[Sequence[Floats]]) -> list[Evidence]:
    """Return the state after each round. changes: [round][seed], of the rounds 1, 2, ..."""
    evidence, found = nothing_yet(), []
    for of_round in changes:
        evidence = step(detector, evidence, of_round)
        found.append(evidence)
    return found


def metrics(detector: Detector, evidence: Evidence) -> dict[str, float]:
    """Return ``detector/*`` of a round."""
    names: dict[State, str] = {"plateaued": "plateau", "improving": "improving", "degrading": "degrading"}
    found = {f"detector/{name}_evidence": evidence.value(state) for state, name in names.items()}
    found |= {f"detector/{name}_alarm": float(state in evidence.alarms) for state, name in names.items()}
    return found | {
        "detector/plateau_threshold": detector.threshold("plateaued"),
        "detector/mirror_threshold": detector.threshold("improving"),
    }
