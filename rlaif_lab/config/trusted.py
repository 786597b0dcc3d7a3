"""Which packages' code a folder or a config may name: one rule for reading, reporting, auditing and resuming."""

from __future__ import annotations

import os

OWN = "rlaif_lab"
TRUST = "RLAIF_LAB_TRUST"
ONLY_TRUSTED = "RLAIF_LAB_ONLY_TRUSTED"
"""Set while a folder is resumed that this user has not started: for the jobs of its sweep, too."""
PYTHON = "python:"
"""How a value names a function by its path, as ``task.grader`` may."""
SHIPPED = (
    *("pytorch_lightning.callbacks.Timer", "pytorch_lightning.loggers.CSVLogger"),
    "pytorch_lightning.loggers.TensorBoardLogger",
)
"""Classes of other packages that the lab's own conf/ names."""


class UntrustedError(ValueError):
    """A folder names code that is not the lab's own, and nobody has said that it may run."""


def trusted() -> tuple[str, ...]:
    """Return the packages whose classes may be made: the lab, and those that the environment names."""
    return (OWN, *(name.strip() for name in os.environ.get(TRUST, "").split(",") if name.strip()))


def trust(packages: str | None) -> None:
    """Add packages (a list with commas) for this process, as a command's ``--trust`` says."""
    if packages:
        os.environ[TRUST] = ",".join(filter(None, (os.environ.get(TRUST), packages)))


def is_trusted(target: str) -> bool:
    """Tell whether a class path lies in a trusted package. Nothing is imported."""
    return target.partition(".")[0] in trusted()


def only_trusted() -> bool:
    """Tell whether this process goes on with a folder that its user has not started."""
    return bool(os.environ.get(ONLY_TRUSTED))


def check_allowed(path: str, target: object) -> None:
    """Refuse a class or function of a package that is not trusted, where only such may run, before it is imported.

    Raises:
        UntrustedError: in one sentence, with the dotted key.
    """
    if not only_trusted() or (isinstance(target, str) and (target in SHIPPED or is_trusted(target))):
        return
    package = str(target).partition(".")[0]
    raise UntrustedError(
        f"{path} is {target!r:.80}, which is not the lab's own, in a folder that was not started by you on this "
        f"machine: it is not run; if you trust it: --trust {package:.40}"
    )
