"""Every policy gradient and SFT learner: its loss does not depend on padding or on how a batch is cut; its settings."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from learners.cases import Ragged, padded
from rlaif_lab.config import build, config_dir
from rlaif_lab.learners.base import Learner
from rlaif_lab.learners.best_of_n import BestOfN
from rlaif_lab.learners.distil import Distil
from rlaif_lab.learners.filtered_sft import FilteredSFT
from rlaif_lab.learners.grpo import GRPO
from rlaif_lab.learners.no_update import NoUpdate
from rlaif_lab.learners.ppo import PPO
from rlaif_lab.learners.revision_sft import RevisionSFT
from rlaif_lab.learners.rloo import RLOO
from rlaif_lab.models.critic import Critic
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.packed import response_logps

TRAINING: dict[str, Learner] = {
    "rloo": RLOO(),
    "rloo, KL in the reward": RLOO(kl_weight=0.3),
    "rloo, KL in the loss, truncated masked": RLOO(kl_weight=0.3, kl_in="loss", mask_truncated=True),
    "grpo": GRPO(kl_weight=0.1),
    "grpo over tokens": GRPO(normalise="token", clip_high=0.28, mask_truncated=True),
    "dr. grpo": GRPO(scale="none", normalise="constant", divisor=4.0, mask_truncated=True),
    "ppo": PPO(),
    "ppo, everything": PPO(kl_weight=0.1, gamma=0.9, lam=0.8, value_clip=0.05, mask_truncated=True),
    "ppo over responses": PPO(normalise="sequence", kl_weight=0.1, kl_in="loss"),
    "sft over tokens": FilteredSFT(normalise="token"),
    "sft over responses": BestOfN(normalise="sequence"),
}
LEARNERS = (RLOO, GRPO, PPO, BestOfN, FilteredSFT, Distil, RevisionSFT, NoUpdate)


class Trained:
    """A policy and a critic of random weights, to be differentiated through."""

    def __init__(self, model: LanguageModel) -> None:
        self.network = copy.deepcopy(model.network).requires_grad_(True)
        self.critic = Critic(model, 0)
        with torch.no_grad():  # a new one says 0 everywhere
            self.critic.out.weight.normal_(generator=torch.Generator().manual_seed(0))

    def loss_and_gradient(self, learner: Learner, parts: list[list[int]]) -> tuple[float, list[Tensor]]:
        """As the training step has it: each part weighted by what it counts."""
        self.network.zero_grad()
        self.critic.zero_grad()
        made = [Ragged().forward(self.network, self.critic, rows) for rows in parts]
        weights = [learner.weight(batch) for _, _, batch in made]
        total = 0.0
        for (logps, values, batch), weight in zip(made, weights, strict=True):
            loss = learner.loss(logps, batch, values)[0] * (weight / sum(weights))
            loss.backward()
            total += loss.item()
        parameters = [*self.network.parameters(), *self.critic.parameters()]
        return total, [p.grad.clone() for p in parameters if p.grad is not None]


@pytest.mark.parametrize("name", TRAINING)
def test_parts_weighted_by_what_they_count_are_the_whole(untrained: LanguageModel, name: str) -> None:
    """Although they are of different sizes and padded to other lengths."""
    trained = Trained(untrained)
    loss, whole = trained.loss_and_gradient(TRAINING[name], [list(range(8))])
    assert max(float(g.abs().max()) for g in whole) > 1e-3
    for parts in ([[0, 1, 2, 3], [4, 5, 6, 7]], [[7], [5, 0, 2], [1, 3, 4, 6]]):
        again, gradient = trained.loss_and_gradient(TRAINING[name], parts)
        assert again == pytest.approx(loss, abs=1e-5)
        for one, other in zip(whole, gradient, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", TRAINING)
def test_padding_never_changes_a_loss(untrained: LanguageModel, name: str) -> None:
    trained = Trained(untrained)
    learner = TRAINING[name]
    with torch.no_grad():
        logps, values, batch = Ragged().forward(trained.network, trained.critic, range(8))
        loss, logged = learner.loss(logps, batch, values)
        wide = padded(batch, left=3, right=4, pad_id=9)
        wide_logps = response_logps(trained.network, wide.packed)
        again, logged_again = learner.loss(wide_logps, wide, trained.critic.values(wide.packed))
    assert again.item() == pytest.approx(loss.item(), abs=1e-5)
    assert learner.weight(wide) == pytest.approx(learner.weight(batch))
    assert {k: float(v) for k, v in logged_again.items()} == pytest.approx(
        {k: float(v) for k, v in logged.items()}, abs=1e-4
    )


@pytest.mark.parametrize("name", TRAINING)
def test_what_is_logged_carries_no_gradient(untrained: LanguageModel, name: str) -> None:
    trained = Trained(untrained)
    logps, values, batch = Ragged().forward(trained.network, trained.critic, range(8))
    loss, logged = TRAINING[name].loss(logps, batch, values)
    assert loss.requires_grad
    assert all(v.shape == () and torch.isfinite(v) and not v.requires_grad for v in logged.values())


@pytest.mark.parametrize("learner", [RLOO(mask_truncated=True), GRPO(mask_truncated=True), PPO(mask_truncated=True)])
def test_where_nothing_counts_there_is_no_loss_and_no_gradient(untrained: LanguageModel, learner: Learner) -> None:
    trained = Trained(untrained)
    ragged = Ragged()
    ragged.finished[:] = False
    logps, values, batch = ragged.forward(trained.network, trained.critic, range(8))
    loss, _ = learner.loss(logps, batch, values)
    loss.backward()
    assert learner.weight(batch) == 0
    assert loss.item() == 0
    assert all(p.grad is None or p.grad.eq(0).all() for p in trained.network.parameters())


# --- settings -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("make", LEARNERS, ids=lambda x: x.__name__)
def test_the_yaml_names_every_argument_and_says_the_defaults(make: type[Learner]) -> None:
    default = make()
    node = OmegaConf.load(Path(config_dir()) / "learner" / f"{default.name}.yaml")
    made = build(node, "learner")  # type: ignore[arg-type]
    assert type(made) is make
    assert vars(made) == vars(default)
    arguments = {str(key) for key in node} - {"_target_"}
    unnamed = set(vars(default)) - arguments
    assert unnamed <= {"needs", "needs_reference", "minimum_k", "reference"}


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (RLOO, {"reward": "gold"}, "learner.reward must be one of win_rate, score, reward_model; got 'gold'"),
        (RLOO, {"labels": "medium"}, "learner.labels"),
        (RLOO, {"clip": 0.0}, "learner.clip must lie in"),
        (RLOO, {"clip": 1.0}, "learner.clip must lie in"),
        (RLOO, {"clip_high": 0.0}, "learner.clip_high"),
        (RLOO, {"kl_weight": -1.0}, "learner.kl_weight"),
        (RLOO, {"kl_in": "advantage"}, "learner.kl_in"),
        (RLOO, {"target_kl": 1.0}, "learner.target_kl.*kl_weight 0"),
        (RLOO, {"target_kl": 0.0, "kl_weight": 0.1}, "learner.target_kl"),
        (RLOO, {"horizon": 0.1}, "learner.horizon"),
        (RLOO, {"no_eos_penalty": -0.1}, "learner.no_eos_penalty"),
        (RLOO, {"reference": "live"}, "learner.reference"),
        (GRPO, {"scale": "mad"}, "learner.scale"),
        (GRPO, {"normalise": "batch"}, "learner.normalise"),
        (GRPO, {"divisor": 0.0}, "learner.divisor"),
        (PPO, {"gamma": 1.1}, "learner.gamma"),
        (PPO, {"lam": -0.1}, "learner.lam"),
        (PPO, {"vf_weight": 0.0}, "learner.vf_weight"),
        (PPO, {"value_clip": 0.0}, "learner.value_clip"),
        (PPO, {"normalise": "batch"}, "learner.normalise"),
        (PPO, {"kl_weight": 0.1, "reference": "previous_round"}, "learner.kl_in=reward takes no effect"),
        (BestOfN, {"reward": "gold"}, "learner.reward"),
        (BestOfN, {"labels": "medium"}, "learner.labels"),
        (BestOfN, {"restart": "always"}, "learner.restart"),
        (FilteredSFT, {"threshold": 1.5}, "learner.threshold"),
        (FilteredSFT, {"threshold": float("nan"), "reward": "score"}, "learner.threshold"),
        (Distil, {"normalise": "constant"}, "learner.normalise"),
    ],
)
def test_impossible_settings_are_refused_by_name(make: type, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**arguments)


def test_learners_say_what_a_round_has_to_provide() -> None:
    assert PPO().needs_values
    assert not RLOO().needs_values
    assert (RLOO().minimum_k, GRPO().minimum_k, BestOfN().minimum_k) == (2, 2, 2)
    assert (PPO().minimum_k, PPO(reward="score").minimum_k) == (2, 1)
    assert (FilteredSFT().minimum_k, FilteredSFT(reward="score").minimum_k) == (2, 1)
    assert (Distil().minimum_k, RevisionSFT().minimum_k, NoUpdate().minimum_k) == (1, 1, 1)
    assert Distil().needs == ("demonstrations",)
    assert RevisionSFT().needs == ("revisions",)
    assert ["judgements" in x.needs for x in (RLOO(), BestOfN(), Distil(), RevisionSFT(), NoUpdate())] == [True] * 2 + [
        False
    ] * 3


def test_a_reference_is_computed_only_for_a_loss_that_reads_it() -> None:
    assert not any(x.needs_reference for x in (RLOO(), GRPO(), PPO(), BestOfN(), Distil(), NoUpdate()))
    assert all(x.needs_reference for x in (RLOO(kl_weight=0.1), GRPO(kl_weight=0.1), PPO(kl_weight=0.1)))
