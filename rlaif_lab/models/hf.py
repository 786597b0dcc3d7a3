"""Any causal LM that transformers can load: a hub id, a local folder, or a GGUF file in either."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from rlaif_lab.models.lora import LoraConfig, frozen_copy, with_adapter
from rlaif_lab.models.sources import ModelSource
from rlaif_lab.store.checksums import CHECKSUMS, check_sealed
from rlaif_lab.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.records import Prompt

Dtype = Literal["float32", "bfloat16", "auto"]
Chat = bool | Literal["auto"]

# As the hub allows them: no "--" and no "..", which are separators in its cache.
_HUB_ID = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_CONTENT = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt")
"""Files of a model folder that can decide what it says."""
_TRIED_PROMPTS = 8
_ALL_PROMPTS = 20_000
# Bytes: ten million float32 weights. Organisms are far below, real models above.
_LARGE = 40_000_000
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
        self._check_place()

    def adapter(self) -> LoraConfig | None:
        """Return the adapter's settings. None: all weights are trained."""
        adapter = LoraConfig.of(self.lora or {"r": 0})
        return adapter if adapter.r else None

    # --- where it lies ----------------------------------------------------------------------------------------
    @property
    def local(self) -> Path | None:
        """Return the folder or file here; None for a hub id."""
        path = Path(self.path).expanduser()
        # An empty path would be the current folder.
        return path if self.path and path.exists() else None

    def place(self) -> tuple[str, str | None]:
        """Return the folder or hub id, and the GGUF file in it, as ``from_pretrained`` wants them."""
        if self.local is not None and self.local.is_file():
            # from_pretrained takes the folder, and the file's name within it.
            return str(self.local.parent), self.local.name
        return str(self.local or self.path), self.gguf_file

    def _check_place(self) -> None:
        """Check what can be told without reading weights or asking the hub."""
        local = self.local
        if local is None:
            if not _HUB_ID.fullmatch(self.path) or self.path.endswith(".gguf"):
                raise ValueError(f"model path {self.path!r} does not exist, and is no hub id (owner/name) either")
            return
        if self.revision is not None:
            raise ValueError(f"revision is of a hub id, and {self.path!r} lies here; got {self.revision!r}")
        if local.is_file():
            if self.gguf_file is not None:
                raise ValueError(f"path {self.path!r} is a file already; drop gguf_file={self.gguf_file!r}")
            check_gguf(local)
        elif self.gguf_file is not None:
            check_gguf(local / self.gguf_file)
        else:
            check_model_folder(local)

    # --- checks that read configuration and tokenizer -----------------------------------------------------------------
    def check(self, task: Task) -> None:
        """Read tokenizer and configuration (from the hub, if it lies there), and put the task's prompts: all of a
        file, a few of a task that makes its own."""
        from transformers import AutoConfig

        if self.local is None:
            # One small file shows whether it is there, and which commit the name stands for.
            self._commit()  # whether the hub has it at all, by one file
        elif self.local.is_dir():
            # The small files and the weights, if they were sealed: a damaged model is reported before it is loaded.
            check_sealed(self.local)
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
        if self.place()[1] is None:
            check_causal(self.path, json.loads(self._file("config.json").read_text()))
        # Prompts can be encoded without weights, and most of what is wrong with a model shows in that.
        without_weights = self._model(cast(Any, None), tokenizer)
        prompts = _prompts_of(task)
        ids = without_weights.encode_prompts(prompts)
        if self.place()[1] is None:  # of a GGUF file this is told once it has loaded
            self._check_sizes(AutoConfig.from_pretrained(self._config_folder()), task, prompts, ids, tokenizer)

    def _config_folder(self) -> str:
        return str(self._file("config.json").parent)

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

    def is_large(self) -> bool:
        """Return whether these are the weights of a real model, by the size of their files; those on the hub are."""
        if self.local is None:
            return True
        repo, gguf_file = self.place()
        files = [Path(repo) / gguf_file] if gguf_file else model_files(Path(repo))
        return sum(file.stat().st_size for file in files) > _LARGE

    def identity(self, task: Task) -> str:
        """Return an identity by content: the same path with other weights is another model. Of a hub id, by its commit.
        And by how it is computed and asked; not by how it would be trained."""
        repo, gguf_file = self.place()
        if self.local is None:
            content = f"{self.path}@{self._commit()}" + (f" {gguf_file}" if gguf_file else "")
        else:
            # By content and not by path: a folder may be rewritten.
            content = hash_files([Path(repo) / gguf_file] if gguf_file else model_files(Path(repo)))
        # Left out where there is none, so that identities from before stay what they were.
        told = f" {self.system!r} {dict(self.chat_options)!r}" if self.system is not None or self.chat_options else ""
        return f"hf {content} {self.loaded_dtype()} {self.attn} chat={self.chat}{told}"

    def _file(self, name: str) -> Path:
        """Return a file of the folder or of the hub's repository, which is downloaded if it is not in the cache."""
        from transformers.utils.hub import cached_file

        if self.local is not None:
            return Path(self.place()[0]) / name
        with _one_sentence(self.path):
            return Path(cast(str, cached_file(self.path, name, revision=self.revision)))

    def _commit(self) -> str:
        """Return what the revision stands for now; the hub's cache names its folders by it."""
        from transformers.utils.hub import extract_commit_hash

        # The hub's cache knows which commit a file is of.
        file = self._file(self.gguf_file or "config.json")
        return extract_commit_hash(str(file), None) or self.revision or "main"

    # --- loading ----------------------------------------------------------------------------------------------
    def load_tokenizer(self, task: Task) -> PreTrainedTokenizerBase:
        return _tokenizer(*self.place(), self.revision)

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
        repo, gguf_file = self.place()
        # Unpacked, as a quantised weight can neither be trained nor saved.
        unpacked = {"gguf_file": gguf_file, "quantization_config": GgufConfig(dequantize=True)} if gguf_file else {}
        options: dict[str, Any] = {"revision": self.revision, "dtype": self.loaded_dtype(), **unpacked}
        with _one_sentence(self.path):
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

        if self.place()[1] is not None:
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
        repo, gguf_file = self.place()
        where = "model folder" if self.local is not None else "hub model"
        return f"{where} {repo}" + (f", {gguf_file}" if gguf_file else "")


def _prompts_of(task: Task) -> list[Prompt]:
    """Return all prompts of a finite task, a few of one that makes its own."""
    found = []
    for split in ("rounds", "evaluation"):
        count = task.available(split)
        # A finite task is read whole, so that a single prompt that is too long is reported now and not in round 7.
        found += task.prompts(split, 0, count if count <= _ALL_PROMPTS else _TRIED_PROMPTS, 0)
    return found


# --- what lies in a folder --------------------------------------------------------------------------------------------
def check_model_folder(path: Path) -> None:
    """Raise ValueError when ``path`` does not hold a saved causal LM with its tokenizer, or its small files are not
    what was saved (weights are compared when they load)."""
    config_file = path / "config.json"
    # Large files are hashed when they load; their presence is looked at now.
    check_sealed(path, largest=10**7)
    if not config_file.is_file():
        hint = ""
        if ggufs := sorted(file.name for file in path.glob("*.gguf")):
            hint = f"; it holds {', '.join(ggufs)}: name one with gguf_file=..."
        elif (path / "adapter_config.json").is_file():
            hint = "; it is a LoRA adapter: name the folder of the merged model beside it"
        raise ValueError(f"model folder {str(path)!r} holds no config.json, so it is not a saved model{hint}")
    try:
        config = json.loads(config_file.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"model folder {str(path)!r}: config.json is not valid JSON ({error})") from None
    architectures = (config.get("architectures") if isinstance(config, dict) else None) or []
    if not any(name.endswith(("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")) for name in architectures):
        raise ValueError(
            f"model folder {str(path)!r} is not a causal LM: the architectures in its config.json are {architectures}"
        )
    if not any(path.glob("*.safetensors")) and not any(path.glob("pytorch_model*.bin")):
        raise ValueError(f"model folder {str(path)!r} holds no weights (*.safetensors)")
    if not (path / "tokenizer_config.json").is_file():
        raise ValueError(f"model folder {str(path)!r} holds no tokenizer (tokenizer_config.json)")


def check_gguf(file: Path) -> None:
    """Raise ValueError when ``file`` is not a GGUF file."""
    if not file.is_file():
        found = sorted(f.name for f in file.parent.glob("*.gguf")) if file.parent.is_dir() else []
        raise ValueError(
            f"GGUF file {str(file)!r} does not exist"
            + (f"; {str(file.parent)!r} holds {', '.join(found)}" if found else "")
        )
    with file.open("rb") as stream:
        # The first four bytes of every GGUF file.
        if stream.read(4) != b"GGUF":
            raise ValueError(f"{str(file)!r} is not a GGUF file: it does not begin with GGUF")


def check_causal(path: str, config: Mapping[str, Any]) -> None:
    """Raise ValueError when transformers has no causal LM for a model of this config.json."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = config.get("model_type")
    architectures = config.get("architectures") or []
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    if known is None:
        raise ValueError(f"model {path!r} is not a causal LM that transformers knows: its model_type is {kind!r}")
    names = [known] if isinstance(known, str) else list(known)
    # GPT-2 and others call theirs LMHeadModel.
    if not any(name in names or name.endswith("LMHeadModel") for name in architectures):
        raise ValueError(f"model {path!r} is not a causal LM: its architectures are {architectures}")


def model_files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in _CONTENT and file.name != CHECKSUMS)


def hash_files(files: Iterable[Path]) -> str:
    """Return a hash of names and contents."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                # Names and contents, in the order of the names: a renamed file is another model.
                digest.update(block)
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=4)
def _tokenizer(repo: str, gguf_file: str | None, revision: str | None) -> PreTrainedTokenizerBase:
    """Return the tokenizer, which is kept: reading one from a GGUF file takes seconds, and it is asked for before and
    after the weights load."""
    from transformers import AutoTokenizer

    options = {"gguf_file": gguf_file} if gguf_file else {}
    with _one_sentence(repo):
        return AutoTokenizer.from_pretrained(repo, revision=revision, padding_side="left", **options)


@contextmanager
def _one_sentence(path: str) -> Iterator[None]:
    """Turn the many kinds of error that transformers and the hub raise into one sentence."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())
        if "couldn't connect" in reason or "offline mode" in reason:
            raise ValueError(
                f"model {path!r} is no folder here and not in the hub's cache, and the hub cannot be reached; download "
                "it once with a connection, or give the path of a folder or a GGUF file"
            ) from error
        if "attn_implementation" in reason:
            reason += " (here: policy.attn=eager, or attn=eager of the judge's weights)"
        raise ValueError(f"cannot load model {path!r}: {reason}") from error


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
