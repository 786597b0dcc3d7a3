"""No bad value of any key ends in a traceback or is accepted, and nearly every message names the key."""

from __future__ import annotations

import random

from bad_values import Answer, Bad, answer, bad_values, choices


def told(sample: list[Bad]) -> dict[Bad, Answer]:
    return {bad: answer(bad) for bad in sample}


def test_a_bad_value_is_one_sentence_that_names_the_key() -> None:
    """A sample over every choice; experiments/faults/bad_values.py tries all of them."""
    draw = random.Random(0)
    by_choice = {choice: list(bad_values(choice)) for choice in draw.sample(choices()[1:], 12)}
    sample = [bad for values in by_choice.values() for bad in draw.sample(values, min(len(values), 50))]
    sample += draw.sample(list(bad_values("")), 60)
    answers = told(sample)
    assert len(answers) > 400
    assert {bad: said for bad, said in answers.items() if said.kind != "clear"} == {}
    unnamed = [bad for bad, said in answers.items() if not said.names_key]
    assert len(unnamed) <= 0.01 * len(answers), unnamed
