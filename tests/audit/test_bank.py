"""The shipped banks: right where they say right, balanced where it matters, and always the same."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from rlaif_lab.audit.bank import FileBank, TaskBank
from rlaif_lab.audit.gold import BankGold
from rlaif_lab.records import Prompt
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.base import ProceduralTask, Task
from rlaif_lab.tasks.lookup import Lookup
from rlaif_lab.tasks.pair_sum import PairSum


@pytest.mark.parametrize("task", [Addition(digits=2), Addition(), PairSum(), Lookup()], ids=lambda t: t.name)
def test_a_tasks_bank_is_right_and_frozen(task: ProceduralTask) -> None:
    pairs = TaskBank(pairs=100).load(task)
    assert len(pairs) == 100
    assert Counter(pair.subset for pair in pairs) == {"slip": 50, "misconception": 50}
    for pair in pairs:
        prompt, first, second = pair.comparison.prompt, pair.comparison.first, pair.comparison.second
        assert pair.prob_first_is_better == float(task.quality(prompt, first) > task.quality(prompt, second))
        assert {task.quality(prompt, first), task.quality(prompt, second)} == {0.0, 1.0}
        if pair.subset == "misconception":
            wrong = second if pair.prob_first_is_better else first
            assert task.misconceived_quality(prompt, wrong) == 1.0
    assert TaskBank(pairs=100).load(task) == pairs
    assert TaskBank(pairs=100, seed=1).load(task) != pairs
    assert len({pair.comparison.prompt.id for pair in pairs}) == 100
    assert 25 <= sum(pair.prob_first_is_better for pair in pairs) <= 75


def test_a_tasks_bank_is_of_prompts_that_are_never_trained_on() -> None:
    task = Addition(digits=2)
    evaluation = {task.prompt_text(problem) for problem in task.split_problems("evaluation").tolist()}
    assert {pair.comparison.prompt.text for pair in TaskBank(pairs=200).load(task)} <= evaluation


def test_a_small_task_gives_what_it_has() -> None:
    task = Lookup(facts=20)
    pairs = TaskBank(pairs=400).load(task)
    assert 0 < len(pairs) <= task.available("evaluation")


def test_a_task_without_demonstrators_has_no_bank_of_its_own() -> None:
    with pytest.raises(ValueError, match="is made by demonstrators, and task 'labels of the bank' has none"):
        TaskBank().load(BankGold([]))
    with pytest.raises(ValueError, match=r"bank\.pairs must be at least 1; got 0"):
        TaskBank(pairs=0)


# --- the general bank ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def general() -> list[Any]:
    return FileBank("general", name="general").load(Addition())


def test_the_general_bank_has_many_kinds_and_no_prompt_twice(general: list[Any]) -> None:
    assert len(general) >= 80
    subsets = Counter(pair.subset for pair in general)
    assert len(subsets) >= 8
    assert min(subsets.values()) >= 8
    assert len({pair.comparison.prompt.id for pair in general}) == len(general)
    texts = [text for pair in general for text in (pair.comparison.first, pair.comparison.second)]
    assert all(text == text.strip() and text for text in texts)


def test_length_and_slot_say_nothing_of_the_label_in_the_general_bank(general: list[Any]) -> None:
    longer = [
        (len(p.comparison.first) > len(p.comparison.second)) == (p.prob_first_is_better == 1.0)
        for p in general
        if len(p.comparison.first) != len(p.comparison.second)
    ]
    assert 0.45 <= sum(longer) / len(longer) <= 0.55
    assert 0.35 <= sum(p.prob_first_is_better for p in general) / len(general) <= 0.65


# --- labels as gold -----------------------------------------------------------------------------------------------
def test_labels_as_gold(general: list[Any]) -> None:
    gold: Task = BankGold(general)
    for pair in general:
        c = pair.comparison
        assert gold.quality(c.prompt, c.first) == pair.prob_first_is_better
        assert gold.quality(c.prompt, c.second) == 1.0 - pair.prob_first_is_better
    with pytest.raises(ValueError, match="the bank has no label for the response 'x'"):
        gold.quality(Prompt("nobody", "?"), "x")
