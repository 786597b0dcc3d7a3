"""Self-improvement loops under AI feedback: ``import rlaif_lab as rl``.

Importing is quick; each name below loads what it needs when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlaif_lab.cli.api import compose as compose
    from rlaif_lab.cli.api import run as run
    from rlaif_lab.cli.api import sweep as sweep
    from rlaif_lab.judges.base import Judge as Judge
    from rlaif_lab.learners.base import Learner as Learner
    from rlaif_lab.metrics.base import Metric as Metric
    from rlaif_lab.records import Comparison as Comparison
    from rlaif_lab.records import Prompt as Prompt
    from rlaif_lab.records import Verdict as Verdict
    from rlaif_lab.results import read_run as read_run
    from rlaif_lab.results import read_sweep as read_sweep
    from rlaif_lab.results import read_wandb as read_wandb
    from rlaif_lab.tasks.base import Task as Task

    __version__: str

_PLACES = {
    "compose": "rlaif_lab.cli.api",
    "run": "rlaif_lab.cli.api",
    "sweep": "rlaif_lab.cli.api",
    "read_wandb": "rlaif_lab.results",
    "read_run": "rlaif_lab.results",
    "read_sweep": "rlaif_lab.results",
    "Judge": "rlaif_lab.judges.base",
    "Learner": "rlaif_lab.learners.base",
    "Metric": "rlaif_lab.metrics.base",
    "Task": "rlaif_lab.tasks.base",
    "Comparison": "rlaif_lab.records",
    "Prompt": "rlaif_lab.records",
    "Verdict": "rlaif_lab.records",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from rlaif_lab.cli.help import lab_version

        return lab_version()
    if name not in _PLACES:
        raise AttributeError(f"module 'rlaif_lab' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES, "__version__"])
