"""What a run says: nobody waits minutes without a word, nothing that a name holds steers a terminal, all is kept."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from rlaif_lab import progress
from rlaif_lab.progress import Lines, Terminal, bar, duration, emit, printable, say


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("sweep", False), ("bars", True), ("named", False), ("run", ""), ("log", None)):
        monkeypatch.setattr(Terminal, name, value)


def test_what_takes_long_is_told_with_an_estimate_and_ever_more_rarely(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also within one long step, so from a thread of its own."""
    monkeypatch.setattr(progress, "SILENCE", (0.0, 1.1, 600.0))
    with bar(total=10, desc="round 3: judging") as shown:
        shown.update(4)
        time.sleep(2.6)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert said[0].startswith("round 3: judging: 4 of 10 after 1 s, about 2 s left")


def test_what_is_quick_says_nothing_unless_it_is_known_to_be_long(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(bar(range(3), desc="quick")) == [0, 1, 2]
    assert capsys.readouterr().out == ""
    assert list(bar(range(3), announce=True, desc="pretraining")) == [0, 1, 2]
    assert capsys.readouterr().out == "pretraining: begins, 3 steps\n"


def test_a_bar_that_is_given_up_is_silent() -> None:
    lines = Lines(range(5), None, "x")
    for _ in lines:
        break
    timer = lines.timer
    del _
    lines.close()
    assert lines.timer is None
    assert timer is None or timer.finished.is_set()


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (5399, "90 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_lines_are_kept_with_the_time_and_are_inert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Terminal, "log", tmp_path / "run.log")
    monkeypatch.setattr(Terminal, "sweep", True)
    say("\x1b]0;taken over\x07 self", "is \x1b[31mred")
    emit("two\nlines √")
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x07" not in out
    kept = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split("  ", 1)[1] for line in kept] == out.splitlines()
    assert printable("a\u202eb\tc") == "a\N{REPLACEMENT CHARACTER}b\tc"


def test_a_log_that_cannot_be_written_costs_the_log_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Terminal, "log", tmp_path / "nowhere" / "run.log")
    emit("still said")
    assert capsys.readouterr().out == "still said\n"
