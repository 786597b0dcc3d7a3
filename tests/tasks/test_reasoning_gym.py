"""Problems of reasoning-gym: fresh, in disjoint splits, graded by the library; and mistakes told before a run."""

from __future__ import annotations

import random
from typing import Any

import pytest

from rlaif_lab.records import Prompt
from rlaif_lab.tasks.base import SPLITS
from rlaif_lab.tasks.graders import GraderError

pytest.importorskip("reasoning_gym", reason="REASONING-GYM IS NOT INSTALLED: its tasks WERE NOT TESTED")

from rlaif_lab.tasks.reasoning_gym import ENDLESS, ReasoningGym

TWO_DIGITS = {"min_terms": 2, "max_terms": 3, "min_digits": 2, "max_digits": 2}
ONE_DIGIT = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
SOME = (
    "chain_sum",
    "knights_knaves",
    "gsm_symbolic",
    "letter_counting",
    "basic_arithmetic",
    "gcd",
    "leg_counting",
    "spell_backward",
    "base_conversion",
    "number_sorting",
    "bitwise_arithmetic",
    "simple_equations",
    "syllogism",
    "calendar_arithmetic",
    "word_sorting",
    "countdown",
    "coin_flip",
    "family_relationships",
)


def made(dataset: str = "chain_sum", **options: Any) -> ReasoningGym:
    return ReasoningGym(dataset, **({"max_response_tokens": 16} | options))


@pytest.fixture(scope="module")
def sums() -> ReasoningGym:
    return made(params=TWO_DIGITS, suffix=" Reply with the number only.", answer="last_number")


@pytest.mark.parametrize("dataset", SOME)
def test_each_data_set_makes_and_grades_its_problems(dataset: str) -> None:
    task = made(dataset)
    prompts = [p for split in ("rounds", "evaluation") for p in task.prompts(split, 0, 3, seed=1)]  # type: ignore[arg-type]
    assert len({p.text for p in prompts}) == len({p.id for p in prompts}) == 6
    for prompt in prompts:
        answer = task.gold_answer(prompt)
        assert answer is None or task.quality(prompt, answer) == 1.0
        assert 0.0 <= task.quality(prompt, "I do not know, 7?") < 1.0
    assert any(task.gold_answer(prompt) is not None for prompt in prompts)
    again = made(dataset)  # another process grades what this one made
    assert [again.gold_answer(p) for p in prompts] == [task.gold_answer(p) for p in prompts]


def test_splits_share_no_text_whatever_the_seed(sums: ReasoningGym) -> None:
    asked = {split: {p.text for seed in (0, 1, 2) for p in sums.prompts(split, 0, 60, seed)} for split in SPLITS}
    for split, texts in asked.items():
        others = set().union(*(held for other, held in asked.items() if other != split))
        assert not texts & others


def test_seeds_next_to_each_other_ask_other_problems(sums: ReasoningGym) -> None:
    first, second = ([p.text for p in sums.prompts("rounds", 0, 50, seed)] for seed in (0, 1))
    assert len(set(first) & set(second)) <= 2  # by chance among some thousand sums


def test_positions_follow_each_other_and_come_again_the_same(sums: ReasoningGym) -> None:
    whole = sums.prompts("rounds", 0, 30, seed=3)
    assert sums.prompts("rounds", 10, 5, seed=3) == whole[10:15]
    assert (
        made(params=TWO_DIGITS, suffix=" Reply with the number only.", answer="last_number").prompts(
            "rounds", 10, 5, seed=3
        )
        == whole[10:15]
    )
    end = sums.available("rounds")
    last = sums.prompts("rounds", end - 4, 4, seed=3)
    assert sums.prompts("rounds", end - 2, 2, seed=3) == last[2:]
    assert not {p.text for p in last} & {p.text for p in whole}


def test_a_small_space_of_problems_is_counted(sums: ReasoningGym) -> None:
    task = made(params=ONE_DIGIT)
    held = {split: task.available(split) for split in SPLITS}
    assert 150 < sum(held.values()) < 200  # 0 + 0 to 9 - 9, but for what the library leaves out
    texts = [p.text for split in SPLITS for p in task.prompts(split, 0, held[split], 0)]
    assert len(texts) == len(set(texts))
    with pytest.raises(
        ValueError, match=rf"split 'evaluation' has {held['evaluation']} problems, but .* were asked for"
    ):
        task.prompts("evaluation", 0, held["evaluation"] + 1, 0)
    assert sums.available("rounds") == ENDLESS


@pytest.mark.parametrize(
    ("response", "right"),
    [("{}", True), ("The answer is {}.", True), ("= {}.0", True), ("1{}", False), ("none", False)],
)
def test_the_last_number_counts(response: str, right: bool, sums: ReasoningGym) -> None:
    for prompt in sums.prompts("evaluation", 0, 10, 0):
        answer = sums.gold_answer(prompt)
        assert answer is not None
        assert (sums.quality(prompt, response.format(answer)) == 1.0) == right


def test_tags_and_partial_credit() -> None:
    task = made("chain_sum", params=TWO_DIGITS, answer="tag")
    (prompt,) = task.prompts("rounds", 0, 1, 0)
    gold = task.gold_answer(prompt)
    assert gold is not None and gold.startswith("<answer>")
    assert task.quality(prompt, f"Hm. {gold}") == 1.0
    assert task.quality(prompt, gold.replace("<answer>", "")) == 0.0
    whole = made("chain_sum", params=TWO_DIGITS)
    assert 0.0 < whole.quality(prompt, f"It is {gold[8:-9]}") < 1.0  # the library's partial credit


def test_generators_that_draw_from_the_global_state_are_reproducible() -> None:
    """The library's list_functions are: some of its problems came out different each time."""
    one, other = made("list_functions"), made("list_functions")
    random.seed(1)
    before = random.getstate()
    first = one.prompts("rounds", 0, 12, 0)
    assert random.getstate() == before
    random.seed(2)
    assert other.prompts("rounds", 0, 12, 0) == first
    assert all(0.0 <= other.quality(prompt, "[]") <= 1.0 for prompt in first)


def test_difficulty_is_that_of_the_problem(sums: ReasoningGym) -> None:
    for prompt in sums.prompts("rounds", 0, 20, 0):
        terms = prompt.text.count(" + ") + prompt.text.count(" - ") + 1
        assert sums.difficulty(prompt) == f"num_terms {terms} num_digits 2"


def test_a_grader_of_the_library_that_raises_is_told_or_counts_as_wrong() -> None:
    task = made("prime_factorization")
    (prompt,) = task.prompts("rounds", 0, 1, 0)
    with pytest.raises(
        GraderError, match=r"prime_factorization .*failing_grader=wrong.* on the response 'x'.*ValueError"
    ):
        task.quality(prompt, "x")
    assert made("prime_factorization", failing_grader="wrong").quality(prompt, "x") == 0.0


def test_identity_is_the_settings(sums: ReasoningGym) -> None:
    assert made(params=TWO_DIGITS).identity() != made(params=ONE_DIGIT).identity()
    assert made(params=TWO_DIGITS).identity() == made(params=dict(TWO_DIGITS)).identity()
    assert made(suffix="x").identity() != made().identity()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dataset": "chain_sun"}, "task.dataset: reasoning-gym has no 'chain_sun' (did you mean 'chain_sum'?)"),
        (
            {"params": {"min_term": 2}},
            "task.params: chain_sum has no 'min_term' (did you mean 'min_terms'?); it takes min_terms",
        ),
        ({"params": {"seed": 2}}, "task.params: chain_sum has no 'seed'"),
        ({"params": {"min_terms": 5, "max_terms": 2}}, "max_terms must be >= min_terms"),
        ({"params": {"min_terms": "x"}}, "task.params: chain_sum cannot be made with"),
        ({"answer": "number"}, "task.answer must be one of whole, last_line, last_number, tag; got 'number'"),
        ({"failing_grader": "skip"}, "task.failing_grader must be one of stop, wrong; got 'skip'"),
        ({"max_response_tokens": 0}, "task.max_response_tokens must be at least 1; got 0"),
        ({"seed": -1}, "task.seed must lie in 0..127; got -1"),
    ],
)
def test_mistakes_are_told_at_once(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        made(**options)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_prompts_of_others_are_told(sums: ReasoningGym) -> None:
    with pytest.raises(ValueError, match="is none of task 'chain_sum'"):
        sums.quality(Prompt("addition/1", "1+1="), "2")
    (prompt,) = sums.prompts("rounds", 0, 1, 0)
    with pytest.raises(ValueError, match="made by another version of reasoning-gym, or with other settings"):
        made(params=ONE_DIGIT).quality(prompt, "2")
