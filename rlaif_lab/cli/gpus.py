"""One GPU for each job of a sweep on this machine: a lease by lock file, which ends when a job dies."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rlaif_lab.store.locks import try_lock

PAUSE = 1.0
"""Seconds between two looks for a free GPU."""


def visible() -> list[str]:
    """Return the names of the GPUs that this process may use. CUDA is not opened for the question."""
    import torch

    if not torch.cuda.is_available():
        return []
    # Names as CUDA has them, which may be numbers, UUIDs or MIG slices.
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    named = [name.strip() for name in given.split(",")] if given else []
    return [name for name in named if name] or [str(number) for number in range(torch.cuda.device_count())]


@contextmanager
def leased(count: int, gpus: Sequence[str], folder: Path | None = None) -> Iterator[list[str]]:
    """Lease ``count`` of the GPUs to this job for the block, in which CUDA_VISIBLE_DEVICES names them.

    It waits until so many are free, and takes all at once or none, so that two jobs cannot wait for each other.
    folder: of the lock files, one for all jobs on this machine; None: in its temporary folder.
    """
    # One folder per user: lock files in a shared /tmp must be writable.
    place = folder or Path(tempfile.gettempdir()) / f"rlaif_lab_gpus_{os.getuid()}"
    place.mkdir(parents=True, exist_ok=True)
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    while True:
        with ExitStack() as stack:
            mine: list[str] = []
            for name in gpus:
                # No more than are wanted: the others may be for other jobs.
                if len(mine) < count:
                    lock = place / f"gpu_{name.replace('/', '_')}.lock"
                    with ExitStack() as trial:
                        if trial.enter_context(try_lock(lock)):
                            # Kept only if the lock was taken; the stack gives it back at the end.
                            stack.push(trial.pop_all())
                            mine.append(name)
            # Not enough: all are given back before the next look, so that nobody waits while holding some.
            if len(mine) == count:
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
                try:
                    yield mine
                finally:
                    # As it was before, even where it was not set at all.
                    if before is None:
                        del os.environ["CUDA_VISIBLE_DEVICES"]
                    else:
                        os.environ["CUDA_VISIBLE_DEVICES"] = before
                return
        time.sleep(PAUSE)
