"""Model sources: checked before anything loads, identified by content."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.sources import ModelSource, Organism
from rlaif_lab.records import Prompt
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.base import Split, Task

SKILL = {"slip": 0.3, "misconception": 0.5}


class LookUp(Task):
    name, max_response_tokens = "look-up", 4

    def available(self, split: Split) -> int:
        return 0

    def prompts(self, split: Split, start: int, count: int, seed: int) -> list[Prompt]:
        return []

    def quality(self, prompt: Prompt, response: str) -> float:
        return 0.0


def test_an_organism_is_identified_by_its_recipe_and_not_by_its_name(task: Addition) -> None:
    organism = Organism(SKILL, "policy_pretraining", name="a")
    assert organism.identity(task) == Organism(dict(SKILL), "policy_pretraining", name="b").identity(task)
    assert organism.identity(task) != Organism(SKILL, "judge_pretraining").identity(task)
    assert organism.identity(task) != organism.identity(Addition(3))
    assert organism.identity(task).endswith(organism.recipe().fingerprint(task))


@pytest.mark.parametrize("skill", [{}, {"slip": 0.1}, {"slip": 0.1, "misconception": 0.1, "slips": 0.2}])
def test_a_skill_needs_exactly_its_two_numbers(skill: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="exactly slip and misconception"):
        Organism(skill, "policy_pretraining")


def test_an_organism_needs_a_task_with_demonstrators() -> None:
    with pytest.raises(ValueError, match="demonstrators"):
        Organism(SKILL, "policy_pretraining").check(LookUp())


def test_an_organism_describes_itself() -> None:
    assert str(Organism(SKILL, "policy_pretraining")) == "organism with slip 0.3, misconception 0.5"


def test_an_organisms_tokenizer_needs_no_weights(task: Addition, organism: LanguageModel) -> None:
    tokenizer = Organism(SKILL, "policy_pretraining").load_tokenizer(task)
    assert tokenizer.get_vocab() == organism.tokenizer.get_vocab()
    assert tokenizer("12+34=")["input_ids"] == organism.encode_prompts(["12+34="])[0]


class Found(ModelSource):
    """A model that is there already."""

    name = "found"

    def __init__(self, model: LanguageModel) -> None:
        self.model = model

    def check(self, task: Task) -> None: ...

    def identity(self, task: Task) -> str:
        return self.model.weights_hash()

    def load_tokenizer(self, task: Task) -> Any:
        return self.model.tokenizer

    def load(self, task: Task) -> LanguageModel:
        return replace(self.model, network=copy.deepcopy(self.model.network), chat=False)


def test_a_policy_is_trained_beside_what_it_was(organism: LanguageModel, task: Addition) -> None:
    policy, base = Found(organism).load_trainable(task, seed=0)
    assert policy.network.training
    assert not base.network.training
    assert all(p.requires_grad for p in policy.network.parameters())
    assert not any(p.requires_grad for p in base.network.parameters())
    assert policy.weights_hash() == base.weights_hash() == organism.weights_hash()
    with torch.no_grad():
        next(policy.network.parameters()).add_(1.0)
    assert base.weights_hash() == organism.weights_hash() != policy.weights_hash()
    assert (policy.name, base.name) == ("policy", "tiny")
