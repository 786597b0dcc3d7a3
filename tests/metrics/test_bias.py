"""The bias model recovers what a simulated judge was given; length and self-preference by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlaif_lab.metrics.bias import (
    amplification,
    bias_model,
    firth_logistic,
    length_bias,
    length_drift,
    self_preference,
)

NAN = math.nan


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def simulated(rng: np.random.Generator, n: int, truth: tuple[float, float, float, float], shared_noise: bool) -> tuple:
    """Verdicts of a judge with these coefficients. shared_noise: one draw decides both orders, as in a judge that has
    an opinion of the pair; else each order is drawn anew."""
    gold, length = rng.choice([-1.0, 1.0], n), rng.normal(0, 40, n)
    own = rng.choice([-1.0, 0.0, 1.0], n)
    position, quality, per_length, authorship = truth
    lean = quality * gold + per_length * np.tanh(length / np.sqrt((length**2).mean())) + authorship * own
    one = rng.random(n)
    two = one if shared_noise else rng.random(n)
    shown_first = (one < sigmoid(lean + position)).astype(float)
    shown_second = (two < sigmoid(lean - position)).astype(float)
    return shown_first, shown_second, gold, length, own, list(range(n))


@pytest.mark.parametrize(
    ("truth", "shared_noise"), [((0.5, 1.0, -0.8, 0.6), False), ((0.0, 1.0, 0.7, -0.4), True)], ids=["anew", "shared"]
)
def test_known_coefficients_are_covered(truth: tuple[float, float, float, float], shared_noise: bool) -> None:
    rng = np.random.default_rng(0)
    covered, values = np.zeros(4), []
    runs = 150
    for _ in range(runs):
        fit = bias_model(*simulated(rng, 200, truth, shared_noise))
        found = [fit.position, fit.quality, fit.length, fit.authorship]
        covered += [abs(c.value - t) <= 1.96 * c.stderr for c, t in zip(found, truth, strict=True)]
        values.append([c.value for c in found])
    np.testing.assert_allclose(np.mean(values, axis=0), truth, atol=0.06)
    assert (covered[1:] / runs >= 0.9).all(), covered / runs
    assert (covered[1:] / runs <= 0.99).all(), covered / runs
    assert covered[0] / runs >= 0.9  # with shared noise the position is known better than the model says


def test_an_intercept_alone_by_hand() -> None:
    # Slot one in 30 of 40: Firth adds half a count to either side, ln(30.5 / 10.5).
    shown_first = np.array([1.0] * 15 + [0.0] * 5)
    fit = bias_model(shown_first, 1 - shown_first, np.full(20, NAN), np.zeros(20), np.zeros(20), list(range(20)))
    assert fit.position.value == pytest.approx(math.log(30.5 / 10.5))
    assert fit.n == 20
    assert all(math.isnan(c.value) for c in (fit.quality, fit.length, fit.authorship))


def test_an_oracle_has_a_large_finite_quality_coefficient_and_no_bias() -> None:
    rng = np.random.default_rng(3)
    gold, length = rng.choice([-1.0, 1.0], 100), rng.normal(0, 1, 100)
    says = (gold > 0).astype(float)
    fit = bias_model(says, says, gold, length, np.zeros(100), list(range(100)))
    assert 4 < fit.quality.value < 12
    assert abs(fit.position.value) < 1e-6
    assert abs(fit.length.value) < 1.96 * fit.length.stderr
    assert fit.quality.stderr > 0.5  # separated data say "large", not how large
    assert math.isnan(fit.authorship.value)


def test_a_length_judge_is_found_out() -> None:
    rng = np.random.default_rng(4)
    gold, length = rng.choice([-1.0, 1.0], 200), rng.integers(-50, 50, 200).astype(float)
    says = 0.5 + 0.5 * np.sign(length)
    fit = bias_model(says, says, gold, length, np.zeros(200), list(range(200)))
    assert fit.length.value > 3
    assert abs(fit.quality.value) < 1.96 * fit.quality.stderr
    assert fit.length_sd == pytest.approx(np.sqrt((length**2).mean()))


def test_what_is_determined_by_quality_gets_no_coefficient() -> None:
    gold = np.array([1.0, -1.0] * 20)
    says = np.where(np.arange(40) % 5, gold > 0, gold < 0).astype(float)
    fit = bias_model(says, says, gold, 7 * gold, np.zeros(40), list(range(40)))  # the better is always 7 longer
    assert fit.quality.value > 0
    assert math.isnan(fit.length.value)


def test_failed_comparisons_and_those_without_gold_are_left_out() -> None:
    gold = np.array([1.0, -1.0, NAN, 1.0])
    says = np.array([1.0, 0.0, 1.0, NAN])
    fit = bias_model(says, says, gold, np.zeros(4), np.zeros(4), list("abcd"))
    assert fit.n == 2
    assert bias_model(*(np.full(3, NAN),) * 5, list("abc")).n == 0


def test_the_fit_does_not_depend_on_which_response_comes_first() -> None:
    rng = np.random.default_rng(5)
    first, second, gold, length, own, prompts = simulated(rng, 80, (0.4, 1.0, 0.5, 0.3), False)
    turn = rng.random(80) < 0.5
    turned = bias_model(
        np.where(turn, 1 - second, first),
        np.where(turn, 1 - first, second),
        *(np.where(turn, -x, x) for x in (gold, length, own)),
        prompts,
    )
    straight = bias_model(first, second, gold, length, own, prompts)
    for name in ("position", "quality", "length", "authorship"):
        one, two = getattr(straight, name), getattr(turned, name)
        assert (one.value, one.stderr) == pytest.approx((two.value, two.stderr))


def test_doubling_every_observation_within_its_cluster_changes_no_robust_error() -> None:
    rng = np.random.default_rng(6)
    x = np.stack([np.ones(300), rng.normal(size=300)], axis=1)
    y = (rng.random(300) < sigmoid(x @ [0.3, 0.8])).astype(float)
    _, once = firth_logistic(x, y, list(range(300)))
    _, thrice = firth_logistic(np.repeat(x, 3, axis=0), np.repeat(y, 3), np.repeat(range(300), 3).tolist())
    np.testing.assert_allclose(thrice, once, rtol=0.1)  # the model's own errors would shrink by 1.7


# --- length -------------------------------------------------------------------------------------------------------
def test_length_by_hand() -> None:
    gold = np.array([1.0, 1.0, -1.0, 1.0, 1.0])
    length = np.array([5.0, 5.0, 5.0, -5.0, 0.0])  # better is: longer, longer, shorter, shorter, as long
    says = np.array([0.9, 0.2, 0.9, 0.9, 0.9])
    found = length_bias(says, gold, length, list("abcde"))
    assert (found.longer_right.value, found.longer_right.n) == (0.5, 2)
    assert (found.shorter_right.value, found.shorter_right.n) == (0.5, 2)
    assert (found.longer_preferred.value, found.longer_preferred.n) == (0.5, 4)
    longest = length_bias(np.array([0.9, 0.9, 0.9, 0.1, 0.9]), gold, length, list("abcde"))
    assert (longest.longer_right.value, longest.shorter_right.value, longest.longer_preferred.value) == (1.0, 0.0, 1.0)


def test_drift_and_amplification_by_hand() -> None:
    start = [10.0, 12.0, 14.0]  # mean 12, standard deviation 2
    assert length_drift([15.0, 17.0], start) == 2.0
    assert amplification(length_drift([15.0, 17.0], start), 0.5) == 4.0
    assert amplification(1.0, -0.5) == -2.0  # it went against the lean
    assert math.isnan(amplification(1.0, 0.0))
    assert math.isnan(amplification(1.0, NAN))
    assert math.isnan(length_drift([1.0], [2.0, 2.0]))


# --- self-preference ----------------------------------------------------------------------------------------------
def test_self_preference_by_hand() -> None:
    """Two pairs for each of four prompts: right against its own wrong answer, right against another's."""
    gold = np.array([1.0, 1.0, -1.0, -1.0, 1.0, 1.0, -1.0, -1.0])
    own_first = np.array([0, 0, 1, 0, 0, 0, 1, 0], dtype=bool)
    own_second = np.array([1, 0, 0, 0, 1, 0, 0, 0], dtype=bool)
    says = np.array([0.2, 0.9, 0.8, 0.9, 0.1, 0.9, 0.1, 0.1])  # own wrongly 3 of 4, the other's 1 of 4
    prompts = [0, 0, 1, 1, 2, 2, 3, 3]
    found = self_preference(says, gold, own_first, own_second, prompts)
    assert (found.own_wrongly.value, found.other_wrongly.value) == (0.75, 0.25)
    # Paired by prompt: 1, 0, 1, 0; mean .5, t interval of four differences.
    half = 3.182446 * math.sqrt(1 / 3) / 2
    assert tuple(found.difference) == pytest.approx((0.5, 0.5 - half, 0.5 + half), abs=1e-5)


def test_a_weak_judge_without_favour_has_no_self_preference() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(200):
        n = 120
        gold, own = rng.choice([-1.0, 1.0], n), np.arange(n) % 2 == 0
        says = np.where(rng.random(n) < 0.65, gold > 0, gold < 0).astype(float)
        found = self_preference(says, gold, own & (gold < 0), own & (gold > 0), (np.arange(n) // 2).tolist())
        assert found.own_wrongly.value == pytest.approx(0.35, abs=0.25)
        covered += found.difference.low <= 0 <= found.difference.high
    assert covered / 200 >= 0.91


def test_without_both_kinds_there_is_no_difference() -> None:
    none = np.zeros(2, dtype=bool)
    found = self_preference(np.array([0.9, 0.1]), np.array([1.0, 1.0]), none, none, ["a", "b"])
    assert found.own_wrongly.n == 0
    assert found.other_wrongly.value == 0.5
    assert math.isnan(found.difference.mean)


def test_soft_labels_are_what_a_lean_is_fitted_to() -> None:
    """A lean of 0.4 log-odds decides every pair of equally right answers, but moves a probability by a tenth only."""
    rng = np.random.default_rng(0)
    n = 4000
    length = rng.normal(0.0, 10.0, n)
    scale = np.sqrt(np.mean(length**2))
    probability = sigmoid(0.4 * np.tanh(length / scale))
    nothing = np.zeros(n)
    arguments = (probability, probability, nothing, length, nothing, list(range(n)))
    assert bias_model(*arguments, soft=True).length.value == pytest.approx(0.4, abs=0.05)
    assert bias_model(*arguments).length.value > 3.0
