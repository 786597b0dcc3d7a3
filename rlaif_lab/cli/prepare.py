"""``rlaif-prepare``: fill the caches of a run or a sweep before it starts, so that an array of jobs finds them."""

from __future__ import annotations

import os
import sys
import tempfile

# Before torch is imported; as in rlaif_lab/cli/lab.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from rlaif_lab.cli.command import prepare, sentence
from rlaif_lab.cli.endings import told
from rlaif_lab.cli.help import lab_version
from rlaif_lab.cli.through_hydra import through_hydra
from rlaif_lab.config import check

USAGE = """\
rlaif-prepare builds the organisms that the jobs of a run or a sweep need, before the jobs start: those that neither
come with the package nor are in the cache.

usage: rlaif-prepare [KEY=VALUE ...] [GROUP=CHOICE ...]

The arguments are those of rlaif-lab, with commas for a sweep.

examples
  rlaif-prepare experiment=class_law_organisms
  rlaif-prepare judge=self,equal seed=0,1,2

options
  --version          print the version of the lab
"""


def one(cfg: DictConfig) -> None:
    """Check one job, and build the organisms that it lacks."""
    check(cfg)
    from rlaif_lab.loop.checks import check_together
    from rlaif_lab.loop.parts import build_organisms, choose

    chosen = choose(cfg)
    check_together(cfg, chosen)
    print(f"{cfg.arm}, seed {cfg.seed}: {len(chosen.sources())} models", flush=True)
    build_organisms(chosen)


def main() -> None:
    """Run ``rlaif-prepare``. A user's mistake ends in one sentence and exit code 2."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(USAGE, end="")
        return
    if "--version" in arguments:
        print(f"rlaif-prepare {lab_version()}")
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # A folder that is thrown away: nothing is run in it.
    with told("rlaif-prepare"), tempfile.TemporaryDirectory() as folder:
        # One job after the other in this process: they build organisms between them.
        own = ["hydra/launcher=basic", f"hydra.sweep.dir={folder}", "hydra.output_subdir=null"]
        own.append("~hydra.callbacks.sweep")  # it would list all jobs as not run
        sys.argv[1:] = ["-m", *(a for a in arguments if a not in ("-m", "--multirun")), *own]
        try:
            sys.argv[1:] = prepare("rlaif-prepare", sys.argv[1:])
            # The first job that fails ends it: what is wrong with it is mostly wrong with all.
            through_hydra(one, "config", keep_in_sweeps=True)
        except (ValueError, HydraException, OmegaConfBaseException) as error:
            print(f"rlaif-prepare: {sentence(error)}", file=sys.stderr)
            sys.exit(2)


if __name__ == "__main__":
    main()
