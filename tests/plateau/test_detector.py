"""The detector: hand-computed steps, its guarantees in simulation, and what it sees of a true kink."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from rlaif_lab.plateau.detector import (
    PRIOR_PROMPTS,
    PRIOR_SQUARE,
    STAKES,
    Detector,
    Evidence,
    Floats,
    log_bet,
    metrics,
    nothing_yet,
    step,
    trace,
)

DELTA, T = 0.02, 20


# --- by hand ------------------------------------------------------------------------------------------------------
def test_a_step_by_hand() -> None:
    detector = Detector(delta=0.1, alpha=0.05, plateau_share=0.5, horizon=10)
    evidence = step(detector, nothing_yet(), [np.array([0.5, -0.5])])
    best = 0.1 / (PRIOR_SQUARE + 0.01)  # 0.909
    for stake, value in zip(STAKES, evidence.sums["plateaued"], strict=True):
        bet = min(stake * best, 0.9 / 0.9)
        assert math.isclose(value, (1 - bet * 0.4) * (1 + bet * 0.6))
    for stake, value in zip(STAKES, evidence.sums["degrading"], strict=True):
        assert math.isclose(value, 1 - (min(stake * best, 0.9) * 0.5) ** 2)
    assert evidence.prompts == PRIOR_PROMPTS + 2
    assert math.isclose(evidence.square, (PRIOR_SQUARE * PRIOR_PROMPTS + 0.5) / (PRIOR_PROMPTS + 2))
    assert evidence.round_index == 1

    again = step(detector, evidence, [np.array([0.0])])
    best = 0.1 / (evidence.square + 0.01)
    expected = [
        (old + 1) * (1 + min(stake * best, 1.0) * 0.1)
        for stake, old in zip(STAKES, evidence.sums["plateaued"], strict=True)
    ]
    assert np.allclose(again.sums["plateaued"], expected)
    assert math.isclose(again.value("plateaued"), np.mean(expected))


def test_thresholds_share_alpha() -> None:
    detector = Detector(alpha=0.05, plateau_share=0.6, horizon=20)
    assert math.isclose(detector.threshold("plateaued"), 20 / 0.03)
    assert math.isclose(detector.threshold("improving"), 20 / 0.01)
    shares = [20 / detector.threshold(state) for state in ("plateaued", "improving", "degrading")]
    assert math.isclose(sum(shares), 0.05)


def test_an_alarm_is_raised_once_and_the_evidence_starts_anew() -> None:
    detector = Detector(delta=0.1, horizon=5)
    flat = [np.zeros(400)]
    first = step(detector, nothing_yet(), flat)
    assert first.alarms == ("plateaued",)
    assert (first.latest, first.latest_round, first.since["plateaued"]) == ("plateaued", 1, 0)
    second = step(detector, first, [np.zeros(1)])
    assert second.alarms == ()
    assert second.value("plateaued") < 2
    assert (second.latest, second.latest_round) == ("plateaued", 1), "the state holds until another alarm"
    rising = step(detector, second, [np.full(400, 0.5)])
    assert (rising.latest, rising.latest_round) == ("improving", 3)
    falling = step(detector, rising, [np.full(400, -0.5)])
    assert falling.alarms == ("plateaued", "degrading")
    assert falling.latest == "degrading"


def test_since_tells_where_the_plateau_began() -> None:
    detector = Detector(delta=0.05, horizon=20)
    found = trace(detector, [[np.full(30, 0.2)]] * 4 + [[np.zeros(30)]] * 12)
    alarm = next(e for e in found if "plateaued" in e.alarms)
    assert alarm.since["plateaued"] == 4


def test_its_state_survives_json() -> None:
    detector = Detector()
    evidence = step(detector, nothing_yet(), [np.array([0.25, 0.0, -0.25])])
    again = Evidence.from_json(evidence.to_json())
    assert again == evidence
    changes = [np.array([0.5, 0.0])]
    assert step(detector, again, changes) == step(detector, evidence, changes)
    logged = metrics(detector, evidence)
    assert logged["detector/plateau_evidence"] == evidence.value("plateaued")
    assert logged["detector/plateau_alarm"] == 0.0


def test_order_of_prompts_and_of_seeds_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    seeds = [rng.uniform(-1, 1, 50) for _ in range(3)]
    one = step(Detector(), nothing_yet(), seeds)
    other = step(Detector(), nothing_yet(), [s[::-1] for s in reversed(seeds)])
    assert math.isclose(one.value("plateaued"), other.value("plateaued"), rel_tol=1e-9)


@pytest.mark.parametrize("changes", [[1.5], [float("nan")]])
def test_what_is_no_change_in_quality_is_refused(changes: list[float]) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        step(Detector(), nothing_yet(), [np.array(changes)])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"delta": 0.0}, "detector.delta"),
        ({"alpha": 1.0}, "detector.alpha"),
        ({"plateau_share": 1.0}, "detector.plateau_share"),
        ({"horizon": 0}, "detector.horizon"),
        ({"measure": "silver"}, "detector.measure must be one of gold, heldout_judge, people; got 'silver'"),
    ],
)
def test_settings_are_checked(setting: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Detector(**setting)


# --- the guarantee ------------------------------------------------------------------------------------------------
def test_a_bet_has_a_mean_of_at_most_one_when_its_hypothesis_holds() -> None:
    """Exactly, over a two-point distribution with mean delta (0 for degrading): no simulation."""
    for state, mean in (("plateaued", DELTA), ("improving", DELTA), ("degrading", 0.0)):
        for low, high in ((-1.0, 1.0), (-0.25, 0.5), (-1.0, 0.25)):
            p_high = (mean - low) / (high - low)
            for stake in STAKES:
                for square in (1e-4, 0.05, 1.0):
                    factors = [math.exp(log_bet(np.array([v]), DELTA, state, stake, square)) for v in (low, high)]
                    assert factors[0] * (1 - p_high) + factors[1] * p_high <= 1 + 1e-12


def simulated(gain: Callable[[int], float], rounds: int, n: int, k: int, rng: np.random.Generator) -> list[Floats]:
    """[round] of (n,) changes: k answers per prompt before and after, independent; the chance of a right answer differs
    between prompts and rises by exactly the gain on every one of them."""
    found = []
    for index in range(rounds):
        before = np.clip(rng.beta(1.2, 0.6, size=n), 0.06, 0.94)
        found.append((rng.binomial(k, before + gain(index)) - rng.binomial(k, before)) / k)
    return found


RUNS = 2000


def test_false_plateaus_stay_below_alpha_over_two_thousand_runs_with_a_gain_of_exactly_delta() -> None:
    """And so do those of "improving" there, and of "degrading" where nothing changes. With few prompts, so that the
    changes are coarse."""
    detector = Detector(delta=DELTA, alpha=0.05, plateau_share=0.6, horizon=T)
    rng = np.random.default_rng(1)
    plateaus = improving = degrading = 0
    for _ in range(RUNS):
        found = trace(detector, [[c] for c in simulated(lambda _: DELTA, T, 250, 2, rng)])
        plateaus += any("plateaued" in e.alarms for e in found)
        improving += any("improving" in e.alarms for e in found)
    for _ in range(RUNS // 4):
        found = trace(detector, [[c] for c in simulated(lambda _: 0.0, T, 250, 2, rng)])
        degrading += any("degrading" in e.alarms for e in found)
    assert plateaus / RUNS <= 0.03
    assert improving / RUNS <= 0.01
    assert degrading / (RUNS // 4) <= 0.01


def test_a_gain_between_nothing_and_delta_is_a_plateau_and_nothing_else() -> None:
    detector = Detector(delta=DELTA, horizon=T)
    rng = np.random.default_rng(4)
    found = trace(detector, [[c] for c in simulated(lambda _: DELTA / 4, T, 4000, 8, rng)])
    assert {alarm for e in found for alarm in e.alarms} == {"plateaued"}


def test_pooled_seeds_keep_the_bound_where_only_their_mean_gains_delta() -> None:
    """Half of the seeds gain 0, half 2 delta: the arm has not stopped."""
    detector = Detector(delta=DELTA, alpha=0.05, plateau_share=0.6, horizon=T)
    rng = np.random.default_rng(2)
    runs, false = 300, 0
    for _ in range(runs):
        seeds = [simulated(lambda _, g=g: g, T, 100, 4, rng) for g in (0.0, 2 * DELTA) * 3]
        found = trace(detector, [[seed[t] for seed in seeds] for t in range(T)])
        false += any("plateaued" in e.alarms for e in found)
    assert false / runs <= 0.03


# --- power ----------------------------------------------------------------------------------------------------------
def delays(n: int, k: int, seeds: int, runs: int) -> np.ndarray:
    """Rounds from a kink (gain .05, then 0) to the alarm; inf for none within 14 rounds, -1 for one before it."""
    detector = Detector(delta=DELTA, alpha=0.05, horizon=T)
    rng = np.random.default_rng(3)
    found = []
    for _ in range(runs):
        made = [simulated(lambda t: 0.05 if t < 6 else 0.0, T, n, k, rng) for _ in range(seeds)]
        evidence = trace(detector, [[s[t] for s in made] for t in range(T)])
        plateau = [e.round_index for e in evidence if "plateaued" in e.alarms]
        found.append(-1 if plateau and plateau[0] <= 6 else plateau[0] - 6 if plateau else math.inf)
    return np.array(found)


def test_the_alarm_comes_within_three_rounds_of_a_true_kink() -> None:
    """n = 1000 prompts, delta = .02: the median with four answers per prompt, nine in ten with eight; within two rounds
    with two seeds pooled."""
    assert np.median(delays(1000, 4, 1, 200)) <= 3
    assert np.mean(delays(1000, 8, 1, 200) <= 3) >= 0.9
    assert np.median(delays(1000, 4, 2, 100)) <= 2
