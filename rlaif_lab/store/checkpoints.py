"""The checkpoints of a run: the newest two are kept, and the newest is looked at before anything is built from it."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from rlaif_lab.store.checksums import DamagedError, check, digest_of

KEPT = 2
UNTRUSTED = (
    "checkpoint {!r} holds more than numbers and text ({}), which could run code when it is read: it is not loaded. If "
    "you made it yourself with an earlier version, delete that one file to go on from the round before"
)


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder, the oldest first."""
    # By number, not by name: round_1000 comes after round_999.
    found = [path for path in folder.glob("round_*.ckpt") if path.stem.partition("_")[2].isdecimal()]
    return sorted(found, key=lambda path: int(path.stem.partition("_")[2]))


def prune(folder: Path) -> None:
    """Delete all but the newest: a run that was killed and resumed keeps as many as one that never was."""
    for old in checkpoints(folder)[:-KEPT]:
        old.unlink(missing_ok=True)


def check_logged(newest: Path | None, logged: Collection[int]) -> None:
    """Check that a round's row is there: it is logged before its checkpoint, so where it is gone there was damage.
    Raises DamagedError."""
    if newest is None:
        return
    # The name says which round has ended; rounds are counted from 0, so all up to it must be there.
    ended = int(newest.stem.partition("_")[2])
    missing = next((index for index in range(ended + 1) if index not in logged), None)
    if missing is not None:
        raise DamagedError(
            f"{str(newest.parents[1] / 'metrics.jsonl')!r} is corrupt: it lacks round {missing}, and {newest.name} is "
            f"the end of round {ended}; restore it from a copy, or delete the folder checkpoints to have the rounds "
            "trained again (what was sampled and judged is kept)"
        )


def newest_checkpoint(folder: Path) -> Path | None:
    """Return the newest checkpoint, which has been read once; None where there is none. Nothing in it is run.

    Raises:
        DamagedError: it is not what was written, or holds anything but tensors and plain values.
    """
    found = checkpoints(folder)
    if not found:
        return None
    import pickle

    import torch

    newest = found[-1]
    remedy = "delete that one file to go on from the round before, everything else is kept"
    try:
        digest = digest_of(newest)
    except OSError as error:
        raise DamagedError(f"checkpoint {str(newest)!r} cannot be read ({error.strerror}); {remedy}") from None
    check(newest, digest)
    try:
        # Read without being used: it has to hold tensors and plain values, and nothing else. Mapped, not copied.
        torch.load(newest, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        if named := re.search(r"GLOBAL ([\w.]+)", reason):
            raise DamagedError(UNTRUSTED.format(str(newest), named[1])) from None
        raise DamagedError(f"checkpoint {str(newest)!r} is corrupt ({reason[:200]}); {remedy}") from None
    except Exception as error:  # pickle, zip and torch raise many kinds
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DamagedError(f"checkpoint {str(newest)!r} is corrupt ({reason}); {remedy}") from error
    return newest
