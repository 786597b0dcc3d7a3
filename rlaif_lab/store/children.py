"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys


class RankDiedError(ValueError):
    """One of the processes that train a run between them ended without a word; the run goes on by ``rlaif-resume``."""


def end(child: multiprocessing.process.BaseProcess, patience: float = 10.0) -> None:
    """Let a child say that it was interrupted, for so many seconds; then it is killed."""
    child.terminate()
    child.join(patience)
    if child.is_alive():
        child.kill()
        child.join()


def die_with(parent: int) -> None:
    """Have Linux end this process when its parent ends: a killed run leaves nothing behind that goes on training."""
    # A child that outlives its parent would hold the GPU, and write into a folder that a resumed run writes into.
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before
        os._exit(1)
