"""Addition: the answer key, the demonstrators' errors, and the splits."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from rlaif_lab.records import Prompt
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.base import SPLITS, Skill, Split

PERFECT, MISCONCEIVED = Skill(0.0, 0.0), Skill(0.0, 1.0)


def problem_of(task: Addition, first: int, second: int) -> np.ndarray:
    return np.array([first * 10**task.digits + second])


@pytest.mark.parametrize(
    ("digits", "first", "second", "prompt", "right", "misconceived"),
    [
        (3, 347, 586, "743+685=", "3390", "3390"),  # 7+6=13, 1+4+8=13, 1+3+5=9: carries, but no column makes ten
        (3, 0, 0, "000+000=", "0000", "0000"),
        (3, 999, 999, "999+999=", "8991", "8991"),  # 18, 19, 19
        (2, 34, 56, "43+65=", "090", "080"),  # 4+6 makes ten: its carry is forgotten, 3+5=8
        (2, 55, 50, "55+05=", "501", "500"),  # the last column makes ten: the leading 1 is lost
        (2, 55, 55, "55+55=", "011", "000"),  # 10, then 5+5 without the carry makes ten again
        (2, 19, 81, "91+18=", "001", "090"),  # 10 (carry forgotten), 1+8=9: the second ten never comes about
        (2, 27, 65, "72+56=", "290", "290"),  # 12, then 9
        (2, 28, 67, "82+76=", "590", "590"),  # 15 is more than ten: carried by everybody
        (2, 27, 75, "72+57=", "201", "200"),  # 12 carries 1, and 1+2+7 makes exactly ten
        (1, 5, 5, "5+5=", "01", "00"),
        (1, 5, 6, "5+6=", "11", "11"),
    ],
)
def test_answers_worked_out_by_hand(
    digits: int, first: int, second: int, prompt: str, right: str, misconceived: str
) -> None:
    task = Addition(digits)
    problem = problem_of(task, first, second)
    rng = np.random.default_rng(0)
    assert task.prompt_text(int(problem[0])) == prompt
    assert task.demonstrate(problem, PERFECT, rng) == [right]
    assert task.demonstrate(problem, MISCONCEIVED, rng) == [misconceived]
    asked = task.to_prompt(int(problem[0]))
    assert task.quality(asked, right) == 1.0
    assert task.misconceived_quality(asked, misconceived) == 1.0
    if right != misconceived:
        assert task.quality(asked, misconceived) == 0.0
        assert task.misconceived_quality(asked, right) == 0.0


@pytest.mark.parametrize("digits", [1, 2])
def test_every_right_answer_is_the_sum_written_backwards(digits: int) -> None:
    task = Addition(digits)
    problems = np.arange(task.num_problems)
    answers = task.demonstrate(problems, PERFECT, np.random.default_rng(0))
    first, second = np.divmod(problems, 10**digits)
    assert answers == [str(total).zfill(digits + 1)[::-1] for total in (first + second).tolist()]


@pytest.mark.parametrize("misconceived", [False, True])
def test_the_answer_key_and_the_demonstrators_follow_one_rule(misconceived: bool) -> None:
    task = Addition(2)
    skill, key = (MISCONCEIVED, task.misconceived_quality) if misconceived else (PERFECT, task.quality)
    answers = task.demonstrate(np.arange(task.num_problems), skill, np.random.default_rng(0))
    assert all(key(task.to_prompt(problem), answer) == 1.0 for problem, answer in enumerate(answers))


@pytest.mark.parametrize("response", ["", "39", "339", "33900", "3390 ", "3390=", "?", "0933"])
def test_anything_but_the_whole_answer_has_no_quality(response: str) -> None:
    assert Addition(3).quality(Prompt("any", "743+685="), response) == 0.0


@pytest.mark.parametrize("digits", [1, 2, 3])
def test_the_response_limit_leaves_room_for_the_answer_and_its_end(digits: int) -> None:
    task = Addition(digits)
    assert task.max_response_tokens == len(task.demonstrate(np.array([0]), PERFECT, np.random.default_rng(0))[0]) + 1
    assert set(task.prompt_text(task.num_problems - 1)) <= set(task.alphabet)


@pytest.mark.parametrize("digits", [0, 5, -1])
def test_an_impossible_number_of_digits_is_refused(digits: int) -> None:
    with pytest.raises(ValueError, match=r"task.digits"):
        Addition(digits)


# --- demonstrators ------------------------------------------------------------------------------------------------
def test_slips_come_at_their_rate_change_one_digit_and_hit_all_columns_alike() -> None:
    task = Addition(3)
    rng = np.random.default_rng(1)
    problems = rng.integers(0, task.num_problems, size=20_000)
    right = np.array([list(a) for a in task.demonstrate(problems, PERFECT, rng)])
    attempts = np.array([list(a) for a in task.demonstrate(problems, Skill(0.3, 0.0), rng)])
    wrong = right != attempts
    assert set(wrong.sum(1).tolist()) == {0, 1}
    assert stats.binomtest(int(wrong.sum()), len(problems), 0.3).pvalue > 1e-3
    assert stats.chisquare(wrong.sum(0)).pvalue > 1e-3
    shift = (attempts.astype(int) - right.astype(int))[wrong] % 10
    assert stats.chisquare(np.bincount(shift, minlength=10)[1:]).pvalue > 1e-3


def test_misconceptions_come_at_their_rate_where_they_can_occur_and_nowhere_else() -> None:
    task = Addition(2)
    rng = np.random.default_rng(2)
    problems = np.repeat(np.arange(task.num_problems), 4)
    right = np.array(task.demonstrate(problems, PERFECT, rng))
    misled = np.array(task.demonstrate(problems, MISCONCEIVED, rng))
    possible = right != misled
    attempts = np.array(task.demonstrate(problems, Skill(0.0, 0.7), rng))
    assert (attempts[~possible] == right[~possible]).all()
    assert ((attempts == right) | (attempts == misled)).all()
    assert stats.binomtest(int((attempts == misled)[possible].sum()), int(possible.sum()), 0.7).pvalue > 1e-3


@pytest.mark.parametrize(("digits", "share"), [(1, 0.09), (3, 0.25)])
def test_the_share_of_problems_that_the_misconception_changes(digits: int, share: float) -> None:
    """One digit: 9 of 100 pairs make ten. Three: about a quarter, as the docstring says."""
    task = Addition(digits)
    problems = np.random.default_rng(0).integers(0, task.num_problems, 20_000) if digits > 2 else np.arange(100)
    rng = np.random.default_rng(0)
    changed = [
        a != b
        for a, b in zip(
            task.demonstrate(problems, PERFECT, rng), task.demonstrate(problems, MISCONCEIVED, rng), strict=True
        )
    ]
    assert np.mean(changed) == pytest.approx(share, abs=0.02 if digits > 2 else 1e-12)


def test_a_demonstrator_verifies_as_well_as_it_generates() -> None:
    task = Addition(2)
    rng = np.random.default_rng(3)
    problems = rng.integers(0, task.num_problems, 5000)
    right = task.demonstrate(problems, PERFECT, rng)
    assert all(task.verify(problems, right, PERFECT, rng))
    accepted = np.sum(task.verify(problems, right, Skill(0.2, 0.0), rng))
    assert stats.binomtest(int(accepted), 5000, 0.8).pvalue > 1e-3
    wrong = [answer[:-1] + ("1" if answer[-1] == "0" else "0") for answer in right]
    assert not any(task.verify(problems, wrong, PERFECT, rng))


@pytest.mark.parametrize("field", ["slip", "misconception"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_a_skill_is_made_of_probabilities(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"skill.{field}"):
        Skill(**({"slip": 0.0, "misconception": 0.0} | {field: value}))


# --- splits -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("digits", [2, 3])
def test_splits_are_disjoint_complete_and_of_their_stated_shares(digits: int) -> None:
    task = Addition(digits)
    splits = {split: set(task.split_problems(split).tolist()) for split in SPLITS}
    for one, other in combinations(SPLITS, 2):
        assert not splits[one] & splits[other]
    assert set.union(*splits.values()) == set(range(task.num_problems))
    # a + b and b + a are one draw of a split
    counts = [len(np.unique(task.canonical(task.split_problems(split)))) for split in SPLITS]
    expected = [task.split_shares[split] * sum(counts) for split in SPLITS]
    assert stats.chisquare(counts, expected).pvalue > 1e-3


@pytest.mark.parametrize(("one", "other"), list(combinations(SPLITS, 2)))
def test_prompts_of_two_splits_never_meet_whatever_the_seeds(one: Split, other: Split) -> None:
    task = Addition(2)
    first = {p.id for p in task.prompts(one, 0, task.available(one), seed=0)}
    second = {p.id for p in task.prompts(other, 0, task.available(other), seed=1)}
    assert first
    assert second
    assert not first & second


def test_the_split_of_a_problem_does_not_depend_on_the_seed() -> None:
    task = Addition(2)
    sets = [{p.id for p in task.prompts("rounds", 0, task.available("rounds"), seed)} for seed in (0, 1)]
    assert sets[0] == sets[1]


def test_every_round_gets_fresh_prompts_and_together_they_are_the_split() -> None:
    task = Addition(2)
    size = task.available("rounds") // 5
    rounds = [task.prompts("rounds", index * size, size, seed=0) for index in range(5)]
    ids = [p.id for prompts in rounds for p in prompts]
    assert len(set(ids)) == 5 * size
    assert len({p.text for prompts in rounds for p in prompts}) == 5 * size


def test_the_order_depends_on_the_seed_and_not_on_what_was_asked_before() -> None:
    task = Addition(2)
    late = task.prompts("rounds", 100, 50, seed=0)
    assert task.prompts("rounds", 0, 150, seed=0)[100:] == late
    assert Addition(2).prompts("rounds", 100, 50, seed=0) == late
    assert task.prompts("rounds", 100, 50, seed=1) != late


def test_an_exhausted_split_is_said_to_be_exhausted() -> None:
    task = Addition(2)
    left = task.available("evaluation")
    assert len(task.prompts("evaluation", 0, left, seed=0)) == left
    for start, count in ((0, left + 1), (left, 1), (10 * left, 5)):
        with pytest.raises(ValueError, match=r"'evaluation' has \d+ problems"):
            task.prompts("evaluation", start, count, seed=0)
