"""Signals become an exception once, and locks that a file system has not are done without."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from pathlib import Path

import pytest

from rlaif_lab.store import locks
from rlaif_lab.store.interrupts import Interrupted, interruptible
from rlaif_lab.store.locks import locked, try_lock, wait_for
from rlaif_lab.store.outcome import failure, resume_command


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_is_an_exception_with_the_shells_exit_code(name: str) -> None:
    before = signal.getsignal(getattr(signal, name))
    with pytest.raises(Interrupted) as caught, interruptible():
        signal.raise_signal(getattr(signal, name))
    assert caught.value.code == 128 + getattr(signal, name)
    assert failure(caught.value).sentence == f"interrupted by {name}"
    assert signal.getsignal(getattr(signal, name)) == before


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_one_goes_on_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    def none(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    monkeypatch.setattr(locks, "_told", False)
    for _ in range(2):
        with try_lock(tmp_path / "a.lock") as mine:
            assert mine
    assert not locked(tmp_path / "a.lock")
    assert capsys.readouterr().err.count("no file locks") == 1


def test_who_waits_asks_ever_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    for _ in wait_for(lambda: len(pauses) == 20):
        pass
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.2, 5.0)


def test_the_command_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resume_command(tmp_path / "it's a=run") == "rlaif-resume 'it'\"'\"'s a=run'"
    assert resume_command(Path("/elsewhere/run")) == "rlaif-resume /elsewhere/run"
