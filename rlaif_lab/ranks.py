"""Several processes that train one run between them: which one this is, and what they tell each other.

Every rank goes through the same rounds. What costs money, writes files or asks a person happens on rank 0 alone, and
the others are told what came of it; samples are drawn in shares. Without a process group there is one rank, and nothing
here does anything. All ranks come to each of these calls in the same order.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
S = TypeVar("S")


class _Alone:
    """Whether this process is doing something that the others have no part in."""

    now = False


def _group() -> Any:
    """Return torch's module if there is a process group; torch is not imported for the question."""
    group = sys.modules.get("torch.distributed")
    return group if group is not None and group.is_available() and group.is_initialized() else None


def rank() -> int:
    group = _group()
    return 0 if group is None else int(group.get_rank())


def world() -> int:
    """Return how many ranks take part in what goes on now."""
    group = _group()
    return 1 if group is None or _Alone.now else int(group.get_world_size())


def first() -> bool:
    """Tell whether this is the rank that writes, prints, logs and pays."""
    return rank() == 0


@contextmanager
def by_itself() -> Iterator[None]:
    """Make this process the only rank within the block: what it calls waits for nobody."""
    before, _Alone.now = _Alone.now, True
    try:
        yield
    finally:
        _Alone.now = before


def on_first(compute: Callable[[], T]) -> T:
    """Return what rank 0 computes, on every rank. An error there ends rank 0, and with it the others."""
    if world() == 1:
        return compute()
    # A list, since torch broadcasts objects into a list that every rank brings.
    box: list[Any] = [None]
    if first():
        # Rank 0 computes as if alone: a stage within a stage must not wait for ranks that wait here.
        with by_itself():
            box = [compute()]
    _group().broadcast_object_list(box, src=0)
    return box[0]


def part() -> None:
    """Leave the process group, if there is one, once every rank has come here. A group that is still open when its
    processes end may abort those that end last."""
    group = _group()
    if group is not None:
        group.barrier()
        group.destroy_process_group()


def share(count: int) -> slice:
    """Return which of ``count`` things in a row this rank takes: contiguous, so that the order is that of the ranks."""
    each, more = divmod(count, world())
    # The first `more` ranks take one each of what is left over.
    here = rank() if world() > 1 else 0
    start = here * each + min(here, more)
    return slice(start, start + each + (here < more))


def shared_out(items: Sequence[S], compute: Callable[[Sequence[S]], list[T]]) -> list[T]:
    """Return ``compute(items)``, one record an item, of which every rank has computed its share."""
    if world() == 1:
        return compute(items)
    mine = items[share(len(items))]
    parts: list[Any] = [None] * world()
    with by_itself():
        # As if alone, since ranks may have shares of different length, or none.
        found = compute(mine) if len(mine) else []
    _group().all_gather_object(parts, found)
    return [record for part in parts for record in part]


def started_from_outside() -> tuple[int, int] | None:
    """Return rank and number of the processes that torchrun or Slurm has started for one run; None: it is the only one.

    (A Slurm job of one task, and a shell within a job, have but one process.)
    """
    # torchrun first: it may itself run under Slurm, whose variables then count nodes, not ranks.
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    tasks = os.environ.get("SLURM_NTASKS", "1")
    shell = os.environ.get("SLURM_JOB_NAME") in ("bash", "interactive")
    if "SLURM_PROCID" in os.environ and tasks.isdigit() and int(tasks) > 1 and not shell:
        return int(os.environ["SLURM_PROCID"]), int(tasks)
    return None
