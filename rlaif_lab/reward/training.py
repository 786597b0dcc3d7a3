"""The training of one reward model: plain AdamW over prompts, each with all of its pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from rlaif_lab.progress import bar
from rlaif_lab.reward.examples import Group
from rlaif_lab.reward.losses import bradley_terry
from rlaif_lab.reward.network import RewardNetwork
from rlaif_lab.reward.settings import Training
from rlaif_lab.seeding import rng_for


def train(model: RewardNetwork, groups: Sequence[Group], settings: Training, where: str, *identity: int | str) -> None:
    """Train in place, without dropout. identity: decides the order of the prompts. where: for the error message.

    A batch is ``settings.batch_size`` prompts, each with all of its pairs, so that a response is computed once however
    many pairs it is in (Ouyang et al. 2203.02155); every pair of a batch weighs the same. The learning rate rises from
    0 over ``warmup_steps`` and falls to 0 at the end, linearly. Raises ValueError for a loss or gradient that is not
    finite.
    """
    encoded = model.encode([(g.prompt, g.answers) for g in groups])
    order = [
        int(i)
        for number in range(settings.passes)
        for i in rng_for(*identity, "reward order", number).permutation(len(groups))
    ]
    starts = range(0, len(order), settings.batch_size)
    parameters = list(model.network.requires_grad_(True).parameters())
    optimizer = torch.optim.AdamW(
        parameters,
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    for step, at in enumerate(bar(starts, desc=f"reward model, {where}")):
        rows = order[at : at + settings.batch_size]
        rewards = model.rewards(model.pack([encoded[i] for i in rows]))
        loss = batch_loss(rewards, [groups[i] for i in rows], settings)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, settings.clip_norm or math.inf)
        # The sum of both is nan or infinite if either is.
        if not math.isfinite(loss.item() + norm.item()):
            raise ValueError(
                f"reward model, {where}: loss {loss.item()} and gradient norm {norm.item()} at step {step} are not "
                "finite; lower reward_model.learning_rate"
            )
        # Up in the warm-up, down to 0 at the end: whichever is lower.
        share = min((step + 1) / (settings.warmup_steps + 1), 1.0 - step / len(starts))
        for parameter_group in optimizer.param_groups:
            parameter_group["lr"] = settings.learning_rate * share
        optimizer.step()
    # Gradients are given back: the members stay in memory.
    model.network.requires_grad_(False).zero_grad(set_to_none=True)


def batch_loss(rewards: torch.Tensor, groups: Sequence[Group], settings: Training) -> torch.Tensor:
    """Return the mean over all pairs of these prompts. Shapes: (B, n) -> ()."""
    pairs = [(row, *pair) for row, group in enumerate(groups) for pair in group.pairs]
    row, chosen, rejected, probability = zip(*pairs, strict=True)
    p = torch.tensor(probability, dtype=rewards.dtype, device=rewards.device)
    at = list(row)
    return bradley_terry(
        rewards[at, list(chosen)],
        rewards[at, list(rejected)],
        prob_chosen_wins=p if settings.labels == "soft" else None,
        # m (2 p - 1): nothing is asked of a pair that the judge can hardly tell apart.
        margin=settings.margin * (2.0 * p - 1.0),
        label_smoothing=settings.label_smoothing,
        centring=settings.centring,
    ).mean()
