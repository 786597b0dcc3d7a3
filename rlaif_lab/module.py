"""The Lightning side: training step, optimiser, and the loader that runs a round's stages. One fit, epoch = round."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor
from torch.utils.data import DataLoader

from rlaif_lab.learners.base import Batch, sequence_logps
from rlaif_lab.models.packed import response_logps
from rlaif_lab.rounds import Metrics, RoundData, Rounds
from rlaif_lab.seeding import seed_for
from rlaif_lab.store import write_atomically
from rlaif_lab.trainer import TrainerConfig


class RoundModule(pl.LightningModule):
    """Trains the policy on the round at hand. The judge and the reference stay out of the module tree, so neither
    enters its checkpoint or its optimiser."""

    rounds: Rounds

    def __init__(self, rounds: Rounds, optimization: TrainerConfig) -> None:
        super().__init__()
        self.network = rounds.policy.network
        object.__setattr__(self, "rounds", rounds)
        self.optimization = optimization
        self.statistics: dict[str, list[Tensor]] = {}

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        logps = response_logps(self.network, batch.packed)
        loss, statistics = self.rounds.learner.loss(logps, batch)
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss of round {self.rounds.index}, batch {batch_index} is not finite ({loss.item()}); the last "
                "good round is kept. Lower trainer.learning_rate or raise learner.beta"
            )
        self.note({"loss": loss.detach(), **statistics, **preference_logps(logps.detach(), batch)})
        return loss

    def note(self, statistics: dict[str, Tensor]) -> None:
        for name, value in statistics.items():
            self.statistics.setdefault(name, []).append(value)

    def take_statistics(self) -> Metrics:
        """Means over the batches since the last call."""
        means = {f"train/{name}": float(torch.stack(v).mean()) for name, v in self.statistics.items()}
        self.statistics = {}
        return means

    def configure_optimizers(self) -> Any:
        o = self.optimization
        optimizer = torch.optim.AdamW(
            [p for p in self.network.parameters() if p.requires_grad],
            lr=o.learning_rate,
            betas=(0.9, o.adam_beta2),
            weight_decay=o.weight_decay,
        )
        warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (o.warmup_steps + 1)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": warmup, "interval": "step"}}

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        # Lightning's checkpoint holds no random state, so whatever draws in a step draws by identity.
        torch.manual_seed(seed_for(self.rounds.seed, "training step", self.rounds.index, batch_index))


def preference_logps(logps: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Log-probabilities of the best and the worst response by the learner's signal, apart from each other: likelihood
    displacement (2410.08847) shows only so. Means over the batch, in nats."""
    totals = sequence_logps(logps)
    best, worst = batch.signal.argmax(1, keepdim=True), batch.signal.argmin(1, keepdim=True)
    return {"chosen_logp": totals.gather(1, best).mean(), "rejected_logp": totals.gather(1, worst).mean()}


class RoundLoader(pl.LightningDataModule):
    """Generates, judges and pairs whenever Lightning asks for a round's data."""

    def __init__(self, rounds: Rounds) -> None:
        super().__init__()
        self.rounds = rounds
        self.data: RoundData | None = None

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        # `current_epoch` is stale in the first call after a resume; this counter is not.
        index = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        assert self.trainer.max_epochs is not None
        if index >= self.trainer.max_epochs:  # a finished run, resumed: Lightning asks for data all the same
            self.data = RoundData(index, [])
        elif self.data is None or self.data.index != index:
            self.started = time.perf_counter()
            self.rounds.base.network.to(self.rounds.policy.device)
            self.data = self.rounds.run(index)
        # A generator of its own: the loader otherwise draws a seed from the global one.
        return DataLoader(self.data, batch_size=None, shuffle=False, generator=torch.Generator())  # type: ignore[arg-type]

    def transfer_batch_to_device(self, batch: Batch | None, device: torch.device, dataloader_idx: int) -> Batch | None:
        if batch is None:  # an empty round
            return None
        tensors = (batch.sampled_logps, batch.reference_logps, batch.signal)
        return Batch(batch.packed.to(device), *(tensor.to(device) for tensor in tensors))


class AtomicCheckpoints(TorchCheckpointIO):
    """A checkpoint is there whole or not at all, also when the disk fills up while it is written."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), buffer.getvalue())


class RoundEnd(pl.Callback):
    """Closes a round: evaluates the policy it made, and hands the round's row to ``log_row``."""

    def __init__(self, loader: RoundLoader, log_row: Callable[[Metrics, list[list[Any]]], None]) -> None:
        self.loader, self.log_row = loader, log_row

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.loader.data is not None
        self.bar = self.loader.rounds.bar("training", len(self.loader.data))
        self.training_started = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.bar.update(1)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, RoundModule)
        data, rounds = self.loader.data, self.loader.rounds
        assert data is not None
        training = time.perf_counter() - self.training_started
        self.bar.close()
        statistics = pl_module.take_statistics()
        if trainer.optimizers:
            statistics["train/learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        after = rounds.evaluate(data.index + 1)
        change = after["quality/sampled"] - data.metrics["quality/sampled"]
        row = {
            "round": data.index,
            **data.metrics,
            **statistics,
            "gap/update_loss_eps": data.metrics["gap/best_of_2"] - change,
            "time/training_s": training,
            "time/round_s": time.perf_counter() - self.loader.started,
        }
        self.log_row(row, data.samples)
        if data.index + 1 == trainer.max_epochs:
            self.log_row({"round": data.index + 1, **after}, [])
        pl_module.log_dict({"round": float(data.index), **{k: v for k, v in after.items() if not math.isnan(v)}})
