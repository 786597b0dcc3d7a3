"""Every metric that a run logs has exactly one row in the catalogue, and every row is of a metric that is logged."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlaif_lab.metrics.base import FAMILIES, Metric, RoundView, Row, own_metrics
from rlaif_lab.metrics.catalogue import headlines, never_left_zero, row_of, rows, sections

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"arm", "seed", "run", "complete"}
BORN_ELSEWHERE = {
    # logged by learners, judges and stages that the committed studies do not use; their own tests name them
    "train/kto_reference_point",
    "train/value",
    "train/value_loss",
    "train/return",
    "train/unexplained_variance",
    "time/revising_s",
    "audit/b_self_on_policy",
}


def logged() -> set[str]:
    """Names in the committed studies and in the committed run folders."""
    names: set[str] = set()
    for path in ROOT.glob("experiments/*/results*.csv"):
        with path.open(newline="") as file:
            names |= set(next(csv.reader(file)))
    for path in ROOT.glob("tests/fixtures/*/metrics.jsonl"):
        names |= {name for line in path.read_text().splitlines() for name in json.loads(line)}
    return (names | BORN_ELSEWHERE) - KEYS


def source() -> str:
    return "\n".join(path.read_text() for path in (ROOT / "rlaif_lab").rglob("*.py"))


def test_every_logged_name_is_described_by_one_row() -> None:
    for name in sorted(logged()):
        literal = [row for row in rows() if row.name == name]
        families = [row for row in rows() if "{" in row.name and row.matches(name)]
        assert literal or len(families) == 1, f"{name}: {[row.name for row in families]}"


def test_every_row_is_of_a_name_that_is_logged() -> None:
    names, code = logged(), source()
    for row in rows():
        seen = any(row.matches(name) for name in names)
        written = row.name in code or row.name.rpartition("/")[2] in code
        assert seen or written, f"nothing logs {row.name}"


def test_rows_are_whole_and_named_once() -> None:
    found = rows()
    assert len({row.name for row in found}) == len(found)
    for row in found:
        assert row.low < row.high
        assert row.title
        assert row.meaning.endswith(".")
        assert row.better in ("up", "down", "zero", "neither")
        assert row.level in ("headline", "detail")
        assert set(re.findall(r"\{(\w+)\}", row.name)) <= set(FAMILIES)
        if isinstance(row.baseline, str):
            assert row_of(row.baseline)
        elif row.baseline is not None:
            assert row.low <= row.baseline <= row.high
    assert set(sections()) == set(dict.fromkeys(sections()))


def test_some_twenty_headlines_come_first_and_in_order() -> None:
    names = [name for name in logged() if "heldout" not in name]
    found = headlines(names)
    assert 15 <= len(found) <= 25
    assert found[:2] == ["round", "quality/sampled"]
    assert found == headlines(sorted(names, reverse=True))


def test_values_of_the_committed_studies_lie_in_their_ranges() -> None:
    for path in sorted(ROOT.glob("experiments/*/results.csv")):
        with path.open(newline="") as file:
            table = list(csv.DictReader(file))
        for name in set(table[0]) - KEYS:
            row, values = row_of(name), [float(cells[name]) for cells in table if cells[name]]
            assert all(row.low - 1e-9 <= value <= row.high + 1e-9 for value in values), (path.parent.name, name)


def test_the_literal_row_explains_a_name_that_a_family_would_match_too() -> None:
    assert row_of("gap/best_of_2").name == "gap/best_of_2"
    assert row_of("gap/best_of_8").name == "gap/best_of_{k}"
    with pytest.raises(KeyError, match="no row of the catalogue describes 'gap/other'"):
        row_of("gap/other")


def test_what_counts_failures_is_no_chart_while_it_is_0() -> None:
    assert never_left_zero("judge/invalid_rate", [0.0, None, 0.0])
    assert not never_left_zero("judge/invalid_rate", [0.0, 0.1])
    assert not never_left_zero("quality/sampled", [0.0, 0.0]), "quality of 0 is news"
    assert not never_left_zero("mine/metric", [0.0])


@given(st.sampled_from(rows()), st.integers(1, 512))
def test_a_family_matches_its_members_and_nothing_longer(row: Row, k: int) -> None:
    examples = {"k": str(k), "pairs": "frozen", "role": "judge", "subset": "slip", "level": "1"}
    member = row.name
    for placeholder in FAMILIES:
        member = member.replace(f"{{{placeholder}}}", examples[placeholder])
    assert row.matches(member)
    assert not row.matches(member + "/more")
    assert not row.matches(f"x{member}")


class Constant(Metric):
    rows = (Row("mine/half", "share", 0.0, 1.0, "up", "Half", "Always one half."),)

    def __init__(self, name: str = "mine/half") -> None:
        self.name = name

    def compute(self, view: RoundView) -> dict[str, float]:
        return {self.name: 0.5}


def test_a_users_metric_needs_a_row_for_each_of_its_names() -> None:
    view = RoundView(0, None, (), (), None, None)  # type: ignore[arg-type]
    assert own_metrics([Constant()], view) == {"mine/half": 0.5}
    with pytest.raises(ValueError, match="Constant returns 'mine/other', which none of its rows describes"):
        own_metrics([Constant("mine/other")], view)
    with pytest.raises(ValueError, match="two metrics return 'mine/half'"):
        own_metrics([Constant(), Constant()], view)
    assert math.isclose(Row("a", "b", 0.0, 1.0, "up", "c", "d").high, 1.0)
