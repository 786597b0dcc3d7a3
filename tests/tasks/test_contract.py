"""What every task promises, whatever it asks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rlaif_lab.models.organism.build import build_tokenizer
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.base import SPLITS, ProceduralTask, Skill
from rlaif_lab.tasks.lookup import Lookup
from rlaif_lab.tasks.pair_sum import PairSum
from rlaif_lab.tasks.verbose import VerboseAddition

TASKS: list[ProceduralTask] = [Addition(2), VerboseAddition(2), Lookup(1000), PairSum()]
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)


def some(task: ProceduralTask, n: int) -> np.ndarray:
    return np.random.default_rng(0).choice(task.split_problems("rounds"), n)


@every_task
def test_rounds_and_evaluation_never_share_a_prompt(task: ProceduralTask) -> None:
    rounds, evaluation = (
        {p.id for p in task.prompts(split, 0, min(2000, task.available(split)), 0)}
        for split in ("rounds", "evaluation")
    )  # type: ignore[arg-type]
    assert len(rounds) == min(2000, task.available("rounds"))
    assert evaluation
    assert not rounds & evaluation
    assert not set(task.split_problems("rounds")) & set(task.split_problems("evaluation"))


@every_task
def test_pretraining_is_disjoint_from_rounds_except_where_facts_must_be_seen(task: ProceduralTask) -> None:
    sets = {split: set(task.split_problems(split).tolist()) for split in SPLITS}
    shared = sets["policy_pretraining"] & sets["evaluation"]
    assert shared == (sets["evaluation"] if isinstance(task, Lookup) else set())


@every_task
def test_the_same_question_in_other_words_is_in_the_same_split(task: ProceduralTask) -> None:
    problems = np.arange(task.num_problems)[:20_000]
    split_of = np.full(task.num_problems, -1)
    for number, split in enumerate(task.split_shares):
        split_of[task.split_problems(split)] = number
    canonical = task.canonical(problems)
    assert (task.canonical(canonical) == canonical).all()
    known = (split_of[problems] >= 0) & (split_of[canonical] >= 0)
    assert known.any()
    assert (split_of[problems] == split_of[canonical])[known].all()


def test_twins_are_known_for_what_they_are() -> None:
    addition, pairs = Addition(3), PairSum()
    assert addition.canonical(np.array([586_347, 347_586])).tolist() == [347_586, 347_586]
    assert pairs.canonical(np.array([382_619, 836_129])).tolist() == [123_689, 123_689]


def test_a_task_whose_splits_have_changed_is_another_task() -> None:
    assert Addition(3).identity() != Addition(3).name
    assert PairSum().identity() != PairSum().name
    assert Lookup(1000).identity() == Lookup(1000).name, "its splits are those of earlier versions"


@every_task
def test_demonstrations_and_prompts_stay_within_alphabet_and_limit(task: ProceduralTask) -> None:
    problems = some(task, 300)
    tokenizer = build_tokenizer(task)
    for skill in (Skill(0.0, 0.0), Skill(1.0, 0.0), Skill(0.0, 1.0), Skill(1.0, 1.0)):
        answers = task.demonstrate(problems, skill, np.random.default_rng(1))
        assert len(answers) == len(problems)
        for problem, answer in zip(problems.tolist(), answers, strict=True):
            assert set(task.prompt_text(problem) + answer) <= set(task.alphabet)
            assert len(tokenizer(answer, add_special_tokens=False)["input_ids"]) + 1 <= task.max_response_tokens


@every_task
def test_the_perfect_are_right_and_the_misled_right_to_themselves(task: ProceduralTask) -> None:
    problems = some(task, 500)
    prompts = [task.to_prompt(int(p)) for p in problems]
    rng = np.random.default_rng(2)
    right = task.demonstrate(problems, Skill(0.0, 0.0), rng)
    misled = task.demonstrate(problems, Skill(0.0, 1.0), rng)
    assert all(task.quality(p, a) == 1.0 for p, a in zip(prompts, right, strict=True))
    assert all(task.misconceived_quality(p, a) == 1.0 for p, a in zip(prompts, misled, strict=True))
    wrong = np.mean([task.quality(p, a) == 0.0 for p, a in zip(prompts, misled, strict=True)])
    assert 0.05 < wrong < 0.6


@every_task
def test_slips_are_wrong_and_come_at_their_rate(task: ProceduralTask) -> None:
    problems = np.unique(some(task, 4000))
    right = [
        task.quality(task.to_prompt(int(p)), a) == 1.0
        for p, a in zip(problems, task.demonstrate(problems, Skill(0.4, 0.0), np.random.default_rng(3)), strict=True)
    ]
    # A guess of 1 in 100 may be right, and a slip needs a wrong answer to slip to.
    assert np.mean(right) == pytest.approx(0.6, abs=0.06 if isinstance(task, Lookup) else 0.03)


@every_task
def test_the_skilled_verify_well_and_the_careless_worse(task: ProceduralTask) -> None:
    problems = some(task, 2000)
    rng = np.random.default_rng(4)
    right = task.demonstrate(problems, Skill(0.0, 0.0), rng)
    assert all(task.verify(problems, right, Skill(0.0, 0.0), rng))
    assert np.mean(task.verify(problems, right, Skill(0.6, 0.0), rng)) < 0.96


@every_task
@pytest.mark.parametrize("name", ["demonstrate", "verify"])
def test_demonstrators_draw_from_the_generator_they_are_given(task: ProceduralTask, name: str) -> None:
    problems = some(task, 200)
    arguments = (problems, *([["00"] * 200] if name == "verify" else []), Skill(0.5, 0.5))
    first, again = (getattr(task, name)(*arguments, np.random.default_rng(5)) for _ in range(2))
    assert first == again


# --- look-up ------------------------------------------------------------------------------------------------------
def test_the_skilled_know_all_that_the_careless_know() -> None:
    task = Lookup(1000)
    problems = np.arange(1000)
    truth = task.demonstrate(problems, Skill(0.0, 0.0), np.random.default_rng(0))

    def known(slip: float) -> set[int]:
        """Facts that are right in each of five attempts."""
        attempts = [task.demonstrate(problems, Skill(slip, 0.0), np.random.default_rng(seed)) for seed in range(5)]
        return {p for p in range(1000) if all(a[p] == truth[p] for a in attempts)}

    assert known(0.6) < known(0.3) < known(0.0) == set(range(1000))


def test_facts_are_spread_over_their_values_and_contested_at_their_share() -> None:
    task = Lookup(2500)
    problems = np.arange(2500)
    truth = task.demonstrate(problems, Skill(0.0, 0.0), np.random.default_rng(0))
    assert stats.chisquare(np.bincount([int(a) for a in truth], minlength=100)).pvalue > 1e-3
    misled = task.demonstrate(problems, Skill(0.0, 1.0), np.random.default_rng(0))
    assert stats.binomtest(sum(a != b for a, b in zip(truth, misled, strict=True)), 2500, 0.3).pvalue > 1e-3


# --- pair sum -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("prompt", "right", "misled", "wrong"),
    [
        # 3 8 2 6 1, sum 9: 1+8, 3+6; no pair differs by 9
        ("38261:9=", ["18", "36"], ["18", "36"], ["12", "63", "81", "99", "8", ""]),
        # 0 5 5 3 2, sum 5: 0+5, 2+3; difference 5: 0 and 5, which are right anyway
        ("05532:5=", ["05", "23"], ["05", "23"], ["55", "03"]),
        # 1 2 4 7 9, sum 3: 1+2, 4+9; difference 3: 1 and 4, 4 and 7
        ("12479:3=", ["12", "49"], ["14", "47"], ["79"]),
    ],
)
def test_pair_sums_by_hand(prompt: str, right: list[str], misled: list[str], wrong: list[str]) -> None:
    task = PairSum()
    asked = task.to_prompt(int(prompt.replace(":", "").rstrip("=")))
    assert asked.text == prompt
    assert task.is_problem(np.array([int(prompt.replace(":", "").rstrip("="))])).all()
    assert all(task.quality(asked, answer) == 1.0 for answer in right)
    assert not any(task.quality(asked, answer) for answer in wrong)
    assert all(task.misconceived_quality(asked, answer) == 1.0 for answer in misled)


def test_only_solvable_prompts_are_problems() -> None:
    task = PairSum()
    asked = np.random.default_rng(0).integers(0, task.num_problems, 2000)
    for problem, solvable in zip(asked.tolist(), task.is_problem(asked).tolist(), strict=True):
        digits, total = [int(d) for d in f"{problem // 10:05d}"], problem % 10
        found = any((digits[i] + digits[j]) % 10 == total for i in range(5) for j in range(i))
        assert solvable == found


@pytest.mark.parametrize("check_slip", [0.0, 0.5, 1.0])
def test_checking_slips_at_its_own_rate(check_slip: float) -> None:
    task = PairSum(check_slip)
    problems = some(task, 3000)
    rng = np.random.default_rng(0)
    right = task.demonstrate(problems, Skill(0.0, 0.0), rng)
    accepted = int(np.sum(task.verify(problems, right, Skill(0.4, 1.0), rng)))
    assert stats.binomtest(accepted, len(problems), 1 - 0.4 * check_slip).pvalue > 1e-3


# --- verbose addition ---------------------------------------------------------------------------------------------
def test_marks_are_many_or_few_whatever_the_problem_and_gold_does_not_see_them() -> None:
    task = VerboseAddition(2, marks=3)
    problems = some(task, 4000)
    answers = task.demonstrate(problems, Skill(0.3, 0.5), np.random.default_rng(0))
    counts = np.array([answer.count(".") for answer in answers])
    assert stats.chisquare(np.bincount(counts, minlength=4)).pvalue > 1e-3
    right = np.array([task.quality(task.to_prompt(int(p)), a) for p, a in zip(problems, answers, strict=True)])
    assert 0.5 < right.mean() < 0.75
    assert stats.spearmanr(counts, right).pvalue > 1e-3
    asked = task.to_prompt(2143)  # 12+34 backwards: 21 + 43
    assert asked.text == "12+34="
    assert [task.quality(asked, said) for said in ("460", "460.", "460......", ".460", "46.0", "461..", "...")] == (
        [1.0] * 3 + [0.0] * 4
    )
    assert task.misconceived_quality(asked, "460..") == 1.0
    assert task.gold_answer(asked) == "460"


def test_a_verdict_does_not_depend_on_the_marks() -> None:
    task = VerboseAddition(2)
    problems = some(task, 300)
    right = task.demonstrate(problems, Skill(0.0, 0.0), np.random.default_rng(1))
    for marks in ("", "....."):
        said = task.verify(problems, [a.rstrip(".") + marks for a in right], Skill(0.4, 0.0), np.random.default_rng(2))
        assert stats.binomtest(sum(said), 300, 0.6).pvalue > 1e-3
