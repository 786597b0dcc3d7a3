"""The learners against TRL's own code, on random log-probabilities: loss and gradient to 1e-5.

TRL's trainers are made without their constructors, which want models and datasets, and are given just what their loss
reads. A stub in the model's place hands them the log-probabilities (or logits); all else is theirs.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rlaif_lab.learners.base import Batch, Learner
from rlaif_lab.learners.dpo import DPO
from rlaif_lab.learners.ipo import IPO
from rlaif_lab.learners.kto import KTO
from rlaif_lab.learners.orpo import ORPO
from rlaif_lab.learners.robust_dpo import RobustDPO
from rlaif_lab.learners.simpo import SimPO
from rlaif_lab.learners.slic import SLiC
from rlaif_lab.models.packed import Packed, token_logps

PINNED = "1.16.0"

pytest.importorskip("trl", reason=f"NOT CHECKED: agreement of the losses with TRL needs trl=={PINNED} (the trl extra)")

PAIRS, TOKENS, VOCABULARY = 6, 5, 7
PROMPT_TOKEN = 0
RAGGED = torch.tensor([[5, 2], [1, 4], [3, 3], [2, 5], [4, 1], [5, 5]])
EVEN = torch.full((PAIRS, 2), TOKENS)


def test_this_is_the_trl_that_the_losses_are_checked_against() -> None:
    version = metadata.version("trl")
    assert version == PINNED, f"trl {version} is installed; agreement is checked with {PINNED}, so pin that one"


@dataclass(frozen=True)
class Case:
    """Random log-probabilities of pairs, as our batch and as rows of TRL's (all chosen first, then all rejected).

    logits: (B, 2, R + 1, V). logps, reference: (B, 2, R). All leaves of the graph that are compared carry gradient.
    """

    logits: Tensor
    lengths: Tensor
    reference: Tensor
    ids: Tensor

    @property
    def mask(self) -> Tensor:
        return torch.arange(TOKENS) < self.lengths[..., None]

    def packed(self) -> Packed:
        prompt = torch.full((PAIRS, 1), PROMPT_TOKEN)
        return Packed(prompt, torch.ones(PAIRS, 1).bool(), self.ids, self.mask)

    def logps(self) -> Tensor:
        return token_logps(self.logits, self.packed())

    def batch(self) -> Batch:
        signal = torch.tensor([[1.0, 0.0]]).expand(PAIRS, 2)
        finished = torch.ones(PAIRS, 2, dtype=torch.bool)
        return Batch(self.packed(), self.reference, self.reference, signal, finished)


def case(lengths: Tensor, seed: int = 0) -> Case:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(PAIRS, 2, TOKENS + 1, VOCABULARY, generator=generator) * 2
    ids = torch.randint(1, VOCABULARY, (PAIRS, 2, TOKENS), generator=generator)
    mask = torch.arange(TOKENS) < lengths[..., None]
    reference = -torch.rand(PAIRS, 2, TOKENS, generator=generator) * 4 * mask
    return Case(logits.requires_grad_(True), lengths, reference, ids)


def rows(pairs: Tensor) -> Tensor:
    """(B, 2, ...) -> (2 B, ...), chosen first."""
    return torch.cat([pairs[:, 0], pairs[:, 1]])


def accelerator() -> Any:
    return SimpleNamespace(device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x)


def per_token_outputs(logps: Tensor) -> Any:
    """What TRL's fused head returns; the loss reads the log-probabilities, the rest is for its log."""
    zeros = torch.zeros_like(logps)
    return SimpleNamespace(log_probs=logps, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())


def completion_mask(mask: Tensor) -> Tensor:
    """TRL's rows begin with the prompt, here one token of it."""
    return torch.cat([torch.zeros(len(mask), 1), mask], 1).long()


def trl_dpo(c: Case, loss_type: str, beta: float, label_smoothing: float = 0.0) -> Tensor:
    from trl import DPOTrainer

    trainer = object.__new__(DPOTrainer)
    vars(trainer).update(
        model=SimpleNamespace(training=True),
        accelerator=accelerator(),
        aux_loss_enabled=False,
        ld_alpha=None,
        precompute_ref_logps=True,
        f_divergence_type="reverse_kl",
        loss_types=[loss_type],
        loss_weights=[1.0],
        beta=beta,
        label_smoothing=label_smoothing,
        use_weighting=False,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    mask = rows(c.mask)
    inputs = {
        "input_ids": torch.cat([torch.full((len(mask), 1), PROMPT_TOKEN), rows(c.ids)], 1),
        "attention_mask": torch.cat([torch.ones(len(mask), 1), mask], 1).long(),
        "completion_mask": completion_mask(mask),
        "ref_chosen_logps": c.reference[:, 0].sum(-1),
        "ref_rejected_logps": c.reference[:, 1].sum(-1),
    }
    return trainer.compute_loss(lambda **_: per_token_outputs(rows(c.logps())), inputs)


def trl_from_logits(trainer: Any, c: Case, **settings: Any) -> tuple[Tensor, dict[str, float]]:
    """Loss and metrics of TRL's reference-free trainers, which read a model's logits."""
    vars(trainer).update(
        accelerator=accelerator(),
        aux_loss_enabled=False,
        is_encoder_decoder=False,
        pad_token_id=PROMPT_TOKEN,
        padding_value=PROMPT_TOKEN,
        **settings,
    )
    inputs: dict[str, Tensor] = {}
    for side, name in enumerate(("chosen", "rejected")):
        mask, ids = c.mask[:, side], c.ids[:, side]
        prompt = torch.full((PAIRS, 1), PROMPT_TOKEN)
        inputs[f"{name}_input_ids"] = torch.cat([prompt, ids], 1)
        inputs[f"{name}_attention_mask"] = torch.cat([torch.ones(PAIRS, 1), mask], 1).long()
        inputs[f"{name}_labels"] = torch.cat([torch.full((PAIRS, 1), -100), ids.masked_fill(~mask, -100)], 1)
    return trainer.get_batch_loss_metrics(lambda *_, **__: SimpleNamespace(logits=rows(c.logits)), inputs)


def trl_cpo(c: Case, loss_type: str, beta: float, gamma: float = 0.0, label_smoothing: float = 0.0) -> Tensor:
    from trl.experimental.cpo import CPOTrainer

    settings = {"loss_type": loss_type, "beta": beta, "simpo_gamma": gamma, "label_smoothing": label_smoothing}
    return trl_from_logits(object.__new__(CPOTrainer), c, alpha=0.0, cpo_alpha=0.0, **settings)[0]


def trl_orpo(c: Case, beta: float) -> tuple[Tensor, dict[str, float]]:
    from trl.experimental.orpo import ORPOTrainer

    return trl_from_logits(object.__new__(ORPOTrainer), c, beta=beta)


def trl_kto(
    logps: Tensor, reference: Tensor, mask: Tensor, desirable: Tensor, beta: float, weights: tuple[float, float]
) -> Tensor:
    """logps, reference, mask: (B, R). The responses by which TRL estimates the divergence are the batch's own."""
    from trl import KTOTrainer

    trainer = object.__new__(KTOTrainer)
    vars(trainer).update(
        model=SimpleNamespace(training=True),
        accelerator=accelerator(),
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        calculate_KL=True,
        loss_type="kto",
        beta=beta,
        desirable_weight=weights[0],
        undesirable_weight=weights[1],
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    ids = torch.full((len(mask), TOKENS + 1), PROMPT_TOKEN)
    attention = torch.cat([torch.ones(len(mask), 1), mask], 1).long()
    inputs = {
        "input_ids": ids,
        "attention_mask": attention,
        "completion_mask": completion_mask(mask),
        "KL_input_ids": ids,
        "KL_attention_mask": attention,
        "KL_completion_mask": completion_mask(mask),
        "ref_logps": reference.sum(-1),
        "ref_KL_logps": reference.sum(-1),
        "label": desirable,
    }
    return trainer.compute_loss(lambda **_: per_token_outputs(logps), inputs)


def agree(c: Case, learner: Learner, theirs: Tensor) -> None:
    """Same loss, same gradient with respect to every logit."""
    ours, _ = learner.loss(c.logps(), c.batch())
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    (our_gradient,) = torch.autograd.grad(ours, c.logits)
    (their_gradient,) = torch.autograd.grad(theirs, c.logits)
    assert their_gradient.abs().max() > 1e-4
    torch.testing.assert_close(our_gradient, their_gradient, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_dpo(beta: float, seed: int) -> None:
    c = case(RAGGED, seed)
    agree(c, DPO(beta=beta, nll_weight=0.0), trl_dpo(c, "sigmoid", beta))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.3])
def test_conservative_dpo(label_smoothing: float) -> None:
    """TRL's DPO trainer has no label smoothing for ``sigmoid`` any more. Its CPO trainer does; that one has no
    reference, which is a reference of probability 1."""
    c = case(RAGGED)
    c = Case(c.logits, c.lengths, torch.zeros_like(c.reference), c.ids)
    theirs = trl_cpo(c, "sigmoid", 0.3, label_smoothing=label_smoothing)
    agree(c, DPO(beta=0.3, label_smoothing=label_smoothing, nll_weight=0.0), theirs)


@pytest.mark.parametrize("label_noise", [0.0, 0.1, 0.4])
def test_robust_dpo(label_noise: float) -> None:
    c = case(RAGGED)
    agree(c, RobustDPO(beta=0.3, label_noise=label_noise, nll_weight=0.0), trl_dpo(c, "robust", 0.3, label_noise))


@pytest.mark.parametrize("tau", [0.1, 1.0])
def test_ipo_per_token(tau: float) -> None:
    c = case(RAGGED)
    agree(c, IPO(tau=tau, average_log_prob=True, nll_weight=0.0), trl_dpo(c, "ipo", tau))


def test_ipo_summed_is_another_loss_unless_responses_are_one_token_long() -> None:
    c, single = case(RAGGED), case(torch.ones(PAIRS, 2, dtype=torch.long))
    summed = IPO(tau=0.1, average_log_prob=False, nll_weight=0.0)
    difference = summed.loss(c.logps(), c.batch())[0] - trl_dpo(c, "ipo", 0.1)
    assert difference.abs().item() > 0.1
    agree(single, summed, trl_dpo(single, "ipo", 0.1))


@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_hinge(beta: float) -> None:
    c = case(RAGGED)
    agree(c, SLiC(beta=beta, nll_weight=0.0), trl_dpo(c, "hinge", beta))


@pytest.mark.parametrize("beta", [0.1, 0.7])
def test_slic_without_a_reference(beta: float) -> None:
    c = case(RAGGED)
    agree(c, SLiC(beta=beta, anchored=False, nll_weight=0.0), trl_cpo(c, "hinge", beta))


@pytest.mark.parametrize(("beta", "margin"), [(2.0, 0.5), (2.5, 1.4), (0.5, 0.0)])
def test_simpo(beta: float, margin: float) -> None:
    c = case(RAGGED)
    agree(c, SimPO(beta=beta, margin=margin, nll_weight=0.0), trl_cpo(c, "simpo", beta, gamma=margin))


@pytest.mark.parametrize("weight", [0.1, 1.0])
def test_orpo(weight: float) -> None:
    """TRL's likelihood is a mean over the tokens of the batch, prompts included. With one prompt token, of which
    nothing is predicted, and equal lengths, that is the mean over responses."""
    c = case(EVEN)
    agree(c, ORPO(odds_ratio_weight=weight), trl_orpo(c, weight)[0])


def test_orpos_odds_ratio_at_any_length() -> None:
    c = case(RAGGED)
    theirs, metrics = trl_orpo(c, 0.3)
    _, logged = ORPO(odds_ratio_weight=0.3).loss(c.logps(), c.batch())
    assert logged["preference_loss"].item() == pytest.approx(theirs.item() - metrics["nll_loss"], abs=1e-5)
    assert logged["reward_margin"].item() == pytest.approx(metrics["log_odds_chosen"], abs=1e-5)


@pytest.mark.parametrize("lift", [1.0, -1.0], ids=["reference point above 0", "reference point clamped"])
@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.3, 0.6)])
def test_kto(weights: tuple[float, float], lift: float) -> None:
    """Without drift from the sampling weights, the reference point is the mean log-ratio."""
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(TOKENS) < rows(RAGGED)[:, None]
    logps = (-torch.rand(len(mask), TOKENS, generator=generator) * 3 * mask).requires_grad_(True)
    reference = (logps.detach() - lift + torch.randn(mask.shape, generator=generator)) * mask
    desirable = torch.tensor([True, False, False, True, True, True, False, True, False, False, True, False])
    assert ((logps.detach() - reference).sum(-1).mean().item() > 0) == (lift > 0)

    prompt = torch.full((len(mask), 1), PROMPT_TOKEN)
    packed = Packed(prompt, torch.ones_like(prompt).bool(), torch.ones(len(mask), 1, TOKENS).long(), mask[:, None])
    signal = torch.where(desirable, 1.0, -1.0)[:, None]
    batch = Batch(packed, logps.detach()[:, None], reference[:, None], signal, torch.ones(len(mask), 1).bool())
    learner = KTO(beta=0.4, desirable_weight=weights[0], undesirable_weight=weights[1], nll_weight=0.0)
    ours, logged = learner.loss(logps[:, None], batch)
    theirs = trl_kto(logps, reference, mask, desirable, 0.4, weights)
    assert (logged["kto_reference_point"].item() > 0) == (lift > 0)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    (our_gradient,) = torch.autograd.grad(ours, logps)
    (their_gradient,) = torch.autograd.grad(theirs, logps)
    assert their_gradient.abs().max() > 1e-4
    torch.testing.assert_close(our_gradient, their_gradient, atol=1e-5, rtol=1e-5)
