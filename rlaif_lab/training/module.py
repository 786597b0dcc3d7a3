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
from rlaif_lab.loop.round import RoundData, Rounds
from rlaif_lab.metrics.round import Metrics, length_amplification
from rlaif_lab.models.packed import response_logps
from rlaif_lab.seeding import seed_for
from rlaif_lab.store.checkpoints import prune
from rlaif_lab.store.files import write_atomically
from rlaif_lab.training.batches import Step
from rlaif_lab.training.settings import TrainerConfig


class RoundModule(pl.LightningModule):
    """Trains the policy on the round at hand, and the critic if the learner has one. The judge and the reference stay
    out of the module tree, so neither enters its checkpoint or its optimiser.

    Optimisation is manual: a step is accumulated over its batches by what each counts, so that it equals the step of
    one large batch also where batches differ in size; and a step that is not finite is left out.
    """

    rounds: Rounds

    def __init__(self, rounds: Rounds, optimization: TrainerConfig) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # frozen weights are not in the checkpoint
        self.network = rounds.policy.network
        self.critic = rounds.critic
        object.__setattr__(self, "rounds", rounds)
        self.optimization = optimization
        self.statistics: dict[str, list[tuple[float, Tensor]]] = {}
        self.skipped = 0

    # --- a step -----------------------------------------------------------------------------------------------
    def training_step(self, step: Step, index: int) -> None:
        torch.manual_seed(seed_for(self.rounds.seed, "training step", self.rounds.index, index))  # for dropout
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        learner = self.rounds.learner
        weighed = [(batch, weight) for batch in step if (weight := learner.weight(batch))]
        if not weighed:  # every response of the step is masked out: there is nothing to learn from
            return
        total = sum(weight for _, weight in weighed)
        finite = True
        for batch, weight in weighed:
            logps = response_logps(self.network, batch.packed)
            values = None if self.critic is None else self.critic(batch.packed)
            loss, statistics = learner.loss(logps, batch, values)
            finite = finite and bool(torch.isfinite(loss))
            if not finite:
                break
            self.manual_backward(loss * (weight / total))
            self.note(weight, {"loss": loss.detach(), **statistics, **preference_logps(logps.detach(), batch)})
        limit = self.optimization.clip_norm or math.inf
        norms = [torch.nn.utils.clip_grad_norm_(part["params"], limit) for part in optimizer.param_groups]
        if finite and all(bool(torch.isfinite(norm)) for norm in norms):  # the critic's is clipped by itself
            self.note(1.0, {"gradient_norm": norms[0].detach()})
            optimizer.step()
            schedule = self.lr_schedulers()
            assert schedule is not None and not isinstance(schedule, list)
            schedule.step()
        else:
            self.skip(index)
        optimizer.zero_grad(set_to_none=True)

    def skip(self, index: int) -> None:
        """Counts a step whose loss or gradient is not finite. Raises ValueError when that happens too often."""
        self.skipped += 1
        if self.skipped > self.optimization.max_skipped_steps:
            raise ValueError(
                f"round {self.rounds.index}, step {index}: loss or gradient is not finite, {self.skipped} times in "
                f"this round (trainer.max_skipped_steps={self.optimization.max_skipped_steps}); the last good round is "
                "kept. Lower trainer.learning_rate or raise the learner's anchor (beta, kl_weight)"
            )

    def note(self, weight: float, statistics: dict[str, Tensor]) -> None:
        for name, value in statistics.items():
            self.statistics.setdefault(name, []).append((weight, value))

    def take_statistics(self) -> Metrics:
        """Means over the batches since the last call, and the steps left out."""
        means = {
            f"train/{name}": float(sum(weight * value for weight, value in noted) / sum(weight for weight, _ in noted))
            for name, noted in self.statistics.items()
        }
        means["train/skipped_steps"] = self.skipped
        self.statistics, self.skipped = {}, 0
        return means

    def configure_optimizers(self) -> Any:
        o = self.optimization
        groups = [{"params": [p for p in self.network.parameters() if p.requires_grad], "lr": o.learning_rate}]
        if self.critic is not None:
            rate = o.critic_learning_rate or o.learning_rate
            groups.append({"params": [p for p in self.critic.parameters() if p.requires_grad], "lr": rate})
        optimizer = torch.optim.AdamW(groups, betas=(0.9, o.adam_beta2), weight_decay=o.weight_decay, fused=True)
        warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (o.warmup_steps + 1)))
        return [optimizer], [warmup]

    # --- a round ------------------------------------------------------------------------------------------------
    def on_train_batch_start(self, step: Step, index: int) -> int | None:
        return None if step else -1  # an empty step: the round is over

    def on_train_epoch_start(self) -> None:
        restart = self.rounds.learner.restart == "base"
        if restart:
            self.rounds.history.restart()
        if restart or self.optimization.reset_optimizer:
            optimizer = self.optimizers()
            assert not isinstance(optimizer, list)
            optimizer.state.clear()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        checkpoint["learner"] = self.rounds.learner.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.rounds.learner.load_state_dict(checkpoint["learner"])


def preference_logps(logps: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Log-probabilities of the best and the worst response by the learner's signal, apart from each other, now and at
    the start of the round: likelihood displacement (2410.08847) shows only so. Means over the batch, in nats. Of single
    responses, those with a positive signal are the chosen ones."""
    now, before = sequence_logps(logps), sequence_logps(batch.sampled_logps)
    if now.shape[1] == 1:
        wanted = batch.signal > 0
        named = {"chosen": wanted, "rejected": ~wanted}
        return {
            f"{name}_logp{when}": values[rows].mean()
            for name, rows in named.items()
            if bool(rows.any())
            for when, values in (("", now), ("_at_start", before))
        }
    best, worst = batch.signal.argmax(1, keepdim=True), batch.signal.argmin(1, keepdim=True)
    return {
        "chosen_logp": now.gather(1, best).mean(),
        "chosen_logp_at_start": before.gather(1, best).mean(),
        "rejected_logp": now.gather(1, worst).mean(),
        "rejected_logp_at_start": before.gather(1, worst).mean(),
    }


class RoundLoader(pl.LightningDataModule):
    """Generates, judges and pairs whenever Lightning asks for a round's data."""

    def __init__(self, rounds: Rounds) -> None:
        super().__init__()
        self.rounds = rounds
        self.data: RoundData | None = None

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None and self.trainer.max_epochs is not None
        # `current_epoch` is stale in the first call after a resume; this counter is not.
        index = self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        if index >= self.trainer.max_epochs:  # a finished run, resumed: Lightning asks for data all the same
            return DataLoader([[]], batch_size=None)  # type: ignore[arg-type]
        if self.data is None or self.data.index != index:
            self.started = time.perf_counter()
            self.rounds.base.network.to(self.rounds.policy.device)
            self.data = self.rounds.run(index)
        # A generator of its own: the loader otherwise draws a seed from the global one.
        return DataLoader(self.data, batch_size=None, shuffle=False, generator=torch.Generator())  # type: ignore[arg-type]

    def transfer_batch_to_device(self, step: Step, device: torch.device, dataloader_idx: int) -> Step:
        return [batch.to(device) for batch in step]


class AtomicCheckpoints(TorchCheckpointIO):
    """A checkpoint is there whole or not at all, also when the disk fills up while it is written."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        write_atomically(Path(path), buffer.getvalue())
        prune(Path(path).parent)


class RoundEnd(pl.Callback):
    """Closes a round: evaluates the policy it made, and hands the round's row to ``log_row``. detected: ``detector/*``
    of a round."""

    def __init__(
        self,
        loader: RoundLoader,
        log_row: Callable[[Metrics, list[list[Any]]], None],
        detected: Callable[[int], Metrics] = lambda index: {},
    ) -> None:
        self.loader, self.log_row, self.detected = loader, log_row, detected

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self.loader.data is not None
        self.bar = self.loader.rounds.bar("training", len(self.loader.data.ready))
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
        statistics["train/learning_rate"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        metrics = data.metrics()
        after = rounds.evaluate(data.index + 1)
        change = after["quality/sampled"] - metrics["quality/sampled"]
        row = {
            "round": data.index,
            **metrics,
            **statistics,
            **self.detected(data.index),
            "gap/update_loss_eps": metrics["gap/best_of_2"] - change,
            "audit/length_amplification": length_amplification(metrics),
            "time/training_s": training,
            "time/round_s": time.perf_counter() - self.loader.started,
        }
        rounds.learner.observe(row)
        self.log_row(row, data.samples())
        if data.index + 1 == trainer.max_epochs or trainer.should_stop:
            last = {
                "round": data.index + 1,
                **after,
                **rounds.coverage(data.index + 1),
                **self.detected(data.index + 1),
            }
            self.log_row(last | {"audit/length_amplification": length_amplification(after)}, [])
        finite = {k: v for k, v in after.items() if not math.isnan(v)}
        pl_module.log_dict({"round": float(data.index), **finite}, batch_size=1)
