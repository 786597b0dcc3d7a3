"""A round as Lightning's data: its stages run whenever training asks for more."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from rlaif_lab.loop.round import Round
from rlaif_lab.metrics.round import Segment
from rlaif_lab.records import Position
from rlaif_lab.training.batches import Step
from rlaif_lab.training.module import RoundModule


class RoundData:
    """What Lightning trains a round on: optimiser steps, computed a segment at a time as training gets there.

    Beyond the last step comes an empty one, which ends the epoch: only after its last segment is it known how many
    steps a round has.
    """

    def __init__(self, round_: Round, index: int, publish: Callable[[], None] = lambda: None) -> None:
        """publish: lets the policy have the weights as they are trained by now."""
        self.round, self.index, self.publish = round_, index, publish
        self.before = round_.before(index)
        self.prompts = round_.plan.prompts(round_.parts.task, index)
        self.segments: list[Segment] = []
        self.ready: list[Step] = []
        self.advance()

    def advance(self) -> None:
        """Compute the next segment."""
        number = len(self.segments)
        if number:
            self.publish()
        segment = self.round.play(Position(self.index, number), self.prompts[number])
        self.segments.append(segment)
        self.ready += segment.steps

    def __len__(self) -> int:
        # With several segments the number of steps is known only once the last is sampled: the empty step ends the
        # epoch, not the length. That there is one keeps Lightning from fetching a step ahead, which would sample too
        # early.
        return max(1, len(self.ready)) if len(self.prompts) == 1 else 1 << 20

    def __getitem__(self, i: int) -> Step:
        # The optimiser has made the steps before i, so the next segment is sampled from the current policy.
        while i >= len(self.ready) and len(self.segments) < len(self.prompts):
            self.advance()
        return self.ready[i] if i < len(self.ready) else Step(self.index)


class RoundLoader(pl.LightningDataModule):
    """Opens a round whenever Lightning asks for an epoch's data. It remembers that round's data and when it began."""

    def __init__(self, round_: Round) -> None:
        super().__init__()
        self.round = round_
        self.data: RoundData | None = None
        self.started = 0.0

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None and self.trainer.max_epochs is not None
        # `current_epoch` is stale in the first call after a resume; this counter is not.
        index = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        if index >= self.trainer.max_epochs:  # a finished run, resumed: Lightning asks for data all the same
            # One empty step, which the module skips.
            return DataLoader([Step(index)], batch_size=None)  # type: ignore[arg-type]
        # Asked again within a round, it hands out the same data: no stage runs twice.
        if self.data is None or self.data.index != index:
            self.started = time.perf_counter()
            # Lightning moves the module's weights to the device; the base policy is in no module.
            self.round.parts.base.network.to(self.round.parts.policy.device)
            module = self.trainer.lightning_module
            assert isinstance(module, RoundModule)
            self.data = RoundData(self.round, index, module.publish)
        # A generator of its own: the loader otherwise draws a seed from the global one.
        return DataLoader(self.data, batch_size=None, shuffle=False, generator=torch.Generator())  # type: ignore[arg-type]

    def transfer_batch_to_device(self, batch: Step, device: torch.device, dataloader_idx: int) -> Step:
        return batch.to(device)
