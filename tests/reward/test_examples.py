"""Judgements become examples, examples groups, and a prompt is only ever on one side of the split."""

from __future__ import annotations

from dataclasses import replace

from helpers import generation, judgement

from rlaif_lab.records import Comparison
from rlaif_lab.reward.examples import RewardExample, examples_from, grouped, split_by_prompt

ONE = generation("1+1=", "2", "3", "4")
TWO = generation("2+2=", "4", "5", "5")


def judged(g, i: int, j: int, probability: float | None):  # type: ignore[no-untyped-def]
    return judgement(Comparison(g.prompt, g.responses[i].text, g.responses[j].text), i, j, probability)


def test_one_example_per_preference_and_none_for_ties_and_failures() -> None:
    judgements = [judged(ONE, 0, 1, 0.9), judged(ONE, 0, 2, 0.25), judged(ONE, 1, 2, 0.5), judged(TWO, 0, 1, None)]
    assert examples_from(3, [ONE, TWO], judgements) == [
        RewardExample(ONE.prompt, ONE.responses[0], ONE.responses[1], 0.9, 3),
        RewardExample(ONE.prompt, ONE.responses[2], ONE.responses[0], 0.75, 3),
    ]


def test_groups_hold_each_response_once() -> None:
    judgements = [judged(ONE, 0, 1, 0.9), judged(TWO, 1, 0, 0.6), judged(ONE, 1, 2, 0.2), judged(ONE, 0, 2, 0.7)]
    one, two = grouped(examples_from(0, [ONE, TWO], judgements))
    assert one.prompt is ONE.prompt
    assert one.answers == (("2", True), ("3", True), ("4", True))
    assert one.pairs == ((0, 1, 0.9), (2, 1, 0.8), (0, 2, 0.7))
    assert two.answers == (("5", True), ("4", True))
    assert two.pairs == ((0, 1, 0.6),)


def test_a_cut_off_response_is_another_answer_than_the_finished_one() -> None:
    done = ONE.responses[0]
    example = RewardExample(ONE.prompt, done, replace(done, finished=False), 0.8, 0)
    assert grouped([example])[0].answers == (("2", True), ("2", False))


def test_rounds_are_grouped_apart() -> None:
    examples = [e for i in (0, 1) for e in examples_from(i, [ONE], [judged(ONE, 0, 1, 0.9)])]
    assert len(grouped(examples)) == 2


def test_a_prompt_is_on_the_same_side_in_every_round() -> None:
    generations = [generation(f"{i}+{i}=", "1", "2") for i in range(400)]
    sides = []
    for i in (0, 5):
        groups = grouped(examples_from(i, generations, [judged(g, 0, 1, 0.9) for g in generations]))
        learnt, held_out = split_by_prompt(groups, 0.2, seed=7)
        assert len(learnt) + len(held_out) == 400
        sides.append({g.prompt.id for g in held_out})
    assert sides[0] == sides[1]
    assert 50 < len(sides[0]) < 110  # 80 expected, standard deviation 8


def test_the_share_may_be_nothing() -> None:
    groups = grouped(examples_from(0, [ONE], [judged(ONE, 0, 1, 0.9)]))
    assert split_by_prompt(groups, 0.0, seed=0) == (groups, [])
