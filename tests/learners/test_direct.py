"""The direct preference learners: their examples, their whole losses by hand, and what must not change a loss."""

from __future__ import annotations

import copy
import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers import generation
from torch import Tensor

from rlaif_lab.config import config_dir
from rlaif_lab.feedback.base import Feedback
from rlaif_lab.learners.base import Batch, Learner
from rlaif_lab.learners.dpo import DPO
from rlaif_lab.learners.ipo import IPO
from rlaif_lab.learners.kto import KTO
from rlaif_lab.learners.orpo import ORPO
from rlaif_lab.learners.preference import PairLearner
from rlaif_lab.learners.robust_dpo import RobustDPO
from rlaif_lab.learners.simpo import SimPO
from rlaif_lab.learners.slic import SLiC
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.packed import Packed, pack, response_logps
from rlaif_lab.records import PreferencePair

LEARNERS: dict[str, type[Learner]] = {
    "dpo": DPO,
    "robust_dpo": RobustDPO,
    "ipo": IPO,
    "slic": SLiC,
    "simpo": SimPO,
    "orpo": ORPO,
    "kto": KTO,
}

PAIR_LEARNERS: dict[str, PairLearner] = {
    "dpo": DPO(beta=0.5, nll_weight=0.0),
    "dpo soft": DPO(beta=0.5, labels="soft", nll_weight=0.0),
    "cdpo": DPO(beta=0.5, label_smoothing=0.1, nll_weight=0.0),
    "robust_dpo": RobustDPO(beta=0.5, nll_weight=0.0),
    "ipo sum": IPO(tau=0.1, average_log_prob=False, nll_weight=0.0),
    "ipo mean": IPO(tau=0.1, average_log_prob=True, nll_weight=0.0),
    "hinge": SLiC(beta=0.1, nll_weight=0.0),
    "slic": SLiC(beta=0.1, anchored=False, nll_weight=0.0),
    "simpo": SimPO(nll_weight=0.0),
    "orpo": ORPO(odds_ratio_weight=0.5),
}
WITH_A_REFERENCE = ["dpo", "dpo soft", "cdpo", "robust_dpo", "ipo sum", "ipo mean", "hinge"]
WITHOUT_A_REFERENCE = ["slic", "simpo", "orpo"]


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def batch_of(
    lengths: list[list[int]], reference: Tensor, signal: list[list[float]], sampled: Tensor | None = None
) -> Batch:
    """Of the packed ids only the mask matters to a loss."""
    rows, n, width = reference.shape
    mask = torch.arange(width) < torch.tensor(lengths)[..., None]
    packed = Packed(torch.ones(rows, 1), torch.ones(rows, 1).bool(), torch.ones(rows, n, width).long(), mask)
    finished = torch.ones(rows, n, dtype=torch.bool)
    return Batch(packed, reference if sampled is None else sampled, reference, torch.tensor(signal), finished)


# Two pairs. Policy: -1.5 over 2 tokens against -2 over 1; -0.9 over 3 against -2 over 2.
LENGTHS = [[2, 1], [3, 2]]
LOGPS = torch.tensor([[[-1.0, -0.5, 0.0], [-2.0, 0.0, 0.0]], [[-0.2, -0.3, -0.4], [-1.0, -1.0, 0.0]]])
REFERENCE = torch.tensor([[[-1.2, -0.4, 0.0], [-1.0, 0.0, 0.0]], [[-0.1, -0.1, -0.1], [-1.5, -1.5, 0.0]]])
SIGNAL = [[0.8, 0.2], [0.6, 0.4]]
RATIOS = [(-1.5 + 1.6, -2.0 + 1.0), (-0.9 + 0.3, -2.0 + 3.0)]
H = [chosen - rejected for chosen, rejected in RATIOS]  # 1.1 and -1.6
H_PER_TOKEN = [RATIOS[0][0] / 2 - RATIOS[0][1] / 1, RATIOS[1][0] / 3 - RATIOS[1][1] / 2]  # 1.05 and -0.7
PER_TOKEN = [(-1.5 / 2, -2.0 / 1), (-0.9 / 3, -2.0 / 2)]
CHOSEN_NLL = (1.5 / 2 + 0.9 / 3) / 2


def pairs_batch() -> Batch:
    return batch_of(LENGTHS, REFERENCE, SIGNAL)


def log_odds(mean_logp: float) -> float:
    return mean_logp - math.log(1 - math.exp(mean_logp))


# --- examples --------------------------------------------------------------------------------------------------------
GENERATIONS = [generation("p", "a", "b"), generation("q", "c", "d")]
PAIRS = [PreferencePair(GENERATIONS[1].prompt, 1, 0, 0.75), PreferencePair(GENERATIONS[0].prompt, 0, 1, 1.0)]
PROB_BEATS = np.array([[[0.5, 1.0], [0.0, 0.5]], [[0.5, 0.25], [0.75, 0.5]]])


@pytest.mark.parametrize("learner", PAIR_LEARNERS.values(), ids=PAIR_LEARNERS)
def test_pair_learners_read_the_pairs_with_the_chosen_first(learner: PairLearner) -> None:
    examples = learner.examples(Feedback(3, GENERATIONS, PROB_BEATS, {"pairs": PAIRS}))
    assert [(e.prompt.text, [r.text for r in e.responses], e.signal) for e in examples] == [
        ("q", ["d", "c"], (0.75, 0.25)),
        ("p", ["a", "b"], (1.0, 0.0)),
    ]
    assert "pairs" in learner.needs
    assert {e.round_index for e in examples} == {3}


def test_kto_takes_pairs_apart() -> None:
    learner = KTO(labels_from="pairs")
    examples = learner.examples(Feedback(2, GENERATIONS, PROB_BEATS, {"pairs": PAIRS}))
    assert [(e.prompt.text, [r.text for r in e.responses], e.signal) for e in examples] == [
        ("q", ["d"], (1.0,)),
        ("q", ["c"], (-1.0,)),
        ("p", ["a"], (1.0,)),
        ("p", ["b"], (-1.0,)),
    ]
    assert "pairs" in learner.needs
    assert {e.round_index for e in examples} == {2}


def test_kto_labels_every_response_that_wins_or_loses_most_of_its_comparisons() -> None:
    """By the judge's decisions, not its probabilities; what has no verdict, or wins just half, is left out."""
    nan = np.nan
    three = [generation("p", "a", "b", "c"), generation("q", "d", "e", "f")]
    prob_beats = np.array(
        [
            [[0.5, 0.6, 0.1], [0.4, 0.5, 0.45], [0.9, 0.55, 0.5]],  # wins 1 of 2, 0 of 2, 2 of 2
            [[0.5, nan, nan], [nan, 0.5, 0.9], [nan, 0.1, 0.5]],  # unjudged, 1 of 1, 0 of 1
        ]
    )
    learner = KTO(labels_from="win_rates")
    examples = learner.examples(Feedback(0, three, prob_beats))
    assert [(e.responses[0].text, e.signal) for e in examples] == [
        ("b", (-1.0,)),
        ("c", (1.0,)),
        ("e", (1.0,)),
        ("f", (-1.0,)),
    ]
    assert "pairs" not in learner.needs


# --- whole losses by hand --------------------------------------------------------------------------------------------
BY_HAND: dict[str, tuple[list[float], list[float]]] = {  # loss of each pair, reward margin of each pair
    "dpo": ([softplus(-0.5 * h) for h in H], [0.5 * h for h in H]),
    "dpo soft": (
        [p * softplus(-0.5 * h) + (1 - p) * softplus(0.5 * h) for h, (p, _) in zip(H, SIGNAL, strict=True)],
        [0.5 * h for h in H],
    ),
    "cdpo": ([0.9 * softplus(-0.5 * h) + 0.1 * softplus(0.5 * h) for h in H], [0.5 * h for h in H]),
    "robust_dpo": ([(0.9 * softplus(-0.5 * h) - 0.1 * softplus(0.5 * h)) / 0.8 for h in H], [0.5 * h for h in H]),
    "ipo sum": ([(h - 5.0) ** 2 for h in H], [0.1 * h for h in H]),
    "ipo mean": ([(h - 5.0) ** 2 for h in H_PER_TOKEN], [0.1 * h for h in H_PER_TOKEN]),
    "hinge": ([max(0.0, 1 - 0.1 * h) for h in H], [0.1 * h for h in H]),
    "slic": ([1 - 0.1 * (-1.5 + 2.0), 1 - 0.1 * (-0.9 + 2.0)], [0.1 * 0.5, 0.1 * 1.1]),
    "simpo": ([softplus(1.0 - 2.0 * (c - r)) for c, r in PER_TOKEN], [2.0 * (c - r) for c, r in PER_TOKEN]),
    "orpo": (
        [0.5 * softplus(log_odds(r) - log_odds(c)) for c, r in PER_TOKEN],
        [log_odds(c) - log_odds(r) for c, r in PER_TOKEN],
    ),
}


def simpo_by_hand() -> PairLearner:
    return SimPO(beta=2.0, margin=1.0, nll_weight=0.0)


@pytest.mark.parametrize("nll_weight", [0.0, 0.2])
@pytest.mark.parametrize("name", PAIR_LEARNERS)
def test_the_learners_loss_by_hand(name: str, nll_weight: float) -> None:
    learner = copy.copy(simpo_by_hand() if name == "simpo" else PAIR_LEARNERS[name])
    learner.nll_weight = nll_weight
    losses, margins = BY_HAND[name]
    loss, logged = learner.loss(LOGPS, pairs_batch())
    assert loss.item() == pytest.approx(sum(losses) / 2 + nll_weight * CHOSEN_NLL, rel=1e-5)
    assert logged["preference_loss"].item() == pytest.approx(sum(losses) / 2, rel=1e-5)
    assert logged["chosen_nll"].item() == pytest.approx(CHOSEN_NLL, rel=1e-5)
    assert logged["reward_margin"].item() == pytest.approx(sum(margins) / 2, rel=1e-5)
    assert logged["reward_accuracy"].item() == sum(margin > 0 for margin in margins) / 2


def test_orpo_imitates_the_chosen_response_at_weight_one() -> None:
    loss, logged = ORPO(odds_ratio_weight=0.5).loss(LOGPS, pairs_batch())
    assert (loss - logged["preference_loss"]).item() == pytest.approx(CHOSEN_NLL, rel=1e-5)


def test_ktos_loss_by_hand() -> None:
    """Four single responses with log-ratios .1, -1, -.6, 1; the first and the third are desirable."""
    logps, reference = LOGPS.reshape(4, 1, 3), REFERENCE.reshape(4, 1, 3)
    batch = batch_of([[2], [1], [3], [2]], reference, [[1.0], [-1.0], [1.0], [-1.0]])
    ratios = [0.1, -1.0, -0.6, 1.0]
    # The reference sampled them, so that each counts exp(ratio) in the reference point.
    z_ref = sum(r * math.exp(r) for r in ratios) / sum(math.exp(r) for r in ratios)
    assert z_ref > 0
    losses = [
        2.0 * sigmoid(-0.5 * (0.1 - z_ref)),
        sigmoid(0.5 * (-1.0 - z_ref)),
        2.0 * sigmoid(-0.5 * (-0.6 - z_ref)),
        sigmoid(0.5 * (1.0 - z_ref)),
    ]
    nll = [1.5 / 2, 0.9 / 3]
    loss, logged = KTO(beta=0.5, desirable_weight=2.0, nll_weight=0.2).loss(logps, batch)
    assert loss.item() == pytest.approx(sum(losses) / 4 + 0.2 * sum(nll) / 4, rel=1e-5)
    assert logged["preference_loss"].item() == pytest.approx(sum(losses) / 4, rel=1e-5)
    assert logged["kto_reference_point"].item() == pytest.approx(z_ref, rel=1e-5)
    assert logged["chosen_nll"].item() == pytest.approx(sum(nll) / 2, rel=1e-5)
    assert logged["reward_margin"].item() == pytest.approx(0.5 * ((0.1 - 0.6) / 2 - (-1.0 + 1.0) / 2), rel=1e-4)
    # z_ref is .31: of the desirable none lies above it, of the undesirable only the second response below.
    assert logged["reward_accuracy"].item() == 0.25


@pytest.mark.parametrize("signal", [1.0, -1.0])
def test_kto_logs_no_comparison_where_a_batch_has_one_kind_only(signal: float) -> None:
    batch = batch_of([[2], [3]], REFERENCE[:, :1], [[signal]] * 2)
    loss, logged = KTO().loss(LOGPS[:, :1], batch)
    assert torch.isfinite(loss)
    assert "reward_margin" not in logged
    assert ("chosen_nll" in logged) == (signal > 0)


# --- what must change a loss, and what must not ----------------------------------------------------------------------
@pytest.mark.parametrize("learner", PAIR_LEARNERS.values(), ids=PAIR_LEARNERS)
def test_a_step_raises_the_chosen_and_lowers_the_rejected(learner: PairLearner) -> None:
    logps = LOGPS.clone().requires_grad_(True)
    learner.preference(logps.sum(-1), pairs_batch())[0].sum().backward()
    assert logps.grad is not None
    assert (logps.grad[:, 0] < 0).all()
    assert (logps.grad[:, 1] > 0).all()


def test_a_step_of_kto_raises_the_desirable_and_lowers_the_undesirable() -> None:
    logps = LOGPS.reshape(4, 1, 3).clone().requires_grad_(True)
    batch = batch_of([[2], [1], [3], [2]], REFERENCE.reshape(4, 1, 3), [[1.0], [-1.0], [1.0], [-1.0]])
    KTO(nll_weight=0.0).loss(logps, batch)[0].backward()
    assert logps.grad is not None
    assert logps.grad[:, 0, 0].sign().tolist() == [-1.0, 1.0, -1.0, 1.0]


@pytest.mark.parametrize("learner", PAIR_LEARNERS.values(), ids=PAIR_LEARNERS)
def test_swapping_chosen_and_rejected_turns_the_margin_round(learner: PairLearner) -> None:
    swapped = batch_of([row[::-1] for row in LENGTHS], REFERENCE.flip(1), [row[::-1] for row in SIGNAL])
    losses, margin = learner.preference(LOGPS.sum(-1), pairs_batch())
    other_losses, other_margin = learner.preference(LOGPS.sum(-1).flip(1), swapped)
    torch.testing.assert_close(other_margin, -margin)
    if learner is PAIR_LEARNERS["dpo soft"]:  # the label went with its response
        torch.testing.assert_close(other_losses, losses)
    else:
        assert (losses < other_losses).tolist() == (margin > 0).tolist()


@pytest.mark.parametrize("learner", [*PAIR_LEARNERS.values(), KTO()], ids=[*PAIR_LEARNERS, "kto"])
def test_padding_changes_nothing(learner: Learner) -> None:
    if isinstance(learner, KTO):
        lengths, logps, reference = [[2], [1], [3], [2]], LOGPS.reshape(4, 1, 3), REFERENCE.reshape(4, 1, 3)
        signal = [[1.0], [-1.0], [1.0], [-1.0]]
    else:
        lengths, logps, reference, signal = LENGTHS, LOGPS, REFERENCE, SIGNAL
    narrow, logged = learner.loss(logps, batch_of(lengths, reference, signal))
    wide, wide_logged = learner.loss(
        torch.nn.functional.pad(logps, (0, 4)),
        batch_of(lengths, torch.nn.functional.pad(reference, (0, 4)), signal),
    )
    torch.testing.assert_close(wide, narrow)
    assert {k: v.item() for k, v in wide_logged.items()} == pytest.approx({k: v.item() for k, v in logged.items()})


@pytest.mark.parametrize("name", WITHOUT_A_REFERENCE)
def test_slic_simpo_and_orpo_never_look_at_a_reference(name: str) -> None:
    learner = PAIR_LEARNERS[name]
    assert not learner.needs_reference
    nothing = torch.full_like(REFERENCE, math.nan)
    assert learner.loss(LOGPS, batch_of(LENGTHS, nothing, SIGNAL))[0] == learner.loss(LOGPS, pairs_batch())[0]


@pytest.mark.parametrize("name", WITH_A_REFERENCE)
def test_the_others_see_only_the_log_ratio_to_it(name: str) -> None:
    learner = PAIR_LEARNERS[name]
    assert learner.needs_reference
    shift = torch.tensor([0.3, -0.2, 0.1]) * (LOGPS != 0)
    moved = learner.preference((LOGPS + shift).sum(-1), batch_of(LENGTHS, REFERENCE + shift, SIGNAL))
    torch.testing.assert_close(moved, learner.preference(LOGPS.sum(-1), pairs_batch()))


def test_ipo_per_token_and_summed_differ_by_the_lengths_alone() -> None:
    """One token each: the same. Twice the tokens with the same log-ratio each: h doubles in the sum only."""
    once, twice = torch.tensor([[[0.4], [-0.3]]]), torch.tensor([[[0.4, 0.4], [-0.3, -0.3]]])

    def margin(average: bool, ratios: Tensor) -> float:
        lengths = [[ratios.shape[2]] * 2]
        learner = IPO(tau=1.0, average_log_prob=average)
        return learner.preference(ratios.sum(-1), batch_of(lengths, torch.zeros_like(ratios), [[1.0, 0.0]]))[1].item()

    assert margin(False, once) == margin(True, once) == pytest.approx(0.7)
    assert margin(False, twice) == pytest.approx(1.4)
    assert margin(True, twice) == pytest.approx(0.7)


def test_ktos_reference_point_is_zero_where_the_policy_has_not_moved() -> None:
    batch = batch_of([[2], [3]], LOGPS[:, :1], [[1.0], [-1.0]])
    loss, logged = KTO(nll_weight=0.0).loss(LOGPS[:, :1], batch)
    assert logged["kto_reference_point"].item() == 0.0
    assert loss.item() == pytest.approx(0.5)


# --- batch x accumulation --------------------------------------------------------------------------------------------
ACCUMULATED: dict[str, Learner] = {
    "dpo": DPO(),
    "cdpo soft": DPO(labels="soft", label_smoothing=0.1),
    "robust_dpo": RobustDPO(),
    "ipo sum": IPO(average_log_prob=False),
    "ipo mean": IPO(average_log_prob=True),
    "hinge": SLiC(),
    "slic": SLiC(anchored=False),
    "simpo": SimPO(),
    "orpo": ORPO(),
    "kto": KTO(),
}


@pytest.mark.parametrize("name", ACCUMULATED)
def test_a_batch_has_the_gradient_of_its_parts_by_their_weight(untrained: LanguageModel, name: str) -> None:
    """Although the parts are of different size and padded to other lengths. For KTO this holds as long as the
    reference point does: here it is 0, every log-ratio being negative."""
    learner = ACCUMULATED[name]
    n = 1 if name == "kto" else 2
    rng = np.random.default_rng(0)
    prompts = [[1, *rng.integers(7, 19, rng.integers(1, 9)).tolist()] for _ in range(8)]
    responses = [[[*rng.integers(7, 19, rng.integers(1, 3 + b)).tolist(), 2] for _ in range(n)] for b in range(8)]
    signal = torch.tensor(
        [[(-1.0) ** b] for b in range(8)] if n == 1 else [[p, 1 - p] for p in rng.uniform(0.5, 1.0, 8)]
    ).float()
    shift = torch.from_numpy(rng.uniform(0.01, 0.1, (8, n))).float()
    network = copy.deepcopy(untrained.network).requires_grad_(True)

    def gradient(parts: list[list[int]]) -> list[Tensor]:
        network.zero_grad()
        batches, weights = [], []
        for rows in parts:
            packed = pack([prompts[i] for i in rows], [responses[i] for i in rows], 0)
            with torch.no_grad():
                old = response_logps(network, packed)
                old[..., 0] += shift[rows]
            batches.append(Batch(packed, old, old, signal[rows], torch.ones(len(rows), n).bool()))
            weights.append(learner.weight(batches[-1]))
        for batch, weight in zip(batches, weights, strict=True):
            loss, _ = learner.loss(response_logps(network, batch.packed), batch)
            (loss * weight / sum(weights)).backward()
        return [p.grad.clone() for p in network.parameters() if p.grad is not None]

    whole = gradient([list(range(8))])
    assert max(float(g.abs().max()) for g in whole) > 1e-3
    for parts in ([[0, 1, 2, 3], [4, 5, 6, 7]], [[7, 2, 1], [5, 0, 3, 4, 6]]):
        for one, other in zip(whole, gradient(parts), strict=True):
            torch.testing.assert_close(one, other, atol=2e-5 * max(1.0, float(one.abs().max())), rtol=1e-4)


# --- settings --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", LEARNERS)
def test_the_yaml_has_every_argument_with_its_default(name: str) -> None:
    node: dict[str, Any] = yaml.safe_load((Path(config_dir()) / "learner" / f"{name}.yaml").read_text())
    target = node.pop("_target_")
    learner = LEARNERS[name]
    assert target == f"{learner.__module__}.{learner.__qualname__}"
    assert node == {key: p.default for key, p in inspect.signature(learner).parameters.items()}
    assert learner(**node).name == name


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (DPO, {"beta": 0.0}, r"learner\.beta must be positive; got 0\.0"),
        (DPO, {"beta": math.nan}, r"learner\.beta"),
        (DPO, {"beta": math.inf}, r"learner\.beta must be finite"),
        (DPO, {"labels": "medium"}, r"learner\.labels must be one of hard, soft; got 'medium'"),
        (DPO, {"label_smoothing": 0.5}, r"learner\.label_smoothing must lie in \[0, 0\.5\); got 0\.5"),
        (DPO, {"label_smoothing": -0.1}, r"learner\.label_smoothing"),
        (DPO, {"nll_weight": -1.0}, r"learner\.nll_weight must not be negative; got -1\.0"),
        (DPO, {"reference": "ema"}, r"learner\.reference must be one of"),
        (RobustDPO, {"beta": -1.0}, r"learner\.beta"),
        (RobustDPO, {"label_noise": 0.5}, r"learner\.label_noise must lie in"),
        (DPO, {"nll_weight": math.inf}, r"learner\.nll_weight must be finite"),
        (RobustDPO, {"nll_weight": math.nan}, r"learner\.nll_weight"),
        (IPO, {"tau": 0.0}, r"learner\.tau must be positive"),
        (IPO, {"nll_weight": -1.0}, r"learner\.nll_weight"),
        (IPO, {"reference": "ema"}, r"learner\.reference"),
        (SLiC, {"beta": 0.0}, r"learner\.beta"),
        (SLiC, {"nll_weight": -1.0}, r"learner\.nll_weight"),
        (SimPO, {"beta": 0.0}, r"learner\.beta"),
        (SimPO, {"margin": -0.5}, r"learner\.margin must not be negative"),
        (ORPO, {"odds_ratio_weight": 0.0}, r"learner\.odds_ratio_weight must be positive"),
        (KTO, {"beta": 0.0}, r"learner\.beta"),
        (KTO, {"labels_from": "scores"}, r"learner\.labels_from must be one of pairs, win_rates; got 'scores'"),
        (KTO, {"desirable_weight": -1.0}, r"learner\.desirable_weight"),
        (KTO, {"undesirable_weight": -1.0}, r"learner\.undesirable_weight"),
        (KTO, {"desirable_weight": 0.0, "undesirable_weight": 0.0}, "cannot both be 0"),
        (KTO, {"nll_weight": -1.0}, r"learner\.nll_weight"),
        (KTO, {"reference": "ema"}, r"learner\.reference"),
    ],
)
def test_impossible_settings_are_refused_by_name(make: type, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)
