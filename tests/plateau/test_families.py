"""Curve families on data that one of them made."""

from __future__ import annotations

import numpy as np
import pytest

from rlaif_lab.plateau.families import Families, Seen, compare
from rlaif_lab.records import Floats
from rlaif_lab.seeding import rng_for

ROUNDS = np.arange(13.0)
KL = 0.05 * ROUNDS**1.5


def seeds(quality: Floats, kl: Floats | None = KL, noise: float = 0.003) -> dict[int, Seen]:
    return {
        i: Seen(ROUNDS, quality + noise * rng_for("families", i).standard_normal(13), None if kl is None else kl)
        for i in range(5)
    }


def told(quality: Floats, kl: Floats | None = KL) -> Families:
    found = compare(seeds(quality, kl))
    assert found is not None
    return found


D = np.sqrt(KL)
HUMP = 0.4 + D * (0.6 - 0.4 * np.log(np.where(D > 0, D, 1.0)))
MADE_BY = {
    "linear": 0.3 + 0.02 * ROUNDS,
    "exponential": 0.6 - 0.3 * np.exp(-ROUNDS / 2.0),
    "power law": 0.9 - 0.6 * (1.0 + ROUNDS) ** -0.3,
    "hump": HUMP,
}


@pytest.mark.parametrize("family", MADE_BY)
def test_the_family_that_made_the_data_wins(family: str) -> None:
    found = told(MADE_BY[family])
    assert found.best == family
    assert found.errors[0].error.mean == pytest.approx(0.003, abs=0.001)
    assert found.errors[0].behind == (0.0, 0.0, 0.0)
    means = [error.error.mean for error in found.errors]
    assert means == sorted(means)
    assert found.errors[-1].behind.low > 0.0
    assert found.sentence.startswith(f"{family} predicts a seed left out best (error 0.00")


def test_parameters_are_found() -> None:
    by_name = {error.name: error.parameters for error in told(HUMP).errors}
    assert by_name["hump"] == pytest.approx({"a": 0.4, "alpha": 0.6, "beta": 0.4}, abs=0.01)
    by_name = {error.name: error.parameters for error in told(MADE_BY["exponential"]).errors}
    assert by_name["exponential"] == pytest.approx({"a": 0.6, "b": 0.3, "tau": 2.0}, rel=0.03)
    by_name = {error.name: error.parameters for error in told(MADE_BY["power law"]).errors}
    assert by_name["power law"]["c"] == pytest.approx(0.3, abs=0.05)
    by_name = {error.name: error.parameters for error in told(MADE_BY["linear"]).errors}
    assert by_name["linear"] == pytest.approx({"a": 0.3, "b": 0.02}, abs=0.003)


def test_errors_by_hand() -> None:
    """Two seeds that stand still at .5 and at .6: left out, each is missed by .1 by what the other says."""
    found = compare({0: Seen(ROUNDS, np.full(13, 0.5)), 1: Seen(ROUNDS, np.full(13, 0.6))})
    assert found is not None
    constant = next(error for error in found.errors if error.name == "constant")
    assert constant.error == pytest.approx((0.1, 0.1, 0.1))
    assert constant.parameters["a"] == pytest.approx(0.55)


def test_noise_alone_crowns_no_one() -> None:
    found = told(np.full(13, 0.5))
    assert "not shown to be worse: " in found.sentence


def test_the_order_of_seeds_changes_nothing() -> None:
    made = seeds(HUMP)
    assert compare(dict(reversed(made.items()))) == compare(made)


def test_a_hump_that_has_turned() -> None:
    """Its top is at exp(alpha / beta - 1): d = e^.5 = 1.65, beyond the 1.44 seen; with alpha .3, .78, well within."""
    assert not told(HUMP).turned
    past = told(0.4 + D * (0.3 - 0.4 * np.log(np.where(D > 0, D, 1.0))))
    assert past.turned
    assert "quality has turned" in past.sentence
    assert not told(MADE_BY["exponential"]).turned


def test_no_hump_without_distance_and_nothing_from_one_seed() -> None:
    assert "hump" not in {error.name for error in told(MADE_BY["linear"], kl=None).errors}
    assert compare({0: Seen(ROUNDS, MADE_BY["linear"])}) is None
    assert compare({}) is None


def test_no_movement_at_all_can_be_compared() -> None:
    """KL 0 throughout, as without training: the hump is a constant, and nothing is singular."""
    found = compare(seeds(np.full(13, 0.5), np.zeros(13)))
    assert found is not None
    assert all(np.isfinite(error.error.mean) for error in found.errors)


def test_seeds_of_different_lengths() -> None:
    made = seeds(MADE_BY["exponential"])
    short = Seen(ROUNDS[:8], made[0].quality[:8], KL[:8])
    found = compare({**made, 0: short})
    assert found is not None
    assert found.best == "exponential"
