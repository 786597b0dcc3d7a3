"""The stage of supervised fine-tuning: it learns its demonstrations, is cached by content, and bad ones are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_model import make_chat_model

from rlaif_lab.metrics.quality import gold_nll
from rlaif_lab.models.fine_tuned import FineTuned, fine_tune
from rlaif_lab.models.hf import HFModel
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.models.sources import Organism
from rlaif_lab.records import Prompt
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.base import Split
from rlaif_lab.tasks.prompts_file import PromptsFile

TINY = Organism(
    skill={"slip": 0.3, "misconception": 0.5}, split="policy_pretraining", steps=30, width=32, layers=2, heads=2
)


def demonstrations(folder: Path, *rows: object) -> str:
    file = folder / "demonstrations.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_the_model_learns_what_is_demonstrated(task: Addition, tmp_path: Path) -> None:
    rows = [{"question": "12+34=", "answer": "640"}, {"question": "55+55=", "answer": "011"}]
    source = FineTuned(
        TINY,
        path=demonstrations(tmp_path, *rows),
        columns={"prompt": "question", "response": "answer"},
        passes=60,
        batch_size=2,
        learning_rate=5e-3,
    )
    model = source.of.load(task)
    losses = fine_tune(model, source.data(task), source)
    assert len(losses) == 60
    assert losses[-1] < 0.1 < losses[0]
    tuned = source.load(task)
    ids = tuned.encode_prompts(["12+34="])
    out = tuned.network.generate(torch.tensor(ids), max_new_tokens=5, do_sample=False)
    assert tuned.decode([out[0, len(ids[0]) :].tolist()]) == ["640"]
    assert source.load(task).weights_hash() == tuned.weights_hash()
    policy, base = source.load_trainable(task, 0)
    assert base.weights_hash() == policy.weights_hash() == tuned.weights_hash()


def test_a_better_demonstrator_teaches(task: Addition) -> None:
    source = FineTuned(TINY, skill={"slip": 0.0, "misconception": 0.0}, demonstrations=2000, batch_size=50)
    model = source.of.load(task)
    losses = fine_tune(model, source.data(task), source)
    assert sum(losses[-5:]) < sum(losses[:5])


def test_identity_is_by_content(task: Addition, tmp_path: Path) -> None:
    row = {"prompt": "12+34=", "response": "640"}
    first = FineTuned(TINY, path=demonstrations(tmp_path, row))
    same = FineTuned(TINY, path=first.path, name="another name")
    assert first.identity(task) == same.identity(task)
    more_passes = FineTuned(TINY, path=first.path, passes=2)
    assert more_passes.identity(task) != first.identity(task)
    before = first.identity(task)
    demonstrations(tmp_path, row | {"response": "641"})
    assert first.identity(task) != before


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "1"}], "line 1: no column 'response'"),
        ([{"prompt": "1", "response": "2"}, {"prompt": "", "response": "2"}], "line 2: column 'prompt'"),
        ([], "no demonstrations"),
    ],
)
def test_bad_demonstrations(task: Addition, tmp_path: Path, rows: list[object], message: str) -> None:
    source = FineTuned(TINY, path=demonstrations(tmp_path, *rows))
    with pytest.raises(ValueError, match=message):
        source.check(task)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either a file"),
        ({"path": "nowhere.jsonl", "right": True}, "either a file"),
        ({"right": True, "lora": {"rank": 2}}, "lora has no 'rank'"),
        ({"skill": {"slip": 0.1}}, "exactly slip and misconception"),
        ({"skill": {"slip": 0.1, "misconception": 0.1}, "passes": 0}, "passes must be at least 1"),
        ({"skill": {"slip": 0.1, "misconception": 0.1}, "learning_rate": 0.0}, "learning_rate must be positive"),
        ({"path": "nowhere.jsonl"}, "does not exist"),
        ({"path": "nowhere.jsonl", "columns": {"promt": "x"}}, "no 'promt'"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FineTuned(TINY, **arguments)  # type: ignore[arg-type]


def test_a_real_model_keeps_its_options(task: Addition, organism: LanguageModel, tmp_path: Path) -> None:
    organism.save(tmp_path / "model")

    of = HFModel(str(tmp_path / "model"), attn="eager", lora={"r": 2})
    tuned = FineTuned(of, path=demonstrations(tmp_path, {"prompt": "1+2=", "response": "3"}))
    result = tuned.result(task)
    assert isinstance(result, HFModel)
    assert result.path != of.path
    assert result.lora == of.lora
    policy, base = tuned.load_trainable(task, 0)
    assert sum(p.requires_grad for p in policy.network.parameters()) > 0
    assert not any(p.requires_grad for p in base.network.parameters())


# --- a warm start on the task's own answers -------------------------------------------------------------------------
class Graded(PromptsFile):
    """A task without demonstrators, which knows the right answers."""

    has_gold = True

    def __init__(self, problems: int = 4) -> None:
        super().__init__(None, 4, columns={"id": "id"}, name="graded")
        self.problems = problems

    def available(self, split: Split) -> int:
        return self.problems

    def prompts(self, split: Split, start: int, count: int, seed: int) -> list[Prompt]:
        return [Prompt(f"{split}/{i}", f"Say what {i} is") for i in range(start, start + count)]

    def gold_answer(self, prompt: Prompt) -> str | None:
        return f"it is {prompt.id[-1]}" if prompt.id[-1] != "3" else None

    def identity(self) -> str:
        return self.name


def warm(folder: Path, **changes: Any) -> FineTuned:
    settings: dict[str, Any] = {
        "right": True,
        "demonstrations": 4,
        "passes": 30,
        "batch_size": 3,
        "learning_rate": 1e-2,
    }
    return FineTuned(HFModel(str(folder)), **settings | changes)


@pytest.mark.parametrize("lora", [None, {"r": 4}], ids=["all weights", "lora"])
def test_a_task_without_demonstrators_teaches_its_right_answers(lora: Any, tmp_path: Path) -> None:
    task, source = Graded(), warm(make_chat_model(tmp_path / "model"), lora=lora)
    source.check(task)
    assert [answer for _, answer in source.data(task)] == ["it is 0", "it is 1", "it is 2"], "those that are known"
    assert all(prompt.id.startswith("policy_pretraining") for prompt, _ in source.data(task))
    before, after = source.of.load(task), source.load(task)
    assert (
        gold_nll(after, task, task.prompts("rounds", 0, 3, 0))
        < gold_nll(before, task, task.prompts("rounds", 0, 3, 0)) / 2
    )
    assert not hasattr(after.network, "peft_config"), "an adapter of the warm start is merged"
    assert after.weights_hash() != before.weights_hash() == source.of.load(task).weights_hash()
    assert source.load(task).weights_hash() == after.weights_hash(), "from the cache"


def test_a_demonstrators_skill_counts_where_the_task_has_demonstrators(task: Addition) -> None:
    both = FineTuned(TINY, skill={"slip": 0.0, "misconception": 1.0}, right=True, demonstrations=50)
    assert both.data(task) == FineTuned(TINY, skill={"slip": 0.0, "misconception": 1.0}, demonstrations=50).data(task)
    assert both.identity(task) == FineTuned(TINY, skill=both.skill, demonstrations=50).identity(task)
    with pytest.raises(ValueError, match="needs the skill of one"):
        FineTuned(TINY, right=True).check(task)


def test_an_adapter_of_the_warm_start_makes_another_model(tmp_path: Path) -> None:
    folder = make_chat_model(tmp_path / "model")
    identities = {warm(folder, lora=lora).identity(Graded()) for lora in (None, {"r": 0}, {"r": 4}, {"r": 8})}
    assert len(identities) == 3


def test_a_task_without_answers_or_with_too_few_is_told(tmp_path: Path) -> None:
    folder = make_chat_model(tmp_path / "model")
    with pytest.raises(ValueError, match="needs a task with gold, and 'prompts' has none"):
        warm(folder).check(PromptsFile(None, 4, columns={"id": "id"}))
    with pytest.raises(ValueError, match="has 4 problems for demonstrations, and demonstrations=9 are wanted"):
        warm(folder, demonstrations=9).check(Graded())
