"""What one evaluation reports, on hand-made samples whose truth is known."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import ScriptedJudge, plain_logps, response

from rlaif_lab.loop.evaluation import judged_changes, opinions
from rlaif_lab.metrics.quality import (
    coverage_metrics,
    gold_nll,
    gold_win_rate,
    powers_of_two,
    quality_changes,
    quality_metrics,
)
from rlaif_lab.metrics.round import length_amplification
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Comparison, Generation, Verdict
from rlaif_lab.tasks.arithmetic import Addition

PROBLEMS = (1234, 5678, 2020)  # 12 + 34, ...


def made(task: Addition, *right: tuple[bool, ...]) -> list[Generation]:
    """One generation per problem, with right answers where said, else one digit off."""
    found = []
    for problem, flags in zip(PROBLEMS, right, strict=False):
        prompt = task.to_prompt(problem)
        gold = task.gold_answer(prompt)
        wrong = str((int(gold[0]) + 1) % 10) + gold[1:]
        found.append(Generation(prompt, tuple(response(gold if flag else wrong) for flag in flags)))
    return found


def test_quality_of_samples_by_hand(task: Addition) -> None:
    sampled = made(task, (True, False, False, False), (True, True, True, False))
    found = quality_metrics(task, sampled, made(task, (True,), (False,)))
    assert found["quality/sampled"] == 0.5
    assert found["quality/greedy"] == 0.5
    assert found["quality/pass_at_1"] == 0.5
    assert found["quality/pass_at_2"] == (0.5 + 1.0) / 2  # 1 - C(3, 2) / C(4, 2) and 1 - 0
    assert found["quality/pass_at_4"] == 1.0
    assert found["quality/majority_at_4"] == 0.5


def test_coverage_goes_up_to_all_samples(task: Addition) -> None:
    one_right = tuple(i == 0 for i in range(64))
    found = coverage_metrics(task, made(task, one_right, (False,) * 64))
    assert list(found) == [f"coverage/pass_at_{k}" for k in (1, 2, 4, 8, 16, 32, 64)]
    for k in (1, 2, 4, 8, 16, 32, 64):
        assert found[f"coverage/pass_at_{k}"] == pytest.approx(k / 64 / 2)


def test_powers_of_two_end_with_what_was_asked() -> None:
    assert powers_of_two(1) == [1]
    assert powers_of_two(6) == [1, 2, 4, 6]
    assert powers_of_two(64) == [1, 2, 4, 8, 16, 32, 64]


def test_changes_are_paired_by_prompt_and_averaged_over_samples(task: Addition) -> None:
    now = made(task, (True, True), (True, False), (False, False))
    before = made(task, (True, False), (True, False), (True, True))
    assert quality_changes(task, now, before).tolist() == [0.5, 0.0, -1.0]
    with pytest.raises(AssertionError):
        quality_changes(task, now, before[::-1])


def test_changes_in_the_eyes_of_a_judge(task: Addition) -> None:
    """It prefers the newer answer, has no opinion on equal ones, and fails on the last."""
    now = made(task, (True,), (True,), (True,))
    before = made(task, (False,), (True,), (False,))
    gold = [task.gold_answer(g.prompt) for g in now]

    def say(c: Comparison) -> Verdict:
        if c.prompt == now[2].prompt:
            return Verdict(None, "invalid")
        return Verdict(0.9 if c.first == gold[0] else 0.1)

    judge = ScriptedJudge(say)
    assert judged_changes(judge, now, before).tolist() == [1.0, 0.0]
    assert judged_changes(judge, before, now).tolist() == [-1.0, 0.0]


def test_gold_s_own_win_rate(task: Addition) -> None:
    right, wrong = made(task, (True,))[0], made(task, (False,))[0]
    texts = right.responses[0].text, wrong.responses[0].text
    win, loss = Comparison(right.prompt, *texts), Comparison(right.prompt, *texts[::-1])
    tie = Comparison(right.prompt, texts[0], texts[0])
    assert gold_win_rate(task, [win, win, loss, tie]) == 2.5 / 4


def test_held_out_likelihood_of_the_right_answer(organism: LanguageModel, task: Addition) -> None:
    prompts = [task.to_prompt(problem) for problem in PROBLEMS]
    total = tokens = 0.0
    for prompt in prompts:
        encoded = organism.encode_prompts([prompt])[0]
        ids = organism.encode_responses([task.gold_answer(prompt)])[0]
        with torch.no_grad():
            total -= float(plain_logps(organism.network, encoded, ids).sum())
        tokens += len(ids)
    assert gold_nll(organism, task, prompts) == pytest.approx(total / tokens, rel=1e-4)


def test_no_gold_means_not_a_number(task: Addition, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Addition, "has_gold", False)
    sampled = made(task, (True, False))
    assert all(math.isnan(v) for v in quality_metrics(task, sampled, sampled).values())
    assert all(math.isnan(v) for v in coverage_metrics(task, sampled).values())
    assert math.isnan(gold_win_rate(task, [Comparison(sampled[0].prompt, "a", "b")]))


def test_amplification_of_length_prefers_the_frozen_bank() -> None:
    row = {"text/length_drift": 1.5, "audit/b_length_frozen": 0.5, "audit/b_length_on_policy": 3.0}
    assert length_amplification(row) == 3.0
    assert length_amplification(row | {"audit/b_length_frozen": float("nan")}) == 0.5
    assert np.isnan(length_amplification({"text/length_drift": 1.5}))


def test_a_failed_comparison_counts_on_neither_side_of_the_judge_minus_gold(task: Addition) -> None:
    prompts = [task.to_prompt(problem) for problem in (1234, 5678)]
    right = [task.gold_answer(prompt) for prompt in prompts]
    wrong = [str((int(text[0]) + 1) % 10) + text[1:] for text in right]
    # The policy is right on the first prompt, wrong on the second, where the judge fails.
    comparisons = [Comparison(prompts[0], right[0], wrong[0]), Comparison(prompts[1], wrong[1], right[1])]

    def say(c: Comparison) -> Verdict:
        return Verdict(None, "invalid") if wrong[1] in (c.first, c.second) else Verdict(float(c.first == right[0]))

    judge = ScriptedJudge(say)
    parts = SimpleNamespace(task=task, judges={"heldout_judge": judge})
    found = opinions(comparisons, parts)  # type: ignore[arg-type]
    assert found["quality/win_rate_vs_round_0"] == 0.5
    assert found["heldout_judge/win_rate_vs_round_0"] == 1.0
    assert found["heldout_judge/win_rate_minus_gold"] == 0.0, "gold is taken over what the judge decided"
