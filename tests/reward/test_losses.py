"""The Bradley-Terry loss: values by hand, and what must not change it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from rlaif_lab.reward.losses import bradley_terry


def rows(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def nll(x: float) -> float:
    """-log sigmoid(x)"""
    return math.log1p(math.exp(-x))


CHOSEN, REJECTED = rows(1.0, -0.5, 2.0), rows(0.5, 0.5, -2.0)
DIFFERENCES = (0.5, -1.0, 4.0)


def test_hard_labels_by_hand() -> None:
    assert bradley_terry(CHOSEN, REJECTED).tolist() == pytest.approx([nll(d) for d in DIFFERENCES])
    assert bradley_terry(rows(3.0), rows(3.0)).item() == pytest.approx(math.log(2))


def test_soft_labels_by_hand() -> None:
    p = (0.9, 0.5, 0.6)
    expected = [q * nll(d) + (1 - q) * nll(-d) for q, d in zip(p, DIFFERENCES, strict=True)]
    assert bradley_terry(CHOSEN, REJECTED, rows(*p)).tolist() == pytest.approx(expected)


def test_label_smoothing_by_hand() -> None:
    """A tenth of the labels is the other way round: 1 becomes .9, and .6 becomes .6 x .9 + .4 x .1 = .58."""
    expected = [0.9 * nll(d) + 0.1 * nll(-d) for d in DIFFERENCES]
    assert bradley_terry(CHOSEN, REJECTED, label_smoothing=0.1).tolist() == pytest.approx(expected)
    both = bradley_terry(CHOSEN, REJECTED, rows(0.6, 0.6, 0.6), label_smoothing=0.1)
    assert both.tolist() == pytest.approx([0.58 * nll(d) + 0.42 * nll(-d) for d in DIFFERENCES])


def test_margin_by_hand() -> None:
    """With certain labels it is Llama 2's -log sigmoid(r_c - r_r - m); with others both outcomes carry it."""
    assert bradley_terry(CHOSEN, REJECTED, margin=1.0).tolist() == pytest.approx([nll(d - 1) for d in DIFFERENCES])
    each = bradley_terry(CHOSEN, REJECTED, margin=rows(0.0, 1.0, 2.0))
    assert each.tolist() == pytest.approx([nll(0.5), nll(-2.0), nll(2.0)])
    soft = bradley_terry(rows(0.5), rows(0.0), rows(0.7), margin=1.0)
    assert soft.item() == pytest.approx(0.7 * nll(-0.5) + 0.3 * nll(-1.5))


def test_centring_by_hand() -> None:
    """0.1 times the squares of the sums 1.5, 0 and 0."""
    added = bradley_terry(CHOSEN, REJECTED, centring=0.1) - bradley_terry(CHOSEN, REJECTED)
    assert added.tolist() == pytest.approx([0.225, 0.0, 0.0])


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_naming_the_two_the_other_way_round_changes_nothing(margin: float) -> None:
    p = rows(0.9, 0.3, 0.5)
    options = {"margin": margin, "label_smoothing": 0.1, "centring": 0.01}
    forwards = bradley_terry(CHOSEN, REJECTED, p, **options)
    torch.testing.assert_close(forwards, bradley_terry(REJECTED, CHOSEN, 1 - p, **options))


def test_a_constant_added_to_both_rewards_changes_nothing_without_centring() -> None:
    p = rows(0.9, 0.3, 0.5)
    torch.testing.assert_close(bradley_terry(CHOSEN + 7, REJECTED + 7, p), bradley_terry(CHOSEN, REJECTED, p))
    assert (bradley_terry(CHOSEN + 7, REJECTED + 7, p, centring=0.01) > bradley_terry(CHOSEN, REJECTED, p)).all()


@pytest.mark.parametrize("p", [0.5, 0.6, 0.9])
def test_its_minimum_is_at_the_labels_log_odds(p: float) -> None:
    at = math.log(p / (1 - p))
    chosen = rows(at - 0.01, at, at + 0.01).requires_grad_(True)
    loss = bradley_terry(chosen, torch.zeros_like(chosen), rows(p, p, p))
    assert loss[1] == loss.min()
    loss.sum().backward()
    assert chosen.grad is not None
    assert chosen.grad[0] < 0 < chosen.grad[2]
    assert chosen.grad[1].item() == pytest.approx(0.0, abs=1e-12)


def test_hopeless_pairs_stay_finite() -> None:
    loss = bradley_terry(torch.tensor([-1e4, 1e4]), torch.tensor([1e4, -1e4]), torch.tensor([0.9, 0.9]))
    assert loss.isfinite().all()
