"""Alarms: each is raised beyond its own limit, and by nothing else."""

from __future__ import annotations

import pytest

from rlaif_lab.tracking.alarms import Watch

CALM = {
    "train/chosen_logp": -5.0,
    "train/chosen_logp_at_start": -5.5,
    "kl/per_sequence": 1.0,
    "entropy/per_token": 0.5,
    "text/mean_length": 10.0,
    "text/unfinished_rate": 0.1,
}
BEYOND = {
    "displacement": {"train/chosen_logp": -7.6},
    "kl": {"kl/per_sequence": 20.1},
    "entropy": {"entropy/per_token": 0.02},
    "length": {"text/mean_length": 20.5},
    "unfinished": {"text/unfinished_rate": 0.51},
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


def test_length_may_neither_explode_nor_collapse() -> None:
    assert list(Watch(length=1.5).alarms(CALM | {"text/mean_length": 6.0}, CALM)) == ["length"]
    assert Watch(length=1.5).alarms(CALM | {"text/mean_length": 7.0}, CALM) == {}


@pytest.mark.parametrize("limits", [{"kl": -1}, {"entropy": -0.1}, {"length": 1.0}, {"displacement": -2}])
def test_bad_limits(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"watch.{next(iter(limits))}"):
        Watch(**limits)
