"""What a run says: lines that name their run where several print at once, its log file, and progress bars.

Where there is no terminal, a bar is lines: the first when a stage turns out to take long, then ever more rarely.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

LOG = "run.log"
"""In a run's folder: what it said, with the time of day."""
SILENCE = (20.0, 60.0, 180.0, 600.0)
"""Seconds after which a stage says how far it is; after the last of them, every so many."""


class Terminal:
    """sweep: this process is one of several that print: every line names its run, and the columns are named once.
    bars: progress bars where there is a terminal; two processes would overwrite each other's. run: the one that is
    going on here, and log: its file."""

    sweep = False
    bars = True
    named = False
    run = ""
    log: Path | None = None


def printable(text: str) -> str:
    """Return the text without what would steer a terminal: names and texts come from files."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def emit(text: str) -> None:
    """Print lines, and keep them in the run's log."""
    text = printable(text)
    print(text, flush=True)
    to_log(text)


def to_log(text: str, log: Path | None = None) -> None:
    """Keep lines in the log of the run that is going on, or in another; a disk that takes none costs the log only."""
    file = log or Terminal.log
    if file is not None:
        # A disk that is full or gone costs the line, not the run; "replace", since texts may hold lone surrogates.
        with suppress(OSError), file.open("a", encoding="utf-8", errors="replace") as opened:
            at = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
            opened.write("".join(f"{at}  {line}\n" for line in printable(text).splitlines()))


def say(run: str, text: str) -> None:
    """Print a line about ``run``, which names it where there are several."""
    emit(f"{run}: {text}" if Terminal.sweep and run else text)


def bar(items: Iterable[Any] | None = None, announce: bool = False, **settings: Any) -> Any:
    """Return a progress bar that goes away when it is done; where there is no terminal, one of lines.

    Args:
        items: what is gone through; None for a bar that is told by ``update``.
        announce: say at once that it begins, since it is known to take long.
        settings: of tqdm, such as ``total``, ``desc`` and ``unit``.
    """
    # Two bars would overwrite each other; the log has none, so that it stays readable.
    if Terminal.bars and sys.stderr.isatty():
        from tqdm.auto import tqdm

        if announce:
            to_log(f"{settings.get('desc')} begins")
        return tqdm(items, leave=False, **settings)
    return Lines(items, settings.get("total"), settings.get("desc") or "working", announce=announce)


class Lines:
    """Progress for logs, with the part of tqdm's interface that is used here."""

    def __init__(self, items: Iterable[Any] | None, total: int | None, what: str, announce: bool = False) -> None:
        self.items, self.what, self.done = items, what, 0
        self.total = len(items) if total is None and hasattr(items, "__len__") else total  # type: ignore[arg-type]
        self.begun = time.monotonic()
        self.timer: threading.Timer | None = None
        if announce:
            say(Terminal.run, f"{what}: begins" + (f", {self.total} steps" if self.total else ""))
        self._wait(0)

    def _wait(self, times: int) -> None:
        """Speak up in time, from a thread of its own: a stage may be one long step."""
        elapsed = time.monotonic() - self.begun
        # The pauses are counted from the beginning, so a line that came late does not put off the next.
        pause = SILENCE[times] - elapsed if times < len(SILENCE) else SILENCE[-1]
        self.timer = threading.Timer(max(1.0, pause), self._speak, (times,))
        # A daemon: a stage that hangs must not keep the process alive after its main thread has ended.
        self.timer.daemon = True
        self.timer.start()

    def _speak(self, times: int) -> None:
        say(Terminal.run, self.sentence(time.monotonic() - self.begun))
        # None once closed: a timer that had begun to speak does not start another.
        if self.timer is not None:
            self._wait(times + 1)

    def sentence(self, elapsed: float) -> str:
        of = f" of {self.total}" if self.total else ""
        left = ""
        if self.total and self.done:
            left = f", about {duration(elapsed / self.done * (self.total - self.done))} left"
        return f"{self.what}: {self.done}{of} after {duration(elapsed)}{left}"

    def update(self, count: int = 1) -> None:
        self.done += count

    def close(self) -> None:
        # Taken away first, so that a timer that speaks at this moment sees that it is over.
        timer, self.timer = self.timer, None
        if timer is not None:
            timer.cancel()

    def set_postfix(self, **_: Any) -> None:
        """Do nothing: a log has no line that changes."""

    def __iter__(self) -> Iterator[Any]:
        try:
            for item in self.items or ():
                yield item
                self.done += 1
        finally:
            self.close()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def duration(seconds: float) -> str:
    """Return a time as people say it: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
