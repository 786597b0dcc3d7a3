"""Learners: which examples they read, their whole loss by hand, and invariance to how a batch is cut."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from helpers import generation
from torch import Tensor

from rlaif_lab.learners.base import Batch, Learner, groups_as_examples, pairs_as_examples
from rlaif_lab.learners.dpo import DPO
from rlaif_lab.learners.rloo import RLOO
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.packed import Packed, pack, response_logps
from rlaif_lab.records import PreferencePair


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def batch_of(lengths: list[list[int]], sampled: Tensor, reference: Tensor, signal: list[list[float]]) -> Batch:
    """Only the mask of the packed ids matters to a loss."""
    rows, n = len(lengths), len(lengths[0])
    mask = torch.arange(sampled.shape[2]) < torch.tensor(lengths)[..., None]
    packed = Packed(torch.ones(rows, 1), torch.ones(rows, 1).bool(), torch.ones(rows, n, sampled.shape[2]).long(), mask)
    return Batch(packed, sampled, reference, torch.tensor(signal))


# --- examples -------------------------------------------------------------------------------------------------------
def test_pairs_become_examples_with_the_chosen_first() -> None:
    generations = [generation("p", "a", "b"), generation("q", "c", "d", "e")]
    pairs = [PreferencePair(generations[1].prompt, 2, 0, 0.75), PreferencePair(generations[0].prompt, 0, 1, 1.0)]
    examples = pairs_as_examples(generations, pairs)
    assert [(e.generation, e.samples, e.signal) for e in examples] == [
        (1, (2, 0), (0.75, 0.25)),
        (0, (0, 1), (1.0, 0.0)),
    ]


def test_groups_become_examples_of_win_rates() -> None:
    nan = np.nan
    informative = np.array([[0.5, 0.9, 0.6], [0.1, 0.5, 0.5], [0.4, 0.5, 0.5]])
    all_equal = np.full((3, 3), 0.5)
    a_cycle = np.array([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])
    one_unjudged = np.array([[0.5, nan, nan], [nan, 0.5, 0.9], [nan, 0.1, 0.5]])
    prob_beats = np.stack([all_equal, informative, a_cycle, one_unjudged])
    hard, soft = groups_as_examples(prob_beats, hard=True), groups_as_examples(prob_beats, hard=False)
    assert [(e.generation, e.samples, e.signal) for e in hard] == [(1, (0, 1, 2), (1.0, 0.25, 0.25))]
    assert [e.generation for e in soft] == [1]
    assert soft[0].signal == pytest.approx((0.75, 0.3, 0.45))


def test_each_learner_reads_its_own_kind() -> None:
    generations = [generation("p", "a", "b", "c")]
    prob_beats = np.array([[[0.5, 0.9, 0.6], [0.1, 0.5, 0.5], [0.4, 0.5, 0.5]]])
    pairs = [PreferencePair(generations[0].prompt, 0, 1, 0.9)]
    assert [e.samples for e in DPO().examples(generations, prob_beats, pairs)] == [(0, 1)]
    assert [e.signal for e in RLOO(labels="hard").examples(generations, prob_beats, pairs)] == [(1.0, 0.25, 0.25)]
    assert RLOO(labels="soft").examples(generations, prob_beats, pairs)[0].signal == pytest.approx((0.75, 0.3, 0.45))


# --- whole losses ---------------------------------------------------------------------------------------------------
LOGPS = torch.tensor([[[-1.0, -0.5, 0.0], [-2.0, 0.0, 0.0]], [[-0.2, -0.3, -0.4], [-1.0, -1.0, 0.0]]])
REFERENCE = torch.tensor([[[-1.2, -0.4, 0.0], [-1.0, 0.0, 0.0]], [[-0.1, -0.1, -0.1], [-1.5, -1.5, 0.0]]])
LENGTHS = [[2, 1], [3, 2]]
H = [(-1.5 + 1.6) - (-2.0 + 1.0), (-0.9 + 0.3) - (-2.0 + 3.0)]  # 1.1 and -1.6
CHOSEN_NLL = (1.5 / 2 + 0.9 / 3) / 2


@pytest.mark.parametrize("labels", ["hard", "soft"])
@pytest.mark.parametrize("nll_weight", [0.0, 0.2])
def test_the_dpo_learners_loss_by_hand(labels: str, nll_weight: float) -> None:
    batch = batch_of(LENGTHS, LOGPS, REFERENCE, [[0.8, 0.2], [0.6, 0.4]])
    loss, logged = DPO(beta=0.5, labels=labels, nll_weight=nll_weight).loss(LOGPS, batch)  # type: ignore[arg-type]
    p = [1.0, 1.0] if labels == "hard" else [0.8, 0.6]
    preference = sum(q * softplus(-0.5 * h) + (1 - q) * softplus(0.5 * h) for q, h in zip(p, H, strict=True)) / 2
    assert loss.item() == pytest.approx(preference + nll_weight * CHOSEN_NLL, rel=1e-5)
    assert logged["preference_loss"].item() == pytest.approx(preference, rel=1e-5)
    assert logged["chosen_nll"].item() == pytest.approx(CHOSEN_NLL, rel=1e-5)
    assert logged["reward_margin"].item() == pytest.approx(0.5 * sum(H) / 2, rel=1e-5)
    assert logged["reward_accuracy"].item() == 0.5


def test_a_step_of_dpo_raises_the_chosen_and_lowers_the_rejected() -> None:
    logps = LOGPS.clone().requires_grad_(True)
    loss, _ = DPO(nll_weight=0.0).loss(logps, batch_of(LENGTHS, LOGPS, REFERENCE, [[1.0, 0.0]] * 2))
    loss.backward()
    assert logps.grad is not None
    assert (logps.grad[:, 0] < 0).all()
    assert (logps.grad[:, 1] > 0).all()


def test_the_rloo_learners_loss_by_hand() -> None:
    sampled = LOGPS + torch.tensor([[[-0.1, 0.0, 0.0], [0.5, 0.0, 0.0]], [[0.0, 0.0, 0.0], [0.0, 0.1, 0.0]]])
    batch = batch_of(LENGTHS, sampled, REFERENCE, [[1.0, 0.0], [0.25, 0.75]])
    loss, logged = RLOO(clip=0.2).loss(LOGPS, batch)
    # ratios e^.1, e^-.5, 1, e^-.1; advantages 1, -1, -.5, .5 (k = 2: the difference to the other)
    terms = [math.exp(0.1) * 1, 0.8 * -1, 1.0 * -0.5, math.exp(-0.1) * 0.5]
    assert loss.item() == pytest.approx(-sum(terms) / 4, rel=1e-5)
    assert logged["clip_fraction"].item() == 0.25
    assert logged["sampled_kl"].item() == pytest.approx(-(0.1 - 0.5 + 0.0 - 0.1) / 4, rel=1e-5)


def test_rloos_kl_weight_takes_the_log_ratio_off_the_reward() -> None:
    batch = batch_of(LENGTHS, LOGPS, REFERENCE, [[1.0, 0.0], [0.5, 0.5]])
    loss, _ = RLOO(kl_weight=0.1).loss(LOGPS, batch)
    # log-ratios .1, -1 and -.6, 1; rewards .99, .1 and .56, .4; on-policy ratios are 1
    advantages = [0.99 - 0.1, 0.1 - 0.99, 0.56 - 0.4, 0.4 - 0.56]
    assert loss.item() == pytest.approx(-sum(advantages) / 4, abs=1e-6)
    logps = LOGPS.clone().requires_grad_(True)
    RLOO(kl_weight=0.1).loss(logps, batch)[0].backward()
    assert logps.grad is not None
    torch.testing.assert_close(logps.grad[..., 0].flatten(), -torch.tensor(advantages) / 4, atol=1e-6, rtol=1e-5)


def test_on_policy_rloo_follows_the_advantages() -> None:
    logps = LOGPS.clone().requires_grad_(True)
    loss, _ = RLOO().loss(logps, batch_of(LENGTHS, LOGPS, LOGPS, [[1.0, 0.0], [0.5, 0.5]]))
    loss.backward()
    assert logps.grad is not None
    assert (logps.grad[0, 0] < 0).all()
    assert (logps.grad[0, 1] > 0).all()
    assert logps.grad[1].eq(0).all()


# --- batch x accumulation -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "learner", [DPO(), DPO(labels="soft", nll_weight=0.0), RLOO(), RLOO(kl_weight=0.3)], ids=lambda x: x.name
)
def test_one_batch_of_eight_has_the_gradient_of_two_of_four(untrained: LanguageModel, learner: Learner) -> None:
    """Although the halves are padded to other lengths."""
    rng = np.random.default_rng(0)
    prompts = [[1, *rng.integers(7, 19, rng.integers(1, 9)).tolist()] for _ in range(8)]
    responses = [[[*rng.integers(7, 19, rng.integers(1, 3 + b)).tolist(), 2] for _ in range(2)] for b in range(8)]
    signal = torch.tensor([[p, 1 - p] for p in rng.uniform(0.5, 1.0, 8)]).float()
    shift = torch.from_numpy(rng.normal(0, 0.05, (8, 2))).float()
    network = copy.deepcopy(untrained.network).requires_grad_(True)

    def gradient(parts: list[list[int]]) -> list[Tensor]:
        network.zero_grad()
        for rows in parts:
            packed = pack([prompts[i] for i in rows], [responses[i] for i in rows], 0)
            logps = response_logps(network, packed)
            old = logps.detach().clone()
            old[..., 0] += shift[rows]
            loss, _ = learner.loss(logps, Batch(packed, old, old * 1.01, signal[rows]))
            (loss / len(parts)).backward()
        return [p.grad.clone() for p in network.parameters() if p.grad is not None]

    whole = gradient([list(range(8))])
    assert max(float(g.abs().max()) for g in whole) > 1e-3
    for parts in ([[0, 1, 2, 3], [4, 5, 6, 7]], [[7, 2], [5, 0], [1, 3], [4, 6]]):
        for one, other in zip(whole, gradient(parts), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (DPO, {"beta": 0.0}, "learner.beta"),
        (DPO, {"labels": "medium"}, "learner.labels"),
        (DPO, {"nll_weight": -1.0}, "learner.nll_weight"),
        (DPO, {"reference": "ema"}, "learner.reference"),
        (RLOO, {"clip": 0.0}, "learner.clip"),
        (RLOO, {"labels": "medium"}, "learner.labels"),
        (RLOO, {"kl_weight": -1.0}, "learner.kl_weight"),
        (RLOO, {"reference": "live"}, "learner.reference"),
    ],
)
def test_impossible_settings_are_refused_by_name(make: type, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)
