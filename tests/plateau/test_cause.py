"""What is left of a prompt by hand; causes from shares by hand; loops of known cause in a small simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_lab.plateau.cause import Left, SeedLeft, of_seed, remains, what_is_left
from rlaif_lab.seeding import rng_for

RIGHT_WINS = [(0, 1, 0.9)]


def test_a_prompt_by_hand() -> None:
    assert what_is_left([1.0, 1.0], [(0, 1, 0.5)]).kind == "solved"
    nothing = what_is_left([0.0, 0.0], [(0, 1, 0.9)])
    assert (nothing.kind, nothing.left, nothing.beyond, nothing.preference) == ("coverage", 1.0, 1.0, 0.0)
    wrong = what_is_left([1.0, 0.0], [(0, 1, 0.2)])
    assert (wrong.kind, wrong.left, wrong.beyond, wrong.preference, wrong.gap) == (
        "judge prefers wrong",
        0.5,
        0.0,
        -1.0,
        -0.5,
    )
    assert what_is_left([1.0, 0.0], RIGHT_WINS).kind == "not taken up"
    assert what_is_left([0.0, 1.0], RIGHT_WINS).kind == "judge prefers wrong"
    assert what_is_left([1.0, 0.0], [(0, 1, None)]).kind == "judge cannot tell"
    assert what_is_left([1.0, 0.0], []).kind == "judge cannot tell"
    graded = what_is_left([0.5, 0.3], RIGHT_WINS)
    assert graded.kind == "coverage"
    assert (graded.left, graded.beyond) == (pytest.approx(0.6), pytest.approx(0.5))


@given(st.lists(st.floats(0.0, 1.0), min_size=2, max_size=5), st.lists(st.floats(0.0, 1.0), min_size=10, max_size=10))
def test_parts_add_up_and_swapping_a_pair_changes_nothing(quality: list[float], said: list[float]) -> None:
    pairs = list(itertools.combinations(range(len(quality)), 2))
    verdicts: list[tuple[int, int, float | None]] = [(i, j, p) for (i, j), p in zip(pairs, said, strict=False)]
    found = what_is_left(quality, verdicts)
    assert 0.0 <= found.beyond <= found.left + 1e-12
    assert -1.0 <= found.preference <= 1.0
    swapped = what_is_left(quality, [(j, i, None if p is None else 1.0 - p) for i, j, p in verdicts])
    assert swapped.preference == found.preference
    assert swapped.gap == pytest.approx(found.gap)


def test_a_seed_by_hand() -> None:
    """Two prompts in the last round: .5 where the judge is wrong, 1 in no sample; before, a minority judged wrongly."""
    minority = Left(0.75, 0.0, -1.0, -0.2, True, "judge prefers wrong")
    last = [Left(0.5, 0.0, -1.0, -0.25, False, "judge prefers wrong"), Left(1.0, 1.0, 0.0, 0.0, False, "coverage")]
    found = of_seed([[minority], last], 1, 0.01)
    assert found is not None
    assert found.left == 0.75
    assert (found.coverage, found.prefers_wrong) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert (found.preference, found.gap, found.drawn_away) == (-1.0, -0.125, -1.0)
    assert of_seed([], 1, math.nan) is None


def seed(**given: float) -> SeedLeft:
    plain = {"left": 0.5, "coverage": 0.2, "prefers_wrong": 0.0, "not_taken_up": 0.8, "cannot_tell": 0.0}
    return SeedLeft(**(plain | {"preference": 0.9, "gap": 0.06, "drawn_away": 0.9, "gain": 0.001} | given))


@pytest.mark.parametrize(
    ("state", "given", "cause"),
    [
        ("plateaued", {"left": 0.02}, "solved"),
        ("improving", {}, "still going"),
        ("undecided", {"gain": 0.03}, "still going"),
        ("undecided", {}, "undecided"),
        ("plateaued", {}, "not taken up"),
        ("plateaued", {"preference": -0.4}, "misled"),
        ("undecided", {"preference": -0.4, "gain": -0.01}, "misled"),
        ("degrading", {"coverage": 0.97, "drawn_away": -0.5, "preference": 0.0}, "misled"),
        ("plateaued", {"preference": 0.02, "gap": 0.0}, "judge cannot tell"),
        ("plateaued", {"coverage": 0.9, "gap": 0.005}, "coverage"),
        ("plateaued", {"gap": 0.01}, "unclear"),
    ],
)
def test_the_cause_by_hand(state: str, given: dict[str, float], cause: str) -> None:
    """Four seeds that agree to a hundredth."""
    seeds = {}
    for index in range(4):
        known = {name: value + 0.001 * index for name, value in given.items()}
        seeds[index] = seed(**({"gain": 0.001 * (index - 1)} | known))
    found = remains(seeds, state, 0.01)  # type: ignore[arg-type]
    assert found is not None
    assert found.cause == cause
    assert found.sentence.startswith(cause)
    assert remains(dict(reversed(seeds.items())), state, 0.01) == found  # type: ignore[arg-type]
    assert remains({}, "plateaued", 0.01) is None


@pytest.mark.parametrize(
    ("slip", "misconception", "rate", "cause"),
    [(0.95, 0.1, 1.2, "misled"), (0.9, 0.9, 0.0, "not taken up"), (0.5, 0.5, 0.5, "judge cannot tell")],
)
def test_loops_of_known_cause(slip: float, misconception: float, rate: float, cause: str) -> None:
    """Problems with a chance each, a judge that is right about a class so often, and a policy gradient."""
    rng = rng_for("cause", slip, misconception)
    seeds = {}
    for index in range(4):
        wrong = np.arange(120) < 48
        odds = np.where(wrong, rng.normal(-1, 0.8, 120), rng.normal(1, 0.8, 120))
        right = np.where(wrong, misconception, slip)
        rounds = []
        for _ in range(20):
            chance = 1 / (1 + np.exp(-odds))
            prompts = []
            for problem in range(120):
                q = (rng.random(4) < chance[problem]).astype(float).tolist()
                verdicts: list[tuple[int, int, float | None]] = []
                for i, j in itertools.combinations(range(4), 2):
                    better = q[i] > q[j] if q[i] != q[j] else rng.random() < 0.5
                    verdicts.append((i, j, 0.9 if better == (rng.random() < right[problem]) else 0.1))
                prompts.append(what_is_left(q, verdicts))
            rounds.append(prompts)
            push = chance * (1 - chance) * (2 * right - 1)
            odds = odds + rate * np.where(wrong, push[wrong].mean(), push[~wrong].mean())
        left = of_seed(rounds, 5, 0.0)
        assert left is not None
        seeds[index] = left
    found = remains(seeds, "plateaued", 0.01)
    assert found is not None
    assert found.cause == cause


def test_what_the_judge_taught_is_no_lack_of_uptake() -> None:
    """No sample is right any more, since the judge preferred the misconception when there was a choice."""
    taught = {index: seed(coverage=0.45, misconceived=0.8 + index / 100, for_right=-0.9) for index in range(3)}
    found = remains(taught, "plateaued", 0.01)
    assert found is not None
    assert found.cause == "misled"
    assert "of what is left is the task's misconception" in found.sentence
    for change in ({"misconceived": 0.3}, {"for_right": 0.5}, {"for_right": math.nan}):
        other = {i: seed(**({"coverage": 0.45, "misconceived": 0.8, "for_right": -0.9} | change)) for i in taught}
        said = remains(other, "plateaued", 0.01)
        assert said is not None
        assert said.cause == "not taken up"


def test_a_hacked_arm_is_misled() -> None:
    found = remains({0: seed(), 1: seed()}, "degrading", 0.01, hacked=True)
    assert found is not None
    assert found.cause == "misled"
    assert found.sentence.startswith("misled: the judge prefers the policy to what it was at first, and gold does not;")


def test_misconceived_answers_by_hand() -> None:
    """Right, misconceived, wrong otherwise: one comparison between the first two, decided for the misconception."""
    found = what_is_left([1.0, 0.0, 0.0], [(0, 1, 0.2), (0, 2, 0.9), (1, 2, 0.9)], [0.0, 1.0, 0.0])
    assert found.misconceived == pytest.approx(1 / 3)
    assert found.between == (1, -1)
    swapped = what_is_left([0.0, 1.0, 0.0], [(0, 1, 0.2), (0, 2, None)], [1.0, 0.0, 0.0])
    assert swapped.between == (1, 1)
    left = of_seed([[found], [swapped]], 1, 0.0)
    assert left is not None
    assert (left.for_right, left.misconceived) == (0.0, pytest.approx(0.5))
    same = what_is_left([1.0, 0.0], [(0, 1, 0.2)], [1.0, 0.0])
    assert (same.misconceived, same.between) == (0.0, (0, 0))


def test_coverage_is_not_named_where_a_shared_misconception_may_be_why() -> None:
    """No sample is right either way; whose doing that is, the misconception's share says, where it is known."""
    lost = {"coverage": 0.97, "preference": 0.0, "gap": 0.0, "drawn_away": 0.0, "for_right": -0.9}
    shares = {"coverage": [0.1, 0.15, 0.2], "unclear": [0.9, 0.57, 0.75], "misled": [0.9, 0.88, 0.92]}
    for cause, some in shares.items():
        seeds = {i: seed(**lost, misconceived=share) for i, share in enumerate(some)}
        found = remains(seeds, "plateaued", 0.01)
        assert found is not None
        assert found.cause == cause
    without = {i: seed(**(lost | {"for_right": math.nan}), misconceived=math.nan) for i in range(3)}
    found = remains(without, "plateaued", 0.01)
    assert found is not None
    assert found.cause == "coverage"
