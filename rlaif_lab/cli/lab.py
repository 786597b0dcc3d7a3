"""The command line: compose -> check -> build -> fit -> the objective."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Two OpenMP threads collapse when the other core is busy; both defaults can be overridden from outside.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asking whether there is a GPU leaves it free for a fork

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from rlaif_lab import ranks
from rlaif_lab.cli.command import prepare, sentence
from rlaif_lab.cli.endings import of_the_disk
from rlaif_lab.cli.estimate import FLAG, print_estimate
from rlaif_lab.cli.help import quick_answer
from rlaif_lab.cli.origin import go_back, origin_of
from rlaif_lab.cli.sweep import NoObjectiveError, Sweep, finish, noted, recorded, resumed, run_job
from rlaif_lab.cli.through_hydra import through_hydra
from rlaif_lab.cli.trust import check_trusted, started_here
from rlaif_lab.config import check
from rlaif_lab.config.secrets import Refused, check_arguments
from rlaif_lab.config.trusted import ONLY_TRUSTED, trust
from rlaif_lab.progress import printable
from rlaif_lab.store.children import RankDiedError
from rlaif_lab.store.files import DiskError, TryLaterError
from rlaif_lab.store.interrupts import Interrupted, interruptible
from rlaif_lab.store.outcome import failure, finished_rounds, resume_command, write_failure


def one(cfg: DictConfig) -> float:
    """Run once, in Hydra's output directory; return the final true quality."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return run_job(cfg, folder)
    # Noted before it is checked, so that a run that was refused can be resumed once it is corrected.
    noted(folder)
    check(cfg)
    from rlaif_lab.loop.run import Run

    # Only now: ranks that find the config wrong should not wait for each other.
    join_others(cfg, folder)
    with explained(folder):
        objective = Run(cfg, folder).run()
    # Those that torchrun or Slurm started: all are through here, or none.
    ranks.part()
    return objective


def join_others(cfg: DictConfig, folder: Path) -> None:
    """Join the processes that torchrun or Slurm has started for this run, if this is one of several."""
    if ranks.started_from_outside() is None:
        return
    from rlaif_lab.config import build
    from rlaif_lab.loop.launch import be_quiet
    from rlaif_lab.training.devices import check_ranks, join_from_outside

    settings = build(cfg.trainer, "trainer")
    check_ranks(settings)
    join_from_outside(settings)
    # All ranks must have the same folder, which Hydra names by the time if nobody does.
    if ranks.on_first(lambda: folder) != folder:
        raise ValueError("the ranks of this run write to different folders: name one by hydra.run.dir=FOLDER")
    if not ranks.first():
        be_quiet()


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Say in a run's folder that it ended before it had finished, and in the terminal how to go on."""
    try:
        yield
    except BaseException as error:
        # It has finished: what failed came afterwards, and the run is whole.
        if finished_rounds(folder) is not None:
            raise
        # Exceptions are noted by the run itself; what ends a process is not.
        if not isinstance(error, Exception) and ranks.first():
            write_failure(folder, failure(error))
        # There is something to go on with, or the error says that there is.
        if (folder / "metrics.jsonl").exists() or isinstance(
            error, (Interrupted, DiskError, TryLaterError, RankDiedError)
        ):
            error.add_note(f"continue with: {resume_command(folder)}")
        # SystemExit without a code would look like success.
        if isinstance(error, SystemExit) and not error.code:
            error.code = 1
        raise


def main() -> None:
    """Run ``rlaif-lab``. A user's mistake ends in one sentence and exit code 2, anything else in a traceback. A sweep
    with jobs that did not finish ends with a line that names them, and exit code 1."""
    code = 0
    try:
        # Taken out before Hydra, which knows no such flag.
        wanted = FLAG in sys.argv[1:]
        sys.argv[1:] = prepare("rlaif-lab", [argument for argument in sys.argv[1:] if argument != FLAG])
        if wanted:
            print_estimate(sys.argv[1:])
            return
        with interruptible():
            through_hydra(one, "config")
    except NoObjectiveError:
        code = 1  # it has been told, and is among those that are listed
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        print(f"rlaif-lab: {sentence(error)}{how_to_go_on(error)}", file=sys.stderr)
        code = error.code if isinstance(error, TryLaterError) else 2
    except Refused as error:
        print(printable(f"rlaif-lab: {error}"), file=sys.stderr)
        code = 2
    except Interrupted as error:
        # In a sweep, `finish` says how to continue.
        if Sweep.current is None:
            print(f"rlaif-lab: {error}{how_to_go_on(error)}", file=sys.stderr)
        code = error.code
    except OSError as error:  # the output directory itself, which Hydra makes
        said = of_the_disk(error)
        if said is None:
            raise
        print(printable(f"rlaif-lab: {said}"), file=sys.stderr)
        code = 2
    except Exception:
        if Sweep.current is None:
            raise
        traceback.print_exc()  # of the launcher: what it left undone is listed all the same
        code = 1
    # The worse of both: a sweep with jobs that failed must not end with 0.
    code = max(code, finish(broken_off=code != 0))
    if code:
        sys.exit(code)


def resume() -> None:
    """Run ``rlaif-resume DIR``: go on with the run or the sweep in DIR, with the overrides that started it."""
    arguments = sys.argv[1:]
    if answer := quick_answer("rlaif-resume", arguments, []):
        print(answer)
        return
    try:
        # Before anything is printed or run.
        check_arguments(arguments)
        arguments, named = _without_trust(arguments)
        folder = Path(arguments[0]).absolute() if arguments else None
        found = recorded(folder) if folder else None
        if found is not None and folder is not None:
            # First the packages that were named: they count as trusted in what follows.
            trust(named)
            origin = check_trusted(found.overrides, origin_of(found.folder), named)
            if not started_here(found.overrides, origin_of(found.folder)):
                # For this process and its children: files may name further classes.
                os.environ[ONLY_TRUSTED] = "1"  # also what files say that its choices name
    except ValueError as error:
        print(printable(f"rlaif-resume: {error}"), file=sys.stderr)
        sys.exit(2)
    if found is None:
        print(
            "usage: rlaif-resume DIR [OVERRIDE ...] [--trust PACKAGE], where DIR is the folder of a run, of a sweep, "
            "or one with sweeps in it, of which the newest is meant",
            file=sys.stderr,
        )
        sys.exit(2)
    if found.folder != folder:
        print(printable(f"going on with the newest sweep in {folder}: {found.folder.name}"), flush=True)
    overrides = resumed(found, arguments[1:])
    # Relative paths are those of the folder that the run was started in.
    go_back(origin)
    sys.argv[1:] = [*overrides, *origin.options]
    main()


def _without_trust(arguments: list[str]) -> tuple[list[str], str | None]:
    """Return the arguments without ``--trust PACKAGE``, and the packages."""
    for i, argument in enumerate(arguments):
        if argument == "--trust" or argument.startswith("--trust="):
            given = argument.partition("=")[2] if "=" in argument else "".join(arguments[i + 1 : i + 2])
            if not given:
                raise ValueError("--trust needs the name of a package")
            return arguments[:i] + arguments[i + (1 if "=" in argument else 2) :], given
    return arguments, None


def how_to_go_on(error: BaseException) -> str:
    """Return what the run has noted on its error, as the end of a sentence."""
    return "".join(f"; {note}" for note in getattr(error, "__notes__", ()))


if __name__ == "__main__":
    main()
