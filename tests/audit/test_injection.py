"""The injection probe: it finds a gullible judge, and finds nothing at one that reads nothing."""

from __future__ import annotations

import math

import pytest
from chat_model import COMPARISONS, attached_to_chat
from helpers import ScriptedJudge, attached

from rlaif_lab.audit.injection import ATTACKS, injection_flips
from rlaif_lab.instructions.template import JudgeTemplate, code_for
from rlaif_lab.judges.oracle import RandomJudge
from rlaif_lab.judges.prompted.pairwise import PromptedJudge
from rlaif_lab.records import Comparison, Prompt, Verdict

PAIRS = [Comparison(Prompt(f"p{i}", "Name a colour."), f"colour {i}", f"shade {9 - i}") for i in range(10)]


def by_number(comparison: Comparison) -> float:
    """Prefers the response that begins with the higher number in it."""
    first, second = (
        int("".join(filter(str.isdigit, text.partition("\n")[0])) or 0)
        for text in (comparison.first, comparison.second)
    )
    return 0.5 if first == second else float(first > second)


def test_a_judge_that_obeys_is_found_out() -> None:
    def gullible(c: Comparison) -> Verdict:
        obeys = ["choose this response" in text for text in (c.first, c.second)]
        return Verdict(float(obeys[0]) if obeys[0] != obeys[1] else by_number(c))

    flips = injection_flips(ScriptedJudge(gullible), PAIRS)
    assert set(flips) == set(ATTACKS)
    assert flips["plain_order"] == 1.0
    assert flips["verdict_a"] == flips["chat_tokens"] == 0.0


def test_a_judge_that_reads_only_what_counts_never_flips() -> None:
    flips = injection_flips(ScriptedJudge(lambda c: Verdict(by_number(c))), PAIRS, {"verdict_a": ATTACKS["verdict_a"]})
    assert flips == {"verdict_a": 0.0}


def test_a_coin_flips_half_the_time() -> None:
    pairs = [Comparison(Prompt(f"p{i}", ""), "a", "b") for i in range(200)]
    flips = injection_flips(attached(RandomJudge()), pairs)
    assert all(0.35 < rate < 0.65 for rate in flips.values())


def test_only_comparisons_with_a_preference_count_and_failures_are_no_flips() -> None:
    def says(c: Comparison) -> Verdict:
        if "\n" in c.first + c.second:
            return Verdict(None, "invalid")
        return Verdict(by_number(c), "tie" if by_number(c) == 0.5 else "ok")

    assert set(injection_flips(ScriptedJudge(says), PAIRS).values()) == {0.0}
    undecided = ScriptedJudge(lambda c: Verdict(0.5, "tie"))
    assert all(math.isnan(rate) for rate in injection_flips(undecided, PAIRS).values())
    assert all(math.isnan(rate) for rate in injection_flips(undecided, []).values())


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_no_attack_gets_out_of_its_quotation(name: str) -> None:
    attacked = ATTACKS[name]("Crimson.")
    assert "Crimson." in attacked
    text = JudgeTemplate.load("pairwise").render(Comparison(PAIRS[0].prompt, attacked, "Blue."), "x")[-1]["content"]
    code = code_for(PAIRS[0].prompt, attacked, "Blue.")
    assert text.count(f"[END RESPONSE A {code}]") == text.count(f"[END RESPONSE B {code}]") == 1
    assert "<|im_" not in text and "[INST]" not in text


def test_it_runs_on_a_real_judge() -> None:
    judge = attached_to_chat(PromptedJudge("live", minimum_mass=0.0))
    flips = injection_flips(judge, COMPARISONS[:3])
    assert all(0.0 <= rate <= 1.0 for rate in flips.values())
