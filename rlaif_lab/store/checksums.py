"""Checksums of stored files, written before the file and checked whenever it is read.

A folder with ``checksums.txt`` vouches for what lies below it: a run, a cached model, a saved policy. The file is in
the format of ``sha256sum``, so that ``sha256sum -c checksums.txt`` works too, but for files that were written twice. A
line is appended *before* its file is renamed into place, so that a kill between the two leaves a line without a file,
never a file without a line. A file that is written again has several lines, of which any may be the one that holds.
Folders of earlier versions have no ``checksums.txt``; they are read as they are.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

CHECKSUMS = "checksums.txt"
DEEPEST = 4  # folders between a file and the one that vouches for it: round_003/reward_model/member_0/file
LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")
NOT_SEALED = (".md", ".png", ".svg", ".lock")
"""Endings of files in a model's folder that people write or edit, and that decide no number."""


class DamagedError(ValueError):
    """A stored file is not what was written."""


def vouching_folder(path: Path) -> Path | None:
    """Return the nearest folder above ``path`` that has checksums; None where there is none."""
    # The nearest folder vouches: a model within a run has a list of its own.
    return next((folder for folder in list(path.parents)[:DEEPEST] if (folder / CHECKSUMS).exists()), None)


def listed(folder: Path) -> dict[str, set[str]]:
    """Return the checksums of a folder: relative path -> those that its content may have."""
    found: dict[str, set[str]] = {}
    for line in read_regular(folder / CHECKSUMS).decode(errors="replace").splitlines():
        if match := LINE.fullmatch(line):  # a line that a crash cut short is not followed by its file
            # Several checksums per name: what was written twice may be in either state after a crash.
            found.setdefault(match[2], set()).add(match[1])
    return found


def note(path: Path, content: bytes) -> None:
    """Append the checksum of what is about to be written to ``path``, if a folder vouches for it."""
    folder = vouching_folder(path)
    if folder is not None:
        append(folder, [(path, hashlib.sha256(content).hexdigest())])


def append(folder: Path, entries: Iterable[tuple[Path, str]]) -> None:
    """Append one line for each (path, checksum); in one write, so that processes do not come between each other."""
    held = listed(folder)
    named = ((path.relative_to(folder).as_posix(), digest) for path, digest in entries)
    # What is listed already is not listed again: otherwise every resumed run would make the file longer.
    lines = "".join(f"{digest}  {name}\n" for name, digest in named if digest not in held.get(name, ()))
    if not lines:
        return
    with (folder / CHECKSUMS).open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            # A half line must not swallow the next one.
            lines = lines if file.read(1) == b"\n" else "\n" + lines  # what a crash has cut short
        file.write(lines.encode())
        file.flush()
        # On the disk before the file that it vouches for.
        os.fsync(file.fileno())


def read_checked(path: Path) -> bytes:
    """Return the content of a stored file.

    Raises:
        DamagedError: it differs from what was written, or cannot be read.
    """
    content = read_regular(path)
    check(path, hashlib.sha256(content).hexdigest())
    return content


def read_regular(path: Path) -> bytes:
    """Return the content of a file, and of nothing that would never end. Raises DamagedError."""
    # A named pipe or a device would be read for ever.
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "is not a file" if path.exists() else "is missing"
        raise DamagedError(f"{str(path)!r} {kind}; restore it from a copy, or delete it to have it computed again")
    try:
        return path.read_bytes()
    except OSError as error:
        raise DamagedError(f"{str(path)!r} cannot be read: {error.strerror}") from None


def check(path: Path, *digests: str) -> None:
    """Compare a file's checksums (of the forms that it may have) with those that are listed. Raises DamagedError."""
    folder = vouching_folder(path)
    if folder is None:
        return
    name = path.relative_to(folder).as_posix()
    known = listed(folder).get(name)
    if known is None:
        # A file without a line was put there by somebody else: every write notes its checksum first.
        raise DamagedError(
            f"{str(path)!r} is not listed in {str(folder / CHECKSUMS)!r}, so it is not known to be what was written; "
            f"delete it to have it computed again, or delete {CHECKSUMS} to take all files as they are"
        )
    if known.isdisjoint(digests):
        raise DamagedError(
            f"{str(path)!r} is corrupt: its checksum is not the one in {CHECKSUMS}, so it was damaged, swapped or "
            "edited; delete that one file to have it computed again, everything else is kept"
        )


def digest_of(path: Path) -> str:
    """Return the checksum of a file of any size."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Write the checksums of everything in a folder of its own, such as a saved model. Replaces earlier ones."""
    # From nothing: a list of what was there before would vouch for files that are gone.
    (folder / CHECKSUMS).unlink(missing_ok=True)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in NOT_SEALED]
    entries = [(path, digest_of(path)) for path in files]
    # After the digests, so that the list does not list itself.
    (folder / CHECKSUMS).touch()
    append(folder, entries)


def check_sealed(folder: Path, largest: int | None = None) -> None:
    """Compare a folder with its seal; nothing is done where it has none. Raises DamagedError.

    largest: files of more bytes are only looked for, not read; None: all are read.
    """
    if not (folder / CHECKSUMS).exists():
        return
    found = listed(folder)
    if not found:
        raise DamagedError(f"{str(folder / CHECKSUMS)!r} is empty or damaged; {_remedy(folder)}")
    for name, known in found.items():
        path = folder / name
        if path.suffix in NOT_SEALED:
            continue
        if not path.is_file():
            raise DamagedError(f"{str(path)!r} is missing; {_remedy(folder)}")
        # Large files take minutes to read; their name and presence are looked at in any case.
        if largest is not None and path.stat().st_size > largest:
            continue
        if digest_of(path) not in known:
            raise DamagedError(
                f"{str(path)!r} is corrupt: its checksum is not the one in {CHECKSUMS}; {_remedy(folder)}"
            )


def _remedy(folder: Path) -> str:
    return (
        f"delete the folder {str(folder)!r} to have it made again, or restore it from a copy (delete {CHECKSUMS} if "
        "you changed the files on purpose)"
    )


def adopt(folder: Path, patterns: Iterable[str]) -> int:
    """Give a folder of an earlier version checksums of its files as they are now. Returns how many files there are."""
    files = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    entries = [(path, digest_of(path)) for path in files]
    (folder / CHECKSUMS).touch()
    if entries:
        append(folder, entries)
    return len(entries)
