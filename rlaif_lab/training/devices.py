"""Several devices: which there are, who joins whom, and how a step is shared between the ranks.

Every rank has the whole of a batch and computes the log-probabilities of its own rows. They are put together before the
loss, which is therefore that of the whole batch on every rank, whatever it normalises by; each rank's gradient flows
through its own rows, and the sum over ranks is the gradient of one device.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlaif_lab import ranks
from rlaif_lab.models.packing import Packed
from rlaif_lab.training.settings import TrainerConfig

if TYPE_CHECKING:
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

PATIENCE = timedelta(days=7)
"""How long ranks wait for each other: a stage of rank 0's may ask people. (One that dies is noticed at once.)"""
BUCKET = 2**24
"""Gradients that are added up in one go, in numbers."""


# --- what there is ----------------------------------------------------------------------------------------------------
def check_devices(settings: TrainerConfig) -> None:
    """Raise ValueError for devices that are not here. Nothing is opened on them."""
    named, count = settings.accelerator, settings.devices
    known = {"gpu": torch.cuda.is_available(), "cuda": torch.cuda.is_available(), "cpu": True}
    known["mps"] = torch.backends.mps.is_available()
    known["gpu"] = known["gpu"] or known["mps"]
    if not known.get(named, True):
        raise ValueError(f"trainer.accelerator={named}: there is no such device here; use trainer.accelerator=cpu")
    gpus = named in ("gpu", "cuda", "auto") and torch.cuda.is_available()
    here = torch.cuda.device_count() if gpus else 0
    if gpus and count > here:
        raise ValueError(f"trainer.devices={count}: there are {here} GPUs here; lower it, or set trainer.num_nodes")
    if count > 1 and not gpus and known["mps"] and named != "cpu":
        raise ValueError(f"trainer.devices={count}: there is one GPU here; use trainer.devices=1")


def check_ranks(settings: TrainerConfig) -> None:
    """Raise ValueError where torchrun or Slurm started another number of processes than the config says."""
    outside, wanted = ranks.started_from_outside(), settings.devices * settings.num_nodes
    started = 1 if outside is None else outside[1]
    if outside is None and settings.num_nodes > 1:
        raise ValueError(
            f"trainer.num_nodes={settings.num_nodes}: start one process for each device of each node by torchrun or "
            "Slurm's srun; by itself the lab starts them on one node only"
        )
    if outside is not None and started != wanted:
        raise ValueError(
            f"{started} processes were started for this run, but trainer.devices={settings.devices} times "
            f"trainer.num_nodes={settings.num_nodes} is {wanted}: set both to what was started"
        )


def kind_of_device(settings: TrainerConfig) -> str:
    """Return what several ranks compute on: ``cpu`` or ``cuda``."""
    return "cpu" if settings.accelerator == "cpu" or not torch.cuda.is_available() else "cuda"


# --- joining ----------------------------------------------------------------------------------------------------------
def join(settings: TrainerConfig, rank: int, world: int, rendezvous: str) -> None:
    """Join the process group. rendezvous: where the ranks find each other, as torch's ``init_method``."""
    import torch.distributed as group

    # gloo for tensors on CPUs and for the objects that ranks exchange; nccl for tensors on GPUs.
    backend = "gloo" if kind_of_device(settings) == "cpu" else "cpu:gloo,cuda:nccl"
    group.init_process_group(backend, init_method=rendezvous, rank=rank, world_size=world, timeout=PATIENCE)


def join_from_outside(settings: TrainerConfig) -> None:
    """Join the other processes that torchrun or Slurm has started for this run, if it has."""
    outside = ranks.started_from_outside()
    if outside is None or outside[1] == 1 or ranks.world() > 1:
        return
    environment = cluster_environment()
    address = f"tcp://{environment.main_address}:{environment.main_port}"
    # The agent of torchrun holds the store already, and "env://" knows where; otherwise rank 0 opens one at the
    # address.
    join(settings, *outside, "env://" if "TORCHELASTIC_RUN_ID" in os.environ else address)


def cluster_environment() -> ClusterEnvironment:
    """Return what tells Lightning which rank this is: torchrun, Slurm, or the variables of ranks started here."""
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if ranks.started_from_outside() is None:
        return LightningEnvironment()
    return TorchElasticEnvironment() if TorchElasticEnvironment.detect() else SLURMEnvironment(auto_requeue=False)


def lightning_arguments(settings: TrainerConfig) -> dict[str, Any]:
    """Return what Lightning's Trainer is told of devices."""
    # A single rank needs neither a group nor a strategy of its own.
    if ranks.world() == 1:
        return {"devices": 1, "plugins": []}
    from pytorch_lightning.strategies import DDPStrategy

    class Replicas(DDPStrategy):
        """Replicas without DDP's wrapper: the module adds gradients up by itself, once a step, so that accumulation and
        steps that are left out stay exact."""

        def configure_ddp(self) -> None:
            """Leave the module as it is."""

    where = {"devices": settings.devices, "num_nodes": settings.num_nodes}
    return {**where, "strategy": Replicas(), "plugins": [cluster_environment()]}


# --- sharing a step ---------------------------------------------------------------------------------------------------
def over_rows(compute: Callable[[Packed], Tensor], packed: Packed, alike: bool = False) -> Tensor:
    """Return ``compute(packed)``, (B, ...), of which every rank has computed its rows; gradients flow through those.

    alike: every rank must go forward and back equally often, though its share be empty.
    """
    count = len(packed.prompt_ids)
    if ranks.world() == 1:
        return compute(packed)
    import torch.distributed as group

    mine = ranks.share(count)
    empty = mine.start == mine.stop
    rows = slice(0, 1) if empty else mine  # an empty share is computed for its shape, and not used
    # Without a graph for an empty share, unless all must go back alike: its gradient must not flow.
    with torch.set_grad_enabled(torch.is_grad_enabled() and (alike or not empty)):
        own = compute(replace(packed, **{name: tensor[rows] for name, tensor in vars(packed).items()}))
    # Rows of other ranks are zeros, so that the sum over ranks is all rows, each from one rank.
    whole = torch.zeros((count, *own.shape[1:]), dtype=own.dtype, device=own.device)
    if not empty:
        whole[mine] = own.detach()
    group.all_reduce(whole)
    if empty and alike:
        return whole + 0.0 * own.sum()
    if empty:  # a leaf: nothing flows back from it, and the loss can be gone back through all the same
        return whole.requires_grad_(torch.is_grad_enabled())
    # Rows of others carry numbers only; the gradient flows through this rank's own.
    return torch.cat([whole[: mine.start], own, whole[mine.stop :]])


def add_up_gradients(parameters: Iterable[Tensor]) -> None:
    """Replace each rank's gradients by their sum over the ranks. A parameter without one counts as zeros."""
    if ranks.world() == 1:
        return
    import torch.distributed as group

    bucket: list[Tensor] = []

    def send() -> None:
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        group.all_reduce(flat)
        for gradient, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(summed.view_as(gradient))
        bucket.clear()

    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            # Every rank sends the same tensors, even if its rows did not reach a parameter (an unused adapter, say).
            parameter.grad = torch.zeros_like(parameter)
        # Sent some megabytes at a time: one call for each parameter is slow, one for all doubles the gradients' memory.
        if bucket and (bucket[0].dtype != parameter.grad.dtype or sum(g.numel() for g in bucket) > BUCKET):
            send()
        bucket.append(parameter.grad)
    if bucket:
        send()


def check_alike(parameters: Iterable[Tensor]) -> None:
    """Raise RuntimeError where the ranks' weights have drifted apart, which equal steps cannot do."""
    if ranks.world() == 1:
        return
    import torch.distributed as group

    # Sums in float64, one for each parameter: weights that differ in any bit nearly always differ in these, too.
    mine = [float(p.detach().double().sum()) for p in parameters if p.requires_grad]
    sums: list[Any] = [None] * ranks.world()
    group.all_gather_object(sums, mine)
    # repr, so that nan equals nan: another check reports weights that are nan.
    if any(repr(other) != repr(sums[0]) for other in sums):
        raise RuntimeError("the ranks' weights are no longer equal, so what they train on is not one policy")
