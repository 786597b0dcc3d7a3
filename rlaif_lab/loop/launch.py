"""The ranks of a run on this machine: processes of their own, watched by the one that was started.

When one ends badly, the others are ended within seconds, and its error is that of the run.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from rlaif_lab.progress import Terminal
from rlaif_lab.store.children import RankDiedError, die_with, end
from rlaif_lab.store.interrupts import Interrupted, ignore, interruptible
from rlaif_lab.training.settings import TrainerConfig

LOST = 87
"""Exit code of a rank that ended because another one had."""
GRACE = 2.0
"""Seconds in which the rank that began a collapse is waited for, and in which the others may end by themselves."""
LOST_PEER = re.compile(r"gloo|nccl|Connection (closed|reset|refused)|peer|Broken pipe|Socket", re.IGNORECASE)


def in_ranks(work: Callable[[], Any], settings: TrainerConfig) -> None:
    """Run ``work`` in ``settings.devices`` processes, which form one process group; return when all are done.

    By fork: the libraries are loaded already, and nothing has been computed, or asked of a GPU, in this process.

    Raises:
        RankDiedError: one was killed.
        Exception: what ended one of them.
    """
    # What is in the buffer at the fork would be printed once by each process.
    sys.stdout.flush()
    count, context = settings.devices, multiprocessing.get_context("fork")
    # Ranks find each other, and leave their errors, in a folder of their own: no port can be taken by somebody else.
    with tempfile.TemporaryDirectory(prefix="ranks_") as folder:
        place = Path(folder)
        started: list[BaseProcess] = [
            context.Process(target=_rank, args=(work, settings, rank, place, os.getpid())) for rank in range(count)
        ]
        for process in started:
            process.start()
        try:
            watch(started)
            error = problem(started, place)
        finally:
            for process in started:
                if process.is_alive():
                    end(process, GRACE)
        if error is not None:
            raise error


def watch(started: Sequence[BaseProcess]) -> None:
    """Wait until all have ended well, or one has not; then end the others."""
    left = list(started)
    while left:
        # Wakes when any of them ends, at no cost meanwhile: a rank may work for days.
        wait([process.sentinel for process in left])
        ended = [process for process in left if not process.is_alive()]
        left = [process for process in left if process not in ended]
        if any(process.exitcode for process in ended):
            break
    # The rank that failed first may still be writing its error down; ranks that merely lost it are quicker.
    limit = time.monotonic() + GRACE / 2
    while any(process.is_alive() for process in left) and time.monotonic() < limit:
        time.sleep(0.05)
    for process in left:
        if process.is_alive():
            end(process, GRACE)


def problem(started: Sequence[BaseProcess], place: Path) -> BaseException | None:
    """Return what ended the ranks, None if nothing but their work did: that of the first which did not merely lose
    another one."""
    told = {rank: place / f"{rank}.error" for rank in range(len(started))}
    # An error that was written down is a cause: ranks that merely lost another one write none.
    for rank, process in enumerate(started):
        if process.exitcode and process.exitcode > 0 and told[rank].exists():
            error: BaseException = pickle.loads(told[rank].read_bytes())
            return error
    for rank, process in enumerate(started):
        code = process.exitcode
        # SIGTERM came from here.
        if code and code != LOST and code != -signal.SIGTERM:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            hint = "; if you did not do it, the machine was short of memory" if code == -signal.SIGKILL else ""
            return RankDiedError(f"rank {rank} of {len(started)} {how}, so the others were ended{hint}")
    if any(process.exitcode for process in started):
        return RankDiedError(f"the {len(started)} ranks lost each other")
    return None


def _rank(work: Callable[[], Any], settings: TrainerConfig, rank: int, place: Path, parent: int) -> None:
    """Be one of the ranks."""
    # First of all: until then, a killed parent would leave this process behind.
    die_with(parent)
    os.environ.update(LOCAL_RANK=str(rank), NODE_RANK="0")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
    code = 0
    try:
        with interruptible():
            if rank:
                be_quiet()
            from rlaif_lab.training.devices import join

            join(settings, rank, settings.devices, f"file://{place / 'rendezvous'}")
            work()
    except BaseException as error:
        # A second signal must not cut off what is written down now.
        ignore()
        code = 1
        if isinstance(error, (Interrupted, KeyboardInterrupt)) or lost(error):
            code = LOST
        else:
            (place / f"{rank}.error").write_bytes(pickled(error))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # not through exit handlers: a group whose other members are gone would be waited for


def lost(error: BaseException) -> bool:
    """Tell whether an error says no more than that another rank is gone."""
    import torch

    return isinstance(error, torch.distributed.DistError) or (
        type(error) is RuntimeError and LOST_PEER.search(str(error)) is not None
    )


def pickled(error: BaseException) -> bytes:
    """Return the error with its traceback, as it can be raised in another process; notes stay with it."""
    try:
        content = pickle.dumps(ExceptionWithTraceback(error, error.__traceback__))
        pickle.loads(content)
    # Some exceptions can be pickled but not read again, as their constructor takes other arguments.
    except Exception:
        return pickle.dumps(RuntimeError(f"{type(error).__name__}: {error}"))
    return content


def be_quiet() -> None:
    """Let rank 0 alone speak to the terminal. What a rank fails of is told by the process that watches it."""
    Terminal.bars, Terminal.log = False, None
    sys.stdout.flush()
    silence = os.open(os.devnull, os.O_WRONLY)
    # The descriptor, not sys.stdout: libraries in C write to it too.
    os.dup2(silence, 1)
    os.close(silence)
