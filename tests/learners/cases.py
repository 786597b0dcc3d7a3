"""Batches for tests of losses: made up by hand, or from real forward passes over ragged prompts and responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from rlaif_lab.learners.base import Batch
from rlaif_lab.models.critic import Critic
from rlaif_lab.models.packed import Packed, pack, response_logps


def batch_of(
    lengths: list[list[int]],
    sampled: Tensor,
    reference: Tensor,
    signal: list[list[float]],
    finished: list[list[bool]] | None = None,
    values: Tensor | None = None,
) -> Batch:
    """Only the mask of the packed ids matters to a loss."""
    rows, n = len(lengths), len(lengths[0])
    mask = torch.arange(sampled.shape[2]) < torch.tensor(lengths)[..., None]
    packed = Packed(torch.ones(rows, 1), torch.ones(rows, 1).bool(), torch.ones(rows, n, sampled.shape[2]).long(), mask)
    ended = torch.ones(rows, n).bool() if finished is None else torch.tensor(finished)
    return Batch(packed, sampled, reference, torch.tensor(signal), ended, values)


class Ragged:
    """Eight prompts with n responses each, all of different lengths; every second response is cut off."""

    def __init__(self, n: int = 3, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.prompts = [[1, *rng.integers(7, 19, rng.integers(1, 9)).tolist()] for _ in range(8)]
        self.responses = [
            [[*rng.integers(7, 19, rng.integers(1, 3 + b)).tolist(), 2] for _ in range(n)] for b in range(8)
        ]
        self.signal = torch.from_numpy(rng.uniform(0.0, 1.0, (8, n))).float()
        self.shift = torch.from_numpy(rng.normal(0, 0.1, (8, n))).float()
        self.finished = (torch.arange(8 * n) % 2 == 0).view(8, n)

    def packed(self, rows: Sequence[int]) -> Packed:
        return pack([self.prompts[i] for i in rows], [self.responses[i] for i in rows], 0)

    def batch(self, rows: Sequence[int], logps: Tensor, values: Tensor) -> Batch:
        """Sampled a little off these log-probabilities, with a reference further off, and a critic that has moved."""
        index = list(rows)
        packed = self.packed(rows)
        mask = packed.response_mask
        sampled = (logps.detach() + self.shift[index].unsqueeze(-1)) * mask
        reference = sampled * 1.05
        old = (values.detach() * 0.9 + 0.1) * mask
        return Batch(packed, sampled, reference, self.signal[index], self.finished[index], old)

    def forward(self, network: torch.nn.Module, critic: Critic, rows: Sequence[int]) -> tuple[Tensor, Tensor, Batch]:
        """The policy's log-probabilities and the critic's values with gradient, and the batch they belong to."""
        packed = self.packed(rows)
        logps = response_logps(network, packed)
        values = critic.values(packed)
        return logps, values, self.batch(rows, logps, values)


def padded(batch: Batch, left: int, right: int, pad_id: int) -> Batch:
    """The same batch with more padding in front of the prompts and behind the responses."""
    p = batch.packed
    packed = Packed(
        pad(p.prompt_ids, (left, 0), value=pad_id),
        pad(p.prompt_mask, (left, 0), value=False),
        pad(p.response_ids, (0, right), value=pad_id),
        pad(p.response_mask, (0, right), value=False),
    )
    assert batch.values is not None
    return replace(
        batch,
        packed=packed,
        sampled_logps=pad(batch.sampled_logps, (0, right)),
        reference_logps=pad(batch.reference_logps, (0, right)),
        values=pad(batch.values, (0, right)),
    )
