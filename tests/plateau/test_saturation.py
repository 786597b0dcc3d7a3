"""Ceilings: printed only where all curves not excluded agree; on exact curves, and in simulation on known truths."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlaif_lab.plateau.saturation import LEAST, MOST_LEFT, WIDEST, Curve, Saturation, of_the_mean, saturation
from rlaif_lab.plateau.shapes import families
from rlaif_lab.records import Floats
from rlaif_lab.seeding import rng_for

DELTA = 0.01


def arm(curve: Floats, seeds: int, name: str, error: float = 0.01, walk: float = 0.0) -> dict[int, Curve]:
    rng = rng_for("ceilings", name, seeds)
    rounds = np.arange(float(len(curve)))
    swing = walk * np.cumsum(rng.standard_normal((seeds, len(curve))), axis=1)
    levels = curve + swing + error * rng.standard_normal((seeds, len(curve)))
    return {seed: Curve(rounds, row) for seed, row in enumerate(levels)}


def rising(last: int, tau: float) -> Floats:
    return 0.9 - 0.5 * np.exp(-np.arange(last + 1.0) / tau)


def unknown(found: Saturation) -> bool:
    """Nothing that would state a ceiling is there."""
    return (
        not found.identified and all(math.isnan(v) for v in (*found.ceiling, *found.remaining)) and not found.exhausted
    )


# --- what the families are ----------------------------------------------------------------------------------------
def test_rising_families_rise_and_end_where_they_say() -> None:
    """Each shape is monotone over the rounds seen; ahead of them it comes near its end."""
    rounds = np.arange(21.0)
    for one in families(rounds):
        columns = one.at[:, :, 1:]
        if one.rises:
            steps = np.diff(columns, axis=1)
            assert ((steps >= -1e-12).all(1) | (steps <= 1e-12).all(1)).all(), one.name
            assert np.isfinite(one.end).all()


def test_an_exact_curve_of_each_family_is_not_excluded() -> None:
    """Some shape fits it to within a hundredth of its rise."""
    t = np.arange(21.0)
    truths = {
        "exponential": 1 - np.exp(-t / 4),
        "power law": 1 - (1 + t) ** -0.5,
        "log": np.log1p(t) / 3,
        "two speeds": 1 - 0.6 * np.exp(-t / 2) - 0.4 * np.exp(-t / 15),
        "logistic": 1 / (1 + np.exp(-(t - 6) / 2)),
        "linear": t / 20,
        "hump": t / 8 * np.exp(1 - t / 8),
    }
    for name, truth in truths.items():
        best = math.inf
        for shapes in (one for one in families(t) if one.name == name):
            for columns in shapes.at:
                left = truth - columns @ np.linalg.lstsq(columns, truth, rcond=None)[0]
                best = min(best, float(np.sqrt(np.mean(left**2))))
        assert best < 8e-3, (name, best)


# --- the noise --------------------------------------------------------------------------------------------------------
def test_the_covariance_of_the_mean_is_of_the_size_of_the_noise() -> None:
    """Independent errors: the variance of the mean curve; a walk: growing with the rounds."""
    rng = rng_for("covariance")
    rounds = np.arange(31.0)
    errors = 0.02 * rng.standard_normal((10, 31))
    found = of_the_mean(errors, rounds)
    assert found[5, 5] == pytest.approx(0.02**2 / 10, rel=0.6)
    walks = 0.02 * np.cumsum(rng.standard_normal((10, 31)), axis=1)
    found = of_the_mean(walks, rounds)
    grown = found[30, 30] - found[0, 0]
    assert 0.7 < grown / (30 * 0.02**2 / 10) < 3.5
    assert np.linalg.eigvalsh(found).min() > 0


# --- what is said -----------------------------------------------------------------------------------------------------
def test_a_curve_that_has_ended_has_a_ceiling() -> None:
    found = saturation(arm(rising(30, 3.0), 10, "ended", 0.006), DELTA)
    assert found.identified
    assert found.ceiling.low <= 0.9 <= found.ceiling.high
    assert found.ceiling.high - found.ceiling.low <= WIDEST
    assert max(-found.remaining.low, found.remaining.high) <= MOST_LEFT
    assert found.condition == "if nothing new begins after round 60"
    assert {promise.family for promise in found.promises if promise.excluded} >= {"linear", "log"}
    assert found.last_gain.mean == pytest.approx(0.0, abs=0.005)


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("last", [12, 20, 40])
@pytest.mark.parametrize("walk", [0.0, 0.01])
def test_what_has_not_ended_has_none(seeds: int, last: int, walk: float) -> None:
    """Truths that never end, or are far from their end: none of ten arms each."""
    t = np.arange(last + 1.0)
    truths = {
        "log": np.log1p(t) / np.log1p(last),
        "power -.5": 1 - (1 + t) ** -0.5,
        "linear": t / last,
        "two speeds": 1 - 0.6 * np.exp(-t / 2) - 0.4 * np.exp(-t / last),
        "linear + exponential": 0.6 * (1 - np.exp(-t / 3)) + 0.4 * t / last,
        "hump": t / (last / 2.5) * np.exp(1 - t / (last / 2.5)),
        "slow": 1 - np.exp(-2 * t / last),
    }
    for name, truth in truths.items():
        for index in range(3):
            found = saturation(arm(0.4 + 0.5 * truth, seeds, f"{name} {index} {last}", walk=walk), DELTA)
            assert unknown(found), (name, found.ceiling, found.remaining)
            assert found.reason


@pytest.mark.parametrize("tau", [2.0, 4.0])
def test_intervals_hold_the_truth(tau: float) -> None:
    found = [saturation(arm(rising(40, tau), 10, f"cover {index}", 0.005), DELTA) for index in range(12)]
    known = [one for one in found if one.identified]
    assert len(known) > 3
    assert all(one.ceiling.low <= 0.9 <= one.ceiling.high for one in known)


def test_no_seed_alone_none_that_is_short_none_without_a_rise() -> None:
    one = saturation(arm(rising(40, 3.0), 1, "alone"), DELTA)
    assert unknown(one)
    assert one.reason == "one seed cannot tell its swings from its curve"
    short = saturation(arm(rising(LEAST - 2, 1.0), 5, "short"), DELTA)
    assert "at least 8 evaluated rounds" in short.reason
    flat = saturation(arm(np.full(30, 0.5), 10, "level"), DELTA)
    assert unknown(flat)
    assert "no change from the first rounds to the last" in flat.reason
    falling = saturation(arm(rising(30, 3.0)[::-1], 5, "falling"), DELTA)
    assert "quality falls" in falling.reason
    assert saturation({}, DELTA).reason == "no whole run with gold quality"


def test_a_doubt_from_elsewhere_is_the_reason() -> None:
    found = saturation(arm(rising(30, 3.0), 10, "ended", 0.006), DELTA, "quality is falling")
    assert unknown(found)
    assert found.reason == "quality is falling"
    assert found.promises


def test_a_curve_of_no_family_has_no_ceiling() -> None:
    """A second rise that the first two thirds know nothing of."""
    t = np.arange(31.0)
    second = 0.4 + 0.3 * (1 - np.exp(-t / 2)) + 0.2 / (1 + np.exp(-(t - 24) / 1.0))
    found = saturation(arm(second, 10, "second", 0.004), DELTA)
    assert unknown(found)


def test_the_order_of_seeds_does_not_matter() -> None:
    curves = arm(rising(30, 3.0), 10, "ended", 0.006)
    again = {seed: curves[seed] for seed in reversed(curves)}
    assert saturation(again, DELTA).ceiling == saturation(curves, DELTA).ceiling


def test_seeds_that_ended_early_take_part_as_far_as_they_got() -> None:
    curves = arm(rising(30, 3.0), 10, "ended", 0.006)
    curves[3] = Curve(curves[3].rounds[:20], curves[3].quality[:20])
    assert saturation(curves, DELTA).identified in (True, False)
    curves[3] = Curve(curves[3].rounds[:5], curves[3].quality[:5])
    assert "rounds that all seeds have" in saturation(curves, DELTA).reason
