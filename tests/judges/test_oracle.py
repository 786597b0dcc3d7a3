"""Judges of known competence: right, wrong at a stated rate, and blind."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from helpers import ScriptedJudge, attached, generation
from scipy import stats

from rlaif_lab.feedback.matrices import preference_matrices
from rlaif_lab.judges.asking import both_orders, debias, judge_generations
from rlaif_lab.judges.oracle import NoisyOracleJudge, OracleJudge, RandomJudge, ReversedJudge
from rlaif_lab.metrics.gap import pairwise_gap
from rlaif_lab.records import Comparison, Generation, Prompt, Verdict
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.base import Skill

PROMPT = Prompt("addition2/43+65=", "43+65=")  # 34 + 56 = 90; under the misconception 80
RIGHT, MISLED, WRONG, WORSE = "090", "080", "091", "555"


def probability(judge: object, comparison: Comparison) -> float | None:
    shown_first, shown_second = both_orders(judge, [comparison])[0]  # type: ignore[arg-type]
    return debias(comparison, 0, 1, shown_first, shown_second).prob_first_wins


def attempts(task: Addition, skill: Skill, n: int, k: int) -> list[Generation]:
    """What demonstrators of this skill answer to n prompts, k times each."""
    rng = np.random.default_rng(0)
    problems = rng.permutation(task.num_problems)[:n]
    columns = [task.demonstrate(problems, skill, rng) for _ in range(k)]
    return [
        Generation(prompt := task.to_prompt(int(p)), generation(prompt.text, *texts).responses)
        for p, *texts in zip(problems, *columns, strict=True)
    ]


def accuracy(task: Addition, judge: object, generations: list[Generation]) -> float:
    judgements = judge_generations(judge, generations)  # type: ignore[arg-type]
    qualities = np.array([[task.quality(g.prompt, r.text) for r in g.responses] for g in generations])
    return pairwise_gap(qualities, preference_matrices(generations, judgements)).accuracy


# --- oracle -------------------------------------------------------------------------------------------------------
def test_the_oracle_always_agrees_with_gold(task: Addition) -> None:
    generations = attempts(task, Skill(0.5, 0.5), 300, 4)
    assert accuracy(task, attached(OracleJudge(), task), generations) == 1.0
    assert accuracy(task, attached(ReversedJudge(OracleJudge()), task), generations) == 0.0


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [(RIGHT, WRONG, Verdict(1.0)), (WRONG, RIGHT, Verdict(0.0)), (WRONG, WORSE, Verdict(0.5, "tie"))],
)
def test_the_oracles_verdicts(task: Addition, first: str, second: str, verdict: Verdict) -> None:
    assert attached(OracleJudge(), task).verdicts([Comparison(PROMPT, first, second)]) == [verdict]


# --- random -------------------------------------------------------------------------------------------------------
def test_a_random_judge_is_a_fair_coin_per_pair() -> None:
    judge = attached(RandomJudge())
    comparisons = [Comparison(Prompt(f"p{i}", "12+34="), str(i % 17), str(100 + i % 13)) for i in range(5000)]
    values = [probability(judge, c) for c in comparisons]
    assert set(values) == {0.0, 1.0}
    assert stats.binomtest(values.count(1.0), len(values)).pvalue > 1e-3
    # Consecutive verdicts are independent of each other.
    table = np.histogram2d(values[:-1], values[1:], bins=2)[0]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_a_random_judge_is_independent_of_gold(task: Addition) -> None:
    generations = attempts(task, Skill(0.5, 0.5), 1500, 2)
    share = accuracy(task, attached(RandomJudge()), generations)
    decided = sum(len({task.quality(g.prompt, r.text) for r in g.responses}) == 2 for g in generations)
    assert stats.binomtest(round(share * decided), decided).pvalue > 1e-3


def test_a_random_judge_draws_anew_for_each_seed_and_each_prompt() -> None:
    comparisons = [Comparison(Prompt(f"p{i}", "12+34="), "1", "2") for i in range(400)]
    one, same, other = (
        [v.prob_first_wins for v in attached(RandomJudge(), seed=s).verdicts(comparisons)] for s in (0, 0, 1)
    )
    assert one == same
    assert 0.4 < np.mean(np.array(one) == other) < 0.6


# --- noise --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("flip", [0.0, 0.2, 0.5, 1.0])
def test_unsystematic_errors_come_at_their_rate_in_both_orders_alike(task: Addition, flip: float) -> None:
    judge = attached(NoisyOracleJudge(flip=flip), task)
    comparisons = [
        Comparison(task.to_prompt(i), task.demonstrate(np.array([i]), Skill(0, 0), np.random.default_rng())[0], "xxx")
        for i in range(3000)
    ]
    pairs = both_orders(judge, comparisons)
    assert all(a.prob_first_wins == 1.0 - b.prob_first_wins for a, b in pairs)
    wrong = sum(a.prob_first_wins == 0.0 for a, _ in pairs)
    assert stats.binomtest(wrong, len(pairs), flip).pvalue > 1e-3


def test_flips_are_independent_across_pairs_of_one_prompt(task: Addition) -> None:
    judge = attached(NoisyOracleJudge(flip=0.3), task)
    wrong = [f"{i:03d}" for i in range(1000) if i != 90]
    flipped = [v.prob_first_wins == 0.0 for v in judge.verdicts([Comparison(PROMPT, RIGHT, text) for text in wrong])]
    assert stats.binomtest(sum(flipped), len(flipped), 0.3).pvalue > 1e-3


def test_ties_have_nothing_to_flip(task: Addition) -> None:
    assert probability(attached(NoisyOracleJudge(flip=1.0), task), Comparison(PROMPT, WRONG, WORSE)) == 0.5


def test_a_misled_judge_prefers_the_misconceived_answer(task: Addition) -> None:
    judge = attached(NoisyOracleJudge(misconception=1.0), task)
    assert probability(judge, Comparison(PROMPT, RIGHT, MISLED)) == 0.0
    assert probability(judge, Comparison(PROMPT, MISLED, WRONG)) == 1.0
    assert probability(judge, Comparison(PROMPT, RIGHT, WRONG)) == 0.5  # both wrong to it


def test_systematic_errors_stick_to_a_prompt(task: Addition) -> None:
    judge = attached(NoisyOracleJudge(misconception=0.4), task)
    prompts = [Prompt(f"p{i}", PROMPT.text) for i in range(2000)]
    against_misled = [probability(judge, Comparison(p, RIGHT, MISLED)) for p in prompts]
    against_wrong = [probability(judge, Comparison(p, MISLED, WRONG)) for p in prompts]
    assert stats.binomtest(against_misled.count(0.0), len(prompts), 0.4).pvalue > 1e-3
    assert [value == 0.0 for value in against_misled] == [value == 1.0 for value in against_wrong]


@pytest.mark.parametrize("field", ["flip", "misconception"])
@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_error_rates_are_probabilities(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"judge.{field}"):
        NoisyOracleJudge(**{field: value})


# --- every judge --------------------------------------------------------------------------------------------------
JUDGES = {
    "oracle": OracleJudge,
    "flip": lambda: NoisyOracleJudge(flip=0.3),
    "misled": lambda: NoisyOracleJudge(misconception=0.5),
    "random": RandomJudge,
    "reversed oracle": lambda: ReversedJudge(OracleJudge()),
    "reversed random": lambda: ReversedJudge(RandomJudge()),
}


@pytest.mark.parametrize("name", JUDGES)
def test_swapping_flips_the_probability_exactly_and_twins_tie(task: Addition, name: str) -> None:
    judge = attached(JUDGES[name](), task)
    for i in range(40):
        prompt = Prompt(f"p{i}", PROMPT.text)
        for first, second in combinations((RIGHT, MISLED, WRONG, WORSE), 2):
            comparison = Comparison(prompt, first, second)
            p = probability(judge, comparison)
            assert p is not None
            assert probability(judge, comparison.swapped()) == 1.0 - p
        assert probability(judge, Comparison(prompt, RIGHT, RIGHT)) == 0.5


def test_reversing_turns_every_verdict_round_and_keeps_failures(task: Addition) -> None:
    said = iter([Verdict(0.8, raw="A"), Verdict(None, "invalid", raw="hm"), Verdict(0.5, "tie")])
    judge = attached(ReversedJudge(ScriptedJudge(lambda c: next(said))))
    verdicts = judge.verdicts([Comparison(PROMPT, "1", "2")] * 3)
    assert [v.prob_first_wins for v in verdicts] == [pytest.approx(0.2), None, 0.5]
    assert [(v.status, v.raw) for v in verdicts] == [("ok", "A"), ("invalid", "hm"), ("tie", None)]


def test_reversing_asks_for_gold_only_if_the_other_does() -> None:
    assert ReversedJudge(OracleJudge()).sees_gold
    assert not ReversedJudge(RandomJudge()).sees_gold
    assert "oracle" in ReversedJudge(OracleJudge()).describe()
