"""Agreement with gold: textbook values, and coverage by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlaif_lab.metrics.agreement import (
    at_chance,
    clopper_pearson,
    clustered,
    cohen_kappa,
    gate_message,
    kappa_with_gold,
    one_per_prompt,
    picks_right,
    rate,
    wilson,
)
from rlaif_lab.statistics.intervals import t_interval

NAN = math.nan


def test_what_counts_as_right() -> None:
    says = np.array([0.9, 0.1, 0.5, NAN, 0.9, 0.9])
    gold = np.array([1.0, 1.0, -0.5, 1.0, 0.0, NAN])
    np.testing.assert_array_equal(picks_right(says, gold), [1, 0, 0.5, NAN, NAN, NAN])
    np.testing.assert_array_equal(picks_right(1 - says, -gold), picks_right(says, gold))  # whichever comes first


def test_wilson_is_the_textbook_interval() -> None:
    # Agresti and Coull 1998: 0 of 20 gives [0, .161]; Newcombe 1998, 81 of 263: [.2553, .3662].
    assert wilson(0, 20).low == 0.0
    assert wilson(0, 20).high == pytest.approx(0.1611, abs=1e-4)
    assert tuple(wilson(81, 263)) == pytest.approx((81 / 263, 0.2553, 0.3662), abs=1e-4)
    assert math.isnan(wilson(0, 0).low)


def test_a_rate_over_pairs_of_one_prompt_each() -> None:
    measured = rate(np.array([1, 1, 0, 0.5, NAN]), ["a", "b", "c", "d", "e"])
    assert (measured.value, measured.n, measured.method) == (0.625, 4, "Wilson")
    assert measured.interval == wilson(2.5, 4)


def test_prompts_are_the_unit_where_they_have_several_pairs() -> None:
    # Each prompt's pairs all end alike: two or twenty of them are one observation.
    prompts = list("abcdefgh")
    right = np.array([1, 1, 1, 0, 1, 0, 1, 1.0])
    alone = t_interval(right.tolist())
    for copies in (2, 20):
        measured = rate(np.repeat(right, copies), [p for p in prompts for _ in range(copies)])
        assert measured.method == "t over prompts"
        assert tuple(measured.interval) == pytest.approx(tuple(alone))
    one_prompt = rate(np.array([1.0, 0.0]), ["a", "a"])
    assert one_prompt.value == 0.5
    assert math.isnan(one_prompt.interval.low)


def test_without_values_there_is_no_rate() -> None:
    assert rate(np.array([NAN]), ["a"]).n == 0
    assert math.isnan(rate(np.array([]), []).value)


def test_clustered_intervals_cover() -> None:
    """60 prompts with 1 to 6 pairs each, whose pairs agree more than chance: true mean .7."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        values, clusters = [], []
        for prompt, size in enumerate(rng.integers(1, 7, 60).tolist()):
            share = rng.beta(1.4, 0.6)
            values += (rng.random(size) < share).astype(float).tolist()
            clusters += [prompt] * size
        pooled = np.array(values)
        interval = clustered(pooled.mean(), (pooled - pooled.mean()) / len(pooled), clusters)
        covered += interval.low <= 0.7 <= interval.high
    assert 0.92 <= covered / 400 <= 0.98


# --- kappa --------------------------------------------------------------------------------------------------------
def test_kappa_of_a_table_by_hand() -> None:
    # 50 grants, two readers: both yes 20, both no 15; agreement .7, chance .5 x .6 + .5 x .4 = .5.
    found = cohen_kappa([[20, 5], [10, 15]])
    assert found.value == pytest.approx(0.4)
    assert found.n == 50
    # Fleiss's diagnoses: agreement .89, chance .66.
    three = cohen_kappa([[75, 1, 4], [5, 4, 1], [0, 0, 10]])
    assert three.value == pytest.approx((0.89 - 0.66) / (1 - 0.66))
    assert three.stderr == pytest.approx(0.087, abs=1e-3)


def test_kappa_at_its_ends() -> None:
    assert cohen_kappa(np.diag([3, 4])).value == 1.0
    assert cohen_kappa([[0, 5], [5, 0]]).value == -1.0
    assert cohen_kappa([[25, 25], [25, 25]]).value == 0.0
    assert math.isnan(cohen_kappa([[5, 0], [0, 0]]).value)  # nothing but agreement was possible
    assert cohen_kappa(np.zeros((3, 3))).n == 0


def test_kappa_and_its_standard_error_in_simulation() -> None:
    """Two raters, right .8 and .9 of the time about a coin: agreement .74, so kappa .48."""
    rng = np.random.default_rng(1)
    covered, values = 0, []
    for _ in range(500):
        truth = rng.random(150) < 0.5
        one, two = truth ^ (rng.random(150) < 0.2), truth ^ (rng.random(150) < 0.1)
        found = kappa_with_gold(one.astype(float), np.where(two, 1.0, -1.0))
        covered += abs(found.value - 0.48) <= 1.96 * found.stderr
        values.append(found.value)
    assert np.mean(values) == pytest.approx(0.48, abs=0.01)
    assert 0.92 <= covered / 500 <= 0.98


def test_the_tie_policy_of_kappa() -> None:
    says, gold = np.array([0.9, 0.1, 0.5, 0.5, NAN]), np.array([1.0, -1.0, 1.0, -1.0, 1.0])
    assert kappa_with_gold(says, gold, ties="drop").value == 1.0
    assert kappa_with_gold(says, gold, ties="drop").n == 2
    # As a category: agreement 2/4; chance .25 x .5 + .25 x .5 = .25; (.5 - .25) / .75.
    assert kappa_with_gold(says, gold).value == pytest.approx(1 / 3)
    # A gold tie can be agreed with.
    assert kappa_with_gold(np.array([0.5, 0.9]), np.array([0.0, 1.0])).value == 1.0
    with pytest.raises(ValueError, match="ties must be one of category, drop; got 'half'"):
        kappa_with_gold(says, gold, ties="half")  # type: ignore[arg-type]


# --- the gate -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("correct", "wrong", "held"),
    [
        (0, 0, True),
        (1, 0, True),
        (5, 0, True),  # exact: 5 of 5 has the lower limit .478
        (6, 0, False),  # .541
        (50, 50, True),
        (60, 40, True),  # [.4972, .6967]
        (61, 39, False),  # [.5073, .7060]
        (39, 61, False),  # surely worse than chance is not at chance
    ],
)
def test_at_chance(correct: int, wrong: int, held: bool) -> None:
    assert at_chance(correct, wrong) is held


def test_clopper_pearson_by_the_table() -> None:
    assert tuple(clopper_pearson(60, 40)) == pytest.approx((0.6, 0.4972, 0.6967), abs=1e-4)
    assert tuple(clopper_pearson(0, 20))[1:] == pytest.approx((0.0, 0.1684), abs=1e-4)
    assert clopper_pearson(20, 0).high == 1.0


def test_a_coin_rarely_passes_the_gate() -> None:
    rng = np.random.default_rng(2)
    passed = sum(not at_chance(int(c), 200 - int(c)) for c in rng.binomial(200, 0.5, 1000))
    assert passed / 1000 < 0.06


def test_the_gate_counts_one_comparison_per_prompt() -> None:
    right = np.array([NAN, 1.0, 0.0, 0.5, 0.0, 1.0, NAN])
    assert one_per_prompt(right, ["a", "a", "a", "b", "b", "c", "d"]) == (2, 1)


def test_the_refusal_is_one_sentence_with_a_way_out() -> None:
    message = gate_message("weaker", 60, 40)
    assert "judge 'weaker' is at chance on round 0" in message
    assert "60 of 100 comparisons (0.600, 95% interval 0.497 to 0.697)" in message
    assert "gate.force=true" in message
    assert "gave no verdict on any two responses" in gate_message("mute", 0, 0)


@pytest.mark.parametrize(("correct", "wrong", "confidence"), [(-1, 2, 0.95), (1, 2, 1.0)])
def test_impossible_counts_are_refused(correct: int, wrong: int, confidence: float) -> None:
    with pytest.raises(ValueError):
        at_chance(correct, wrong, confidence)
