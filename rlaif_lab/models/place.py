"""Where a model lies (a folder, a GGUF file, a repository of the hub), what is there, and what tells it from others."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from rlaif_lab.store.checksums import CHECKSUMS, check_sealed

# As the hub allows them: no "--" and no "..", which are separators in its cache.
_HUB_ID = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_CONTENT = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt")
"""Files of a model folder that can decide what it says."""
# Bytes: ten million float32 weights. Organisms are far below, real models above.
_LARGE = 40_000_000


@dataclass(frozen=True)
class ModelPlace:
    """A folder or a GGUF file on this machine, or a repository of the hub. path, gguf_file, revision: as in HFModel."""

    path: str
    gguf_file: str | None = None
    revision: str | None = None

    @property
    def local(self) -> Path | None:
        """Return the folder or file here; None for a hub id."""
        path = Path(self.path).expanduser()
        # An empty path would be the current folder.
        return path if self.path and path.exists() else None

    def names(self) -> tuple[str, str | None]:
        """Return the folder or hub id, and the GGUF file in it, as ``from_pretrained`` wants them."""
        if self.local is not None and self.local.is_file():
            # from_pretrained takes the folder, and the file's name within it.
            return str(self.local.parent), self.local.name
        return str(self.local or self.path), self.gguf_file

    def check(self) -> None:
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

    def file(self, name: str) -> Path:
        """Return a file of the folder or of the hub's repository, which is downloaded if it is not in the cache."""
        from transformers.utils.hub import cached_file

        if self.local is not None:
            return Path(self.names()[0]) / name
        with one_sentence(self.path):
            return Path(cast(str, cached_file(self.path, name, revision=self.revision)))

    def commit(self) -> str:
        """Return what the revision stands for now; the hub's cache names its folders by it."""
        from transformers.utils.hub import extract_commit_hash

        # The hub's cache knows which commit a file is of.
        file = self.file(self.gguf_file or "config.json")
        return extract_commit_hash(str(file), None) or self.revision or "main"

    def content(self) -> str:
        """Return what tells these weights from others: the hash of their files; of a hub id, its commit."""
        repo, gguf_file = self.names()
        if self.local is None:
            return f"{self.path}@{self.commit()}" + (f" {gguf_file}" if gguf_file else "")
        # By content and not by path: a folder may be rewritten.
        return hash_files([Path(repo) / gguf_file] if gguf_file else model_files(Path(repo)))

    def is_large(self) -> bool:
        """Return whether these are the weights of a real model, by the size of their files; those on the hub are."""
        if self.local is None:
            return True
        repo, gguf_file = self.names()
        files = [Path(repo) / gguf_file] if gguf_file else model_files(Path(repo))
        return sum(file.stat().st_size for file in files) > _LARGE

    def __str__(self) -> str:
        repo, gguf_file = self.names()
        where = "model folder" if self.local is not None else "hub model"
        return f"{where} {repo}" + (f", {gguf_file}" if gguf_file else "")


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


def check_gguf_types(file: Path) -> None:
    """Raise ValueError for a GGUF file with weights of a type that cannot be unpacked. Reads what is written before
    the weights."""
    import gguf
    import numpy as np

    for tensor in gguf.GGUFReader(str(file)).tensors:
        kind = tensor.tensor_type
        _, size = gguf.GGML_QUANT_SIZES[kind]
        try:
            gguf.dequantize(np.zeros((1, size), dtype=np.uint8), kind)
        except NotImplementedError:
            raise ValueError(
                f"GGUF file {str(file)!r}: its {tensor.name} is stored as {kind.name}, which cannot be unpacked; take "
                "one in Q4_K_M, Q8_0 or F16"
            ) from None


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


@contextmanager
def one_sentence(path: str) -> Iterator[None]:
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
