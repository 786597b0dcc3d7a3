"""Model sources: checked before anything loads, identified by content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.sources import Folder, Organism
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


@pytest.fixture
def folder(organism: LanguageModel, tmp_path: Path) -> Path:
    organism.save(tmp_path / "model")
    return tmp_path / "model"


def test_a_folder_gives_back_the_model(folder: Path, organism: LanguageModel, task: Addition) -> None:
    source = Folder(str(folder), "mine")
    source.check(task)
    assert source.load(task).weights_hash() == organism.weights_hash()


def test_a_folders_identity_is_its_content(folder: Path, task: Addition) -> None:
    first = Folder(str(folder)).identity(task)
    copy = shutil.copytree(folder, folder.parent / "copy")
    assert Folder(str(copy)).identity(task) == first
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert Folder(str(copy)).identity(task) != first


def test_what_is_no_model_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    def broken(name: str) -> Path:
        return Path(shutil.copytree(folder, tmp_path / name))

    cases = {"does not exist": tmp_path / "nowhere"}
    (cases.setdefault("config.json", broken("no config")) / "config.json").unlink()
    (cases.setdefault("not valid JSON", broken("half a config")) / "config.json").write_text('{"architectures"')
    (cases.setdefault("not a causal LM", broken("encoder")) / "config.json").write_text(
        '{"architectures": ["BertModel"]}'
    )
    (cases.setdefault("holds no weights", broken("no weights")) / "model.safetensors").unlink()
    (cases.setdefault("holds no tokenizer", broken("no tokenizer")) / "tokenizer_config.json").unlink()
    for message, path in cases.items():
        with pytest.raises(ValueError, match=message):
            Folder(str(path))


@pytest.mark.parametrize("content", ["[]", "null", "3", '{"architectures": null}'])
def test_a_config_of_another_shape_is_refused(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content)
    with pytest.raises(ValueError, match="model folder"):
        Folder(str(folder))


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


def test_sources_describe_themselves(folder: Path) -> None:
    assert str(Organism(SKILL, "policy_pretraining")) == "organism with slip 0.3, misconception 0.5"
    assert str(folder) in str(Folder(str(folder)))
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
