"""The training step and the optimiser, as a module of Lightning's. It knows of rounds only what a step says."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from rlaif_lab import ranks
from rlaif_lab.learners.base import Batch, Learner, sequence_logps
from rlaif_lab.models.critic import Critic
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.limits import out_of_memory
from rlaif_lab.models.packed import response_logps
from rlaif_lab.models.packing import Packed
from rlaif_lab.records import Metrics
from rlaif_lab.seeding import seed_for
from rlaif_lab.training.batches import Step
from rlaif_lab.training.devices import add_up_gradients, check_alike, kind_of_device, over_rows
from rlaif_lab.training.settings import TrainerConfig
from rlaif_lab.training.shards import Shards, put_together


class RoundModule(pl.LightningModule):
    """Trains the policy on the round at hand, and the critic if the learner has one. The judge and the reference stay
    out of the module tree, so neither enters its checkpoint or its optimiser.

    Optimisation is manual: a step is accumulated over its batches by what each counts, so that it equals the step of
    one large batch also where batches differ in size; and a step that is not finite is left out.
    """

    def __init__(
        self,
        policy: LanguageModel,
        critic: Critic | None,
        learner: Learner,
        *,
        settings: TrainerConfig,
        seed: int,
        restart: Callable[[], None],
    ) -> None:
        """restart: gives the policy the weights that it started from again; for a learner that asks for it."""
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # frozen weights are not in the checkpoint
        self.policy = policy
        sharded = settings.sharded and ranks.world() > 1
        self.shards = Shards(policy, kind_of_device(settings)) if sharded else None
        self.network = policy.network if self.shards is None else self.shards.network
        self.critic = critic
        self.learner, self.settings, self.seed, self.restart = learner, settings, seed, restart
        self.statistics: dict[str, list[tuple[float, Tensor]]] = {}
        self.skipped = self.made = 0

    # --- a step -----------------------------------------------------------------------------------------------
    def training_step(self, step: Step, index: int) -> None:
        # Ranks that compute different rows must not share a mask; a single rank keeps the seeds that it always had.
        other = [ranks.rank()] if ranks.rank() else []  # every rank has rows of its own
        torch.manual_seed(seed_for(self.seed, "training step", step.round_index, index, *other))  # for dropout
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        # Weighed by what each batch counts (its tokens, or examples), so that a step of several equals one of all rows.
        weighed = [(batch, weight) for batch in step.batches if (weight := self.learner.weight(batch))]
        if not weighed:  # every response of the step is masked out: there is nothing to learn from
            return
        total = sum(weight for _, weight in weighed)
        finite = True
        with out_of_memory("trainer.batch_size"):
            for batch, weight in weighed:
                # (B, n, R), in nats; the loss is that of the whole batch on every rank.
                logps = over_rows(self.logps, batch.packed, alike=self.shards is not None)
                values = None if self.critic is None else over_rows(self.critic, batch.packed)
                loss, statistics = self.learner.loss(logps, batch, values)
                # As soon as one batch is not finite, the step is lost: the others need not be gone through.
                finite = finite and bool(torch.isfinite(loss))
                if not finite:
                    break
                self.manual_backward(loss * (weight / total))
                self.note(weight, {"loss": loss.detach(), **statistics, **preference_logps(logps.detach(), batch)})
        # Even where the step is left out: all ranks must come here, or the others would wait.
        if self.shards is None:  # else the parts have been added up already
            add_up_gradients(self.parameters())
        limit = self.settings.clip_norm or math.inf
        # After the sum over ranks, and part by part: the critic's gradient must not scale the policy's.
        norms = [put_together(torch.nn.utils.clip_grad_norm_(part["params"], limit)) for part in optimizer.param_groups]
        if finite and all(bool(torch.isfinite(norm)) for norm in norms):  # the critic's is clipped by itself
            self.note(1.0, {"gradient_norm": norms[0].detach()})
            schedule = self.lr_schedulers()
            assert isinstance(schedule, torch.optim.lr_scheduler.LambdaLR)
            # Again before the step: what the schedule has set is without the round's factor.
            self.decay(optimizer, schedule, step.round_index)
            optimizer.step()
            self.made += 1
            # Only steps that are made count as warm-up.
            schedule.step()
            self.decay(optimizer, schedule, step.round_index)  # what is logged is the rate in force
        else:
            self.skip(step.round_index, index)
        optimizer.zero_grad(set_to_none=True)

    def logps(self, rows: Packed) -> Tensor:
        """Return log-probabilities of the responses under the weights in training: (B, n, R)."""
        return response_logps(self.network, rows) if self.shards is None else self.shards.logps(rows)

    def whole_weights(self) -> list[Tensor]:
        """Return what is trained, as every rank holds it whole."""
        if self.shards is None:
            return list(self.parameters())
        return list(self.policy.network.parameters())  # there is no critic then

    def publish(self) -> None:
        """Let the policy have the weights as they are, before anything but training reads them."""
        if self.shards is not None:
            self.shards.publish()

    def decay(self, optimizer: Any, schedule: torch.optim.lr_scheduler.LambdaLR, round_index: int) -> None:
        """Set the learning rates of this round: a function of the round alone, so that a resumed run has the same."""
        half_life = self.settings.half_life
        factor = 1.0 if half_life is None else 0.5 ** (round_index / half_life)
        for group, rate in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
            group["lr"] = rate * factor

    def skip(self, round_index: int, index: int) -> None:
        """Count a step whose loss or gradient is not finite. Raises ValueError when that happens too often."""
        self.skipped += 1
        if self.skipped > self.settings.max_skipped_steps:
            raise ValueError(
                f"round {round_index}, step {index}: loss or gradient is not finite, {self.skipped} times in "
                f"this round (trainer.max_skipped_steps={self.settings.max_skipped_steps}); the last good round is "
                "kept. Lower trainer.learning_rate or raise the learner's anchor (beta, kl_weight)"
            )

    def check_round(self, round_index: int) -> None:
        """Raise ValueError for a round in which no step could be made, or that has left weights which are not finite.

        A round without an example goes on: where all answers are right, or the budget is spent, nothing is left to
        learn from, and the row says so (``pairs/examples``). A run of nothing but such rounds is not finished.
        """
        # Skipped in part is allowed (`max_skipped_steps`); nothing made at all would look like a round without an
        # effect.
        if not self.made and self.skipped:
            raise ValueError(
                f"round {round_index}: loss or gradient was not finite in all of its {self.skipped} steps, so nothing "
                "was trained; lower trainer.learning_rate or raise the learner's anchor (beta, kl_weight)"
            )
        # Ranks that drift apart are a bug of the lab, and reported before weights that are nan, which the user can
        # cure.
        self.publish()
        trained = [p for p in self.whole_weights() if p.requires_grad]
        check_alike(trained)
        if not all(bool(torch.isfinite(p).all()) for p in trained):
            raise ValueError(
                f"round {round_index}: the trained weights are not finite (nan or infinite); the last good round is "
                "kept. Lower trainer.learning_rate, or set trainer.clip_norm"
            )

    def note(self, weight: float, statistics: dict[str, Tensor]) -> None:
        for name, value in statistics.items():
            self.statistics.setdefault(name, []).append((weight, value))

    def take_statistics(self) -> Metrics:
        """Return means over the batches since the last call, and the steps left out."""
        means = {
            # Weighed as the loss is, so that a mean over batches equals that over their rows.
            f"train/{name}": float(sum(weight * value for weight, value in noted) / sum(weight for weight, _ in noted))
            for name, noted in self.statistics.items()
        }
        means["train/skipped_steps"] = self.skipped
        self.statistics, self.skipped, self.made = {}, 0, 0
        return means

    def configure_optimizers(self) -> Any:
        o = self.settings
        groups = [{"params": [p for p in self.network.parameters() if p.requires_grad], "lr": o.learning_rate}]
        if self.critic is not None:
            rate = o.critic_learning_rate or o.learning_rate
            groups.append({"params": [p for p in self.critic.parameters() if p.requires_grad], "lr": rate})
        optimizer = torch.optim.AdamW(groups, betas=(0.9, o.adam_beta2), weight_decay=o.weight_decay, fused=True)
        # From 1 / (warmup_steps + 1) upwards: no step is wasted at a rate of 0.
        warmup = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / (o.warmup_steps + 1)))
        return [optimizer], [warmup]

    # --- a round ------------------------------------------------------------------------------------------------
    def on_train_batch_start(self, step: Step, index: int) -> int | None:
        return None if step.batches else -1  # an empty step: the round is over

    def on_train_epoch_start(self) -> None:
        restart = self.learner.restart == "base"
        if restart:
            self.restart()
            if self.shards is not None:
                self.shards.take()
        if restart or self.settings.reset_optimizer:
            optimizer = self.optimizers()
            assert not isinstance(optimizer, list)
            # AdamW keeps moments of weights that are gone, or of a round that is to be forgotten.
            optimizer.state.clear()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained = {name for name, p in self.named_parameters() if p.requires_grad}
        # An adapter's checkpoint is then small, and frozen weights come from their source, which is checked.
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trained}
        if self.shards is not None:
            for key in ("state_dict", "optimizer_states"):
                checkpoint[key] = put_together(checkpoint.get(key, {}))
        checkpoint["learner"] = self.learner.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.learner.load_state_dict(checkpoint["learner"])
        if self.shards is not None:
            self.shards.cut_checkpoint(checkpoint, dict(self.named_parameters()))

    def on_fit_start(self) -> None:
        """Begin with the weights of the checkpoint that was loaded, if one was."""
        if self.shards is not None:
            self.policy.network.to(self.device)
        self.publish()


def preference_logps(logps: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Return log-probabilities of the best and the worst response by the learner's signal, apart from each other, now
    and at
    the start of the round: likelihood displacement (2410.08847) shows only so. Means over the batch, in nats. Of single
    responses, those with a positive signal are the chosen ones."""
    now, before = sequence_logps(logps), sequence_logps(batch.sampled_logps)
    # Learners of single responses have no pair, and a batch may hold responses of one side only.
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
