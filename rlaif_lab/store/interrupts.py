"""Signals that end a process, turned into an exception: so that a run can say how it ended and how it goes on.

Lightning by itself ends a run on SIGTERM without an exit code, and Python one on SIGHUP without a word.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = ("SIGTERM", "SIGINT", "SIGHUP", "SIGXCPU")
"""Job schedulers send SIGTERM some time before SIGKILL; a closed terminal sends SIGHUP. (SIGUSR1 and SIGUSR2 belong to
submitit and to Slurm's requeueing.)"""


class Interrupted(BaseException):
    """A signal has asked this process to end. No ``Exception``, so that nothing on the way takes it for an error that
    it could handle."""

    def __init__(self, signal_name: str) -> None:
        super().__init__(signal_name)
        self.signal_name = signal_name

    @property
    def code(self) -> int:
        """Return the exit code that shells give to a process that the signal ended."""
        return 128 + int(signal.Signals[self.signal_name])

    def __str__(self) -> str:
        return f"interrupted by {self.signal_name}"


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise ``Interrupted`` at the first ending signal; the same one again ends the process at once.

    SIGHUP stays ignored where it was ignored before (``nohup``). Does nothing outside a process's main thread, where
    signals cannot be handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {}
    for name in ENDING:
        number = getattr(signal, name, None)
        if number is None or (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
            continue
        before[number] = signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: the handler was not set from Python and cannot be put back.
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def ignore() -> None:
    """Let this process end by itself only from now on: it has been interrupted, or is done."""
    for name in ENDING:
        if hasattr(signal, name):
            # Not SIG_IGN: of a signal that is on its way already, Python would then print that it is ignored.
            signal.signal(getattr(signal, name), _nothing)


def _nothing(number: int, _: FrameType | None) -> None:
    """Do nothing."""


def _raise(number: int, _: FrameType | None) -> None:
    """Raise. What comes while the run says how it ended is ignored, but the same signal again ends the
    process."""
    ignore()
    signal.signal(number, signal.SIG_DFL)
    raise Interrupted(signal.Signals(number).name)
