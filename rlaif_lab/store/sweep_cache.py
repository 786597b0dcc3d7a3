"""Stages that the jobs of a sweep have in common, computed by whoever comes first.

What the untrained policy writes in round 0 depends on the policy, the task, the seed and the sampler, not on judge or
learner: the arms of one seed need it once between them. The files lie beside the jobs, in ``SWEEP/.shared``, as hard
links to those of the job that computed them: they take no room of their own, and go when the whole sweep has finished.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rlaif_lab.store.checksums import CHECKSUMS, DamagedError, note, read_checked
from rlaif_lab.store.files import writing

SHARED = ".shared"


@dataclass(frozen=True)
class SweepCache:
    """identity: all that decides the content of every file, but for what ``once`` is told of each."""

    folder: Path
    identity: str

    @contextmanager
    def compute_once(self, file: Path, what: str) -> Iterator[None]:
        """Guard the computing of ``file``, which is there on entry if another process has computed the same. While one
        computes, the others wait; if it dies, the next one takes over."""
        # By content: a job with another sampler or another version finds nothing here.
        digest = hashlib.sha256(repr((self.identity, what)).encode()).hexdigest()[:32]
        held = self.folder / f"{file.stem}-{digest}{file.suffix}"
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        # The lock outlives nobody: the kernel releases it when its holder dies.
        with held.with_suffix(".lock").open("a") as lock:
            with suppress(OSError):  # where the file system has no locks, two may compute the same
                fcntl.flock(lock, fcntl.LOCK_EX)
            # Checked first: a damaged shared file must not spread to all jobs.
            if held.exists() and not file.exists() and _whole(held):
                with writing(file):
                    file.parent.mkdir(parents=True, exist_ok=True)
                    # Before the link, as for every file of a run.
                    note(file, held.read_bytes())
                    _link(held, file)
            try:
                yield
            except Exception:
                held.unlink(missing_ok=True)  # it may be the file itself that is corrupt
                raise
            # Even where this job had the file from an earlier start: the others need not compute it.
            if file.exists() and not held.exists():
                with writing(held):
                    (self.folder / CHECKSUMS).touch()
                    note(held, file.read_bytes())
                    _link(file, held)


def _whole(held: Path) -> bool:
    """Tell whether a shared file is what was written; one that is not is thrown away, and computed again."""
    try:
        read_checked(held)
    except DamagedError:
        held.unlink(missing_ok=True)
        return False
    return True


def _link(source: Path, target: Path) -> None:
    """Link all or nothing. A copy, where the file system has no links."""
    # Named by process: without locks, two may be here at once.
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    # Atomic: others see a whole file or none.
    temporary.rename(target)
