"""What the figures draw, against numbers computed by hand."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from rlaif_lab.plateau.verdict import Trace
from rlaif_lab.report.arms import Arm, study
from rlaif_lab.report.chart import Line, line_chart, nice_step, x_ticks, y_ticks
from rlaif_lab.report.curves import ChartPanel, Drawn, DrawnCurve, by_k, by_sqrt_kl, curve, draw, write_drawn
from rlaif_lab.report.load import load
from rlaif_lab.report.panels import EVIDENCE, GROUPS, OVERVIEW

WriteRun = Callable[..., Path]
T1 = 12.706205  # t(.975, 1 degree of freedom)


@pytest.fixture
def arm(tmp_path: Path, write_run: WriteRun) -> Arm:
    """Two seeds: .5, .6, .9 and .5, .8 (broken off)."""
    write_run("self", 0, [0.5, 0.6, 0.9], extra={"judge/accuracy": [0.7, None, None]})
    write_run("self", 1, [0.5, 0.8], rounds=2, extra={"judge/accuracy": [0.9, None]})
    (found,) = study(load(tmp_path / "sweep"), "sweep").arms
    return found


def test_curve_by_round(arm: Arm) -> None:
    found = curve(arm, "quality/sampled")
    assert found.rounds == [0, 1, 2]
    assert found.mean == pytest.approx([0.5, 0.7, 0.9])
    assert found.n == [2, 2, 1]
    assert (found.low[1], found.high[1]) == pytest.approx((0.7 - T1 * 0.1, 0.7 + T1 * 0.1), abs=1e-5)
    assert math.isnan(found.low[2]), "one seed has no interval"


def test_a_hole_stays_a_hole(arm: Arm) -> None:
    found = curve(arm, "judge/accuracy")
    assert found.mean[0] == pytest.approx(0.8)
    assert math.isnan(found.mean[1])
    assert found.last() == 0
    assert curve(arm, "no/such_metric").empty


def test_over_the_distance_travelled(arm: Arm) -> None:
    """kl/per_sequence is .5 t in these runs."""
    assert by_sqrt_kl(arm, "quality/sampled").x == pytest.approx([0.0, math.sqrt(0.5), 1.0])


def test_coverage_of_the_first_and_the_last_round(tmp_path: Path, write_run: WriteRun) -> None:
    extra = {f"coverage/pass_at_{k}": [0.1 * k, None, 0.2 * k] for k in (1, 2, 4)}
    write_run("self", 0, [0.5, 0.6, 0.7], extra=extra)
    (arm,) = study(load(tmp_path / "sweep"), "sweep").arms
    first, last = by_k(arm, "coverage/pass_at", first=True), by_k(arm, "coverage/pass_at", first=False)
    assert first.x == last.x == [1.0, 2.0, 4.0]
    assert first.mean == pytest.approx([0.1, 0.2, 0.4])
    assert last.mean == pytest.approx([0.2, 0.4, 0.8])
    assert (first.faint, first.rounds[0], last.faint, last.rounds[0]) == (True, 0, False, 2)


def test_coverage_of_runs_from_before_it_was_measured(tmp_path: Path, write_run: WriteRun) -> None:
    write_run("self", 0, [0.5, 0.6], extra={"quality/pass_at_4": [0.6, 0.7]})
    (arm,) = study(load(tmp_path / "sweep"), "sweep").arms
    assert by_k(arm, "coverage/pass_at", first=True).mean == [0.6]


def test_only_what_was_measured_is_drawn(arm: Arm) -> None:
    drawn = draw(GROUPS, [arm])
    assert "evidence" not in drawn
    assert "bias" not in drawn
    assert [each.panel.metric for each in drawn["judge"].panels] == ["judge/accuracy"]
    assert drawn["judge"].panels[0].reference == 0.5


def test_evidence_is_that_of_all_seeds_together(arm: Arm) -> None:
    trace = Trace((2.0, 30.0), 667.0, (), ())
    panel = draw([EVIDENCE], [arm], {"self": {"plateaued": trace}})["evidence"].panels[0]
    (points,) = panel.curves["self"]
    assert (points.rounds, points.mean, points.n) == ([1, 2], [2.0, 30.0], [1, 1])
    assert panel.reference == 667.0
    low, high = panel.limits()
    assert low < 2.0
    assert high > 667.0


def test_csv_holds_what_is_drawn(arm: Arm, tmp_path: Path) -> None:
    write_drawn(tmp_path / "overview.csv", draw([OVERVIEW], [arm])["overview"])
    with (tmp_path / "overview.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6  # two panels, three rounds
    assert rows[1] | {"low": "", "high": ""} == {
        "metric": "quality/sampled",
        "arm": "self",
        "round": "1",
        "x": "1",
        "mean": str(0.7),
        "low": "",
        "high": "",
        "n": "2",
    }
    assert float(rows[1]["low"]) == pytest.approx(0.7 - T1 * 0.1, abs=1e-5)
    assert rows[2]["low"] == "", "one seed has no interval"


def limits(mean: list[float], low: list[float], high: list[float], panel: ChartPanel) -> tuple[float, float]:
    points = DrawnCurve([float(i) for i in range(len(mean))], list(range(len(mean))), mean, low, high, [2] * len(mean))
    return Drawn(panel, {"self": [points]}, panel.reference).limits()  # type: ignore[arg-type]


def test_a_wide_interval_does_not_flatten_the_curve() -> None:
    panel = ChartPanel("quality/sampled", "", "")
    low, high = limits([0.4, 0.6], [-0.5, -0.3], [1.3, 1.5], panel)
    assert (low, high) == pytest.approx((0.28 - 0.022, 0.72 + 0.022))  # .6 of the curve's own reach beyond it


def test_a_curve_that_hardly_moves_looks_like_it() -> None:
    low, high = limits([1e-17, -2e-17], [math.nan] * 2, [math.nan] * 2, ChartPanel("audit/b", "", "", bounds=(-9, 9)))
    assert high - low > 0.05


# --- charts -----------------------------------------------------------------------------------------------------------
def test_ticks_are_round() -> None:
    assert [text for _, text in y_ticks((0.38, 0.91))] == ["0.4", "0.6", "0.8"]
    assert [text for _, text in y_ticks((0.001, 0.0048))] == ["0.001", "0.002", "0.003", "0.004"]
    assert [text for _, text in y_ticks((0.1, 2000), log=True)] == ["0.1", "1", "10", "100", "1000"]
    assert [text for _, text in x_ticks((0, 12), "round")] == ["0", "2", "4", "6", "8", "10", "12"]
    assert [text for _, text in x_ticks((1, 64), "k")] == ["1", "2", "4", "8", "16", "32", "64"]
    assert x_ticks((3, 3), "round") == [(3.0, "3")]
    assert nice_step(0.9, 5) == pytest.approx(0.2)


def test_chart_breaks_at_a_hole_and_escapes_names() -> None:
    nan = math.nan
    points = DrawnCurve([0.0, 1.0, 2.0], [0, 1, 2], [0.1, nan, 0.3], [nan] * 3, [nan] * 3, [1, 0, 1])
    drawn = line_chart([Line("a0", "<b> & co", "o", points)], (0.0, 0.5), title='"quoted"', strong=["a0"])
    assert "<b>" not in drawn
    assert "&lt;b&gt; &amp; co" in drawn
    line = drawn.split('class="line" d="')[1].split('"')[0]
    assert line.count("M") == 2
    assert "L" not in line
    assert "nan" not in drawn
