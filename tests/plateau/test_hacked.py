"""The third fate: what shows it, and what does not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_lab.plateau.hacked import hacked
from rlaif_lab.seeding import rng_for


def test_a_weak_judge_over_optimised() -> None:
    """The run in which it was first seen: quality .471 to .077 while the win rate went to .918."""
    found = hacked({1: (0.077 - 0.471, 0.918 - 0.5)})
    assert found is not None
    assert found.sentence == (
        "hacked: its judge prefers it to round 0 more often than at first (+0.418), while quality has changed by -0.394"
    )
    assert hacked({0: (-0.3, 0.4), 1: (-0.35, 0.42), 2: (-0.4, 0.3)}) is not None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {0: (math.nan, 0.4)},
        {0: (-0.3, math.nan)},
        {0: (-0.3, 0.0)},
        {0: (0.2, 0.4)},
        {0: (-0.04, 0.4)},
        {0: (-0.4, 0.1), 1: (0.2, 0.2)},  # the seeds do not agree
    ],
)
def test_what_does_not_show_it(changes: dict[int, tuple[float, float]]) -> None:
    assert hacked(changes) is None


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=6))
def test_the_order_of_the_seeds_does_not_matter(changes: list[tuple[float, float]]) -> None:
    forwards = dict(enumerate(changes))
    assert hacked(forwards) == hacked(dict(reversed(forwards.items())))


def test_swings_alone_are_rarely_called_hacked() -> None:
    """Quality that drifts by chance under a judge that knows nothing: sd .03 and .02, one seed and five."""
    for seeds in (1, 5):
        rng = rng_for("hacked", seeds)
        drawn = rng.standard_normal((500, seeds, 2)) * [0.03, 0.02]
        said = sum(hacked({i: (float(q), float(w)) for i, (q, w) in enumerate(arm)}) is not None for arm in drawn)
        assert said <= 500 * 0.01
