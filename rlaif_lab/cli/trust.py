"""Whether a folder may say what its resumption runs: yes if this user started it; else only the lab's own code.

``rlaif-resume`` runs what a folder's files say: class paths, config folders, the folder that was worked in. In a
stranger's folder those could be anything. So the lab keeps, in the cache and not in the run, a digest of each command
line that was run here; what is not among them is resumed only if it names nothing but the lab's own, or what
``--trust`` names. Nor does it ask servers that the folder names: one's keys would go there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence

from rlaif_lab.cli.origin import Origin
from rlaif_lab.config.trusted import PYTHON, is_trusted
from rlaif_lab.store.files import cache_root

CHANGES = ("resume=", "hydra.mode=", "hydra.run.dir=", "hydra.sweep.dir=", "hydra.sweep.subdir=")
"""What a resumption itself gives: it does not make another command of it."""
PLAIN = re.compile(
    r"hydra(/launcher|/sweeper|\.job\.(name|config\.override_dirname\.exclude_keys)|\.mode|\.run\.dir|\.sweep\.(dir|subdir)|\.sweeper\.(n_trials|direction|params\..*)"
    r"|\.launcher\.(n_jobs|timeout_min|cpus_per_task|gpus_per_node|gpus_per_task|mem_gb|nodes|tasks_per_node|partition"
    r"|qos|account|array_parallelism|max_num_timeout))="
)
"""Settings of Hydra's that a stranger's folder may bring; others can name code, give the shell commands (Slurm's
``setup``), or write anywhere."""
ADDRESS = re.compile(r"\w://")
PROGRAM = re.compile(r"(^|[.+{,\s])python['\"]?\s*[=:]")
"""An engine's Python, which would be started."""
OUTSIDE = re.compile(r"(^|[\[,\s'\"(:])(/|~|[^,]*\.\.([/\\]|$))")
"""In a choice of a group: a file outside of the config folders, which could say anything."""
PATHS = re.compile(r"_target_['\"]?\s*[=:]\s*['\"]?([\w.]+)|" + re.escape(PYTHON) + r"([\w.]+)")


def remember(overrides: Sequence[str], origin: Origin) -> None:
    """Note that this command line was run on this machine by this user."""
    digest = _digest(overrides, origin)
    # Known already: the list does not grow with every resumption.
    if digest in _known():
        return
    file = cache_root() / "started"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        # One short line, appended in one write: several processes may do so at once.
        with file.open("a") as opened:
            opened.write(digest + "\n")
    except OSError:
        pass  # then its resumption asks for trust, if it needs any


def started_here(overrides: Sequence[str], origin: Origin) -> bool:
    """Return whether this user has run this command line, up to what a resumption adds."""
    return _digest(overrides, origin) in _known()


def check_trusted(overrides: Sequence[str], origin: Origin, named: str | None) -> Origin:
    """Return where a folder may be resumed from.

    Args:
        overrides: those that the folder records.
        origin: where it says that it was started.
        named: the packages of ``--trust``, separated by commas; they are trusted already.

    Raises:
        ValueError: it names code that is neither the lab's own nor trusted.
    """
    if started_here(overrides, origin):
        return origin
    for override in overrides:
        paths = [first or second for first, second in PATHS.findall(override)]
        # Every class path in it, including those in nested mappings.
        for path in paths:
            if not is_trusted(path):
                raise ValueError(_refusal(f"{override!r}", path.partition(".")[0]))
        # It names a class in a way that is not understood here: refused rather than guessed.
        unread = "_target_" in override and not paths
        hydras = override.lstrip("+~").startswith("hydra")
        if (
            unread
            or PROGRAM.search(override)
            or ADDRESS.search(override)
            or (hydras and not PLAIN.match(override.lstrip("+")))
        ):
            raise ValueError(_refusal(f"{override!r}", None))
        key, _, value = override.partition("=")
        # The path of a group's choice, or one of Hydra's: paths of data are the task's business.
        if (hydras or "." not in key.partition("@")[0]) and not key.endswith(".dir") and OUTSIDE.search(value):
            raise ValueError(_refusal(f"{override!r}", None))
    # Config folders hold YAML files that could name anything.
    if origin.options and not named:
        raise ValueError(_refusal(" ".join(origin.options), "PACKAGE"))
    # A stranger's folder says nothing about where to go: relative paths count from here.
    return origin if named else Origin(None)


def _refusal(what: str, package: str | None) -> str:
    trusting = f"; if you trust it: --trust {package}" if package else ""
    return (
        f"this folder asks for {what}, and was not started by you on this machine: it is not run{trusting}. Or give "
        "the command yourself, with resume=true and hydra.run.dir= or hydra.sweep.dir="
    )


def _digest(overrides: Sequence[str], origin: Origin) -> str:
    # Sorted: the order of overrides does not make another command.
    kept = sorted(override for override in overrides if not override.lstrip("+").startswith(CHANGES))
    content = json.dumps([kept, str(origin.cwd), list(origin.options)])
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _known() -> set[str]:
    try:
        # Somebody else's list would let them decide what this user trusts.
        if os.stat(file := cache_root() / "started").st_uid not in (os.getuid(), 0):
            return set()  # somebody else's list
        return set(file.read_text().split())
    except (OSError, ValueError):
        return set()
