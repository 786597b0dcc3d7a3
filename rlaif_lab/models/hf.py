"""Any causal LM that transformers can load: a hub id, a local folder, or a GGUF file in either."""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from rlaif_lab.models.lora import LoraConfig, frozen_copy, with_adapter
from rlaif_lab.models.place import ModelPlace, check_causal, check_gguf_types, one_sentence
from rlaif_lab.models.sources import ModelSource
from rlaif_lab.store.checksums import check_sealed
from rlaif_lab.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.records import Prompt

Dtype = Literal["float32", "bfloat16", "auto"]
Chat = bool | Literal["auto"]

_TRIED_PROMPTS = 8
_ALL_PROMPTS = 20_000
_NO_UNITS = (
    "model {path!r} is held in float32: this processor has no units for bfloat16, which would be some ten times slower"
)


@dataclass(frozen=True)
class HFModel(ModelSource):
    """path: a folder with a saved model (``policy/`` of a finished run is one), a GGUF file, or a hub id.
    gguf_file: the GGUF file within the folder or the hub's repository; its weights are unpacked, so that they can be
        trained and saved. revision: branch, tag or commit, of a hub id only.
    dtype: of the weights; ``auto``: as they are stored. attn: transformers' attention implementation.
    chat: whether the tokenizer's chat template puts the prompts; ``auto``: if it has one. system: what a chat model is
        told first. chat_options: further arguments of the template.
    gradient_checkpointing: a policy's activations are computed twice rather than kept. lora: a policy's adapter, as
        LoraConfig; None, or of rank 0, trains all weights.
    """

    path: str
    gguf_file: str | None = None
    revision: str | None = None
    dtype: Dtype = "float32"
    attn: str = "sdpa"
    chat: Chat = "auto"
    system: str | None = None
    chat_options: Mapping[str, Any] = field(default_factory=dict)
    gradient_checkpointing: bool = False
    lora: Mapping[str, Any] | None = None
    name: str = "hf"

    def __post_init__(self) -> None:
        if self.dtype not in get_args(Dtype):
            raise ValueError(f"dtype must be one of {', '.join(get_args(Dtype))}; got {self.dtype!r}")
        if self.chat not in (True, False, "auto"):
            raise ValueError(f"chat must be auto, true or false; got {self.chat!r}")
        if self.chat is False and (self.system is not None or self.chat_options):
            raise ValueError("system and chat_options are told to chat models only; drop them or set chat=auto")
        self.adapter()
        self.where.check()

    @property
    def where(self) -> ModelPlace:
        """Return where the model lies."""
        return ModelPlace(self.path, self.gguf_file, self.revision)

    def adapter(self) -> LoraConfig | None:
        """Return the adapter's settings. None: all weights are trained."""
        adapter = LoraConfig.of(self.lora or {"r": 0})
        return adapter if adapter.r else None

    # --- checks that read configuration and tokenizer -----------------------------------------------------------------
    def check(self, task: Task) -> None:
        """Read tokenizer and configuration (from the hub, if it lies there), and put the task's prompts: all of a
        file, a few of a task that makes its own."""
        from transformers import AutoConfig

        if self.where.local is None:
            # One small file shows whether it is there, and which commit the name stands for.
            self.where.commit()  # whether the hub has it at all, by one file
        elif self.where.local.is_dir():
            # The small files and the weights, if they were sealed: a damaged model is reported before it is loaded.
            check_sealed(self.where.local)
        tokenizer = self.load_tokenizer(task)
        if tokenizer.eos_token_id is None:
            raise ValueError(
                f"the tokenizer of model {self.path!r} has no end-of-sequence token; no response could end"
            )
        if self.chat is True and not tokenizer.chat_template:
            raise ValueError(f"chat=true, but the tokenizer of model {self.path!r} has no chat template; use chat=auto")
        if not self.chats(tokenizer) and (self.system is not None or self.chat_options):
            raise ValueError(
                f"system and chat_options are told to chat models only, and {self.path!r} has no chat template"
            )
        gguf_file = self.where.names()[1]
        if gguf_file is not None:
            check_gguf_types(self.where.file(gguf_file))
        else:
            check_causal(self.path, json.loads(self.where.file("config.json").read_text()))
        # Prompts can be encoded without weights, and most of what is wrong with a model shows in that.
        without_weights = self._model(cast(Any, None), tokenizer)
        prompts = _prompts_of(task)
        ids = without_weights.encode_prompts(prompts)
        if gguf_file is None:  # of a GGUF file this is told once it has loaded
            self._check_sizes(
                AutoConfig.from_pretrained(str(self.where.file("config.json").parent)), task, prompts, ids, tokenizer
            )

    def _check_sizes(
        self,
        config: Any,
        task: Task,
        prompts: Sequence[Prompt],
        ids: Sequence[Sequence[int]],
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        """Raise ValueError when prompts and responses need more positions, or other tokens, than the model has."""
        from rlaif_lab.models.limits import check_length, check_tokens

        check_length(self.path, config, [p.id for p in prompts], [len(row) for row in ids], task.max_response_tokens)
        check_tokens(self.path, config, [p.id for p in prompts], ids, tokenizer)

    def chats(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        return bool(tokenizer.chat_template) if self.chat == "auto" else self.chat

    def identity(self, task: Task) -> str:
        """Return an identity by content: the same path with other weights is another model. Of a hub id, by its commit.
        And by how it is computed and asked; not by how it would be trained."""
        # Left out where there is none, so that identities from before stay what they were.
        told = f" {self.system!r} {dict(self.chat_options)!r}" if self.system is not None or self.chat_options else ""
        return f"hf {self.where.content()} {self.loaded_dtype()} {self.attn} chat={self.chat}{told}"

    # --- loading ----------------------------------------------------------------------------------------------
    def load_tokenizer(self, task: Task) -> PreTrainedTokenizerBase:
        return _tokenizer(*self.where.names(), self.revision)

    def load(self, task: Task) -> LanguageModel:
        import torch
        from transformers import AutoModelForCausalLM, GgufConfig
        from transformers.utils import logging

        from rlaif_lab.models.precision import bfloat16_is_slow_here
        from rlaif_lab.progress import say

        logging.disable_progress_bar()
        # Reported, since the config asks for another dtype: the numbers agree up to rounding, the time does not.
        if self.loaded_dtype() != self.dtype:
            say(self.name, _NO_UNITS.format(path=self.path))
        repo, gguf_file = self.where.names()
        # Unpacked, as a quantised weight can neither be trained nor saved.
        unpacked = {"gguf_file": gguf_file, "quantization_config": GgufConfig(dequantize=True)} if gguf_file else {}
        options: dict[str, Any] = {"revision": self.revision, "dtype": self.loaded_dtype(), **unpacked}
        with one_sentence(self.path):
            try:
                network = AutoModelForCausalLM.from_pretrained(repo, attn_implementation=self.attn, **options)
            # Only what says so: any other ValueError is about the model.
            except ValueError as error:
                if self.attn != "sdpa" or "scaled_dot_product_attention" not in str(error):
                    raise
                say(self.name, f"model {self.path!r} does not support attn=sdpa; it is computed with attn=eager")
                network = AutoModelForCausalLM.from_pretrained(repo, attn_implementation="eager", **options)
        if network.dtype == torch.bfloat16 and bfloat16_is_slow_here():  # dtype=auto, and stored so
            network = network.float()
            say(self.name, _NO_UNITS.format(path=self.path))
        _read_head_at_once(network)
        model = self._model(network.eval(), self.load_tokenizer(task))
        self._try(model, task)
        return model

    def _try(self, model: LanguageModel, task: Task) -> None:
        """Establish by which passes the model may be read, and say what the user should know of it.

        Raises ValueError for a model that is not causal, or is too short for the task.
        """
        from rlaif_lab.models.llama import is_small_llama
        from rlaif_lab.models.passes import NARROWEST, passes
        from rlaif_lab.progress import say

        if self.where.names()[1] is not None:
            prompts = _prompts_of(task)
            ids = model.encode_prompts(prompts)
            self._check_sizes(model.network.config, task, prompts, ids, model.tokenizer)
        # Small Llamas have a pass of their own, which tests hold to transformers'.
        if not is_small_llama(model.network) and passes(model.network, NARROWEST).way != "packed":
            say(
                self.name,
                f"model {self.path!r} cannot be given several responses to a prompt at once (that was tried, and gives "
                "other numbers); each is computed by itself, which takes longer",
            )
        if model.opens_thought:
            say(
                self.name,
                f"the chat template of model {self.path!r} opens a thought for each response; "
                "policy.chat_options={enable_thinking: false} turns that off where the template knows it",
            )

    def load_trainable(self, task: Task, seed: int) -> tuple[LanguageModel, LanguageModel]:
        """Load policy and base. With LoRA: one copy of the weights, with an adapter as the policy and without as the
        frozen model."""
        import torch

        adapter = self.adapter()
        if adapter is None:
            policy, base = super().load_trainable(task, seed)
            if policy.network.dtype != torch.float32:
                warnings.warn(
                    f"all weights of {self.path!r} are trained in {policy.network.dtype}, which rounds small updates "
                    "away; use dtype=float32 with trainer.precision=bf16-mixed, or lora",
                    stacklevel=2,
                )
        else:
            loaded = self.load(task)
            # The body is shared by policy and base, so it must not be trained.
            loaded.network.requires_grad_(False)
            # The base before the adapter goes in: the policy's layers are changed in place.
            base = replace(loaded, network=frozen_copy(loaded.network))
            policy = replace(loaded, network=with_adapter(loaded.network, adapter, seed).train(), name="policy")
        # For the policy alone: nothing is computed backwards through the base.
        if self.gradient_checkpointing:
            policy.network.activation_checkpointing_enable()
        return policy, base

    def loaded_dtype(self) -> Dtype:
        """Return what the weights are held in: ``dtype``, but float32 where bfloat16 would be slower than that."""
        from rlaif_lab.models.precision import bfloat16_is_slow_here

        return "float32" if self.dtype == "bfloat16" and bfloat16_is_slow_here() else self.dtype

    def _model(self, network: Any, tokenizer: PreTrainedTokenizerBase) -> LanguageModel:
        from rlaif_lab.models.language_model import LanguageModel

        return LanguageModel(
            network,
            tokenizer,
            self.name,
            chat=self.chats(tokenizer),
            system=self.system,
            chat_options=dict(self.chat_options),
        )

    def __str__(self) -> str:
        return str(self.where)


def _prompts_of(task: Task) -> list[Prompt]:
    """Return all prompts of a finite task, a few of one that makes its own."""
    found = []
    for split in ("rounds", "evaluation"):
        count = task.available(split)
        # A finite task is read whole, so that a single prompt that is too long is reported now and not in round 7.
        found += task.prompts(split, 0, count if count <= _ALL_PROMPTS else _TRIED_PROMPTS, 0)
    return found


@functools.lru_cache(maxsize=4)
def _tokenizer(repo: str, gguf_file: str | None, revision: str | None) -> PreTrainedTokenizerBase:
    """Return the tokenizer, which is kept: reading one from a GGUF file takes seconds, and it is asked for before and
    after the weights load."""
    from transformers import AutoTokenizer

    options = {"gguf_file": gguf_file} if gguf_file else {}
    with one_sentence(repo):
        return AutoTokenizer.from_pretrained(repo, revision=revision, padding_side="left", **options)


def _read_head_at_once(network: PreTrainedModel) -> None:
    """Have the head read states that lie together in memory.

    What ``logits_to_keep`` leaves does not; torch then multiplies row by row, and in bfloat16 copies the head's weights
    for each of them: 25 s in place of 0.04 s for 16 rows and 152,000 tokens, and 4 GB.
    """
    head = network.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(_contiguous)


def _contiguous(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (inputs[0].contiguous(), *inputs[1:])
