"""Judgements to win rates and to preference pairs, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import ScriptedJudge, generation, judgement, response

from rlaif_lab.feedback.matrices import preference_matrices, win_rates
from rlaif_lab.feedback.pairing import Pairing, make_pairs
from rlaif_lab.judges.asking import judge_generations
from rlaif_lab.records import Comparison, Floats, Generation, Prompt, Verdict

NAN = np.nan
MATRIX = np.array([[0.5, 0.9, 0.6], [0.1, 0.5, 0.5], [0.4, 0.5, 0.5]])


def matrix(*upper: float, k: int = 3) -> Floats:
    """From the entries above the diagonal, row by row."""
    made = np.full((k, k), 0.5)
    made[np.triu_indices(k, 1)] = upper
    made.T[np.triu_indices(k, 1)] = 1 - np.array(upper)
    return made


def pairs_of(made: Floats, pairing: Pairing, *texts: str) -> list[tuple[int, int, float]]:
    texts = texts or tuple("abcdefgh"[: len(made)])
    return [
        (p.sample_chosen, p.sample_rejected, round(p.prob_chosen_wins, 9))
        for p in make_pairs([generation("p", *texts)], made[None], pairing)
    ]


# --- matrices -----------------------------------------------------------------------------------------------------
def test_a_matrix_holds_each_verdict_both_ways_round() -> None:
    g = generation("p", "a", "b", "c")
    judged = [
        judgement(Comparison(g.prompt, "a", "b"), 0, 1, 0.9),
        judgement(Comparison(g.prompt, "c", "a"), 2, 0, 0.4),
    ]
    made = preference_matrices([g], judged)[0]
    np.testing.assert_allclose(made, [[0.5, 0.9, 0.6], [0.1, 0.5, NAN], [0.4, NAN, 0.5]])


def test_duplicates_share_one_verdict_and_tie_among_themselves() -> None:
    g = generation("p", "a", "b", "a")
    judge = ScriptedJudge(lambda c: Verdict(0.8 if c.first == "a" else 0.2))
    judgements = judge_generations(judge, [g])
    assert len(judgements) == 1
    np.testing.assert_allclose(preference_matrices([g], judgements)[0], matrix(0.8, 0.5, 0.2))


def test_judgements_find_their_prompt_whatever_their_order() -> None:
    first, second = generation("p", "a", "b"), generation("q", "a", "b")
    judged = [judgement(Comparison(g.prompt, "a", "b"), 0, 1, p) for g, p in ((second, 0.2), (first, 0.7))]
    assert [m[0, 1] for m in preference_matrices([first, second], judged)] == [0.7, 0.2]


def test_a_failed_judgement_is_no_verdict() -> None:
    g = generation("p", "a", "b")
    made = preference_matrices([g], [judgement(Comparison(g.prompt, "a", "b"), 0, 1, None)])[0]
    np.testing.assert_array_equal(made, [[0.5, NAN], [NAN, 0.5]])


# --- win rates ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("made", "hard", "expected"),
    [
        (MATRIX, False, [0.75, 0.3, 0.45]),
        (MATRIX, True, [1.0, 0.25, 0.25]),  # two wins; a loss and a tie; a loss and a tie
        (matrix(NAN, 0.8, 0.3), False, [0.8, 0.3, 0.45]),  # the mean over the verdicts there are
        (matrix(NAN, NAN, 0.3), False, [NAN, 0.3, 0.7]),
        (matrix(NAN, NAN, 0.3), True, [NAN, 0.0, 1.0]),
        (matrix(NAN, NAN, NAN), True, [NAN, NAN, NAN]),
        (matrix(0.5, 0.5, 0.5), True, [0.5, 0.5, 0.5]),
        (matrix(0.7, k=2), False, [0.7, 0.3]),
        (np.array([[0.5]]), False, [NAN]),
    ],
)
def test_win_rates_worked_out_by_hand(made: Floats, hard: bool, expected: list[float]) -> None:
    before = made.copy()
    np.testing.assert_allclose(win_rates(made, hard=hard), expected)
    np.testing.assert_array_equal(made, before)


def test_win_rates_of_a_stack_are_those_of_each() -> None:
    stack = np.stack([MATRIX, matrix(NAN, NAN, 0.3), matrix(NAN, NAN, NAN)])
    for hard in (False, True):
        np.testing.assert_array_equal(win_rates(stack, hard), [win_rates(made, hard) for made in stack])


def test_win_rates_average_one_half_whatever_the_judge_said() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        made = matrix(*rng.random(10), k=5)
        for hard in (False, True):
            assert win_rates(made, hard).mean() == pytest.approx(0.5)


# --- pairs --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("made", "strategy", "margin", "expected"),
    [
        (MATRIX, "best_vs_worst", 0.0, [(0, 1, 0.9)]),
        (MATRIX, "all_pairs", 0.0, [(0, 1, 0.9), (0, 2, 0.6)]),
        (MATRIX, "all_pairs", 0.1, [(0, 1, 0.9)]),
        (MATRIX, "all_pairs", 0.45, []),
        (1 - MATRIX, "best_vs_worst", 0.0, [(1, 0, 0.9)]),
        (1 - MATRIX, "all_pairs", 0.0, [(1, 0, 0.9), (2, 0, 0.6)]),
        (matrix(0.5, 0.5, 0.5), "best_vs_worst", 0.0, []),
        (matrix(0.5, 0.5, 0.5), "all_pairs", 0.0, []),
        (matrix(NAN, 0.8, 0.3), "best_vs_worst", 0.0, []),  # best 0, worst 1: never compared with each other
        (matrix(NAN, 0.8, 0.3), "all_pairs", 0.0, [(0, 2, 0.8), (2, 1, 0.7)]),
        (matrix(NAN, NAN, NAN), "best_vs_worst", 0.0, []),
        (matrix(NAN, NAN, NAN), "all_pairs", 0.0, []),
        # 0 has the best rate (.9 + .9 + .4) / 3 and 3 the worst (.6 + .1 + .1) / 3, but 3 beat 0.
        (matrix(0.9, 0.9, 0.4, 0.5, 0.9, 0.9, k=4), "best_vs_worst", 0.0, []),
    ],
)
def test_pairs_worked_out_by_hand(made: Floats, strategy: str, margin: float, expected: list) -> None:
    assert pairs_of(made, Pairing(strategy, margin)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("margin", [0.0, 0.1, 0.3])
def test_the_tie_margin_itself_is_a_tie(margin: float) -> None:
    assert pairs_of(matrix(0.5 + margin, k=2), Pairing("all_pairs", margin)) == []
    assert len(pairs_of(matrix(0.5 + margin + 1e-6, k=2), Pairing("all_pairs", margin))) == 1
    assert pairs_of(matrix(0.5 - margin, k=2), Pairing("all_pairs", margin)) == []


def test_duplicates_never_make_a_pair_nor_the_same_pair_twice() -> None:
    made = matrix(0.8, 0.5, 0.2)  # a, b, a
    assert pairs_of(made, Pairing("all_pairs"), "a", "b", "a") == [(0, 1, 0.8)]
    assert pairs_of(made, Pairing("best_vs_worst"), "a", "b", "a") == [(0, 1, 0.8)]


@pytest.mark.parametrize("strategy", ["best_vs_worst", "all_pairs"])
def test_the_chosen_one_always_won_its_direct_comparison(strategy: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        made = matrix(*np.where(rng.random(6) < 0.2, NAN, rng.random(6)), k=4)
        for chosen, rejected, probability in pairs_of(made, Pairing(strategy)):  # type: ignore[arg-type]
            assert chosen != rejected
            assert probability == round(made[chosen, rejected], 9) > 0.5


# --- budget -------------------------------------------------------------------------------------------------------
def round_of(n: int, seed: int = 0, k: int = 3) -> tuple[list[Generation], Floats]:
    rng = np.random.default_rng(seed)
    texts = "abcdefgh"[:k]
    generations = [Generation(Prompt(f"p{i}", f"{i}="), tuple(response(t) for t in texts)) for i in range(n)]
    return generations, np.stack([matrix(*rng.uniform(0.05, 0.45, k * (k - 1) // 2), k=k) for _ in range(n)])


@pytest.mark.parametrize("strategy", ["best_vs_worst", "all_pairs"])
@pytest.mark.parametrize("budget", [1, 7, 40, 10_000])
def test_a_budget_is_kept_exactly_and_in_order(strategy: str, budget: int) -> None:
    generations, matrices = round_of(40)
    free = make_pairs(generations, matrices, Pairing(strategy), 0, 1)  # type: ignore[arg-type]
    kept = make_pairs(generations, matrices, Pairing(strategy, budget=budget), 0, 1)  # type: ignore[arg-type]
    assert len(kept) == min(budget, len(free))
    assert [p for p in free if p in kept] == kept


def test_the_budget_is_drawn_anew_each_round_and_evenly_over_prompts() -> None:
    generations, matrices = round_of(100)
    drawn = [make_pairs(generations, matrices, Pairing(budget=20), 0, index) for index in range(100)]
    assert drawn[0] != drawn[1]
    assert make_pairs(generations, matrices, Pairing(budget=20), 0, 0) == drawn[0]
    counts = np.bincount([int(p.prompt.id[1:]) for pairs in drawn for p in pairs], minlength=100)
    assert counts.min() >= 5
    assert counts.max() <= 40


def test_the_budget_does_not_depend_on_the_order_of_prompts() -> None:
    generations, matrices = round_of(60)
    forwards = make_pairs(generations, matrices, Pairing(budget=15), 0)
    assert make_pairs(generations[::-1], matrices[::-1], Pairing(budget=15), 0) == forwards[::-1]


@pytest.mark.parametrize("strategy", ["best_vs_worst", "all_pairs"])
def test_two_judges_with_opposite_tastes_keep_pairs_of_the_same_comparisons(strategy: str) -> None:
    """Which pairs are kept is decided by identity, not by the judge, so that arms differ in nothing else."""
    generations, matrices = round_of(60)
    pairing = Pairing(strategy, budget=15)  # type: ignore[arg-type]
    kept = [
        {(p.prompt.id, *sorted((p.sample_chosen, p.sample_rejected))) for p in make_pairs(generations, m, pairing, 0)}
        for m in (matrices, 1 - matrices)
    ]
    assert kept[0] == kept[1]


def test_two_judges_keep_the_same_prompts() -> None:
    kept = [{p.prompt.id for p in make_pairs(*round_of(60, seed), Pairing(budget=15), 0)} for seed in (0, 1)]
    assert kept[0] == kept[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strategy": "best"}, "pairing.strategy"),
        ({"tie_margin": 0.5}, "pairing.tie_margin"),
        ({"tie_margin": -0.1}, "pairing.tie_margin"),
        ({"budget": 0}, "pairing.budget"),
    ],
)
def test_impossible_settings_are_refused_by_name(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pairing(**arguments)
