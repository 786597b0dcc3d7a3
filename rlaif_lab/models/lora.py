"""LoRA (Hu et al. 2106.09685) through peft, on one copy of the weights: the policy is the model with its adapter, the
reference policy and a judge that is the initial policy are the same weights without it."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rlaif_lab.config import did_you_mean
from rlaif_lab.seeding import seed_for

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor, nn
    from transformers import PreTrainedModel

ADAPTER = "default"
Network = TypeVar("Network", bound="nn.Module")


@dataclass(frozen=True)
class LoraConfig:
    """r: rank, 0: no adapter. alpha: the update is scaled by alpha / r. dropout: of the adapter's input, in training.
    target_modules: the layers that get an adapter, by name; ``all-linear``: all but the output head."""

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: str | tuple[str, ...] = "all-linear"

    def __post_init__(self) -> None:
        if not isinstance(self.target_modules, str):
            object.__setattr__(self, "target_modules", tuple(self.target_modules))
        if self.r < 0:
            raise ValueError(f"lora.r must be 0 (no adapter) or positive; got {self.r}")
        if self.alpha <= 0:
            raise ValueError(f"lora.alpha must be positive; got {self.alpha}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout must lie in [0, 1); got {self.dropout}")
        if not self.target_modules:
            raise ValueError("lora.target_modules must name a layer, or be all-linear; got none")

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> LoraConfig:
        """Return the config of these settings. Raises ValueError for a key that there is not."""
        # A misspelt key would silently be left at its default.
        known = list(cls.__dataclass_fields__)
        for key in settings:
            if key not in known:
                raise ValueError(f"lora has no {key!r}{did_you_mean(str(key), known)}; it takes {', '.join(known)}")
        return cls(**settings)


def with_adapter(network: PreTrainedModel, config: LoraConfig, *identity: int | str) -> PeftModel:
    """Return the network with an adapter that changes nothing yet, as what is trained: float32, whatever the weights
    are in. The weights are those of ``network`` itself, whose layers get the adapter.

    identity: decides the draw of the adapter's first matrix.
    Raises ValueError when no layer is called as ``config.target_modules`` says.
    """
    import peft
    import torch

    targets = config.target_modules
    settings = peft.LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        task_type="CAUSAL_LM",
    )
    # peft draws from the global generator: forked, so that its state is as before.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft's own use of older names of transformers
        # The adapter's first matrix is random, and the second 0: it changes nothing yet.
        torch.manual_seed(seed_for("lora", *identity))
        try:
            adapted = peft.get_peft_model(network, settings, adapter_name=ADAPTER)
        except ValueError as error:
            raise ValueError(f"lora.target_modules={targets!r} does not fit this model: {error}") from error
    from rlaif_lab.models.lora_layer import fuse

    fuse(adapted)
    return adapted


def frozen_copy(network: Network) -> Network:
    """Return a frozen model with modules of its own, in which what ``network`` trains is copied and what it does not is
    shared (of a policy with LoRA: all but the adapter). What is shared moves with it from device to device."""
    # deepcopy takes what is in its memo as copied already: that is how frozen weights are shared.
    shared = {id(p): p for p in network.parameters() if not p.requires_grad}
    return copy.deepcopy(network, shared).requires_grad_(False)


def save_network(network: Any, folder: Path) -> None:
    """Save with ``save_pretrained``; of a network with an adapter the merged weights, and the adapter in a folder
    beside. The network is not touched: merging and unmerging in place would leave rounding errors in the base."""
    if not hasattr(network, "peft_config"):
        network.save_pretrained(folder)
        return
    state = merged_state(network)
    network.get_base_model().save_pretrained(folder, state_dict=state)
    if not _still_tied(network.get_base_model(), state):
        _say_untied(folder / "config.json")
    # Without the option peft asks the hub for a config of the base model, whose vocabulary has not changed.
    network.save_pretrained(folder.with_name(f"{folder.name}_adapter"), save_embedding_layers=False)


def merged_state(network: PeftModel) -> dict[str, Tensor]:
    """Return the weights with the adapter added, under the plain model's names. What has no adapter is shared, not
    copied."""
    from peft.tuners.lora import LoraLayer

    base = network.get_base_model()
    # peft puts the plain layer under `base_layer`: the plain model's names come back without it.
    state = {
        name.replace(".base_layer.", "."): tensor for name, tensor in base.state_dict().items() if ".lora_" not in name
    }
    for name, layer in base.named_modules():
        if isinstance(layer, LoraLayer):
            weight = state[f"{name}.weight"]
            # Added in float32 and rounded once: bfloat16 would lose small updates.
            state[f"{name}.weight"] = (weight.float() + layer.get_delta_weight(ADAPTER).float()).to(weight.dtype)
    return state


def _still_tied(network: PreTrainedModel, state: Mapping[str, Tensor]) -> bool:
    """Return whether the merged weights have the tied head that the configuration names, or it names none."""
    import torch

    if not getattr(network.config.get_text_config(), "tie_word_embeddings", False):
        return True
    # By identity: which module is which does not show in its name.
    names = {id(module): name for name, module in network.named_modules()}
    found = []
    for part in (network.get_input_embeddings(), network.get_output_embeddings()):
        name = names.get(id(part), "").replace(".base_layer", "")
        found.append(state.get(f"{name}.weight"))
    first, last = found
    return first is None or last is None or torch.equal(first, last)


def _say_untied(file: Path) -> None:
    """Say in the config that an adapter on the head, or on the embedding, makes two weights of one: a reader who ties
    them again would read another model."""
    config = json.loads(file.read_text())
    config["tie_word_embeddings"] = False
    for part in config.values():
        if isinstance(part, dict) and "tie_word_embeddings" in part:
            part["tie_word_embeddings"] = False
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
