"""Organisms: the corpus they read, weights decided by the recipe alone, fingerprints."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import tiny_recipe

from rlaif_lab.models.language_model import LanguageModel, hash_weights
from rlaif_lab.models.organism.build import Corpus, build_network, build_tokenizer, pretrain
from rlaif_lab.models.organism.recipe import Recipe
from rlaif_lab.models.packed import response_logps
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.base import Skill


def weights(task: Addition, recipe: Recipe) -> str:
    return hash_weights(pretrain(task, recipe, "test")[0])


# --- weights ------------------------------------------------------------------------------------------------------
def test_the_recipe_alone_decides_the_weights(task: Addition) -> None:
    recipe = tiny_recipe(steps=3)
    torch.manual_seed(1)
    first = weights(task, recipe)
    state = torch.get_rng_state()
    assert weights(task, tiny_recipe(steps=3)) == first
    assert torch.equal(torch.get_rng_state(), state)
    assert weights(Addition(digits=2), recipe) == first


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"steps": 4},
        {"skill": Skill(0.31, 0.5)},
        {"split": "judge_pretraining"},
        {"learning_rate": 1e-3},
        {"batch_size": 16},
    ],
    ids=str,
)
def test_another_recipe_makes_other_weights_under_another_fingerprint(task: Addition, changes: dict) -> None:
    recipe = tiny_recipe(steps=3)
    assert weights(task, replace(recipe, **changes)) != weights(task, recipe)
    assert replace(recipe, **changes).fingerprint(task) != recipe.fingerprint(task)


def test_initialisation_leaves_the_global_generator_alone(untrained: LanguageModel, recipe: Recipe) -> None:
    size = len(untrained.tokenizer)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert hash_weights(build_network(recipe, size)) == untrained.weights_hash()
    assert torch.equal(torch.get_rng_state(), before)
    assert hash_weights(build_network(replace(recipe, seed=1), size)) != untrained.weights_hash()


def test_training_teaches_the_corpus(
    task: Addition, recipe: Recipe, organism: LanguageModel, untrained: LanguageModel
) -> None:
    packed, weights = Corpus(task, recipe, organism.tokenizer).batch(10_000)
    before, after = (-response_logps(m.network, packed)[weights > 0].mean().item() for m in (untrained, organism))
    assert after < 0.75 * before


# --- fingerprints -------------------------------------------------------------------------------------------------
def test_every_field_of_a_recipe_and_the_task_are_in_the_fingerprint(task: Addition) -> None:
    recipe = tiny_recipe()
    changes = [
        {"skill": Skill(0.3, 0.6)},
        {"skill": Skill(0.2, 0.5)},
        {"split": "judge_pretraining"},
        {"steps": 31},
        {"batch_size": 33},
        {"learning_rate": 1e-3},
        {"weight_decay": 0.0},
        {"warmup_steps": 6},
        {"verdict_turns": 2},
        {"verdict_weight": 2.0},
        {"width": 64},
        {"layers": 3},
        {"heads": 4},
        {"seed": 1},
    ]
    prints = {replace(recipe, **change).fingerprint(task) for change in changes}
    prints |= {recipe.fingerprint(task), recipe.fingerprint(Addition(3))}
    assert len(prints) == len(changes) + 2


def test_an_edited_task_does_not_find_its_old_organisms(task: Addition) -> None:
    class Edited(Addition):
        def demonstrate(self, problems, skill, rng):  # type: ignore[no-untyped-def]
            return ["0"] * len(problems)

    edited = Edited(2)
    assert edited.name == task.name
    assert tiny_recipe().fingerprint(edited) != tiny_recipe().fingerprint(task)


def test_an_edited_helper_of_the_task_counts_as_an_edited_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A demonstrator's rule may lie in a function beside the class."""
    monkeypatch.syspath_prepend(tmp_path)
    source = """
from rlaif_lab.tasks.arithmetic import Addition
class Constant(Addition):
    def demonstrate(self, problems, skill, rng):
        return [answer() for _ in problems]
def answer():
    return "{}"
"""
    prints = []
    for name, answer in (("constant_one", "000"), ("constant_two", "000"), ("constant_three", "111")):
        (tmp_path / f"{name}.py").write_text(source.format(answer))
        prints.append(tiny_recipe().fingerprint(importlib.import_module(name).Constant(2)))
    assert prints[0] == prints[1]
    assert prints[2] != prints[0]


def test_whole_numbers_and_floats_are_one_skill(task: Addition) -> None:
    assert tiny_recipe(skill=Skill(0, 1)).fingerprint(task) == tiny_recipe(skill=Skill(0.0, 1.0)).fingerprint(task)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch_size", 0),
        ("width", 33),
        ("heads", 0),
        ("layers", 0),
        ("split", "train"),
        ("learning_rate", 0.0),
    ],
)
def test_impossible_recipes_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"recipe.{field}"):
        tiny_recipe(**{field: value})


# --- corpus -------------------------------------------------------------------------------------------------------
def test_a_step_of_the_corpus_depends_on_its_number_alone(task: Addition, recipe: Recipe) -> None:
    tokenizer = build_tokenizer(task)
    walked = Corpus(task, recipe, tokenizer)
    for step in range(3):
        walked.batch(step)
    late, late_weights = walked.batch(7)
    fresh, fresh_weights = Corpus(task, recipe, tokenizer).batch(7)
    assert all(torch.equal(a, b) for a, b in zip(vars(late).values(), vars(fresh).values(), strict=True))
    assert torch.equal(late_weights, fresh_weights)


@pytest.mark.parametrize("split", ["policy_pretraining", "judge_pretraining"])
def test_the_corpus_stays_within_its_split(task: Addition, split: str) -> None:
    recipe = tiny_recipe(split=split)
    tokenizer = build_tokenizer(task)
    allowed = {task.prompt_text(int(p)) for p in task.split_problems(recipe.split)}
    for step in range(5):
        packed, _ = Corpus(task, recipe, tokenizer).batch(step)
        assert set(tokenizer.batch_decode(packed.prompt_ids, skip_special_tokens=True)) <= allowed


def test_a_perfect_demonstrator_teaches_right_answers_and_right_verdicts(task: Addition) -> None:
    """Learnt are its own answers with their end, and the verdict on every answer; no ``?`` and no foreign answer."""
    tokenizer = build_tokenizer(task)
    recipe = tiny_recipe(skill=Skill(0.0, 0.0), batch_size=64, verdict_turns=2, verdict_weight=2.5)
    packed, weights = Corpus(task, recipe, tokenizer).batch(0)
    assert packed.response_ids.shape[:2] == (64, 3)
    said = {"T": 0, "F": 0}
    for b in range(64):
        prompt = tokenizer.decode(packed.prompt_ids[b], skip_special_tokens=True)
        for i in range(packed.response_ids.shape[1]):
            turn = tokenizer.convert_ids_to_tokens(packed.response_ids[b, i][packed.response_mask[b, i]].tolist())
            answer, rest = "".join(turn[: turn.index("<eos>")]), turn[turn.index("<eos>") :]
            right = task.quality(task.to_prompt(_problem(task, prompt)), answer) == 1.0
            assert rest == ["<eos>", "?", "T" if right else "F"]
            own = i == 0
            weighed = weights[b, i][packed.response_mask[b, i]].tolist()
            assert weighed == [float(own)] * (len(answer) + 1) + [0.0, 2.5]
            assert right or not own
            said[rest[-1]] += not own
    assert min(said.values()) > 10


def test_padding_is_never_learnt(task: Addition, recipe: Recipe) -> None:
    packed, weights = Corpus(task, recipe, build_tokenizer(task)).batch(0)
    assert (weights[~packed.response_mask] == 0).all()


def _problem(task: Addition, prompt: str) -> int:
    first, second = (int(n[::-1]) for n in prompt.rstrip("=").split("+"))
    return first * 10**task.digits + second
