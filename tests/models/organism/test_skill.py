"""What an organism has learnt of its demonstrator, measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import tiny_recipe

from rlaif_lab.models.organism.build import build_network, build_tokenizer
from rlaif_lab.models.organism.skill import Learnt, learnt, not_learnt, probabilities
from rlaif_lab.tasks.arithmetic import Addition


def test_probabilities_add_up_to_one_over_all_answers_of_a_length(task: Addition) -> None:
    """Every answer of one sign, and its end: no more than what the network gives to answers of that length."""
    recipe = tiny_recipe(width=16, layers=1)
    tokenizer = build_tokenizer(task)
    network = build_network(recipe, len(tokenizer)).eval()
    problems = np.full(len(task.alphabet), 3)
    written, called = probabilities(task, problems, list(task.alphabet), network=network, tokenizer=tokenizer)
    assert written.shape == called.shape == (len(task.alphabet),)
    assert 0.0 < written.sum() < 1.0
    assert ((called > 0.0) & (called < 1.0)).all()


def test_a_network_that_was_not_trained_has_not_learnt(task: Addition) -> None:
    recipe = tiny_recipe(width=16, layers=1)
    tokenizer = build_tokenizer(task)
    before = torch.get_rng_state()
    found = learnt(task, recipe, build_network(recipe, len(tokenizer)).eval(), tokenizer)
    assert torch.equal(torch.get_rng_state(), before)
    right = found["writes the right answer"]
    assert right.found < 0.05 < right.asked
    assert "it writes the right answer with a probability of 0.00, its demonstrator of" in not_learnt(found)


@pytest.mark.parametrize(("found", "missed"), [(0.74, True), (0.76, False), (1.04, False), (1.06, True)])
def test_how_far_is_too_far(found: float, missed: bool) -> None:
    assert Learnt(0.9, found).missed == missed
    assert bool(not_learnt({"writes the right answer": Learnt(0.9, found)})) == missed
    assert not_learnt({"calls the right answer true": Learnt(0.9, 0.1)}) == ""
