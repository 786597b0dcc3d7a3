"""The command line: compose -> check -> build -> fit -> the objective."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

# Two OpenMP threads collapse when the other core is busy; both defaults can be overridden from outside.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rlaif_lab.config import check, config_dir, did_you_mean, known_keys


def run(cfg: DictConfig) -> float:
    """One run in Hydra's output directory; returns the final true quality."""
    check(cfg)
    from rlaif_lab.loop import Loop

    return Loop(cfg, Path(HydraConfig.get().runtime.output_dir)).fit()


def main() -> None:
    """``rlaif-lab``. A user's mistake ends in one sentence and exit code 2, anything else in a traceback."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come out of Hydra as they are; they are printed here
    try:
        hydra.main(version_base="1.3", config_path=config_dir(), config_name="config")(run)()
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        print(f"rlaif-lab: {sentence(error)}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # the output directory itself, which Hydra makes
        from rlaif_lab.store import DISK_ERRORS

        if error.errno not in DISK_ERRORS:
            raise
        print(f"rlaif-lab: cannot write {error.filename!r}: {error.strerror}", file=sys.stderr)
        sys.exit(2)


def resume() -> None:
    """``rlaif-resume DIR``: goes on with the run in DIR, with the overrides that started it."""
    arguments = sys.argv[1:]
    folder = Path(arguments[0]) if arguments else Path()
    overrides = folder / ".hydra" / "overrides.yaml"
    if len(arguments) < 1 or not overrides.is_file():
        print("usage: rlaif-resume DIR [OVERRIDE ...], where DIR is the folder of a run", file=sys.stderr)
        sys.exit(2)
    started_with = [o for o in OmegaConf.to_container(OmegaConf.load(overrides)) or [] if isinstance(o, str)]
    sys.argv[1:] = [*started_with, "hydra.mode=RUN", f"hydra.run.dir={_quoted(folder)}", "resume=true", *arguments[1:]]
    main()


def _quoted(path: Path) -> str:
    """A path as a value in Hydra's override grammar, in which = and , mean something."""
    return "'" + str(path).replace("\\", "\\\\").replace("'", "\\'") + "'"


def sentence(error: Exception) -> str:
    """Hydra's own errors, in one sentence each and with a guess at what was meant."""
    text = " ".join(str(error).split())
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        hint = did_you_mean(choice, error.options)
        return f"{group}={choice}: no such choice{hint}; there is {', '.join(error.options)}"
    if unknown := re.match(r"Could not override '([^']+)'", text):
        others = [key for key in known_keys() if key != unknown[1]]  # of another choice of the group, then
        return f"unknown key {unknown[1]!r}{did_you_mean(unknown[1], others)}; see rlaif-lab --cfg job"
    if isinstance(error.__cause__, OmegaConfBaseException):
        text = f"{text} {' '.join(str(error.__cause__).splitlines()[:1])}"
    return text


if __name__ == "__main__":
    main()
