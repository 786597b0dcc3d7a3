"""Labels stay off other arms' curves and tell arms apart; an arm has one colour; texts read the usual way round."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_lab.records import Prompt
from rlaif_lab.report.arms import Arm
from rlaif_lab.report.chart import Line, distinct, line_chart
from rlaif_lab.report.curves import DrawnCurve, Mark
from rlaif_lab.report.figures import COLOURS, styles
from rlaif_lab.report.panels import GROUPS
from rlaif_lab.report.tables import inert
from rlaif_lab.report.units import unit_of
from rlaif_lab.statistics.intervals import Interval
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.lookup import Lookup
from rlaif_lab.tasks.reading import display, right_answer


@given(st.lists(st.text("abc_", min_size=1, max_size=40), unique=True, max_size=20))
def test_cut_labels_stay_different(labels: list[str]) -> None:
    found = distinct(labels)
    assert len(set(found)) == len(labels)
    assert all(len(label) <= 16 for label in found)


def test_twenty_arms_have_twenty_colours_whoever_they_are_compared_with() -> None:
    arms = [Arm(f"arm {i:02d}", {}, []) for i in range(20)]
    looks = styles(arms)
    assert len({look.colour for look in looks.values()}) == len(COLOURS) == 20
    assert styles(list(reversed(arms))) == looks


def curve(end: float) -> DrawnCurve:
    y = [end * x / 10 for x in range(11)]
    return DrawnCurve([float(x) for x in range(11)], list(range(11)), y, y, y, [3] * 11)


@pytest.mark.parametrize("arms", [2, 3, 6])
def test_what_was_found_of_an_arm_stands_beside_its_name_outside_the_drawing(arms: int) -> None:
    lines = [Line(f"a{i}", f"a rather long arm {i}", "o", curve(0.5 + 0.01 * i)) for i in range(arms)]
    marks = {"a0": Mark(7, Interval(0.611, 0.60, 0.62)), "a1": Mark(None, Interval(0.7, 0.69, 0.71))}
    size = (400.0, 262.0)
    drawn = line_chart(lines, (0.0, 1.0), title="x", unit="quality", strong=["a0", "a1"], marks=marks, size=size)
    axis = re.search(r'class="axis" d="M[\d.]+ [\d.]+H([\d.]+)"', drawn)
    assert axis is not None
    labels = re.findall(r'<g class="a\d end[^"]*">(.*?)</g>', drawn)
    assert len(labels) == arms
    assert any("ceiling 0.611" in label and "plateau: round 7" in label for label in labels)
    boxes = []
    for label in labels:
        texts = [
            (float(x), float(y), text) for x, y, text in re.findall(r'x="([\d.-]+)" y="([\d.-]+)">([^<]*)<', label)
        ]
        assert all(x > float(axis[1]) for x, _, _ in texts)
        boxes.append((min(y for _, y, _ in texts), max(y for _, y, _ in texts)))
    boxes.sort()
    assert all(before[1] < after[0] for before, after in itertools.pairwise(boxes))
    assert boxes[-1][1] <= size[1]
    assert drawn.count("ceiling 0.611") == 1, "said once, not in the drawing too"
    assert ">quality</text>" in drawn


def test_every_panel_has_the_unit_of_its_axis() -> None:
    assert [panel.metric for group in GROUPS for panel in group.panels if not unit_of(panel.metric)] == []


def test_sums_are_shown_the_usual_way_round_with_the_right_answer() -> None:
    """347 + 586 = 933: the example of the task's own description."""
    prompt = Prompt("addition3/1", "743+685=")
    assert display(Addition(3), prompt, ["3390", "???"]) == ["347+586=", "0933", "???"]
    assert right_answer(Addition(3), prompt) == "0933"
    assert right_answer(Addition(3), Prompt("x", "what is it?")) is None


def test_other_tasks_are_shown_as_they_are() -> None:
    task = Lookup()
    prompt = task.prompts("rounds", 0, 1, 0)[0]
    assert display(task, prompt, ["12"]) == [prompt.text, "12"]
    assert right_answer(task, prompt) == task.gold_answer(prompt)


@pytest.mark.parametrize("name", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\x1b[31mred"])
def test_names_in_csv_files_are_no_formulas(name: str) -> None:
    kept = str(inert(name))
    assert not kept.startswith(("=", "+", "-", "@", "\t"))
    assert "\x1b" not in kept


@pytest.mark.parametrize("value", [-0.5, "-0.5", "1e-3", "", "self", 3, None])
def test_numbers_and_plain_names_in_csv_files_are_as_they_are(value: object) -> None:
    assert inert(value) == value
