"""Whose weights: the policy's as of now, as of an earlier round, and those it started from."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rlaif_lab import ranks
from rlaif_lab.models.access import PolicyWeights
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.lora import frozen_copy
from rlaif_lab.store.checksums import read_checked
from rlaif_lab.store.files import write_atomically
from rlaif_lab.store.run_folder import RoundStore


@dataclass
class PolicySnapshots:
    """policy: the weights being trained. base: a frozen model of what they were at first (with LoRA: the same weights
    with the adapter off).

    reach: how many rounds back anybody will ask for; only so many are kept on disk, 0: none.
    index: the round that the current policy is the start of.
    """

    policy: LanguageModel
    base: LanguageModel
    store: RoundStore
    reach: int = 0
    index: int = 0

    def __post_init__(self) -> None:
        # The base has no adapter to copy back from.
        self.first = {name: p.detach().clone() for name, p in trainable(self.policy).items()} if self.adapted else None

    @property
    def adapted(self) -> bool:
        """Return whether only an adapter is trained; its first weights are not the base's then, and few enough to be
        kept."""
        return not all(p.requires_grad for p in self.policy.network.parameters())

    def snapshot(self, index: int) -> Path:
        return self.store.round_directory(index) / "policy.pt"

    def keep(self, index: int) -> None:
        """Write the weights of the start of round ``index``, which begins, if a later round will want them."""
        self.index = index
        if not self.reach or not ranks.first():
            return
        # A resumed round keeps what is there: the weights are the same, and may be in use.
        if not self.snapshot(index).exists():
            buffer = io.BytesIO()
            torch.save(trainable(self.policy), buffer)
            write_atomically(self.snapshot(index), buffer.getvalue())
        for old in range(index - 1 - self.reach):  # the round before may have to be run again: what it reaches stays
            self.snapshot(old).unlink(missing_ok=True)

    def as_of(self, index: int) -> LanguageModel:
        """Return the policy at the start of round ``index``; nothing came before round 0."""
        return self.base if index <= 0 else _load_snapshot(self.snapshot(index), self.policy)

    def author(self, index: int) -> LanguageModel:
        """Return the policy at the start of round ``index``, the one that stands included: who writes a round's
        samples."""
        return self.policy if index == self.index else self.as_of(index)

    def policy_with(self, weights: PolicyWeights) -> LanguageModel:
        """Return the policy with the weights that a judge asks for, as of now."""
        if weights == "live":
            return self.policy
        # The round before the current policy: once `after` has begun, index is already the next round.
        return self.base if weights == "initial" else self.as_of(self.index - 1)

    @torch.no_grad()
    def restart(self) -> None:
        """Give the policy the weights that it started from again."""
        first = self.first or dict(self.base.network.named_parameters())
        for name, parameter in trainable(self.policy).items():
            parameter.copy_(first[name])


def trainable(model: LanguageModel) -> dict[str, Tensor]:
    return {name: p for name, p in model.network.named_parameters() if p.requires_grad}


@functools.lru_cache(maxsize=1)
def _load_snapshot(path: Path, policy: LanguageModel) -> LanguageModel:
    # A copy that shares what is frozen: only the trained weights are held twice.
    network = frozen_copy(policy.network).eval()
    # From checked bytes: a damaged snapshot is reported, not sampled from.
    weights = torch.load(io.BytesIO(read_checked(path)), map_location=policy.device, weights_only=True)
    # Frozen weights are not in the snapshot.
    network.load_state_dict(weights, strict=False)
    return replace(policy, network=network, name=path.parent.name)
