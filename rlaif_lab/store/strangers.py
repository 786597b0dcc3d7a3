"""Building what a run's folder names, without running what a stranger may have written there.

To read a run one needs its task (for gold) and at times its learner. The folder says which by a class path and
arguments, and a class path can be anything that Python can import: ``os.system`` among them. So only classes of the lab
itself are made, of the kind that is wanted, with plain values as arguments; and classes of packages that whoever reads
has named (``RLAIF_LAB_TRUST=package,other`` or ``--trust package``). Everything else is refused in one sentence.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from rlaif_lab.config import current_path
from rlaif_lab.config.trusted import PYTHON, TRUST, UntrustedError, is_trusted, trusted

T = TypeVar("T")
HYDRAS = ("_args_", "_partial_", "_recursive_", "_convert_", "_mode_")
"""Keys by which Hydra's own ``instantiate`` would do more than call a class."""


def make(content: Any, kind: type[T], path: str) -> T:
    """Make the object that a stored config describes.

    Args:
        content: the node, plain containers with a ``_target_``.
        kind: what it has to be, such as Task.
        path: its key in the config, for messages.

    Raises:
        UntrustedError: it names something else than a class of a trusted package, of that kind.
        ValueError: the class does not take these values.
    """
    found = _make(content, kind, path)
    assert isinstance(found, kind)
    return found


def _make(content: Any, kind: type, path: str) -> Any:
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} must be a mapping with a _target_; got {content!r:.80}")
    target = content.get("_target_")
    if not isinstance(target, str):
        raise ValueError(f"{path}._target_ must be the path of a class; got {target!r:.80}")
    for key in HYDRAS:
        if key in content:
            raise UntrustedError(f"{path}.{key}: a stored config may not have it")
    made = _class(target, kind, path)
    # Only now, of a class that has passed: one that has not must not have others made for it.
    arguments = {str(k): _value(v, f"{path}.{k}") for k, v in content.items() if k != "_target_"}
    try:
        return made(**arguments)
    # The class says itself, in one sentence, what it does not take.
    except ValueError:
        raise
    except Exception as error:  # whatever a class makes of values that it was never given before
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: {made.__name__} does not take these values ({reason})") from None


def _value(content: Any, path: str) -> Any:
    """Return a plain value; a node within it is made too, of any of the lab's kinds that are arguments of others."""
    if isinstance(content, Mapping):
        if "_target_" in content:
            return _make(content, object, path)
        return {str(key): _value(child, f"{path}.{key}") for key, child in content.items()}
    if isinstance(content, str) and content.startswith(PYTHON) and not is_trusted(content.removeprefix(PYTHON)):
        raise UntrustedError(
            f"{path} is {content!r}, a function that is not the lab's own: it is not run. If you trust it, say so with "
            f"{TRUST}={content.removeprefix(PYTHON).partition('.')[0]}"
        )
    return [_value(child, path) for child in content] if isinstance(content, list) else content


def _class(target: str, kind: type, path: str) -> type:
    # Old class paths are looked up by today's names, so that folders of earlier versions can be read.
    module, _, name = current_path(target).rpartition(".")
    if not is_trusted(target):
        raise UntrustedError(
            f"{path}._target_ is {target!r}, which is not the lab's own: it is not run. If you trust it, say so with "
            f"{TRUST}={target.partition('.')[0]}"
        )
    try:
        # Statically: a module's own `__getattr__` is not asked.
        found = inspect.getattr_static(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise ValueError(f"{path}._target_ is {target!r}, which this version does not have") from None
    # A class that a module merely imports (pathlib.Path, say) is not the lab's own either.
    if not inspect.isclass(found) or found.__module__.partition(".")[0] not in trusted():
        raise UntrustedError(f"{path}._target_ is {target!r}, which is no class of a trusted package: it is not run")
    if not issubclass(found, kind):
        raise UntrustedError(f"{path}._target_ is {target!r}, which is no {kind.__name__}: it is not run")
    return found
