"""The detector's callback: the trend of what the rounds gained, its state, and when it ends a run."""

from __future__ import annotations

import numpy as np

from rlaif_lab.loop.callbacks import PlateauDetector
from rlaif_lab.plateau.detector import Detector
from rlaif_lab.seeding import rng_for


def weighed(detector: Detector, gains: list[float]) -> PlateauDetector:
    """After so many rounds of 4000 prompts each, whose changes have exactly these means."""
    callback, rng = PlateauDetector(detector), rng_for("callback")
    for index, gain in enumerate(gains, start=1):
        changes = rng.permutation(np.concatenate([np.full(2000, gain - 0.3), np.full(2000, gain + 0.3)]))
        assert callback.weigh(index, changes) is not None
    return callback


def test_the_trend_is_logged_beside_the_detector_of_single_rounds() -> None:
    callback = weighed(Detector(horizon=40), [0.04] * 3)
    row = callback.metrics_of(3)
    assert {"detector/plateau_evidence", "trend/plateau_evidence", "trend/gain"} <= set(row)
    assert row["trend/plateau_alarm"] == 0.0
    assert callback.metrics_of(1) == {}, "only the last two rounds are held"


def test_a_run_ends_when_the_trend_has_plateaued_and_not_for_one_bad_round() -> None:
    stopping = Detector(horizon=40, stop_on_plateau=True)
    bad = weighed(stopping, [0.04] * 6 + [-0.05])
    assert "plateaued" in bad.held[-1].alarms
    assert bad.ends_the_run(7) is None
    gains = [0.04] * 4 + [0.0, 0.001] * 16
    stopped = weighed(stopping, gains)
    ends = [index for index in range(1, 37) if stopped.ends_the_run(index) is not None]
    assert ends
    assert min(ends) > 6
    since = stopped.ends_the_run(36)
    assert since is not None
    assert 3 <= since <= 6
    assert weighed(Detector(horizon=40), gains).ends_the_run(36) is None


def test_the_state_holds_the_gains_and_older_states_have_none() -> None:
    callback = weighed(Detector(horizon=40), [0.04] * 5)
    restored = PlateauDetector(Detector(horizon=40))
    restored.load_state_dict(callback.state_dict())
    assert restored.metrics_of(5) == callback.metrics_of(5)
    older = PlateauDetector(Detector(horizon=40))
    older.load_state_dict({"held": callback.state_dict()["held"]})
    assert older.metrics_of(5)["trend/plateau_alarm"] == 0.0
    assert np.isnan(older.trend(5).gain)


def test_nothing_measured_is_nothing_weighed() -> None:
    callback = PlateauDetector(Detector())
    assert callback.weigh(1, None) is None
    assert callback.weigh(1, np.empty(0)) is None
    assert callback.metrics_of(1) == {}
