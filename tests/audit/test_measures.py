"""The measures of judges whose habits are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from helpers import generation, judgement

from audit.scripted import Says, bank, is_good, judge, knows
from rlaif_lab.audit import measures
from rlaif_lab.audit.in_loop import frozen_bank_metrics, on_policy_metrics
from rlaif_lab.audit.judged import Judged, judge_pairs, on_bank, on_policy, subset
from rlaif_lab.audit.measures import AuditMeasure, Section
from rlaif_lab.audit.pairs import LabelledPair
from rlaif_lab.records import Comparison


def judged(says: Says, pairs: list[LabelledPair]) -> Judged:
    return on_bank(pairs, judge_pairs(judge(says), pairs))


def get(section: Section, key: str) -> AuditMeasure:
    return next(m for m in section.measures if m.key == key)


def test_a_judge_that_knows() -> None:
    found = judged(knows, bank(40))
    accuracy = measures.accuracy(found)
    assert [m.value for m in accuracy.measures] == [1.0] * 5
    assert get(accuracy, "accuracy").n == 40
    calibration = measures.calibration(found)
    assert get(calibration, "brier").value == pytest.approx(0.01)
    assert get(calibration, "ece").value == pytest.approx(0.1)
    assert get(calibration, "overconfidence").value == pytest.approx(-0.1)
    position = measures.position(found)
    assert get(position, "same_slot_rate").value == 0.0
    assert math.isnan(get(position, "signed_position").value)
    assert get(position, "slot_one_probability").value == pytest.approx(0.5)


def test_a_judge_that_takes_slot_one() -> None:
    found = judged(lambda c: 0.8, bank(40))
    accuracy = measures.accuracy(found)
    assert get(accuracy, "accuracy").value == 0.5  # both orders averaged: a tie on every pair
    assert get(accuracy, "accuracy_both_orders").value == 0.0
    assert get(accuracy, "accuracy_better_first").value == 1.0
    assert get(accuracy, "accuracy_better_second").value == 0.0
    assert get(accuracy, "kappa").value == pytest.approx(0.0)
    position = measures.position(found)
    assert get(position, "same_slot_rate").value == 1.0
    assert (get(position, "signed_position").value, get(position, "slot_one_probability").value) == (1.0, 0.8)
    assert get(measures.bias(found), "b_position").value > 3
    assert get(measures.failures(found), "tie_rate").value == 1.0
    calibration = measures.calibration(found)
    assert get(calibration, "brier").value == 0.25  # what knowing nothing gets
    assert get(calibration, "ece").value == 0.0  # and that it says so


def test_a_judge_that_takes_the_longer() -> None:
    def longer(c: Comparison) -> float:
        return 0.5 if len(c.first) == len(c.second) else 0.95 if len(c.first) > len(c.second) else 0.05

    found = judged(longer, [*bank(30, True), *bank(30, False), *bank(10)])
    length = measures.length(found)
    assert get(length, "accuracy_longer_right").value == 1.0
    assert get(length, "accuracy_shorter_right").value == 0.0
    assert get(length, "longer_preferred").value == 1.0
    bias = measures.bias(found)
    assert get(bias, "b_length").value > 3
    assert abs(get(bias, "b_quality").value) < 1.5
    assert get(measures.accuracy(found), "accuracy").value == pytest.approx(0.5)


def test_failures_keep_their_status_and_are_no_label() -> None:
    def mute_on_bad_first(c: Comparison) -> float | None:
        return 0.9 if is_good(c.first) else None

    pairs = bank(20)
    judgements = judge_pairs(judge(mute_on_bad_first), pairs)
    found = on_bank(pairs, judgements)
    assert get(measures.failures(found), "invalid_rate").value == 1.0
    assert get(measures.accuracy(found), "accuracy").n == 0
    assert math.isnan(get(measures.accuracy(found), "accuracy").value)
    # One order was readable, and by itself right.
    assert get(measures.accuracy(found), "accuracy_better_first").value == 1.0
    assert get(measures.accuracy(found), "accuracy_better_second").n == 0


def test_cost_is_per_verdict() -> None:
    cost = measures.cost(judge_pairs(judge(knows), bank(5)))
    values = {m.key: m.value for m in cost.measures}
    assert values == {
        "verdicts": 10,
        "tokens_per_verdict": 10,
        "seconds_per_verdict": 0.5,
        "usd_per_verdict": 0.25,
        "tokens_total": 100,
        "seconds_total": 5.0,
        "usd_total": 2.5,
    }


def test_accuracy_by_subset() -> None:
    pairs = bank(20)
    wrong_on = {pair.comparison.prompt.id for pair in pairs if pair.subset == "kind 1"}
    found = judged(lambda c: knows(c) if c.prompt.id not in wrong_on else 1 - knows(c), pairs)
    by_group = measures.by_group(found, [pair.subset for pair in pairs])
    assert [(m.key, m.value, m.n) for m in by_group] == [("kind 0", 1.0, 10), ("kind 1", 0.0, 10)]
    only = subset(found, np.array([pair.subset == "kind 1" for pair in pairs]))
    assert len(only) == 10
    assert get(measures.accuracy(only), "accuracy").value == 0.0


def test_self_preference_needs_to_know_who_wrote_what() -> None:
    assert get(measures.authorship(judged(knows, bank(4))), "self_preference").missing == measures.NO_AUTHORS
    pairs = [
        LabelledPair(p.comparison, p.prob_first_is_better, "", author, author) if own else p
        for p, own, author in zip(bank(8), [True, False] * 4, ["me"] * 8, strict=True)
    ]
    # Both responses its own: no wrong vote for its own *over another's* can be told.
    found = on_bank(pairs, judge_pairs(judge(knows), pairs), "me")
    assert get(measures.authorship(found), "wrongly_own").n == 0
    assert get(measures.authorship(found), "wrongly_other").n == 4


# --- in the loop --------------------------------------------------------------------------------------------------
def test_metrics_on_a_frozen_bank() -> None:
    pairs = bank(40)
    scripted = judge(knows)
    found = frozen_bank_metrics(judge_pairs(scripted, pairs), pairs)
    assert len(scripted.asked) == 80
    assert found["audit/accuracy_frozen"] == 1.0
    assert found["audit/accuracy_frozen_kind_0"] == found["audit/accuracy_frozen_kind_1"] == 1.0
    assert found["audit/ece_frozen"] == pytest.approx(0.1)
    assert found["audit/same_slot_rate_frozen"] == 0.0
    assert found["audit/invalid_rate_frozen"] == 0.0
    assert math.isnan(found["audit/b_length_frozen"])
    assert all(key.startswith("audit/") and isinstance(value, float) for key, value in found.items())
    biased = frozen_bank_metrics(judge_pairs(judge(lambda c: 0.8), pairs), pairs)
    assert biased["audit/same_slot_rate_frozen"] == biased["audit/signed_position_frozen"] == 1.0
    assert biased.keys() == found.keys()


def test_drift_on_the_frozen_bank_is_a_change_of_verdicts_not_of_accuracy() -> None:
    pairs = bank(4)
    judgements = judge_pairs(judge(knows), pairs)
    now = np.array([j.prob_first_wins for j in judgements])
    turned = np.where(np.arange(4) < 2, now, 1.0 - now)
    turned[3] = np.nan
    found = [frozen_bank_metrics(judgements, pairs, first)["audit/stability_frozen"] for first in (now, turned)]
    assert found == [1.0, 0.5]
    assert "audit/stability_frozen" not in frozen_bank_metrics(judgements, pairs)


def test_metrics_on_policy_read_gold_by_prompt_and_sample() -> None:
    generations = [generation("1+1", "2", "3", "2"), generation("2+2", "5", "4")]
    qualities = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, np.nan]])
    judgements = [
        judgement(Comparison(generations[0].prompt, "2", "3"), 0, 1, 0.8),  # right
        judgement(Comparison(generations[1].prompt, "5", "4"), 0, 1, 0.7),  # wrong
    ]
    found = on_policy(judgements, generations, qualities)
    assert found.gold_difference.tolist() == [1.0, -1.0]
    metrics = on_policy_metrics(judgements, generations, qualities)
    assert metrics["audit/accuracy_on_policy"] == 0.5
    assert metrics["audit/brier_on_policy"] == pytest.approx((0.04 + 0.49) / 2)


def test_without_gold_what_needs_it_is_not_available_and_the_rest_is() -> None:
    generations = [generation(str(i), "a", "bb") for i in range(10)]
    judgements = [judgement(Comparison(g.prompt, "a", "bb"), 0, 1, 0.2) for g in generations]
    metrics = on_policy_metrics(judgements, generations, np.full((10, 2), np.nan))
    for key in ("accuracy", "kappa", "brier", "ece", "b_quality"):
        assert math.isnan(metrics[f"audit/{key}_on_policy"]), key
    assert metrics["audit/same_slot_rate_on_policy"] == 0.0
    assert metrics["audit/longer_preferred_on_policy"] == 1.0
    assert metrics["audit/b_length_on_policy"] > 1


def test_a_round_without_comparisons_has_nothing_to_measure() -> None:
    metrics = on_policy_metrics([], [generation("1", "a", "a")], np.array([[1.0, 1.0]]))
    assert all(math.isnan(value) for value in metrics.values())
