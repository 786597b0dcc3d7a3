"""The saturation fit on curves whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlaif_lab.plateau.profile import profile, von_neumann
from rlaif_lab.plateau.saturation import (
    Curve,
    Floats,
    Saturation,
    equivalence,
    fit,
    jackknife,
    lack_of_fit,
    pseudo_values,
    saturation,
)
from rlaif_lab.seeding import rng_for

T5 = 2.776445  # t(.975, 4)
ROUNDS = np.arange(13.0)


def rising(ceiling: float, tau: float, start: float = 0.4, rounds: Floats = ROUNDS) -> Curve:
    return Curve(rounds, ceiling - (ceiling - start) * np.exp(-rounds / tau))


def noisy(curve: Curve, seed: int, size: float = 0.004) -> Curve:
    return Curve(curve.rounds, curve.quality + size * rng_for("noise", seed).standard_normal(len(curve.rounds)))


def unknown(found: Saturation) -> bool:
    """Nothing that would state a ceiling is there."""
    intervals = (found.ceiling, found.gain, found.tau, found.t_90, found.remaining)
    return (
        not found.identified
        and all(math.isnan(value) for interval in intervals for value in interval)
        and not found.ceilings
        and not found.exhausted
    )


# --- the fit ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("ceiling", "tau", "start"), [(0.7, 3.0, 0.4), (0.2, 1.0, 0.5), (0.9, 11.0, 0.1)])
def test_fit_finds_an_exact_curve(ceiling: float, tau: float, start: float) -> None:
    found = fit(ROUNDS, rising(ceiling, tau, start).quality[None])
    assert found.ceiling[0] == pytest.approx(ceiling, abs=1e-4)
    assert found.start[0] == pytest.approx(start, abs=1e-4)
    assert found.tau[0] == pytest.approx(tau, rel=1e-3)
    assert found.remaining[0] == pytest.approx((ceiling - start) * math.exp(-12 / tau), abs=1e-4)
    assert found.error[0] == pytest.approx(0.0, abs=1e-8)


def test_fit_of_many_is_that_of_each() -> None:
    quality = np.stack([noisy(rising(0.6 + 0.02 * i, 2.0 + i), i).quality for i in range(5)])
    together = fit(ROUNDS, quality)
    for index in range(5):
        alone = fit(ROUNDS, quality[index : index + 1])
        assert together.tau[index] == pytest.approx(alone.tau[0])
        assert together.ceiling[index] == pytest.approx(alone.ceiling[0])


def test_fit_is_the_least_squares_one() -> None:
    """No tau near or far has a smaller error."""
    curve = noisy(rising(0.7, 4.0), 1, 0.02)
    best = float(fit(ROUNDS, curve.quality[None]).error[0])
    for tau in np.geomspace(0.2, 120, 300):
        design = np.stack([np.ones(13), np.exp(-ROUNDS / tau)], 1)
        error = float(np.linalg.lstsq(design, curve.quality, rcond=None)[1][0])
        assert error > best - 1e-9


def test_fit_refuses_what_it_cannot_fit() -> None:
    with pytest.raises(ValueError, match="at least 4 rounds; got 3"):
        fit(np.arange(3.0), np.zeros((1, 3)))
    with pytest.raises(ValueError, match="finite"):
        fit(ROUNDS, np.full((1, 13), np.nan))


# --- over seeds ---------------------------------------------------------------------------------------------------
def test_intervals_by_hand() -> None:
    """Exact curves of one tau and of ceilings .60, .61, ..., .64. Their mean curve is one of ceiling .62, and without a
    seed of the mean of the others' ceilings: so the pseudo-values are the seeds' ceilings, and tau is beyond doubt."""
    found = saturation({i: rising(0.6 + 0.01 * i, 2.0) for i in range(5)}, 0.01)
    half = T5 * 0.01 * math.sqrt(2.5) / math.sqrt(5)
    assert found.identified
    assert found.onset == 0
    assert found.ceiling == pytest.approx((0.62, 0.62 - half, 0.62 + half), abs=1e-4)
    assert found.gain == pytest.approx((0.22, 0.22 - half, 0.22 + half), abs=1e-4)
    assert found.tau == pytest.approx((2.0, 2.0, 2.0), rel=1e-3)
    assert found.t_90 == pytest.approx([tau * math.log(10) for tau in found.tau])
    assert found.remaining.mean == pytest.approx(0.22 * math.exp(-6.0), rel=0.01)
    assert found.ceilings == pytest.approx({i: 0.6 + 0.01 * i for i in range(5)}, abs=1e-3)
    assert (found.seeds, found.rounds) == (5, 12)


def test_pseudo_values_by_hand() -> None:
    """3 x 5 - 2 x (4, 5, 6.5)."""
    assert pseudo_values(np.array([5.0, 4.0, 5.0, 6.5])) == pytest.approx([7.0, 5.0, 2.0])


def test_jackknife_leaves_out_one_after_the_other() -> None:
    curves = [noisy(rising(0.6 + 0.02 * i, 2.0 + 0.2 * i), i) for i in range(4)]
    found = jackknife(curves)
    assert len(found.tau) == 5
    everyone = fit(ROUNDS, np.mean([curve.quality for curve in curves], axis=0)[None])
    without_2 = fit(ROUNDS, np.mean([curve.quality for curve in (*curves[:2], curves[3])], axis=0)[None])
    assert found.ceiling[0] == pytest.approx(everyone.ceiling[0])
    assert found.tau[3] == pytest.approx(without_2.tau[0])


def test_order_of_seeds_and_a_shift_change_nothing_else() -> None:
    seeds = {i: noisy(rising(0.62, 2.5), i) for i in range(5)}
    found = saturation(seeds, 0.01)
    assert saturation(dict(reversed(seeds.items())), 0.01) == found
    higher = saturation({i: Curve(c.rounds, c.quality + 0.1) for i, c in seeds.items()}, 0.01)
    assert higher.ceiling == pytest.approx([value + 0.1 for value in found.ceiling])
    assert higher.tau == pytest.approx(found.tau)
    assert higher.remaining == pytest.approx(found.remaining)


def test_seeds_of_different_lengths_are_compared_as_far_as_the_shortest() -> None:
    """As when the detector ended some of them early: a mean over fewer and fewer seeds would be no curve."""
    seeds = {i: noisy(rising(0.62, 2.5, rounds=np.arange(10.0 + i)), i, 0.002) for i in range(4)}
    found = saturation(seeds, 0.01)
    cut = saturation({i: Curve(c.rounds[:10], c.quality[:10]) for i, c in seeds.items()}, 0.01)
    assert found.identified
    assert (found.ceiling, found.tau) == (cut.ceiling, cut.tau)
    assert found.rounds == 12
    apart = saturation({0: rising(0.6, 2.0), 1: Curve(ROUNDS + 10.0, rising(0.6, 2.0).quality)}, 0.01)
    assert unknown(apart)
    assert apart.reason == "the seeds have only 3 evaluated rounds in common"


def test_remaining_gain_against_delta() -> None:
    seeds = {i: noisy(rising(0.62, 2.5), 10 + i, 0.002) for i in range(5)}  # remaining: .22 e^-4.8 = .0018
    found = saturation(seeds, 0.01)
    assert found.remaining.low < 0.0018 < found.remaining.high < 0.01
    assert found.exhausted
    assert found.exhausted_p < 0.05
    strict = saturation(seeds, 0.0018)
    assert not strict.exhausted


def test_equivalence_by_hand() -> None:
    """Pseudo-values -5, -6, -7 against log delta -4: t = -2 / (1 / sqrt 3) = -3.464 with 2 degrees of freedom."""
    assert equivalence(-6.0, np.array([-5.0, -6.0, -7.0]), -4.0) == pytest.approx(0.03709, abs=1e-4)
    assert equivalence(-5.0, np.array([-5.0, -5.0]), -4.0) == 0.0
    assert equivalence(-3.0, np.array([-3.0, -3.0]), -4.0) == 1.0


# --- not identified ----------------------------------------------------------------------------------------------
def test_slow_curves_have_no_ceiling() -> None:
    found = saturation({i: noisy(rising(0.8, 9.0), i, 0.001) for i in range(5)}, 0.01)
    assert unknown(found)
    assert found.reason.startswith("tau is about ")
    assert found.reason.endswith("more than half of the 12 that were run")


def test_flat_curves_have_no_ceiling() -> None:
    found = saturation({i: noisy(Curve(ROUNDS, np.full(13, 0.5)), i, 0.01) for i in range(5)}, 0.01)
    assert unknown(found)
    assert found.reason.startswith("no change from the first rounds to the last that the seeds agree on")


def test_falling_curves_have_no_ceiling() -> None:
    found = saturation({i: noisy(rising(0.3, 2.0), i) for i in range(5)}, 0.01)
    assert unknown(found)
    assert found.reason.startswith("quality falls from the first rounds to the last: -0.")


def test_straight_lines_have_no_ceiling() -> None:
    found = saturation({i: noisy(Curve(ROUNDS, 0.3 + 0.02 * ROUNDS), i) for i in range(5)}, 0.01)
    assert unknown(found)
    assert found.reason == "the curve is nearly a straight line, with no end in sight"


def test_a_ceiling_that_rests_on_one_seed_is_none() -> None:
    """Three straight lines, and one curve that bends enough for all of them."""
    seeds = {i: noisy(Curve(ROUNDS, 0.40 + 0.01 * ROUNDS), i) for i in range(3)}
    seeds[3] = noisy(rising(0.80, 1.5), 3)
    found = saturation(seeds, 0.01)
    assert unknown(found)
    assert found.reason == "without seed 3 the curve shows no curvature"


def test_seeds_that_disagree_have_no_ceiling() -> None:
    found = saturation({i: rising(0.62, tau) for i, tau in enumerate((0.5, 1.0, 8.0))}, 0.01)
    assert unknown(found)
    assert found.reason.startswith("the seeds disagree on tau: ")


def test_a_ceiling_above_one_is_none() -> None:
    found = saturation({i: noisy(rising(1.05, 3.0), i, 0.001) for i in range(5)}, 0.01)
    assert unknown(found)
    assert "no possible quality" in found.reason


def test_limits_stay_within_possible_qualities() -> None:
    found = saturation({i: rising(0.99 + 0.01 * (i - 1), 3.0) for i in range(3)}, 0.01)
    assert found.identified
    assert found.ceiling.high == 1.0
    assert found.ceiling.mean == pytest.approx(0.99, abs=1e-4)


def test_too_little_to_fit() -> None:
    assert unknown(saturation({}, 0.01))
    short = saturation({i: rising(0.6, 1.0, rounds=np.arange(4.0)) for i in range(5)}, 0.01)
    assert unknown(short)
    assert short.reason == "a ceiling needs at least 5 evaluated rounds"
    doubted = saturation({i: rising(0.62, 2.5) for i in range(5)}, 0.01, doubt="quality is falling")
    assert unknown(doubted)
    assert doubted.reason == "quality is falling"


# --- the onset ----------------------------------------------------------------------------------------------------
def test_a_flat_beginning_is_left_out() -> None:
    """Nothing happens for four rounds, then the curve rises to .62 with tau 2."""
    rounds = np.arange(17.0)
    quality = 0.62 - 0.22 * np.exp(-np.maximum(rounds - 4.0, 0.0) / 2.0)
    found = saturation({i: noisy(Curve(rounds, quality), i) for i in range(5)}, 0.01)
    assert found.identified
    assert 3 <= found.onset <= 5
    assert found.ceiling.low < 0.62 < found.ceiling.high
    assert found.gain.low < 0.22 < found.gain.high  # from round 0


def test_lack_of_fit() -> None:
    exponential = [noisy(rising(0.62, 3.0), i) for i in range(5)]
    humped = [noisy(Curve(ROUNDS, 0.6 - 0.005 * (ROUNDS - 6.0) ** 2), i) for i in range(5)]
    assert lack_of_fit(exponential) > 0.05
    assert lack_of_fit(humped) < 1e-6
    assert lack_of_fit([rising(0.62, 3.0)] * 3) == 1.0


# --- one seed ----------------------------------------------------------------------------------------------------
def test_a_single_run() -> None:
    found = saturation({7: noisy(rising(0.62, 2.5), 0)}, 0.01)
    assert found.identified
    assert found.seeds == 1
    assert found.ceiling.low < 0.62 < found.ceiling.high
    assert found.ceiling.high - found.ceiling.low < 0.03
    assert found.exhausted == (found.remaining.high < 0.01)
    assert list(found.ceilings) == [7]


def test_a_single_run_that_shows_no_ceiling() -> None:
    flat = saturation({0: noisy(Curve(ROUNDS, np.full(13, 0.5)), 3, 0.01)}, 0.01)
    assert unknown(flat)
    assert flat.reason == "no change that stands out from the noise of the evaluations"
    assert unknown(saturation({0: noisy(rising(0.8, 9.0), 0, 0.001)}, 0.01))
    assert unknown(saturation({0: noisy(rising(0.2, 2.0), 0)}, 0.01))


def test_profile_limits_are_where_the_fit_becomes_significantly_worse() -> None:
    """At a limit of the ceiling, the best curve that has it is worse by exactly F(1, 10; .95) = 4.9646."""
    curve = noisy(rising(0.62, 2.5), 2, 0.01)
    found = profile(curve)
    least = float(fit(ROUNDS, curve.quality[None]).error[0])
    for limit in (found.ceiling.low, found.ceiling.high):
        errors = []
        for tau in np.geomspace(0.2, 120, 4000):
            decay = np.exp(-ROUNDS / tau)
            slope = decay @ (curve.quality - limit) / (decay @ decay)
            errors.append(float(((curve.quality - limit - slope * decay) ** 2).sum()))
        assert (min(errors) / least - 1.0) * 10 == pytest.approx(4.9646, rel=0.02)


def test_von_neumann_ratio() -> None:
    rng = rng_for(0, "von_neumann")
    ratios = [von_neumann(Curve(ROUNDS, rising(0.62, 3.0).quality + 0.01 * rng.standard_normal(13))) for _ in range(50)]
    assert 2.0 < np.mean(ratios) < 3.0  # three parameters are fitted, so a little more than 2
    assert von_neumann(Curve(ROUNDS, 0.6 - 0.005 * (ROUNDS - 6.0) ** 2)) < 1.0
