"""Sharded training: each rank holds a part of the weights that are trained, of their gradients and of AdamW's moments.

Everything else reads the policy, which every rank holds whole: its weights are put together from the parts whenever
training is over for a while. So only the training step goes through the parts, with as many passes on every rank; what
samples, judges or evaluates may run on any rank by itself.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.packed import passes_of, response_logps
from rlaif_lab.models.packing import Packed
from rlaif_lab.models.plain import body_of


class Shards:
    """The policy's weights, a part of them on each rank, as they are trained.

    Example: ``Shards(policy).logps(rows)`` is ``response_logps(policy.network, rows)``, with gradients in parts.
    """

    def __init__(self, policy: LanguageModel, device: str) -> None:
        """Cut up a copy of the policy, which itself stays whole. All ranks do so together. device: ``cpu`` or
        ``cuda``."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import FSDPModule, fully_shard

        from rlaif_lab import ranks

        self.policy = policy
        self.network = copy.deepcopy(policy.network)
        self.mesh = init_device_mesh(device, (ranks.world(),))
        for layer in layers_of(self.network):
            fully_shard(layer, mesh=self.mesh)
        self.reader = _Reader(self.network)
        fully_shard(self.reader, mesh=self.mesh)
        for module in self.reader.modules():
            if isinstance(module, FSDPModule):  # the loss is the whole batch's on every rank: gradients are added up
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)

    def logps(self, rows: Packed) -> Tensor:
        """Return log-probabilities of the responses, (B, n, R). Every rank must call it equally often.

        Raises:
            ValueError: the model reads each response by itself, so that ranks would differ in their passes.
        """
        if passes_of(self.policy.network, rows) == "alone":
            raise ValueError(
                "trainer.strategy=fsdp2: this model is read one response at a time, so the ranks would make different "
                "numbers of passes; use trainer.strategy=ddp"
            )
        found: Tensor = self.reader(rows)
        return found

    def publish(self) -> None:
        """Give the policy the weights as they are trained by now. All ranks do so together."""
        whole = dict(self.policy.network.named_parameters())
        with torch.no_grad():
            for name, part in self.network.named_parameters():
                whole[name].copy_(part.full_tensor())

    def take(self) -> None:
        """Go on from the policy's weights."""
        whole = dict(self.policy.network.named_parameters())
        with torch.no_grad():
            for name, part in self.network.named_parameters():
                part.copy_(self.cut(whole[name].detach(), part))

    def cut(self, whole: Tensor, like: Tensor) -> Tensor:
        """Return a tensor in parts, as ``like`` is."""
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)  # type: ignore[attr-defined]

    # --- checkpoints, which hold whole tensors, so that any number of ranks goes on from them ---------------------
    def cut_checkpoint(self, checkpoint: dict[str, Any], weights: dict[str, Tensor]) -> None:
        """Put the tensors of a checkpoint that was read into parts. weights: as trained, by their names in it."""
        state = checkpoint["state_dict"]
        for name, whole in state.items():
            state[name] = self.cut(whole, weights[name])
        trained = [part for part in self.network.parameters() if part.requires_grad]
        for optimizer in checkpoint.get("optimizer_states", []):
            for number, held in optimizer["state"].items():
                for name, value in held.items():
                    if isinstance(value, Tensor) and value.shape == trained[number].shape and value.dim():
                        held[name] = self.cut(value, trained[number])


class _Reader(nn.Module):
    """The root of what is sharded: the body and the head are both called within its ``forward``."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, rows: Packed) -> Tensor:
        return response_logps(self.network, rows)


def layers_of(network: Any) -> list[nn.Module]:
    """Return a model's layers: the longest list of modules in its body."""
    lists = [module for module in body_of(network).modules() if isinstance(module, nn.ModuleList)]
    longest: nn.ModuleList = max(lists, key=len, default=nn.ModuleList())
    return list(longest)


def is_part(tensor: Any) -> bool:
    """Tell whether this is a rank's part of a tensor."""
    return isinstance(tensor, Tensor) and hasattr(tensor, "full_tensor")


def put_together(content: Any) -> Any:
    """Return the same with whole tensors in the places of parts. All ranks do so together, in one order."""
    if is_part(content):
        return content.full_tensor()
    if isinstance(content, dict):
        return {key: put_together(value) for key, value in content.items()}
    if isinstance(content, list):
        return [put_together(value) for value in content]
    return content
