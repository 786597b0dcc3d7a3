"""The terminal's columns are explained where they first stand, and are those that the run can fill."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlaif_lab.progress import Terminal
from rlaif_lab.tracking.terminal import WITH_GOLD, WITHOUT_GOLD, close, introduce, print_row


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("sweep", False), ("named", False), ("run", ""), ("log", None)):
        monkeypatch.setattr(Terminal, name, value)


@pytest.mark.parametrize(("quality", "columns"), [(0.5, WITH_GOLD), (None, WITHOUT_GOLD)])
def test_columns_are_named_and_explained_once(
    capsys: pytest.CaptureFixture[str], quality: float | None, columns: tuple
) -> None:
    row = {"round": 0, "quality/sampled": quality, "judge/win_rate_vs_round_0": 0.25, "kl/per_sequence": 1.0}
    print_row(row, "self, seed 0", header=True)
    print_row(row | {"round": 1}, "self, seed 0", header=True)
    said = capsys.readouterr().out
    for column in columns:
        assert said.count(f"  {column.title}: ") == (column.metric != "round")
    header, first, second = said.splitlines()[-3:]
    assert [column.title for column in columns] == [t for t in [c.title for c in columns] if t in header]
    assert "0.250" in first and "0.250" in second
    assert len(first) == len(header) == len(second)


def test_names_and_values_are_apart(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    introduce("run", {"policy": "tiny", "learner": "rloo"}, tmp_path)
    assert capsys.readouterr().out.splitlines()[:2] == ["policy:  tiny", "learner: rloo"]


def test_a_run_ends_with_its_verdict_and_the_next_command(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    close("run", {"verdict": "improving", "final_quality": 0.75, "gain": 0.25, "why": "it gains"}, tmp_path / "a run")
    said = capsys.readouterr().out
    assert said.startswith("verdict: improving, true quality 0.750 (+0.250 since round 0)\nwhy:     it gains\n")
    assert said.endswith("report:  rlaif-report 'a run'\n")
    close("run", {"verdict": "undecided"}, tmp_path / "a run")
    assert "quality" not in capsys.readouterr().out.splitlines()[0]
