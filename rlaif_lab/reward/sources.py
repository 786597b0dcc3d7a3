"""Where a trained reward model comes from: a folder, checked before its weights load."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlaif_lab.models.place import hash_files, model_files
from rlaif_lab.models.sources import ModelSource
from rlaif_lab.tasks.base import Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlaif_lab.reward.network import RewardNetwork


@dataclass(frozen=True)
class RewardFolder(ModelSource):
    """A folder with an ``AutoModelForSequenceClassification`` of one label, and its tokenizer."""

    path: str
    name: str = "reward model"

    def __post_init__(self) -> None:
        check_reward_folder(Path(self.path))

    def check(self, task: Task) -> None:
        """Check nothing: any reward model may serve any task; texts that its tokenizer cannot write are refused when it
        is asked."""

    def identity(self, task: Task) -> str:
        return self.content()

    def content(self) -> str:
        """Return an identity by content: the same path with other weights, or another template, is another model."""
        return f"reward model {hash_files(model_files(Path(self.path)))}"

    def load_tokenizer(self, task: Task) -> PreTrainedTokenizerBase:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.path, padding_side="left")

    def load(self, task: Task) -> RewardNetwork:
        from rlaif_lab.reward.network import load_reward_network

        return load_reward_network(Path(self.path), self.name)

    def __str__(self) -> str:
        return f"reward model {self.path}"


def check_reward_folder(path: Path) -> None:
    """Raise ValueError when ``path`` does not hold a saved reward model with its tokenizer."""
    where = f"reward model folder {str(path)!r}"
    if not path.is_dir():
        raise ValueError(f"{where} does not exist")
    if not (path / "config.json").is_file():
        raise ValueError(f"{where} holds no config.json, so it is not a saved model")
    try:
        config = json.loads((path / "config.json").read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: config.json is not valid JSON ({error})") from None
    architectures = (config.get("architectures") if isinstance(config, dict) else None) or []
    if not any(name.endswith("ForSequenceClassification") for name in architectures):
        raise ValueError(f"{where} is not a sequence classifier: its architectures are {architectures}")
    labels = len(config.get("id2label") or range(config.get("num_labels", 2)))  # two is transformers' default
    if labels != 1:
        raise ValueError(f"{where} is not a reward model: it has {labels} labels, and a reward is one number")
    if not any(path.glob("*.safetensors")) and not any(path.glob("pytorch_model*.bin")):
        raise ValueError(f"{where} holds no weights (*.safetensors)")
    if not (path / "tokenizer_config.json").is_file():
        raise ValueError(f"{where} holds no tokenizer (tokenizer_config.json)")


def member_folders(paths: Sequence[str]) -> list[str]:
    """Return the folders of single reward models: a folder of an ensemble (member_0, member_1, ...) stands for its
    members."""
    found = []
    for path in paths:
        # By number: member_10 comes after member_9.
        members = sorted(Path(path).glob("member_*"), key=lambda folder: int(folder.name.rpartition("_")[2]))
        found += [str(member) for member in members] or [path]
    return found
