"""Where a model comes from: an organism's recipe, or a folder. Checked on construction, loaded on demand."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_lab.tasks.base import ProceduralTask, Skill, Split, Task

if TYPE_CHECKING:
    from rlaif_lab.models.language_model import LanguageModel


class ModelSource(ABC):
    """A model that can be loaded again and again with equal weights."""

    name: str

    @abstractmethod
    def check(self, task: Task) -> None:
        """Raises ValueError when this model cannot serve this task, before any weights load."""

    @abstractmethod
    def identity(self, task: Task) -> str:
        """What decides the weights, in words; part of a run's fingerprint."""

    @abstractmethod
    def load(self, task: Task) -> LanguageModel: ...


@dataclass(frozen=True)
class Organism(ModelSource):
    """A tiny model pretrained from a recipe on this machine, once, and cached (see models/organism.py).

    skill: {slip, misconception} of the demonstrator it imitates. The other fields are the recipe's.
    """

    skill: Any
    split: Split
    steps: int = 900
    batch_size: int = 128
    learning_rate: float = 6e-3
    verdict_turns: int = 1
    verdict_weight: float = 1.0
    width: int = 96
    layers: int = 3
    heads: int = 3
    seed: int = 0
    name: str = "organism"

    def __post_init__(self) -> None:
        self.recipe()

    def recipe(self) -> Any:
        from rlaif_lab.models.recipe import Recipe

        unknown = set(self.skill) - {"slip", "misconception"}
        if unknown or len(self.skill) < 2:
            raise ValueError(f"an organism's skill needs exactly slip and misconception; got {dict(self.skill)}")
        fields = {k: v for k, v in vars(self).items() if k not in ("skill", "name")}
        return Recipe(skill=Skill(**{k: float(v) for k, v in self.skill.items()}), **fields)

    def check(self, task: Task) -> None:
        if not isinstance(task, ProceduralTask):
            raise ValueError(
                f"model {self.name!r} is an organism, which needs a task with demonstrators (a ProceduralTask); "
                f"task {task.name!r} has none: name a model folder instead"
            )

    def identity(self, task: Task) -> str:
        assert isinstance(task, ProceduralTask)
        return f"organism {task.name} {self.recipe().fingerprint(task)}"

    def load(self, task: Task) -> LanguageModel:
        from rlaif_lab.models.cache import organism

        assert isinstance(task, ProceduralTask)
        return organism(task, self.recipe(), self.name)

    def __str__(self) -> str:
        recipe = self.recipe()
        return f"organism with slip {recipe.skill.slip:g}, misconception {recipe.skill.misconception:g}"


@dataclass(frozen=True)
class Folder(ModelSource):
    """Any causal LM saved by ``save_pretrained``, e.g. the ``policy/`` folder of a finished run."""

    path: str
    name: str = "folder"

    def __post_init__(self) -> None:
        check_model_folder(Path(self.path))

    def check(self, task: Task) -> None:
        """Any folder may serve any task; a tokenizer that cannot write its prompts is refused on loading."""

    def identity(self, task: Task) -> str:
        """By content: the same path with other weights is another model."""
        return f"folder {_hash_files(Path(self.path))}"

    def load(self, task: Task) -> LanguageModel:
        from rlaif_lab.models.cache import load_folder

        return load_folder(Path(self.path), self.name)

    def __str__(self) -> str:
        return f"model folder {self.path}"


def check_model_folder(path: Path) -> None:
    """ValueError when ``path`` does not hold a saved causal LM with its tokenizer."""
    if not path.is_dir():
        raise ValueError(f"model folder {str(path)!r} does not exist")
    if not (path / "config.json").is_file():
        raise ValueError(f"model folder {str(path)!r} holds no config.json, so it is not a saved model")
    try:
        config = json.loads((path / "config.json").read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"model folder {str(path)!r}: config.json is not valid JSON ({error})") from None
    architectures = (config.get("architectures") if isinstance(config, dict) else None) or []
    if not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        raise ValueError(f"model folder {str(path)!r} is not a causal LM: its architectures are {architectures}")
    if not any(path.glob("*.safetensors")) and not any(path.glob("pytorch_model*.bin")):
        raise ValueError(f"model folder {str(path)!r} holds no weights (*.safetensors)")
    if not (path / "tokenizer_config.json").is_file():
        raise ValueError(f"model folder {str(path)!r} holds no tokenizer (tokenizer_config.json)")


def _hash_files(folder: Path) -> str:
    import hashlib

    digest = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.suffix in (".safetensors", ".json", ".bin"):
            digest.update(file.name.encode())
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
    return digest.hexdigest()[:16]
