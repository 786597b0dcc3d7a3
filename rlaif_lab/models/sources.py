"""Where a model comes from: an organism's recipe, or what transformers can load (models/hf.py). Checked first, loaded
on demand."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from annotated_types import Ge, Le

from rlaif_lab.config.ranges import Seed, Size
from rlaif_lab.tasks.base import ProceduralTask, Skill, Split, Task

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.models.organism.recipe import Recipe


class ModelSource(ABC):
    """A model that can be loaded again and again with equal weights."""

    name: str

    @abstractmethod
    def check(self, task: Task) -> None:
        """Raise ValueError when this model cannot serve this task, before any weights load."""

    @abstractmethod
    def identity(self, task: Task) -> str:
        """Return what decides the weights, in words; part of a run's fingerprint."""

    @abstractmethod
    def load_tokenizer(self, task: Task) -> PreTrainedTokenizerBase:
        """Return the tokenizer alone: what a judge can look at before any weights load."""

    @abstractmethod
    def load(self, task: Task) -> LanguageModel:
        """Load the model, in eval mode."""

    def load_trainable(self, task: Task, seed: int) -> tuple[LanguageModel, LanguageModel]:
        """Return the policy, in train mode, whose parameters with ``requires_grad`` are to be trained; and, frozen, the
        model that it is at first. Two copies of the weights here; a source with an adapter needs one.

        seed: the run's, for what is drawn (an adapter's first weights).
        """
        # Frozen first, then copied: the policy's copy alone is trained.
        base = self.load(task)
        base.network.requires_grad_(False)
        network = copy.deepcopy(base.network).requires_grad_(True).train()
        return replace(base, network=network, name="policy"), base


@dataclass(frozen=True)
class Organism(ModelSource):
    """A tiny model pretrained from a recipe on this machine, once, and cached (see models/organism/).

    skill: {slip, misconception} of the demonstrator it imitates. pretrained: ``shipped`` takes the organism that comes
    with the package where there is one of this recipe, ``never`` pretrains it on this machine. The other fields are the
    recipe's.
    """

    skill: Mapping[str, float]
    split: Split
    steps: Annotated[int, Ge(1), Le(10**7)] = 900
    batch_size: Size = 128
    learning_rate: float = 6e-3
    verdict_turns: Annotated[int, Ge(1), Le(1000)] = 1
    verdict_weight: float = 1.0
    width: Annotated[int, Ge(1), Le(8192)] = 96
    layers: Annotated[int, Ge(1), Le(128)] = 3
    heads: Annotated[int, Ge(1), Le(256)] = 3
    seed: Seed = 0
    pretrained: Literal["shipped", "never"] = "shipped"
    name: str = "organism"

    def __post_init__(self) -> None:
        if self.pretrained not in ("shipped", "never"):
            raise ValueError(f"an organism's pretrained must be one of shipped, never; got {self.pretrained!r}")
        # Made to be checked: what is wrong with a recipe is reported when the config is read.
        self.recipe()

    def recipe(self) -> Recipe:
        from rlaif_lab.models.organism.recipe import Recipe

        unknown = set(self.skill) - {"slip", "misconception"}
        if unknown or len(self.skill) < 2:
            raise ValueError(f"an organism's skill needs exactly slip and misconception; got {dict(self.skill)}")
        # What loads an organism is not part of its recipe.
        fields = {k: v for k, v in vars(self).items() if k not in ("skill", "name", "pretrained")}
        return Recipe(skill=Skill(**{k: float(v) for k, v in self.skill.items()}), **fields)

    def check(self, task: Task) -> None:
        if not isinstance(task, ProceduralTask):
            raise ValueError(
                f"model {self.name!r} is an organism, which needs a task with demonstrators (a ProceduralTask); "
                f"task {task.name!r} has none: use policy=hf or judge=hf with the path of a model"
            )

    def identity(self, task: Task) -> str:
        from rlaif_lab.models.organism.cache import shipped_folder, weights_hash

        assert isinstance(task, ProceduralTask)
        recipe = self.recipe()
        found = shipped_folder(task, recipe) if self.pretrained == "shipped" else None
        # By the weights' hash: the same recipe built on this machine has other weights to the last bit.
        shipped = f", shipped {weights_hash(found)[:12]}" if found else ""
        return f"organism {task.name} {recipe.fingerprint(task)}{shipped}"

    def load_tokenizer(self, task: Task) -> PreTrainedTokenizerBase:
        from rlaif_lab.models.organism.build import build_tokenizer

        assert isinstance(task, ProceduralTask)
        return build_tokenizer(task)

    def load(self, task: Task) -> LanguageModel:
        from rlaif_lab.models.organism.cache import organism

        assert isinstance(task, ProceduralTask)
        return organism(task, self.recipe(), self.name, shipped=self.pretrained == "shipped")

    def weights_hash(self, task: Task) -> str:
        """Return the hash of the weights that a run loads; the organism must have been built."""
        from rlaif_lab.models.organism.cache import organism_folder, shipped_folder, weights_hash

        assert isinstance(task, ProceduralTask)
        recipe = self.recipe()
        shipped = shipped_folder(task, recipe) if self.pretrained == "shipped" else None
        return weights_hash(shipped or organism_folder(task, recipe))

    def tell_unlearnt(self, task: Task, role: str) -> None:
        """Say where the organism, which must be there, has not learnt what it was asked to."""
        from rlaif_lab.models.organism.cache import tell_unlearnt

        assert isinstance(task, ProceduralTask)
        tell_unlearnt(task, self.recipe(), f"the {self.name} ({role})", shipped=self.pretrained == "shipped")

    def missing_recipe(self, task: Task) -> Recipe | None:
        """Return the recipe to build before this model can be loaded; None where it ships with the package."""
        from rlaif_lab.models.organism.cache import shipped_folder

        assert isinstance(task, ProceduralTask)
        recipe = self.recipe()
        return None if self.pretrained == "shipped" and shipped_folder(task, recipe) else recipe

    def __str__(self) -> str:
        recipe = self.recipe()
        return f"organism with slip {recipe.skill.slip:g}, misconception {recipe.skill.misconception:g}"
