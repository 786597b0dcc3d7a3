"""Runs the lab and kills its own process, with SIGKILL, in the middle of a stage: killer.py STAGE CALL OVERRIDE..."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

stage, call = sys.argv[1], int(sys.argv[2])
sys.argv[1:] = sys.argv[3:]

from rlaif_lab.cli.lab import main
from rlaif_lab.loop import evaluation, stages
from rlaif_lab.sampling.exact import Exact
from rlaif_lab.store import run_folder as store
from rlaif_lab.training import module

calls = 0


def deadly(function: Callable[..., Any], counts: Callable[..., bool] = lambda *args: True) -> Callable[..., Any]:
    """The same function, whose call number ``call`` (from 0, of those that count) does its work and then dies before
    handing it over."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        global calls
        result = function(*args, **kwargs)
        calls += counts(*args)
        if calls > call:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return wrapped


# Small chunks, every one of them saved, so that a stage has a middle.
stages.Stages.__init__.__defaults__ = (None, 32)  # type: ignore[attr-defined]
store.RoundStore.__init__.__defaults__ = (0.0,)  # type: ignore[attr-defined]

if stage == "generating":
    Exact.generate = deadly(Exact.generate, lambda *args: "rounds" in args[5])  # type: ignore[method-assign]
elif stage == "sampling to evaluate":
    Exact.generate = deadly(Exact.generate, lambda *args: bool({"evaluation", "coverage"} & {*args[5]}))  # type: ignore[method-assign]
elif stage == "judging":
    stages.judge_generations = deadly(stages.judge_generations)
elif stage == "training":
    module.RoundModule.training_step = deadly(module.RoundModule.training_step)  # type: ignore[method-assign]
elif stage == "evaluating":
    evaluation.measure = deadly(evaluation.measure)
elif stage == "writing metrics":
    store.RoundStore.append_row = deadly(store.RoundStore.append_row)  # type: ignore[method-assign]
else:
    assert stage == "never", stage

main()
