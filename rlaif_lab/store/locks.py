"""Locks between processes, which the kernel releases when their holder dies, however it dies.

Some network file systems have no locks. There a process goes on as if it were alone, and says so once: two may then
compute the same, and whichever is first keeps it.
"""

from __future__ import annotations

import errno
import fcntl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL)
FIRST_WAIT, LONGEST_WAIT = 0.2, 5.0  # seconds

_told = False


def without_locks(path: Path, error: OSError) -> None:
    """Say once that the file system has no locks."""
    global _told
    if not _told:
        _told = True
        print(
            f"the file system of {str(path.parent)!r} has no file locks ({error.strerror}): going on without; do not "
            "start two processes on one run folder",
            file=sys.stderr,
            flush=True,
        )


@contextmanager
def try_lock(path: Path) -> Iterator[bool]:
    """Try to take the lock: True to one process at a time, False at once to the others. Makes the file, and leaves it
    there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opened to append, so that nothing is emptied under whoever holds the lock.
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Held by another process.
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            without_locks(path, error)
        yield True


def locked(path: Path) -> bool:
    """Return whether a process holds this lock now; False where the file system cannot tell."""
    # Looking must not make the file: its presence says that a run has begun.
    if not path.is_file():
        return False
    with path.open() as file:
        try:
            # A shared lock: two who look at the same time do not see each other.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
    return False


def wait_for(done: Callable[[], bool]) -> Iterator[None]:
    """Yield until ``done``, with pauses between that grow to 5 s: a hundred jobs that wait for one organism must not
    ask a network file system 500 times a second."""
    pause = FIRST_WAIT
    while not done():
        yield
        # Whoever waited may find it done: no pause then.
        if done():
            return
        time.sleep(pause)
        pause = min(LONGEST_WAIT, 1.5 * pause)
