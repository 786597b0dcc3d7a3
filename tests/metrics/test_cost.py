"""Floating point operations by hand."""

from __future__ import annotations

import torch

from rlaif_lab.metrics.cost import forward_flops, training_flops
from rlaif_lab.models.access import parameter_count


def test_by_hand() -> None:
    assert forward_flops(10, 7) == 140
    assert training_flops(10, 10, 7) == 6 * 10 * 7
    assert training_flops(10, 1, 7) == (2 * 10 + 2 * 10 + 2 * 1) * 7


def test_parameters_are_counted_whether_they_are_trained_or_not() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2).requires_grad_(False))
    assert parameter_count(network) == (3 * 4 + 4 + 4 * 2 + 2, 16)
