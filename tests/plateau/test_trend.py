"""The trend: the likelihood ratio by hand, what windows are made of, error rates and power in simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rlaif_lab.plateau.detector import STATES, Detector
from rlaif_lab.plateau.trend import (
    LEAST_SPREAD,
    Floats,
    Sums,
    critical_cosines,
    gains,
    log_ratio,
    measured,
    outlook,
    raised,
    trend,
    trend_metrics,
)
from rlaif_lab.seeding import rng_for

SETTINGS = Detector(delta=0.01, alpha=0.05, horizon=40)


def swinging(name: str, mean: Floats, arms: int, seeds: int, spread: float, rho: float = 0.0) -> Floats:
    """Gains (arms, seeds, R): AR(1) swings about a mean and the error of evaluation."""
    rng = rng_for("test trend", name, seeds, spread, rho)
    swing = rng.standard_normal((arms, seeds, len(mean)))
    for index in range(1, len(mean)):
        swing[..., index] = rho * swing[..., index - 1] + math.sqrt(1 - rho**2) * swing[..., index]
    return mean + spread * swing + 0.006 * rng.standard_normal(swing.shape)


# --- the ratio --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("effect", [0.25, 0.5, 1.0])
def test_the_ratio_is_that_of_the_t_statistic(effect: float) -> None:
    """For one effect it is the ratio of the densities of the t statistic under non-centrality -effect sqrt(n) and 0."""
    from scipy.stats import nct, t

    import rlaif_lab.plateau.trend as module

    n, mean, variance = 12, -0.4, 0.9
    statistic = mean / math.sqrt(variance / (n - 1))
    expected = math.log(nct.pdf(statistic, n - 1, -effect * math.sqrt(n)) / t.pdf(statistic, n - 1))
    cosine = mean / math.sqrt(mean**2 + variance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "EFFECTS", (effect,))
        assert float(log_ratio(np.array(12.0), np.array(cosine))) == pytest.approx(expected, abs=1e-6)


def test_the_ratio_has_a_mean_of_one_under_the_null() -> None:
    """E[ratio] = 1 at a mean of 0, whatever the spread; below 1 for a mean above."""
    rng = rng_for("ratio")
    for mean, most in ((0.0, 1.05), (0.3, 0.6)):
        x = 7.0 * (rng.standard_normal((200_000, 5)) + mean)
        cosine = x.mean(1) / np.sqrt((x**2).mean(1))
        found = float(np.exp(log_ratio(np.full(len(x), 5.0), cosine)).mean())
        assert found < most
        assert mean or found > 0.95


def test_the_critical_cosine_is_where_the_threshold_is_reached() -> None:
    found = critical_cosines(60, 1000.0)
    for n in (20, 60):
        assert float(log_ratio(np.array(float(n)), np.array(found[n]))) == pytest.approx(math.log(1000.0), abs=1e-6)
    assert found[2] == -math.inf
    known = found[np.isfinite(found)]
    assert (np.diff(known) > 0).all(), "more units need less of an effect"


# --- gains and windows ------------------------------------------------------------------------------------------------
def test_gains_over_a_gap_are_one_unit() -> None:
    found = gains(np.array([[0.4, 0.5, np.nan, 0.7, 0.7], [0.4, np.nan, np.nan, 0.1, np.nan]]))
    assert found[0] == pytest.approx([0.1, math.nan, 0.1, 0.0], nan_ok=True)
    assert found[1] == pytest.approx([math.nan, math.nan, -0.1, math.nan], nan_ok=True)


def test_a_window_by_hand() -> None:
    """Two seeds, gains (.1, .3) and (.3, .5): mean .3; single gains' variance .02, seeds' means .2 and .4, variance
    .02 x 2 rounds = .04; rounds' means the same. Neighbours: (-.2 x 0 + 0 x .2) / 2 = 0, and 1 / sqrt(2) for doubt,
    so (1 + .707) / (1 - .707) x .02 = .1166."""
    window = Sums(np.array([[0.1, 0.3], [0.3, 0.5]])).window(0, 2)
    assert (float(window.count), float(window.mean)) == (4.0, pytest.approx(0.3))
    r = 1 / math.sqrt(2)
    assert float(window.variance) == pytest.approx(0.02 * (1 + r) / (1 - r))
    assert float(window.later) == pytest.approx(0.4)


def test_equal_gains_are_not_known_exactly() -> None:
    assert float(Sums(np.zeros((1, 5))).window(0, 5).variance) >= LEAST_SPREAD**2
    noisy = Sums(np.zeros((3, 5)), np.full(5, 0.01))
    assert float(noisy.window(1, 5).variance) == pytest.approx(0.01)


@settings(max_examples=25, deadline=None)
@given(arrays(np.float64, (3, 12), elements=st.floats(-0.1, 0.1)), st.permutations(range(3)))
def test_the_order_of_seeds_does_not_matter(found: Floats, order: list[int]) -> None:
    one, other = trend(found, SETTINGS), trend(found[order], SETTINGS)
    assert (one.state, one.round) == (other.state, other.round)
    for state in STATES:
        assert one.processes[state].evidence == pytest.approx(other.processes[state].evidence, rel=1e-6, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(arrays(np.float64, (2, 14), elements=st.floats(-0.1, 0.1)), st.integers(3, 13))
def test_what_was_said_does_not_depend_on_later_rounds(found: Floats, cut: int) -> None:
    """Evidence and alarms up to a round are the same, whatever follows: so any stopping time is allowed."""
    whole, part = trend(found, SETTINGS), trend(found[:, :cut], SETTINGS)
    for state in STATES:
        assert whole.processes[state].evidence[:cut] == pytest.approx(part.processes[state].evidence)


def test_alarms_of_a_batch_are_those_of_each() -> None:
    found = swinging("batch", np.where(np.arange(24) < 8, 0.05, -0.01), 5, 4, 0.01)
    for state in STATES:
        together = raised(found, SETTINGS, state)
        for index in range(5):
            alarms = trend(found[index], SETTINGS).processes[state].alarms
            assert (np.flatnonzero(together[index]) + 1).tolist() == list(alarms)


# --- error rates ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seeds", [1, 3, 5, 10])
@pytest.mark.parametrize(("spread", "rho"), [(0.0, 0.0), (0.02, 0.0), (0.0135, -0.3), (0.03, -0.3), (0.02, 0.3)])
def test_false_alarms_are_as_rare_as_promised(seeds: int, spread: float, rho: float) -> None:
    """At a gain of exactly delta, in any of 40 rounds."""
    arms = 300
    found = swinging("false", np.full(40, SETTINGS.delta), arms, seeds, spread, rho)
    for state, share in (("plateaued", 0.03), ("improving", 0.01)):
        rate = raised(found, SETTINGS, state).any(-1).mean()  # type: ignore[arg-type]
        assert rate <= share + 2.0 * math.sqrt(share / arms), (state, rate)
    falls = raised(found - SETTINGS.delta, SETTINGS, "degrading").any(-1).mean()
    assert falls <= 0.01 + 2.0 * math.sqrt(0.01 / arms)


@pytest.mark.parametrize(("seeds", "spread", "rho", "within"), [(10, 0.0135, -0.3, 9), (5, 0.0135, -0.3, 16)])
def test_a_stop_is_called(seeds: int, spread: float, rho: float, within: int) -> None:
    """0.04 a round until round 12, then nothing: half of the arms are called within so many rounds, none before."""
    found = swinging("power", np.where(np.arange(40) < 12, 0.04, 0.0), 100, seeds, spread, rho)
    alarms = raised(found, SETTINGS, "plateaued")
    assert not alarms[:, :12].any()
    assert np.median(np.where(alarms.any(-1), alarms.argmax(-1) + 1, 99)) <= 12 + within


# --- the verdict ------------------------------------------------------------------------------------------------------
def arm(*parts: tuple[int, float], seeds: int = 8, name: str = "arm") -> Floats:
    mean = np.concatenate([np.full(count, gain) for count, gain in parts])
    found: Floats = swinging(name, mean, 1, seeds, 0.01)[0]
    return found


def test_an_arm_that_rises_and_stops() -> None:
    rising = trend(arm((12, 0.04)), SETTINGS)
    assert rising.state == "improving"
    assert rising.gain == pytest.approx(0.04, abs=0.01)
    stopped = trend(arm((12, 0.04), (12, 0.0)), SETTINGS)
    assert stopped.state == "plateaued"
    assert stopped.round is not None
    assert 12 < stopped.round <= 24
    assert stopped.since is not None
    assert 10 <= stopped.since <= 15
    assert "below delta = 0.01 after round" in stopped.reason
    between = trend(arm((12, 0.04), (3, 0.0)), SETTINGS)
    assert between.state == "undecided"
    assert between.reason.startswith("it improved until round ")


def test_an_arm_that_falls_and_one_that_goes_on_again() -> None:
    assert trend(arm((12, 0.03), (14, -0.03)), SETTINGS).state == "degrading"
    assert trend(arm((10, 0.0), (20, 0.04)), SETTINGS).state == "improving"
    mended = trend(arm((14, -0.02), (6, 0.05)), SETTINGS)
    assert mended.state in ("undecided", "improving"), "the mean since the fall began is above 0 again"


def test_what_would_decide() -> None:
    """About as many rounds as it then takes; a single run needs far more than ten seeds do."""
    cut = arm((12, 0.04), (4, 0.0), seeds=3)
    found = trend(cut, SETTINGS)
    assert found.forecast is not None
    assert found.forecast.state == "plateaued"
    assert found.forecast.rounds is not None
    assert found.forecast.seeds is not None
    assert found.forecast.seeds > 3
    assert f"about {found.forecast.rounds} more rounds" in outlook(found)
    assert outlook(trend(arm((12, 0.04), (20, 0.0)), SETTINGS)) == ""
    assert "2 rounds are too few to estimate their spread" in outlook(trend(cut[:, :2], SETTINGS))
    hopeless = trend(np.full((1, 12), SETTINGS.delta), SETTINGS)
    assert "neither 200 more rounds nor 100 seeds would decide" in outlook(hopeless)


def test_rounds_beyond_the_horizon_are_not_looked_at() -> None:
    found = arm((40, 0.0))
    assert trend(found, Detector(horizon=5)).rounds == 5


def test_nothing_to_test() -> None:
    nothing = trend(np.full((2, 6), np.nan), SETTINGS)
    assert (nothing.state, nothing.round) == ("undecided", None)
    assert trend(np.empty((1, 0)), SETTINGS).state == "undecided"


def test_metrics_of_a_round() -> None:
    found = trend_metrics(trend(arm((20, 0.0)), SETTINGS))
    assert found["trend/plateau_alarm"] == 1.0
    assert found["trend/improving_alarm"] == found["trend/degrading_alarm"] == 0.0
    assert found["trend/plateau_evidence"] >= found["trend/plateau_threshold"] == pytest.approx(40 / 0.03)
    assert found["trend/mirror_threshold"] == pytest.approx(40 / 0.01)
    assert trend_metrics(trend(arm((20, 0.0)), SETTINGS))["trend/gain"] == pytest.approx(0.0, abs=0.01)


def test_changes_come_before_levels() -> None:
    """Where every seed logged its changes; they are of the detector's measure, which must be the one asked for."""
    rows = {
        0: {"quality/sampled": 0.4},
        1: {"quality/sampled": 0.5, "quality/change": 0.08, "quality/change_stderr": 0.01},
    }
    found, stderr = measured([rows, rows], "gold", changes=True)
    assert found == pytest.approx(np.array([[0.08], [0.08]]))
    assert stderr == pytest.approx(np.array([[0.01], [0.01]]))
    found, stderr = measured([rows, {0: {"quality/sampled": 0.4}, 1: {"quality/sampled": 0.6}}], "gold", changes=True)
    assert found == pytest.approx(np.array([[0.1], [0.2]]))
    assert np.isnan(stderr).all()
    people = {0: {"human/win_rate_vs_round_0": 0.5}, 1: {"human/win_rate_vs_round_0": 0.7}}
    assert measured([people], "people", changes=False)[0] == pytest.approx(np.array([[0.2]]))
