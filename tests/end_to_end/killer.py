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
from rlaif_lab.loop import round as rounds
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
rounds.Rounds.chunk = 32
store.RoundStore.__init__.__defaults__ = (0.0,)  # type: ignore[attr-defined]
rounds.Rounds.__dataclass_fields__["chunk"].default = 32
rounds.Rounds.__init__.__defaults__ = (*rounds.Rounds.__init__.__defaults__[:-1], 32)  # type: ignore[index]

if stage == "generating":
    rounds.sample = deadly(rounds.sample, lambda *args: "rounds" in args[4:])
elif stage == "sampling to evaluate":
    rounds.sample = deadly(rounds.sample, lambda *args: "rounds" not in args[4:])
elif stage == "judging":
    rounds.judge_generations = deadly(rounds.judge_generations)
elif stage == "training":
    module.RoundModule.training_step = deadly(module.RoundModule.training_step)  # type: ignore[method-assign]
elif stage == "evaluating":
    rounds.evaluate = deadly(rounds.evaluate)
elif stage == "writing metrics":
    store.RoundStore.append_row = deadly(store.RoundStore.append_row)  # type: ignore[method-assign]
else:
    assert stage == "never", stage

main()
