"""How the commands besides ``rlaif-lab`` end when a signal or a disk ends them: one sentence, and what goes on."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rlaif_lab.progress import printable
from rlaif_lab.store.interrupts import Interrupted, interruptible


@contextmanager
def told(program: str) -> Iterator[None]:
    """End the process with a sentence and a code of its own on a signal, or when the disk takes no more.

    What the command was is said again, since it is what goes on; a note on the error may say how it goes on better.
    """
    given = sys.argv[1:]
    try:
        with interruptible():
            yield
    except Interrupted as error:
        again = " ".join([program, *map(shlex.quote, given)])
        notes = getattr(error, "__notes__", None) or [f"run it again: {again}"]
        print(printable(f"{program}: {error}; {notes[-1]}"), file=sys.stderr)
        sys.exit(error.code)
    except BrokenPipeError:
        # Whoever read the output has gone (``| head``): Python would complain once more when it closes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        said = of_the_disk(error)
        if said is None:
            raise
        print(printable(f"{program}: {said}"), file=sys.stderr)
        sys.exit(2)


def of_the_disk(error: OSError) -> str | None:
    """Return what a disk that takes no more has said, as a sentence; None for what has nothing to do with disks."""
    from rlaif_lab.store.files import DISK_ERRORS

    if error.errno in DISK_ERRORS and error.filename:
        return f"cannot read or write {str(error.filename)!r}: {error.strerror}"
    # A write that fails names no file, but these have no other cause.
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
    return f"cannot write a file: {error.strerror}" if error.errno in full else None
