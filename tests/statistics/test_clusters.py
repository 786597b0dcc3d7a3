"""Standard errors of grouped values: the usual one where every group is one value, and never fooled by copies."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_lab.statistics.clusters import stderr_of_mean

VALUES = st.lists(st.floats(-10, 10), min_size=2, max_size=20).map(np.array)


@given(VALUES)
def test_groups_of_one_give_the_usual_standard_error(values: np.ndarray) -> None:
    assert stderr_of_mean(values, range(len(values))) == values.std(ddof=1) / np.sqrt(len(values))


@given(VALUES, st.integers(2, 5))
def test_copies_add_no_certainty(values: np.ndarray, copies: int) -> None:
    groups = list(range(len(values))) * copies
    repeated = stderr_of_mean(np.tile(values, copies), groups)
    assert repeated == pytest.approx(stderr_of_mean(values, range(len(values))), rel=1e-9, abs=1e-12)


def test_by_hand() -> None:
    # Two groups with sums of deviations 1 and -1 from the mean 0.5: sqrt(2 / 1 * (1 + 1)) / 4 = 0.5.
    assert stderr_of_mean(np.array([1.0, 1.0, 0.0, 0.0]), ["a", "a", "b", "b"]) == 0.5
    assert math.isnan(stderr_of_mean(np.array([1.0, 0.0]), ["a", "a"]))
