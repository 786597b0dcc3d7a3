"""How a round is trained on: the optimiser's settings and Lightning's."""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge, Le

from rlaif_lab.config import did_you_mean
from rlaif_lab.config.types import shown


@dataclass(frozen=True)
class TrainerConfig:
    """AdamW with linear warm-up, its state carried across rounds.

    batch_size: prompts (RLOO) or pairs (DPO) per forward pass. accumulate: batches per optimiser step.
    passes: how often each round's data is gone through (PPO's mini-epochs). clip_norm: gradient norm, 0 = off.
    warmup_steps: optimiser steps from 0 to ``learning_rate``, once per run.
    half_life: rounds in which the learning rate falls to a half, by whole rounds; None: it stays.
    reset_optimizer: forget AdamW's moments at the start of each round. critic_learning_rate: None: learning_rate.
    max_skipped_steps: steps per round that may be left out because loss or gradient is not finite; one more ends the
        run, with the last round kept.
    accelerator, precision: as in ``pytorch_lightning.Trainer``.
    devices: processes that train between them, each on a device of its own, on each of ``num_nodes`` machines. The
        samples, the pairs and the steps are those of one device, up to rounding.
    strategy: ``ddp``, every device trains all weights; ``fsdp2``, each trains a part of them, and holds AdamW's moments
        of that part alone; ``auto``: ddp, where there are several devices.
    args: further arguments of that Trainer's, such as ``profiler`` or ``deterministic``.
    """

    learning_rate: float = 1e-4
    batch_size: int = 128
    accumulate: int = 1
    passes: int = 1
    warmup_steps: int = 20
    half_life: float | None = None
    clip_norm: float = 1.0
    weight_decay: float = 0.0
    adam_beta2: float = 0.98
    reset_optimizer: bool = False
    critic_learning_rate: float | None = None
    max_skipped_steps: int = 5
    accelerator: str = "cpu"
    precision: str = "32-true"
    devices: Annotated[int, Ge(1), Le(1024)] = 1
    strategy: str = "auto"
    num_nodes: Annotated[int, Ge(1), Le(1024)] = 1
    args: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("batch_size", "accumulate", "passes", "devices", "num_nodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"trainer.{name} must be at least 1; got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"trainer.learning_rate must be positive; got {self.learning_rate}")
        if self.critic_learning_rate is not None and self.critic_learning_rate <= 0:
            raise ValueError(f"trainer.critic_learning_rate must be positive or null; got {self.critic_learning_rate}")
        if self.half_life is not None and not 0 < self.half_life < math.inf:
            raise ValueError(f"trainer.half_life must be a positive number of rounds, or null; got {self.half_life}")
        if self.precision.startswith("16"):
            raise ValueError(
                f"trainer.precision={self.precision} would need gradient scaling, which there is not; use bf16-mixed"
            )
        for name in ("warmup_steps", "clip_norm", "weight_decay", "max_skipped_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"trainer.{name} must not be negative; got {getattr(self, name)}")
        if not 0 <= self.adam_beta2 < 1:
            raise ValueError(f"trainer.adam_beta2 must lie in [0, 1); got {self.adam_beta2}")
        # Named, since these are what a user of Lightning would try.
        if self.strategy in ("fsdp", "deepspeed"):
            raise ValueError(
                f"trainer.strategy={self.strategy} is not among the lab's; use trainer.strategy=fsdp2 with an engine "
                "(engine=vllm, vllm_server or continuous), or ddp with policy.lora.r=16 for a model that one device "
                "cannot train whole"
            )
        if self.strategy not in ("auto", "ddp", "fsdp2"):
            raise ValueError(f"trainer.strategy must be one of auto, ddp, fsdp2; got {self.strategy!r}")
        check_arguments(self.args)

    @property
    def sharded(self) -> bool:
        """Return whether each device trains a part of the weights."""
        return self.strategy == "fsdp2"


def check_strategy(settings: TrainerConfig, *, samples_itself: bool, adapter: bool, values: bool) -> None:
    """Raise ValueError for a run that ``fsdp2`` cannot train.

    Args:
        samples_itself: the policy's samples are drawn by the lab's own sampler.
        adapter: only an adapter is trained. values: the learner has a critic.
    """
    if not settings.sharded:
        return
    said = f"trainer.strategy={settings.strategy}"
    if samples_itself:
        raise ValueError(
            f"{said} needs an engine that samples beside the sharded weights: engine=vllm, vllm_server or continuous; "
            "with engine=exact use trainer.strategy=ddp"
        )
    if adapter:
        raise ValueError(f"{said} is for training all weights: use trainer.strategy=ddp with policy.lora")
    if values:
        raise ValueError(f"{said} cannot train a critic: use trainer.strategy=ddp, or another learner than ppo")


def check_trainer(settings: TrainerConfig) -> None:
    """Let Lightning read accelerator, precision and its further arguments, before any weights load.

    Raises:
        ValueError: it does not know one of them, or this machine has not got it.
    """
    usual = TrainerConfig()
    given: dict[str, Any] = {"accelerator": "cpu", "precision": "32-true"}
    for key in ("accelerator", "precision", "args"):
        value = getattr(settings, key)
        if value == getattr(usual, key) or value in ("auto", "cpu", "gpu", "cuda", "mps"):
            continue  # whether those are here is asked without opening them (check_devices)
        given |= value if key == "args" else {key: value}
        try:
            _lightnings(given)
        except Exception as error:  # Lightning's, of packages that are missing, and of what an argument is not
            reason = " ".join(str(error).split()).replace("HINT: ", "")
            told = ", ".join(f"args.{name}={shown(v)}" for name, v in value.items()) if key == "args" else None
            raise ValueError(f"trainer.{told or f'{key}={value}'} cannot be used here: {reason:.400}") from None


def _lightnings(arguments: Mapping[str, Any]) -> None:
    """Make a Trainer and forget it. What it says about the machine is said when the run's own is made."""
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from pytorch_lightning import Trainer

    here = {"devices": 1, "plugins": [LightningEnvironment()]}  # whatever a cluster's variables say of ranks
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        # One device, whatever the config says: the arguments are checked, not the ranks.
        Trainer(**{**quiet, **arguments, **here})
    finally:
        logger.setLevel(level)


SET_BY_THE_LAB = {
    "max_epochs": "rounds",
    "accelerator": "trainer.accelerator",
    "precision": "trainer.precision",
    "gradient_clip_val": "trainer.clip_norm",
    "accumulate_grad_batches": "trainer.accumulate",
    "devices": "trainer.devices",
    "num_nodes": "trainer.num_nodes",
    "strategy": "trainer.strategy",
    "callbacks": "callbacks, e.g. callbacks=timer",
    "logger": "logger, e.g. logger=csv",
}
"""Arguments of Trainer's for which the lab has a key of its own."""

FIXED = {
    "plugins": "they write its checkpoints",
    "enable_checkpointing": "a run is resumed from them",
    "default_root_dir": "it is the run's folder",
    "reload_dataloaders_every_n_epochs": "every round has data of its own",
    "num_sanity_val_steps": "it evaluates by itself",
    "use_distributed_sampler": "it orders its data by identity",
    "enable_progress_bar": "it shows its own",
    "enable_model_summary": "it introduces its parts itself",
    "fast_dev_run": "a round has to be whole; lower rounds and prompts_per_round",
    "overfit_batches": "a round has to be whole; lower rounds and prompts_per_round",
    "limit_train_batches": "a round has to be whole; lower prompts_per_round",
    "barebones": "it needs callbacks and checkpoints",
}
"""Arguments of Trainer's that a run depends on, and why."""


def check_arguments(args: Mapping[str, Any]) -> None:
    """Raise ValueError, one sentence, for what Trainer does not take or the lab sets itself."""
    if not args:
        return
    from pytorch_lightning import Trainer

    # From the signature of the installed version, not from a list that ages.
    known = [name for name in inspect.signature(Trainer.__init__).parameters if name != "self"]
    for name in args:
        if name in SET_BY_THE_LAB:
            raise ValueError(f"trainer.args.{name} is set by the lab: use {SET_BY_THE_LAB[name]}")
        if name in FIXED:
            raise ValueError(f"trainer.args.{name} is set by the lab: {FIXED[name]}")
        if name not in known:
            raise ValueError(
                f"trainer.args.{name}: Lightning's Trainer takes no such argument{did_you_mean(name, known)}"
            )
