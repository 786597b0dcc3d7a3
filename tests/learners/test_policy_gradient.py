"""Policy gradients: which groups they read, KL estimates, clipping, whole losses by hand, the KL controller."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers import generation, prompts_of, response
from torch import Tensor

from learners.cases import batch_of
from rlaif_lab.feedback.base import Feedback
from rlaif_lab.learners.base import Batch, Learner
from rlaif_lab.learners.grpo import GRPO
from rlaif_lab.learners.kl import adapted_weight, k1, k3
from rlaif_lab.learners.policy_gradient import PolicyGradient, clipped_policy_gradient
from rlaif_lab.learners.ppo import PPO, clipped_value_loss, unexplained_variance
from rlaif_lab.learners.rloo import RLOO
from rlaif_lab.records import Floats, Generation

ALL: list[type[PolicyGradient]] = [RLOO, GRPO, PPO]


def feedback(generations: list[Generation], prob_beats: Floats, scores: Floats | None = None) -> Feedback:
    return Feedback(3, generations, prob_beats, {"scores": scores})


# --- examples -------------------------------------------------------------------------------------------------------
INFORMATIVE = np.array([[0.5, 0.9, 0.6], [0.1, 0.5, 0.5], [0.4, 0.5, 0.5]])
ALL_EQUAL = np.full((3, 3), 0.5)
A_CYCLE = np.array([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])
ONE_UNJUDGED = np.array([[0.5, np.nan, np.nan], [np.nan, 0.5, 0.9], [np.nan, 0.1, 0.5]])
FOUR = feedback(
    [generation(name, "a", "b", "c") for name in "pqrs"], np.stack([ALL_EQUAL, INFORMATIVE, A_CYCLE, ONE_UNJUDGED])
)


def read(learner: Learner, given: Feedback) -> list[tuple[str, tuple[float, ...]]]:
    return [(e.prompt.text, e.signal) for e in learner.examples(given)]


@pytest.mark.parametrize("make", [RLOO, GRPO])
def test_groups_of_win_rates_those_without_a_gradient_left_out(make: type[PolicyGradient]) -> None:
    assert read(make(labels="hard"), FOUR) == [("q", (1.0, 0.25, 0.25))]
    [(text, signal)] = read(make(labels="soft"), FOUR)
    assert text == "q"
    assert signal == pytest.approx((0.75, 0.3, 0.45))


@pytest.mark.parametrize("make", [RLOO, GRPO])
def test_with_a_kl_every_group_with_rewards_carries_a_gradient(make: type[PolicyGradient]) -> None:
    assert [text for text, _ in read(make(kl_weight=0.1), FOUR)] == ["p", "q", "r"]


def test_ppo_reads_every_group_with_rewards() -> None:
    assert [text for text, _ in read(PPO(), FOUR)] == ["p", "q", "r"]


def test_examples_are_the_rounds_own_samples() -> None:
    [example] = RLOO().examples(FOUR)
    assert example.responses == FOUR.generations[1].responses
    assert example.round_index == 3
    assert example.sampled


@pytest.mark.parametrize("source", ["score", "reward_model"])
@pytest.mark.parametrize("make", ALL)
def test_rewards_may_be_scores(make: type[PolicyGradient], source: str) -> None:
    scores = np.array([[7.0, 1.0, 3.0], [2.0, np.nan, 1.0]])
    given = feedback([generation(p, "a", "b", "c") for p in "pq"], np.stack([ALL_EQUAL] * 2), scores)
    assert read(make(reward=source), given) == [("p", (7.0, 1.0, 3.0))]  # type: ignore[arg-type]


@pytest.mark.parametrize("make", ALL)
def test_the_penalty_for_being_cut_off_comes_before_everything_else(make: type[PolicyGradient]) -> None:
    """So that a group in which only that differs is learnt from."""
    cut = Generation(prompts_of(["p"])[0], (response("a"), response("b", finished=False), response("c")))
    given = feedback([cut], np.stack([ALL_EQUAL]))
    assert read(make(no_eos_penalty=0.2), given) == [("p", (0.5, 0.3, 0.5))]


# --- KL -------------------------------------------------------------------------------------------------------------
def two_distributions() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 7, generator=generator, dtype=torch.float64)
    policy, reference = torch.log_softmax(logits, -1)
    return policy, reference


def test_kl_estimates_by_hand() -> None:
    policy, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    assert k1(policy, reference).tolist() == [0.5, -1.0]
    expected = [math.exp(-0.5) + 0.5 - 1, math.exp(1.0) - 1.0 - 1]
    assert k3(policy, reference).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("estimate", [k1, k3])
def test_kl_estimates_are_unbiased(estimate: object) -> None:
    policy, reference = two_distributions()
    kl = (policy.exp() * (policy - reference)).sum()
    torch.testing.assert_close((policy.exp() * estimate(policy, reference)).sum(), kl)  # type: ignore[operator]


def test_k3_is_never_negative_and_varies_less_near_the_reference() -> None:
    policy, reference = two_distributions()
    reference = torch.log_softmax(policy + 0.1 * reference, -1)
    p, estimates = policy.exp(), [k1(policy, reference), k3(policy, reference)]
    assert estimates[1].min() >= 0
    variances = [(p * (e - (p * e).sum()) ** 2).sum() for e in estimates]
    assert variances[1] < 0.1 * variances[0]


def test_k3_as_a_loss_has_the_gradient_of_the_kl_the_other_way_round() -> None:
    """Samples are the policy's, without a gradient of their own."""
    policy, reference = two_distributions()
    logits = policy.clone().requires_grad_(True)
    now = torch.log_softmax(logits, -1)
    [by_k3] = torch.autograd.grad((policy.exp() * k3(now, reference)).sum(), logits, retain_graph=True)
    [forward] = torch.autograd.grad((reference.exp() * (reference - now)).sum(), logits)
    torch.testing.assert_close(by_k3, forward)


@pytest.mark.parametrize(
    ("measured", "expected"),
    [(2.0, 0.1), (2.2, 0.1 * 1.1), (1.8, 0.1 * 0.9), (50.0, 0.1 * 1.2), (0.0, 0.1 * 0.8), (math.nan, 0.1)],
)
def test_the_kl_controller_by_hand(measured: float, expected: float) -> None:
    assert adapted_weight(0.1, measured, target=2.0, horizon=1.0) == pytest.approx(expected)
    assert adapted_weight(0.1, measured, target=2.0, horizon=10.0) == pytest.approx(0.1 + (expected - 0.1) / 10)


@pytest.mark.parametrize("make", ALL)
def test_the_kl_weight_moves_with_the_rounds_and_survives_a_checkpoint(make: type[PolicyGradient]) -> None:
    learner = make(kl_weight=0.1, target_kl=2.0, reference="initial")
    learner.observe({"train/kl_to_reference": 50.0})
    learner.observe({"train/kl_to_reference": 1.8})
    assert learner.kl_weight == pytest.approx(0.1 * 1.2 * 0.9)
    resumed = make(kl_weight=0.1, target_kl=2.0, reference="initial")
    resumed.load_state_dict(learner.state_dict())
    assert resumed.kl_weight == learner.kl_weight


def test_the_kl_weight_stays_without_a_target_or_a_measurement() -> None:
    fixed, adaptive = RLOO(kl_weight=0.1), RLOO(kl_weight=0.1, target_kl=2.0)
    fixed.observe({"train/kl_to_reference": 50.0})
    adaptive.observe({"kl/per_sequence": 50.0})  # an empty round trains on nothing
    assert (fixed.kl_weight, adaptive.kl_weight) == (0.1, 0.1)


def test_the_controller_brings_the_kl_to_its_target() -> None:
    """On a system whose KL falls with the weight, as that of a regularised policy does."""
    learner = RLOO(kl_weight=1.0, target_kl=0.5, horizon=2.0)
    for _ in range(60):
        learner.observe({"train/kl_to_reference": 0.1 / learner.kl_weight})
    assert learner.kl_weight == pytest.approx(0.2, rel=0.02)


# --- the clip -------------------------------------------------------------------------------------------------------
CLIP_CASES = [
    (1.0, 2.0, -2.0, -2.0),
    (1.1, 2.0, -2.2, -2.2),  # within the range: the policy gradient itself
    (1.5, 2.0, -2.4, 0.0),  # already raised enough: no more of it
    (0.5, 2.0, -1.0, -1.0),  # wrongly lowered: pulled back however far
    (0.9, -2.0, 1.8, 1.8),
    (0.5, -2.0, 1.6, 0.0),  # already lowered enough
    (1.5, -2.0, 3.0, 3.0),  # wrongly raised
    (1.3, 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1)], ids=["sequences", "tokens"])
@pytest.mark.parametrize(("ratio", "advantage", "loss", "slope"), CLIP_CASES)
def test_the_clipped_surrogate_by_hand(
    ratio: float, advantage: float, loss: float, slope: float, shape: tuple[int, ...]
) -> None:
    """Slope with respect to the log-probability: -ratio x advantage where it is not clipped."""
    policy = torch.full(shape, math.log(ratio), requires_grad=True)
    value = clipped_policy_gradient(policy, torch.zeros(shape), torch.full(shape, advantage), 0.2)
    value.sum().backward()
    assert value.item() == pytest.approx(loss, rel=1e-6)
    assert policy.grad is not None
    assert policy.grad.item() == pytest.approx(slope, rel=1e-6)


def test_another_range_above_moves_only_the_upper_limit() -> None:
    ratios = torch.tensor([1.25, 1.5, 0.5]).log()
    up, down = torch.ones(3), -torch.ones(3)
    zeros = torch.zeros(3)
    assert clipped_policy_gradient(ratios, zeros, up, 0.2, 0.28).tolist() == pytest.approx([-1.25, -1.28, -0.5])
    assert clipped_policy_gradient(ratios, zeros, down, 0.2, 0.28).tolist() == pytest.approx([1.25, 1.5, 0.8])


def test_the_clipped_value_loss_by_hand() -> None:
    values = torch.tensor([0.5, 0.9, 0.9, 0.1], requires_grad=True)
    old, returns = torch.full((4,), 0.5), torch.tensor([1.0, 1.0, 0.0, 0.0])
    plain = clipped_value_loss(values, old, returns, None)
    assert plain.tolist() == pytest.approx([0.125, 0.005, 0.405, 0.005])
    loss = clipped_value_loss(values, old, returns, 0.2)
    # .9 counts as .7 where that is the larger error: on its way to 1, not when it has gone the wrong way
    assert loss.tolist() == pytest.approx([0.125, 0.045, 0.405, 0.045])
    loss.sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([-0.5, 0.0, 0.9, 0.0])


def test_unexplained_variance_by_hand() -> None:
    returns = torch.tensor([0.0, 1.0, 2.0])
    assert unexplained_variance(returns, returns).item() == 0
    assert unexplained_variance(torch.full((3,), 7.0), returns).item() == pytest.approx(1.0)
    assert unexplained_variance(returns / 2, returns).item() == pytest.approx(0.25)


# --- whole losses ---------------------------------------------------------------------------------------------------
LOGPS = torch.tensor([[[-1.0, -0.5, 0.0], [-2.0, 0.0, 0.0]], [[-0.2, -0.3, -0.4], [-1.0, -1.0, 0.0]]])
REFERENCE = torch.tensor([[[-1.2, -0.4, 0.0], [-1.0, 0.0, 0.0]], [[-0.1, -0.1, -0.1], [-1.5, -1.5, 0.0]]])
LENGTHS = [[2, 1], [3, 2]]
DRIFT = torch.tensor([[[0.1, 0.0, 0.0], [-0.5, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, -0.1, 0.0]]])
SIGNAL = [[1.0, 0.0], [0.25, 0.75]]


def off_policy() -> Batch:
    return batch_of(LENGTHS, LOGPS - DRIFT, REFERENCE, SIGNAL)


def on_policy(signal: list[list[float]] = SIGNAL, values: Tensor | None = None) -> Batch:
    return batch_of(LENGTHS, LOGPS, REFERENCE, signal, values=values)


def slopes(learner: Learner, batch: Batch, values: Tensor | None = None) -> Tensor:
    logps = LOGPS.clone().requires_grad_(True)
    learner.loss(logps, batch, values)[0].backward()
    assert logps.grad is not None
    return logps.grad


def test_the_rloo_loss_by_hand() -> None:
    loss, logged = RLOO(clip=0.2).loss(LOGPS, off_policy())
    # ratios e^.1, e^-.5, 1, e^-.1; advantages 1, -1, -.5, .5 (k = 2: the difference to the other)
    terms = [math.exp(0.1) * 1, 0.8 * -1, 1.0 * -0.5, math.exp(-0.1) * 0.5]
    assert loss.item() == pytest.approx(-sum(terms) / 4, rel=1e-5)
    assert logged["policy_loss"].item() == pytest.approx(loss.item())
    assert logged["clip_fraction"].item() == 0.25
    assert logged["sampled_kl"].item() == pytest.approx(-(0.1 - 0.5 + 0.0 - 0.1) / 4, rel=1e-5)
    assert logged["reward"].item() == 0.5
    assert "kl_to_reference" not in logged


def test_on_policy_rloo_follows_the_advantages() -> None:
    gradient = slopes(RLOO(), on_policy([[1.0, 0.0], [0.5, 0.5]]))
    assert (gradient[0, 0] < 0).all()
    assert (gradient[0, 1] > 0).all()
    assert gradient[1].eq(0).all()


@pytest.mark.parametrize("make", [RLOO, GRPO])
def test_the_clip_stops_the_gradient_of_what_has_moved_far_enough(make: type[PolicyGradient]) -> None:
    gradient = slopes(make(), off_policy())
    assert gradient[0, 1, 0] == 0  # lowered by e^-.5, as its advantage says
    assert (gradient[0, 0, :2] < 0).all()
    assert slopes(make(clip=0.5), off_policy())[0, 1, 0] > 0


def test_rloos_kl_in_the_reward_takes_the_log_ratio_off() -> None:
    batch = on_policy([[1.0, 0.0], [0.5, 0.5]])
    learner = RLOO(kl_weight=0.1)
    # log-ratios .1, -1 and -.6, 1; rewards .99, .1 and .56, .4; on-policy ratios are 1
    advantages = [0.99 - 0.1, 0.1 - 0.99, 0.56 - 0.4, 0.4 - 0.56]
    loss, logged = learner.loss(LOGPS, batch)
    assert loss.item() == pytest.approx(-sum(advantages) / 4, abs=1e-6)
    assert logged["kl_weight"].item() == pytest.approx(0.1)
    expected = -torch.tensor(advantages) / 4
    torch.testing.assert_close(slopes(learner, batch)[..., 0].flatten(), expected, atol=1e-6, rtol=1e-5)


def k3_of_tokens() -> list[list[list[float]]]:
    return [
        [[math.exp(r - p) - (r - p) - 1 for p, r in zip(ps, rs, strict=True)] for ps, rs in zip(a, b, strict=True)]
        for a, b in zip(LOGPS.tolist(), REFERENCE.tolist(), strict=True)
    ]


def test_rloos_kl_in_the_loss_is_the_k3_estimate_of_whole_responses() -> None:
    batch = on_policy()
    without, (loss, logged) = RLOO().loss(LOGPS, batch)[0], RLOO(kl_weight=0.5, kl_in="loss").loss(LOGPS, batch)
    per_response = [sum(tokens) for group in k3_of_tokens() for tokens in group]
    assert (loss - without).item() == pytest.approx(0.5 * sum(per_response) / 4, rel=1e-5)
    assert logged["kl_to_reference"].item() == pytest.approx(sum(per_response) / 4, rel=1e-5)


def grpo_terms() -> list[list[list[float]]]:
    """Clipped ratio times advantage of every token, advantages 1/2, -1/2 and -1/4, 1/4 over no deviation."""
    e = math.exp
    return [[[e(0.1) * 0.5, 0.5], [0.8 * -0.5]], [[-0.25, -0.25, -0.25], [0.25, e(-0.1) * 0.25]]]


def test_the_three_normalisations_of_grpo_by_hand() -> None:
    terms = [tokens for group in grpo_terms() for tokens in group]
    losses = {
        "sequence": -sum(sum(t) / len(t) for t in terms) / 4,
        "token": -sum(map(sum, terms)) / 8,
        "constant": -sum(map(sum, terms)) / (5 * 4),
    }
    for normalise, expected in losses.items():
        learner = GRPO(scale="none", normalise=normalise, divisor=5.0)  # type: ignore[arg-type]
        loss, logged = learner.loss(LOGPS, off_policy())
        assert loss.item() == pytest.approx(expected, rel=1e-5), normalise
        assert logged["clip_fraction"].item() == pytest.approx(1 / 8)
        assert learner.weight(off_policy()) == {"sequence": 4, "token": 8, "constant": 4}[normalise]


def test_grpo_divides_by_the_groups_deviation_and_adds_the_kl_per_token() -> None:
    deviations = [math.sqrt(0.5) + 1e-4, math.sqrt(0.125) + 1e-4]
    terms = [[[x / d for x in t] for t in group] for group, d in zip(grpo_terms(), deviations, strict=True)]
    means = [
        sum(-x + 0.3 * k for x, k in zip(t, ks, strict=False)) / len(t)
        for group, estimates in zip(terms, k3_of_tokens(), strict=True)
        for t, ks in zip(group, estimates, strict=True)
    ]
    loss, _ = GRPO(kl_weight=0.3).loss(LOGPS, off_policy())
    assert loss.item() == pytest.approx(sum(means) / 4, rel=1e-4)


@pytest.mark.parametrize("make", [RLOO, GRPO])
def test_masked_responses_keep_their_part_in_the_baseline(make: type[PolicyGradient]) -> None:
    finished = [[True, False], [True, True]]
    batch = replace(on_policy(), finished=torch.tensor(finished))
    masked, whole = make(mask_truncated=True), make()
    assert masked.weight(batch) == 3
    gradient, all_of_them = slopes(masked, batch), slopes(whole, batch)
    assert gradient[0, 1].eq(0).all()
    torch.testing.assert_close(gradient[torch.tensor(finished)], all_of_them[torch.tensor(finished)] * 4 / 3)


# --- PPO ------------------------------------------------------------------------------------------------------------
ZEROS = torch.zeros_like(LOGPS)


def test_with_a_critic_that_says_nothing_ppo_is_reinforce_with_kl() -> None:
    """gamma = lambda = 1, values 0, on policy: each token's gradient is the reward to go, its log-ratios taken off."""
    learner = PPO(kl_weight=0.1, lam=1.0, gamma=1.0)
    gradient = slopes(learner, on_policy(values=ZEROS), ZEROS)
    ratios = LOGPS - REFERENCE
    to_go = torch.tensor(SIGNAL).unsqueeze(-1) - 0.1 * ratios.flip(-1).cumsum(-1).flip(-1)
    mask = on_policy().packed.response_mask
    torch.testing.assert_close(gradient, -to_go * mask / 8)


def test_the_ppo_loss_by_hand() -> None:
    old = torch.tensor([[[0.2, 0.4, 0.0], [0.1, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.3, 0.6, 0.0]]])
    batch = replace(off_policy(), values=old)
    values = old + 0.1 * batch.packed.response_mask
    loss, logged = PPO(gamma=0.9, lam=0.5, vf_weight=0.7).loss(LOGPS, batch, values)
    last = [1 - 0.4, 0 - 0.1, 0.25, 0.75 - 0.6]
    advantages = [
        [(0.9 * 0.4 - 0.2) + 0.45 * last[0], last[0]],
        [last[1]],
        [0.45**2 * 0.25, 0.45 * 0.25, 0.25],
        [(0.9 * 0.6 - 0.3) + 0.45 * last[3], last[3]],
    ]
    ratios = [[math.exp(0.1), 1.0], [0.8], [1.0, 1.0, 1.0], [1.0, math.exp(-0.1)]]
    policy = -sum(a * r for x, y in zip(advantages, ratios, strict=True) for a, r in zip(x, y, strict=True)) / 8
    # a return is an advantage above the old value, so that the new value misses it by the advantage less .1
    value = sum(0.5 * (a - 0.1) ** 2 for row in advantages for a in row) / 8
    assert logged["policy_loss"].item() == pytest.approx(policy, rel=1e-5)
    assert logged["value_loss"].item() == pytest.approx(value, rel=1e-5)
    assert loss.item() == pytest.approx(policy + 0.7 * value, rel=1e-5)


def test_advantages_stay_while_the_critic_learns() -> None:
    """They are the old critic's; the one that is trained only sees its own loss."""
    old = torch.full_like(LOGPS, 0.3) * on_policy().packed.response_mask
    learner = PPO()
    gradients = []
    for now in (0.0, 0.9):
        values = torch.full_like(LOGPS, now, requires_grad=True)
        gradients.append(slopes(learner, on_policy(values=old), values))
        assert values.grad is not None
        assert values.grad[~on_policy().packed.response_mask].eq(0).all()
        assert values.grad[0, 0, 0] != 0
    torch.testing.assert_close(gradients[0], gradients[1])


def test_whitened_ppo_does_not_see_the_scale_or_the_mean_of_the_rewards() -> None:
    batch = on_policy(values=ZEROS)
    moved = replace(batch, signal=batch.signal * 10)
    learner = PPO(whiten=True, lam=1.0)
    torch.testing.assert_close(slopes(learner, batch, ZEROS), slopes(learner, moved, ZEROS), atol=1e-5, rtol=1e-4)
