"""Verdicts from traces written by hand, and the pooling of seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlaif_lab.plateau.detector import STATES, Detector, State, trace
from rlaif_lab.plateau.verdict import (
    NO_DETECTOR,
    Logged,
    Trace,
    Traces,
    TraceVerdict,
    averaged,
    factors,
    pooled,
    verdict,
)
from rlaif_lab.records import Floats
from rlaif_lab.seeding import rng_for


def traces(**alarms: list[int]) -> dict[State, Trace]:
    """Alarms by state; the evidence for each begins two rounds before."""
    return {
        state: Trace((), 100.0, tuple(alarms.get(state, [])), tuple(i - 2 for i in alarms.get(state, [])))
        for state in STATES
    }


def said(last_round: int, **alarms: list[int]) -> TraceVerdict:
    return verdict(traces(**alarms), last_round)


def logged(evidence: list[float], threshold: float, alarms: list[int] | None = None) -> dict[State, Logged]:
    raised = tuple(index + 1 in (alarms or []) for index in range(len(evidence)))
    return {state: Logged(tuple(evidence), raised, threshold) for state in STATES}


# --- the state ----------------------------------------------------------------------------------------------------
def test_the_most_recent_alarm_holds() -> None:
    assert said(20, improving=[4], plateaued=[12]).state == "plateaued"
    assert said(20, plateaued=[12], improving=[18]).state == "improving"
    assert said(20, improving=[4], degrading=[9]).state == "degrading"
    # In one round, the last named: as the detector itself has it.
    assert said(20, plateaued=[18], improving=[18]).state == "plateaued"
    assert said(20, improving=[18], degrading=[18]).state == "degrading"


def test_plateau_has_the_round_of_its_first_alarm_since_another() -> None:
    found = said(20, improving=[3, 6], plateaued=[4, 10, 15, 20])
    assert (found.state, found.round, found.since) == ("plateaued", 10, 8)
    assert found.reason == "the gain per round is below delta after round 8 (alarm in round 10)"


@pytest.mark.parametrize(("last_round", "window"), [(20, 5), (21, 6), (8, 2), (4, 2)])
def test_improving_must_be_recent(last_round: int, window: int) -> None:
    newest = last_round - window + 1
    assert said(last_round, improving=[newest]).state == "improving"
    found = said(last_round, improving=[newest - 1])
    assert (found.state, found.round, found.since) == ("undecided", None, None)
    assert found.reason == f"it improved until round {newest - 1}; nothing is shown of the rounds since"


def test_a_plateau_does_not_age() -> None:
    assert said(100, plateaued=[3]).state == "plateaued"


def test_undecided() -> None:
    assert said(20).reason == "no alarm in any round"
    nothing = verdict({}, 20)
    assert (nothing.state, nothing.reason, nothing.round) == ("undecided", NO_DETECTOR, None)


# --- pooling by one bet -------------------------------------------------------------------------------------------
def changes(gain: float, seeds: int, rounds: int, prompts: int, name: str = "") -> list[dict[int, Floats]]:
    """Changes of a prompt: -1, 0 or 1, with mean ``gain`` and mean square .2."""
    rng = rng_for("verdict", name, gain)
    odds = [(0.2 - gain) / 2, 0.8, (0.2 + gain) / 2]
    return [{t: rng.choice([-1.0, 0.0, 1.0], prompts, p=odds) for t in range(1, rounds + 1)} for _ in range(seeds)]


def test_pooled_is_the_detector_on_all_prompts() -> None:
    settings = Detector(delta=0.02)
    made = changes(0.0, 3, 10, 300)
    found = pooled(settings, made)
    expected = trace(settings, [[seed[t] for seed in made] for t in range(1, 11)])
    for state in STATES:
        assert found[state].evidence == tuple(evidence.value(state) for evidence in expected)
        assert list(found[state].alarms) == [e.round_index for e in expected if state in e.alarms]
        assert found[state].threshold == settings.threshold(state)
    # The order of seeds changes rounding at most.
    again = pooled(settings, made[::-1])
    assert again["plateaued"].evidence == pytest.approx(found["plateaued"].evidence)


def test_pooled_sees_what_single_runs_cannot() -> None:
    settings = Detector(delta=0.02)
    made = changes(0.0, 8, 12, 300, "power")
    alone = [verdict(pooled(settings, [seed]), 12).state for seed in made]
    together = verdict(pooled(settings, made), 12)
    assert alone.count("undecided") > 4
    assert together.state == "plateaued"
    assert together.since in (0, 1, 2)


def test_seeds_that_ended_early_take_part_as_far_as_they_got() -> None:
    settings = Detector(delta=0.02)
    made = changes(0.0, 3, 10, 300)
    cut = [made[0], {t: d for t, d in made[1].items() if t <= 4}, made[2]]
    found = pooled(settings, cut)["plateaued"]
    assert len(found.evidence) == 10
    assert found.evidence[:4] == pooled(settings, made)["plateaued"].evidence[:4]
    assert pooled(settings, [{}, {}]) == {}


def test_improving_and_degrading_are_told_apart() -> None:
    settings = Detector(delta=0.02)
    assert verdict(pooled(settings, changes(0.06, 5, 12, 300)), 12).state == "improving"
    assert verdict(pooled(settings, changes(-0.06, 5, 12, 300)), 12).state == "degrading"


# --- averaging what was logged ------------------------------------------------------------------------------------
def test_factors_by_hand() -> None:
    """R = (R + 1) e: 2; (2 + 1) 4 = 12, an alarm; anew (0 + 1) 3 = 3; (3 + 1) .5 = 2."""
    log = Logged((2.0, 12.0, 3.0, 2.0), (False, True, False, False), 10.0)
    assert factors(log) == pytest.approx([2.0, 4.0, 3.0, 0.5])
    gap = Logged((2.0, math.nan, 6.0), (False, False, False), 10.0)
    assert factors(gap) == pytest.approx([2.0, 1.0, 2.0])


def test_average_by_hand() -> None:
    """Factors 2, 4, .5 and 1, 2, 1. Sums: 2 and 1; 12 and 4; (13 x .5 and 5 x 1 =) 6.5 and 5. Means 1.5, 8, 5.75."""
    runs = [logged([2.0, 12.0, 6.5], 10.0), logged([1.0, 4.0, 5.0], 10.0)]
    assert averaged(runs)["plateaued"].evidence == pytest.approx((1.5, 8.0, 5.75))
    assert averaged(runs)["plateaued"].alarms == ()


def test_all_start_anew_after_an_alarm_of_the_mean() -> None:
    """With the threshold at 8 the mean raises an alarm in round 2; round 3: .5 and 1, mean .75. That a run of its own
    had started anew in round 1 makes no difference, since only its factors count."""
    apart = [logged([2.0, 4.0, 2.5], 8.0, alarms=[1]), logged([1.0, 4.0, 5.0], 8.0)]
    assert factors(apart[0]["plateaued"]) == pytest.approx([2.0, 4.0, 0.5])
    found = averaged(apart)["plateaued"]
    assert found.evidence == pytest.approx((1.5, 8.0, 0.75))
    assert found.alarms == (2,)
    assert found.since == (0,)  # evidence after round 0: (8 + 2) / 2; after round 1: (4 + 2) / 2


def test_the_average_of_one_run_is_the_run() -> None:
    settings = Detector(delta=0.02, alpha=0.4)
    (made,) = changes(0.0, 1, 20, 500, "alone")
    evidence = trace(settings, [[made[t]] for t in range(1, 21)])
    log = {
        state: Logged(
            tuple(e.value(state) for e in evidence),
            tuple(state in e.alarms for e in evidence),
            settings.threshold(state),
        )
        for state in STATES
    }
    found = averaged([log])
    own = pooled(settings, [made])
    assert own["plateaued"].alarms
    for state in STATES:
        assert found[state].evidence == pytest.approx(own[state].evidence)
        assert found[state].alarms == own[state].alarms


def test_a_run_that_ended_keeps_its_evidence() -> None:
    runs = [logged([4.0], 100.0), logged([1.0, 2.0, 3.0], 100.0)]
    assert averaged(runs)["plateaued"].evidence == pytest.approx((2.5, 3.0, 3.5))


def test_false_plateaus_of_the_average_are_as_rare_as_promised() -> None:
    """Gain exactly delta in each of 4 seeds: alarms by round 20 in no more than alpha's share of arms."""
    settings = Detector(delta=0.02, alpha=0.2, plateau_share=0.5)
    arms = 150
    alarms = 0
    for arm in range(arms):
        logs: list[dict[State, Logged]] = []
        for seed in changes(0.02, 4, 20, 100, f"null {arm}"):
            own: Traces = pooled(settings, [seed])
            logs.append(
                {
                    state: Logged(
                        own[state].evidence,
                        tuple(t in own[state].alarms for t in range(1, 21)),
                        own[state].threshold,
                    )
                    for state in STATES
                }
            )
        alarms += bool(averaged(logs)["plateaued"].alarms)
    assert alarms / arms <= 0.1 + 2 * math.sqrt(0.1 * 0.9 / arms)


def test_evidence_beyond_any_number_is_an_alarm() -> None:
    found = averaged([logged([1e300, 1e300], 10.0, alarms=[1, 2]), logged([0.0, 0.0], 10.0)])
    assert found["plateaued"].alarms == (1, 2)
    assert not np.isnan(found["plateaued"].evidence).any()
