"""SFT controls: what each of them imitates, and the weighted likelihood by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import generation, prompts_of, response

from learners.cases import batch_of
from rlaif_lab.feedback.base import Feedback
from rlaif_lab.learners.base import Learner
from rlaif_lab.learners.best_of_n import BestOfN
from rlaif_lab.learners.distil import Distil
from rlaif_lab.learners.filtered_sft import FilteredSFT
from rlaif_lab.learners.no_update import NoUpdate
from rlaif_lab.learners.revision_sft import RevisionSFT
from rlaif_lab.records import Generation, Revision

NAN = np.nan
SECOND_IS_BEST = np.array([[0.5, 0.2, 0.6], [0.8, 0.5, 0.9], [0.4, 0.1, 0.5]])
ALL_EQUAL = np.full((3, 3), 0.5)
ONE_UNJUDGED = np.array([[0.5, NAN, NAN], [NAN, 0.5, 0.9], [NAN, 0.1, 0.5]])
GENERATIONS = [generation(name, "a", "b", "c") for name in "pqr"]
THREE = Feedback(2, GENERATIONS, np.stack([SECOND_IS_BEST, ALL_EQUAL, ONE_UNJUDGED]))


def imitated(learner: Learner, given: Feedback) -> list[tuple[str, str]]:
    return [
        (e.prompt.text, r.text)
        for e in learner.examples(given)
        for r, w in zip(e.responses, e.signal, strict=True)
        if w
    ]


# --- examples -------------------------------------------------------------------------------------------------------
def test_best_of_n_imitates_the_first_of_the_best() -> None:
    assert imitated(BestOfN(), THREE) == [("p", "b"), ("q", "a")]
    assert [e.signal for e in BestOfN().examples(THREE)] == [(1.0,), (1.0,)]
    assert all(e.sampled and e.round_index == 2 for e in BestOfN().examples(THREE))


def test_hard_labels_of_best_of_n_count_wins() -> None:
    """b wins by more, a more often."""
    often = np.array([[0.5, 0.51, 0.51], [0.49, 0.5, 0.99], [0.49, 0.01, 0.5]])
    given = Feedback(0, GENERATIONS[:1], often[None])
    assert imitated(BestOfN(labels="hard"), given) == [("p", "a")]
    assert imitated(BestOfN(labels="soft"), given) == [("p", "b")]


@pytest.mark.parametrize("source", ["score", "reward_model"])
def test_best_of_n_by_score(source: str) -> None:
    given = Feedback(0, GENERATIONS[:2], THREE.prob_beats[:2], {"scores": np.array([[1.0, 2.0, 9.0], [NAN, 2.0, 1.0]])})
    assert imitated(BestOfN(reward=source), given) == [("p", "c")]  # type: ignore[arg-type]


def test_filtered_sft_imitates_all_that_pass_and_nothing_without_a_reward() -> None:
    # win rates of p: .4, .85, .25; of q: .5 each; of r: none, .9, .1
    assert imitated(FilteredSFT(threshold=0.75), THREE) == [("p", "b"), ("r", "b")]
    assert imitated(FilteredSFT(threshold=0.4), THREE) == [
        ("p", "a"),
        ("p", "b"),
        *[("q", x) for x in "abc"],
        ("r", "b"),
    ]
    assert [e.signal for e in FilteredSFT(threshold=0.4).examples(THREE)] == [(1, 1, 0), (1, 1, 1), (0, 1, 0)]
    assert imitated(FilteredSFT(threshold=0.95), THREE) == []


def test_filtered_sft_by_score() -> None:
    scores = np.array([[1.0, -2.0, 9.0], [NAN, -5.0, -3.0], [NAN] * 3])
    given = Feedback(0, GENERATIONS, THREE.prob_beats, {"scores": scores})
    assert imitated(FilteredSFT(threshold=-3.0, reward="score"), given) == [
        ("p", "a"),
        ("p", "b"),
        ("p", "c"),
        ("q", "c"),
    ]


def test_distil_imitates_the_judge_and_not_the_policy() -> None:
    answers = [generation("p", "x"), generation("q", "y")]
    examples = Distil().examples(Feedback(1, GENERATIONS, THREE.prob_beats, {"demonstrations": answers}))
    assert [(e.prompt.text, [r.text for r in e.responses]) for e in examples] == [("p", ["x"]), ("q", ["y"])]
    assert not any(e.sampled for e in examples)


def test_several_demonstrations_of_a_prompt_are_one_example() -> None:
    [example] = Distil().examples(Feedback(1, [], np.zeros((0, 2, 2)), {"demonstrations": [generation("p", "x", "y")]}))
    assert example.signal == (1.0, 1.0)


def test_revision_sft_imitates_what_was_rewritten() -> None:
    first, steps, last = response("a"), (("be kind", "it is not", "b"), ("be short", "it is", "c")), response("c")
    given = Feedback(
        1, GENERATIONS, THREE.prob_beats, {"revisions": [Revision(prompts_of(["p"])[0], first, steps, last)]}
    )
    [example] = RevisionSFT().examples(given)
    assert (example.prompt.text, example.responses, example.signal) == ("p", (last,), (1.0,))
    assert not example.sampled


def test_no_update_learns_from_nothing() -> None:
    assert NoUpdate().examples(THREE) == []


# --- the loss -------------------------------------------------------------------------------------------------------
LOGPS = torch.tensor([[[-1.0, -0.5, 0.0], [-2.0, 0.0, 0.0]], [[-0.2, -0.3, -0.4], [-1.0, -1.0, 0.0]]])
LENGTHS = [[2, 1], [3, 2]]


def test_the_weighted_likelihood_by_hand() -> None:
    batch = batch_of(LENGTHS, LOGPS, LOGPS, [[1.0, 0.0], [0.5, 2.0]])
    over_tokens, over_responses = FilteredSFT(normalise="token"), FilteredSFT(normalise="sequence")
    loss, logged = over_tokens.loss(LOGPS, batch)
    assert loss.item() == pytest.approx((1.5 + 0.5 * 0.9 + 2 * 2.0) / (2 + 0.5 * 3 + 2 * 2), rel=1e-6)
    assert logged["nll"].item() == pytest.approx(loss.item())
    assert over_tokens.weight(batch) == 7.5
    loss, _ = over_responses.loss(LOGPS, batch)
    assert loss.item() == pytest.approx((1.5 / 2 + 0.5 * 0.3 + 2 * 1.0) / 3.5, rel=1e-6)
    assert over_responses.weight(batch) == 3.5


def test_only_what_is_imitated_is_raised() -> None:
    logps = LOGPS.clone().requires_grad_(True)
    batch = batch_of(LENGTHS, LOGPS, LOGPS, [[1.0, 0.0], [0.0, 1.0]])
    FilteredSFT().loss(logps, batch)[0].backward()
    assert logps.grad is not None
    assert (logps.grad[0, 0, :2] < 0).all()
    assert logps.grad[0, 1].eq(0).all()
    assert logps.grad[1, 0].eq(0).all()


def test_best_of_n_says_where_a_round_starts() -> None:
    assert BestOfN().restart == "never"
    assert BestOfN(restart="base").restart == "base"


def test_the_generation_order_is_kept() -> None:
    given = Feedback(0, [Generation(g.prompt, g.responses) for g in GENERATIONS[::-1]], THREE.prob_beats[::-1])
    assert imitated(BestOfN(), given) == [("q", "a"), ("p", "b")]
