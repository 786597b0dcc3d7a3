"""How large a model is, from its configuration alone: nothing is downloaded or allocated but that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlaif_lab.models.sources import ModelSource, Organism
from rlaif_lab.tasks.base import ProceduralTask, Task

if TYPE_CHECKING:
    from torch import nn

    from rlaif_lab.models.lora import LoraConfig


@dataclass(frozen=True)
class Size:
    """parameters: all of them. trained: those that a policy of this source trains: its adapter's, where it has one.
    keys: numbers kept per token and layer for attention, keys and values together. width, inner: of the body and of its
    MLP. itemsize: bytes of a weight. checkpointing: activations are computed twice rather than kept."""

    parameters: int
    trained: int
    layers: int
    width: int
    inner: int
    keys: int
    vocabulary: int
    itemsize: int
    adapter: bool
    checkpointing: bool


def size_of(source: ModelSource, task: Task) -> Size:
    """Return the size of the model of a source.

    Raises:
        ValueError: for a source whose configuration cannot be read without its weights.
    """
    import torch

    from rlaif_lab.models.fine_tuned import FineTuned
    from rlaif_lab.models.hf import HFModel

    if isinstance(source, FineTuned):
        # Fine-tuning changes no size.
        return size_of(source.of, task)
    if isinstance(source, Organism):
        from rlaif_lab.models.organism.build import build_network, build_tokenizer

        assert isinstance(task, ProceduralTask)
        recipe = source.recipe()
        network: Any = build_network(recipe, len(build_tokenizer(task)))
        return _measured(network, 4, None, checkpointing=False)
    if not isinstance(source, HFModel):
        raise ValueError(f"how large model {source.name!r} is cannot be told before it has loaded")
    from transformers import AutoConfig, AutoModelForCausalLM

    repo, gguf_file = source.where.names()
    options: dict[str, Any] = {"gguf_file": gguf_file} if gguf_file else {}
    config = AutoConfig.from_pretrained(repo, revision=source.revision, **options)
    # On the meta device: shapes without memory.
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config)
    stored = str(getattr(config, "dtype", None) or "float32")
    dtype = stored if source.loaded_dtype() == "auto" else source.loaded_dtype()
    # bfloat16 or float16: two bytes.
    itemsize = 4 if "float32" in dtype else 2
    return _measured(network, itemsize, source.adapter(), checkpointing=source.gradient_checkpointing)


def _measured(network: nn.Module, itemsize: int, adapter: LoraConfig | None, *, checkpointing: bool) -> Size:
    config: Any = network.config.get_text_config()  # type: ignore[union-attr, operator]
    parameters = sum(p.numel() for p in network.parameters())
    heads = int(config.num_attention_heads)
    # Grouped queries keep fewer keys than there are heads.
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    each = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return Size(
        parameters=parameters,
        trained=adapter_parameters(network, adapter) if adapter else parameters,
        layers=int(config.num_hidden_layers),
        width=int(config.hidden_size),
        inner=int(getattr(config, "intermediate_size", None) or 4 * config.hidden_size),
        # Keys and values.
        keys=2 * groups * each,
        vocabulary=int(config.vocab_size),
        itemsize=itemsize,
        adapter=adapter is not None,
        checkpointing=checkpointing,
    )


def adapter_parameters(network: Any, adapter: LoraConfig) -> int:
    """Return the parameters that the adapter adds: r (inputs + outputs) for each linear layer that gets one."""
    import torch

    targets, head = adapter.target_modules, network.get_output_embeddings()
    total = 0
    for name, module in network.named_modules():
        # The head gets no adapter (`all-linear` is all but it).
        if not isinstance(module, torch.nn.Linear) or module is head:
            continue
        last = name.rpartition(".")[2]
        if targets == "all-linear" or (last == targets if isinstance(targets, str) else last in targets):
            total += adapter.r * (module.in_features + module.out_features)
    return total
