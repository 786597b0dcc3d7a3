"""Files that are there whole or not at all, and disks that do not take them."""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlaif_lab.store.checksums import DamagedError, note, read_checked

DISK_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENXIO),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTEMPTY),
    *(errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.EINVAL, errno.EBUSY, errno.ETIMEDOUT, errno.EREMOTEIO),
)
"""What a disk, a quota, or a path that is something else than it should be answers to a write."""

OS_ERROR = re.compile(r"\(os error (\d+)\)")
"""How libraries that are not written in Python (safetensors) spell an errno."""

MULTIRUN = "multirun.yaml"
"""Hydra's record of a sweep, in the sweep's folder."""


def cache_root() -> Path:
    """Return ``$RLAIF_LAB_CACHE``, else ``~/.cache/rlaif_lab``."""
    return Path(os.environ.get("RLAIF_LAB_CACHE") or Path.home() / ".cache" / "rlaif_lab")


def real_path(path: Path) -> Path:
    """Return a path without links in it. Of one that leads in a circle as much as there is: ``Path.resolve`` raises."""
    return Path(os.path.realpath(path))


def write_atomically(path: Path, content: bytes) -> None:
    """Write all or nothing: checksum, temporary file, fsync, rename."""
    # One temporary name for each file: what a crash leaves behind is overwritten, not collected.
    temporary = path.with_name(f".{path.name}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Before the file: a kill in between leaves a checksum without a file, which does no harm.
        note(path, content)
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            # On the disk before the rename: otherwise a crash could leave an empty file under the final name.
            os.fsync(file.fileno())
        # Atomic within a file system, and the temporary file is beside the final one.
        temporary.rename(path)


def read_json_file(path: Path, remedy: str = "delete it to have it computed again") -> dict[str, Any]:
    """Return the JSON object in a stored file. ValueError, one sentence, where it holds something else."""
    content = read_checked(path)
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{str(path)!r} is corrupt ({str(error).splitlines()[0]}); {remedy}") from None
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise DamagedError(f"{str(path)!r} is corrupt (it holds no JSON object but a {kind}); {remedy}")
    return value


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk, or a path that is no place for a file, into one sentence; other errors pass."""
    try:
        yield
    except OSError as error:
        # Anything else has nothing to do with disks: a socket, say.
        if error.errno not in DISK_ERRORS:
            raise
        raise disk_error(path, error.strerror or str(error)) from error
    # Libraries that are not written in Python raise errors of their own, with the number in the text.
    except Exception as error:
        number = OS_ERROR.search(str(error))
        if number is None:
            raise
        raise disk_error(path, os.strerror(int(number[1]))) from error


def disk_error(path: Path | str, reason: str) -> DiskError:
    return DiskError(f"cannot write {str(path)!r}: {reason}; what was computed before is kept")


class TryLaterError(ValueError):
    """A run waits for somebody or something else. It ends with a code of its own, and goes on by ``rlaif-resume``."""

    code = 75
    """Exit code of the command (EX_TEMPFAIL of sysexits.h)."""


class DiskError(ValueError):
    """The disk did not take a write."""


def new_folder_beside(folder: Path) -> Path:
    """Make an empty folder next to ``folder``, for what will be renamed to it. Its mode follows the umask, as that of
    ``tempfile.mkdtemp`` does not: others may read a shared cache."""
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    partial.chmod(0o777 & ~umask())
    return partial


def umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    # A strict mask, for the moment that other threads could make files in.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def open_to_umask(folder: Path) -> None:
    """Give every file in ``folder`` the mode that the umask says: libraries write some of theirs for the owner only."""
    mode = 0o666 & ~umask()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(mode)


def rename_folder(partial: Path, folder: Path) -> bool:
    """Rename a finished folder into place. False where another process was first with the same, which is no error."""
    try:
        partial.rename(folder)
    except OSError as error:
        # Full already: another process has made the same.
        if folder.is_dir() and error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            return False
        raise
    return True
