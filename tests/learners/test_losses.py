"""The losses against arithmetic written out."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rlaif_lab.learners.losses import (
    dpo,
    hinge,
    ipo,
    kto,
    kto_reference_point,
    log_odds_ratio,
    orpo,
    preference_logits,
    robust_dpo,
    simpo,
    smoothed,
)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slope(loss: Callable[[Tensor], Tensor], at: float) -> float:
    x = torch.tensor([at], dtype=torch.float64, requires_grad=True)
    loss(x).sum().backward()
    assert x.grad is not None
    return x.grad.item()


def test_preference_logits_by_hand() -> None:
    policy = torch.tensor([[-1.0, -2.0], [-3.0, -1.5]])
    reference = torch.tensor([[-1.5, -1.0], [-3.0, -1.0]])
    # (-1 + 1.5) - (-2 + 1) = 1.5; (-3 + 3) - (-1.5 + 1) = 0.5
    assert preference_logits(policy, reference).tolist() == [1.5, 0.5]


@pytest.mark.parametrize("h", [-3.0, 0.0, 1.5])
@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_dpo_by_hand(h: float, beta: float) -> None:
    assert dpo(torch.tensor([h]), beta).item() == pytest.approx(softplus(-beta * h), rel=1e-6)


@pytest.mark.parametrize(("h", "beta", "p"), [(1.5, 0.1, 0.8), (-2.0, 0.5, 0.6), (0.0, 1.0, 0.9), (3.0, 0.1, 0.5)])
def test_soft_labels_by_hand(h: float, beta: float, p: float) -> None:
    expected = p * softplus(-beta * h) + (1 - p) * softplus(beta * h)
    assert dpo(torch.tensor([h]), beta, torch.tensor([p])).item() == pytest.approx(expected, rel=1e-6)


def test_at_the_reference_the_loss_is_ln_2_and_its_slope_half_beta() -> None:
    h = torch.zeros(1, requires_grad=True)
    loss = dpo(h, 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(2))
    assert h.grad is not None
    assert h.grad.item() == pytest.approx(-0.05)


def test_a_certain_soft_label_is_a_hard_one_and_an_even_one_pulls_to_zero() -> None:
    h = torch.tensor([-2.0, 0.3, 4.0], requires_grad=True)
    torch.testing.assert_close(dpo(h, 0.3, torch.ones(3)), dpo(h, 0.3))
    dpo(h, 0.3, torch.full((3,), 0.5)).sum().backward()
    assert h.grad is not None
    assert h.grad.sign().tolist() == [-1.0, 1.0, 1.0]


def test_soft_labels_are_least_at_the_logit_of_the_label() -> None:
    h = torch.tensor([math.log(0.8 / 0.2) / 0.5], requires_grad=True)
    dpo(h, 0.5, torch.tensor([0.8])).sum().backward()
    assert h.grad is not None
    assert h.grad.item() == pytest.approx(0.0, abs=1e-7)


def test_dpo_stays_finite_far_out() -> None:
    h = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = dpo(h, 1.0)
    loss.sum().backward()
    assert loss.tolist() == [1e4, 0.0]
    assert h.grad is not None
    assert h.grad.tolist() == [-1.0, 0.0]


# --- conservative and robust DPO -------------------------------------------------------------------------------------
def test_smoothing_draws_a_label_towards_a_half() -> None:
    labels = torch.tensor([1.0, 0.8, 0.5, 0.0])
    torch.testing.assert_close(smoothed(labels, 0.1), torch.tensor([0.9, 0.8 * 0.9 + 0.2 * 0.1, 0.5, 0.1]))
    torch.testing.assert_close(smoothed(labels, 0.0), labels)


def test_an_even_label_has_no_gradient_at_the_reference() -> None:
    assert slope(lambda h: dpo(h, 0.7, torch.full_like(h, 0.5)), 0.0) == 0.0


def test_swapping_a_pair_and_its_label_changes_nothing() -> None:
    h, p = torch.tensor([-2.0, 0.0, 0.4]), torch.tensor([0.9, 0.6, 0.1])
    torch.testing.assert_close(dpo(-h, 0.3, 1 - p), dpo(h, 0.3, p))


@pytest.mark.parametrize(("h", "beta", "noise"), [(1.5, 0.1, 0.1), (-2.0, 0.5, 0.3), (0.0, 1.0, 0.2), (3.0, 0.4, 0.0)])
def test_robust_dpo_by_hand(h: float, beta: float, noise: float) -> None:
    expected = ((1 - noise) * softplus(-beta * h) - noise * softplus(beta * h)) / (1 - 2 * noise)
    assert robust_dpo(torch.tensor([h]), beta, noise).item() == pytest.approx(expected, rel=1e-6, abs=1e-7)


@pytest.mark.parametrize("noise", [0.1, 0.3, 0.45])
def test_robust_dpo_on_noisy_labels_is_in_expectation_dpo_on_clean_ones(noise: float) -> None:
    """A flipped label turns the sign of h."""
    h = torch.linspace(-4, 4, 9, dtype=torch.float64)
    expected = (1 - noise) * robust_dpo(h, 0.5, noise) + noise * robust_dpo(-h, 0.5, noise)
    torch.testing.assert_close(expected, dpo(h, 0.5))


def test_conservative_dpo_turns_back_where_robust_dpo_goes_on() -> None:
    h = math.log(0.9 / 0.1) + 3.0
    assert slope(lambda x: dpo(x, 1.0, torch.full_like(x, 0.9)), h) > 0
    assert slope(lambda x: robust_dpo(x, 1.0, 0.1), h) < -0.1


@pytest.mark.parametrize("loss", [dpo, hinge, lambda h, beta: robust_dpo(h, beta, 0.2)])
def test_beta_scales_h(loss: Callable[[Tensor, float], Tensor]) -> None:
    h = torch.tensor([-3.0, 0.5, 2.0])
    torch.testing.assert_close(loss(h, 0.4), loss(2 * h, 0.2))


# --- IPO, hinge ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("h", "tau", "expected"), [(1.5, 0.1, 12.25), (0.0, 0.5, 1.0), (-1.0, 1.0, 2.25)])
def test_ipo_by_hand(h: float, tau: float, expected: float) -> None:
    assert ipo(torch.tensor([h]), tau).item() == pytest.approx(expected, rel=1e-6)  # (h - 1 / (2 tau))^2


@pytest.mark.parametrize("tau", [0.05, 0.1, 2.0])
def test_ipo_is_least_at_its_target_and_pulls_towards_it_from_both_sides(tau: float) -> None:
    target = 1 / (2 * tau)
    assert ipo(torch.tensor([target], dtype=torch.float64), tau).item() == pytest.approx(0.0, abs=1e-12)
    assert slope(lambda h: ipo(h, tau), target) == pytest.approx(0.0, abs=1e-12)
    assert slope(lambda h: ipo(h, tau), target - 0.1) == pytest.approx(-0.2)
    assert slope(lambda h: ipo(h, tau), target + 0.1) == pytest.approx(0.2)
    assert slope(lambda h: ipo(h, tau), 0.0) == pytest.approx(-1 / tau)


@pytest.mark.parametrize(
    ("h", "beta", "expected", "gradient"),
    [(0.0, 0.1, 1.0, -0.1), (-5.0, 0.1, 1.5, -0.1), (4.0, 0.2, 0.2, -0.2), (6.0, 0.2, 0.0, 0.0)],
)
def test_hinge_by_hand(h: float, beta: float, expected: float, gradient: float) -> None:
    assert hinge(torch.tensor([h]), beta).item() == pytest.approx(expected, abs=1e-6)
    assert slope(lambda x: hinge(x, beta), h) == pytest.approx(gradient)


@pytest.mark.parametrize(("chosen", "rejected", "delta"), [(-2.0, -3.0, 4.0), (-5.0, -1.0, 0.5), (-1.0, -9.0, 2.0)])
def test_hinge_without_a_reference_is_slics_calibration_loss_over_its_margin(
    chosen: float, rejected: float, delta: float
) -> None:
    expected = max(0.0, delta - chosen + rejected) / delta
    assert hinge(torch.tensor([chosen - rejected]), 1 / delta).item() == pytest.approx(expected, abs=1e-6)


# --- SimPO, ORPO -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("difference", "beta", "margin"), [(0.5, 2.0, 0.5), (-0.3, 2.5, 1.0), (0.0, 1.0, 0.0)])
def test_simpo_by_hand(difference: float, beta: float, margin: float) -> None:
    expected = softplus(-(beta * difference - margin))
    assert simpo(torch.tensor([difference]), beta, margin).item() == pytest.approx(expected, rel=1e-6)


def test_simpos_margin_asks_for_more_than_a_tie() -> None:
    """At beta d = gamma the loss is where DPO's is at 0."""
    assert simpo(torch.tensor([0.5]), 2.0, 1.0).item() == pytest.approx(math.log(2))
    assert slope(lambda d: simpo(d, 2.0, 1.0), 0.0) < slope(lambda d: simpo(d, 2.0, 0.0), 0.0) < 0


def test_log_odds_ratio_by_hand() -> None:
    chosen, rejected = torch.tensor([0.8, 0.5, 0.1]).log(), torch.tensor([0.5, 0.5, 0.9]).log()
    expected = [math.log(4.0 / 1.0), 0.0, math.log((1 / 9) / 9)]
    torch.testing.assert_close(log_odds_ratio(chosen, rejected), torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_orpo_by_hand() -> None:
    chosen, rejected = torch.tensor([0.8, 0.1]).log(), torch.tensor([0.5, 0.9]).log()
    expected = [math.log(1 + 1 / 4), math.log(1 + 81)]  # -log sigmoid(log r) = log(1 + 1 / r)
    torch.testing.assert_close(orpo(chosen, rejected), torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_the_odds_ratio_has_the_sign_of_the_difference_and_turns_with_a_swap() -> None:
    generator = torch.Generator().manual_seed(0)
    chosen, rejected = -torch.rand(2, 100, generator=generator, dtype=torch.float64) * 3
    ratio = log_odds_ratio(chosen, rejected)
    assert ratio.sign().equal((chosen - rejected).sign())
    torch.testing.assert_close(log_odds_ratio(rejected, chosen), -ratio)


def test_orpo_raises_the_chosen_and_lowers_the_rejected() -> None:
    other = torch.tensor([-0.7], dtype=torch.float64)
    assert slope(lambda x: orpo(x, other), -0.5) < 0
    assert slope(lambda x: orpo(other, x), -0.5) > 0


@pytest.mark.parametrize(("chosen", "rejected"), [(0.0, -1.0), (-1.0, 0.0), (-1e-9, -60.0), (0.0, 0.0)])
def test_orpo_stays_finite_where_odds_are_not(chosen: float, rejected: float) -> None:
    """A certain response, and one that is out of the question, in single precision."""
    both = torch.tensor([[chosen, rejected]], requires_grad=True)
    loss = orpo(both[:, 0], both[:, 1])
    loss.sum().backward()
    assert both.grad is not None
    assert torch.isfinite(loss).all() and torch.isfinite(both.grad).all()


# --- KTO -------------------------------------------------------------------------------------------------------------
def test_kto_by_hand() -> None:
    ratios, desirable = torch.tensor([1.2, -0.4, 0.3]), torch.tensor([True, False, False])
    losses = kto(ratios, desirable, torch.tensor(0.5), 0.2, desirable_weight=1.5, undesirable_weight=0.7)
    expected = [
        1.5 * (1 - sigmoid(0.2 * (1.2 - 0.5))),
        0.7 * (1 - sigmoid(0.2 * (0.5 + 0.4))),
        0.7 * (1 - sigmoid(0.2 * (0.5 - 0.3))),
    ]
    torch.testing.assert_close(losses, torch.tensor(expected))


def test_kto_raises_the_desirable_and_lowers_the_undesirable() -> None:
    z_ref = torch.tensor(0.3, dtype=torch.float64)
    for at in (-1.0, 0.3, 2.0):
        up = slope(lambda r: kto(r, torch.tensor([True]), z_ref, 0.5), at)
        down = slope(lambda r: kto(r, torch.tensor([False]), z_ref, 0.5), at)
        assert up < 0 < down
        assert up == pytest.approx(-down)


def test_ktos_losses_mirror_each_other_about_the_reference_point() -> None:
    z_ref, distance = torch.tensor(0.3), torch.tensor([-2.0, 0.0, 1.5])
    desirable = torch.ones(3, dtype=torch.bool)
    torch.testing.assert_close(
        kto(z_ref + distance, desirable, z_ref, 0.5), kto(z_ref - distance, ~desirable, z_ref, 0.5)
    )
    assert kto(z_ref[None], desirable[:1], z_ref, 0.5).item() == pytest.approx(0.5)


def test_without_drift_the_reference_point_is_the_mean_log_ratio_and_never_below_zero() -> None:
    none = torch.zeros(3)
    assert kto_reference_point(torch.tensor([1.0, -0.5, 0.7]), none).item() == pytest.approx(0.4)
    assert kto_reference_point(torch.tensor([1.0, -2.5, 0.7]), none).item() == 0.0


def test_the_reference_point_weighs_samples_by_how_likely_they_have_become() -> None:
    ratios, drift = torch.tensor([2.0, 1.0]), torch.tensor([math.log(3.0), 0.0])
    assert kto_reference_point(ratios, drift).item() == pytest.approx((3 * 2.0 + 1 * 1.0) / 4)


def test_the_reference_point_estimates_the_divergence_from_the_sampler() -> None:
    """Two categorical policies, samples of one, the KL of the other to it in closed form."""
    generator = torch.Generator().manual_seed(0)
    old, new = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.7, 0.2, 0.1])
    samples = torch.multinomial(old, 20000, replacement=True, generator=generator)
    ratio = (new / old).log()[samples]
    divergence = (new * (new / old).log()).sum().item()
    assert kto_reference_point(ratio, ratio).item() == pytest.approx(divergence, abs=0.01)
    assert ratio.mean() < 0  # what the plain mean would have said


def test_the_reference_point_carries_no_gradient() -> None:
    ratios = torch.tensor([1.0, 0.5], requires_grad=True)
    z_ref = kto_reference_point(ratios, ratios)
    assert not z_ref.requires_grad
    alone = torch.tensor([1.0, 0.5], requires_grad=True)
    kto(ratios, torch.tensor([True, False]), z_ref, 0.3).sum().backward()
    kto(alone, torch.tensor([True, False]), torch.tensor(z_ref.item()), 0.3).sum().backward()
    assert ratios.grad is not None and alone.grad is not None
    torch.testing.assert_close(ratios.grad, alone.grad)
