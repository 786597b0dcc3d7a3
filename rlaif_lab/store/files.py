"""Files that are there whole or not at all, and disks that do not take them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def write_atomically(path: Path, content: bytes) -> None:
    """All or nothing: temporary file, fsync, rename."""
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a full or read-only disk into one clear sentence; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise DiskError(
            f"cannot write {str(path)!r}: {error.strerror or error}; what was computed before is kept, and the run "
            "goes on from there with resume=true"
        ) from error


class DiskError(ValueError):
    """The disk did not take a write."""
