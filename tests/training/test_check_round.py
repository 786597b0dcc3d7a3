"""When a round is no round of a finished run: nothing could be trained, or what was trained is not finite."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlaif_lab.learners.base import Learner
from rlaif_lab.learners.no_update import NoUpdate
from rlaif_lab.learners.rloo import RLOO
from rlaif_lab.training.module import RoundModule


def check(index: int, learner: Learner | None = None, weight: float = 0.0, **counts: int) -> None:
    parameters = [torch.nn.Parameter(torch.tensor([weight]))]
    module: Any = SimpleNamespace(
        **{"made": 0, "skipped": 0, **counts},
        learner=learner or RLOO(),
        whole_weights=lambda: parameters,
        publish=lambda: None,
    )
    RoundModule.check_round(module, index)


def test_a_round_without_an_example_goes_on() -> None:
    for learner in (RLOO(), NoUpdate()):
        check(0, learner)
        check(7, learner)


def test_steps_that_were_all_left_out_end_the_run_in_any_round() -> None:
    for index in (0, 7):
        with pytest.raises(ValueError, match="not finite in all of its 3 steps"):
            check(index, skipped=3)
    check(7, skipped=3, made=1)


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_end_the_run_in_any_round(weight: float) -> None:
    for index in (0, 7):
        with pytest.raises(ValueError, match="weights are not finite"):
            check(index, weight=weight, made=4)
