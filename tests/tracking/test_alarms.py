"""Alarms: each is raised beyond its own limit, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif_lab.store.run_folder import RoundStore
from rlaif_lab.tracking.alarms import Watch
from rlaif_lab.tracking.base import NoTracker
from rlaif_lab.tracking.log import RoundLog

CALM = {
    "train/chosen_logp": -5.0,
    "train/chosen_logp_at_start": -5.5,
    "kl/per_sequence": 1.0,
    "entropy/per_token": 0.5,
    "text/mean_length": 10.0,
    "text/unfinished_rate": 0.1,
    "quality/sampled": 0.5,
    "judge/win_rate_vs_round_0": 0.5,
    "heldout_judge/win_rate_vs_round_0": 0.5,
    "audit/accuracy_frozen_slip": 0.8,
    "audit/accuracy_frozen_misconception": 0.5,
}
BEYOND = {
    "displacement": {"train/chosen_logp": -7.6},
    "kl": {"kl/per_sequence": 20.1},
    "entropy": {"entropy/per_token": 0.02},
    "length": {"text/mean_length": 20.5},
    "unfinished": {"text/unfinished_rate": 0.51},
    "hacked": {"quality/sampled": 0.44, "judge/win_rate_vs_round_0": 0.56},
    "judged_class": {"round": 0, "audit/accuracy_frozen_misconception": 0.29},
}


def test_no_alarm_without_a_cause() -> None:
    assert Watch().alarms(CALM, CALM) == {}
    assert Watch().alarms({"round": 3}, {}) == {}
    assert Watch().alarms(dict.fromkeys(CALM), CALM) == {}  # n/a is null in a row


@pytest.mark.parametrize(("name", "change"), BEYOND.items())
def test_each_limit_has_its_alarm(name: str, change: dict[str, float]) -> None:
    assert list(Watch().alarms(CALM | change, CALM)) == [name]
    assert Watch(**{name: None}).alarms(CALM | change, CALM) == {}
    assert name not in Watch(**{name: None}).names()


def test_over_optimised_takes_both() -> None:
    """Neither a win rate that rises with quality, nor a quality that falls with the win rate where it was."""
    for change in (
        {"quality/sampled": 0.1},
        {"judge/win_rate_vs_round_0": 0.9},
        {"quality/sampled": 0.9, "judge/win_rate_vs_round_0": 0.9},
        {"quality/sampled": 0.1, "judge/win_rate_vs_round_0": 0.1},
        {"quality/sampled": 0.47, "judge/win_rate_vs_round_0": 0.9},
    ):
        assert Watch().alarms(CALM | change, CALM) == {}


def test_without_gold_a_heldout_judge_speaks() -> None:
    first = CALM | {"quality/sampled": None}
    row = first | {"judge/win_rate_vs_round_0": 0.9, "heldout_judge/win_rate_vs_round_0": 0.4}
    assert "held-out judge's win rate fell from 0.500 to 0.400" in Watch().alarms(row, first)["hacked"]
    blind = {name: value for name, value in row.items() if not name.startswith("heldout")}
    assert Watch().alarms(blind, first) == {}


def test_a_class_that_the_judge_gets_wrong_is_named_before_training_only() -> None:
    wrong = CALM | {"audit/accuracy_frozen_misconception": 0.29}
    assert "0.290 of misconception" in Watch().alarms(wrong | {"round": 0}, CALM)["judged_class"]
    assert Watch().alarms(wrong | {"round": 1}, CALM) == {}


def test_length_may_neither_explode_nor_collapse() -> None:
    assert list(Watch(length=1.5).alarms(CALM | {"text/mean_length": 6.0}, CALM)) == ["length"]
    assert Watch(length=1.5).alarms(CALM | {"text/mean_length": 7.0}, CALM) == {}


@pytest.mark.parametrize("limits", [{"kl": -1}, {"entropy": -0.1}, {"length": 1.0}, {"displacement": -2}])
def test_bad_limits(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"watch.{next(iter(limits))}"):
        Watch(**limits)


def test_an_alarm_is_told_where_it_begins_and_logged_in_every_round(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    far, near = BEYOND["kl"], {"kl/per_sequence": 1.0}
    for index, change in enumerate([near, far, far, near, far]):
        # A store of its own each time: a resumed run goes on as one that was not cut off.
        RoundLog(RoundStore(tmp_path), NoTracker(), Watch(), "run")(CALM | change | {"round": index}, [])
    said = [line for line in capsys.readouterr().out.splitlines() if "alarm (kl)" in line]
    assert [line.partition("round ")[2][0] for line in said] == ["1", "4"]
    assert [row["alarm/kl"] for row in RoundStore(tmp_path).rows()] == [0.0, 1.0, 1.0, 0.0, 1.0]
