"""What the commands that take overrides have in common: questions answered at once, words for what Hydra complains of,
and a look at the config before Hydra writes anything."""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from rlaif_lab.cli.help import choices_of, quick_answer
from rlaif_lab.config import OPTIONAL, config_dir, did_you_mean, elsewhere
from rlaif_lab.config.places import check_sizes, config_folders, installed_folders, open_places
from rlaif_lab.config.secrets import Refused, check_arguments, check_files
from rlaif_lab.progress import printable

NULL_UNLESS_TOLD = ("experiment", "variant", "metrics")
# `null` as a whole value, or as one item of a list or a sweep.
OFF = re.compile(r"(?<![^,=\[])null(?![^,\]])")


def prepare(program: str, arguments: list[str]) -> list[str]:
    """Return the command line for Hydra. Ends the process (code 0) where it only asks something.

    Raises ValueError for a key in the wrong place, before anything is written.
    """
    # Keys first: nothing that comes later may print one.
    check_arguments(arguments)
    own = config_folders(arguments)
    folders = [Path(config_dir()), *own, *installed_folders()]
    # Questions are answered without composing anything.
    answer = quick_answer(program, arguments, folders)
    if answer is not None:
        print(answer)
        sys.exit(0)
    # Before Hydra composes them: a file of aliases would fill the memory.
    check_sizes(own)
    check_files(own)
    open_places(arguments)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come out of Hydra as they are, and are told by the command
    return [kept for argument in arguments for kept in without_null(argument)]


def without_null(argument: str) -> list[str]:
    """Return an override with ``none`` for ``null`` where it chooses of a group: Hydra has no null there. A group that
    is null unless told otherwise gives nothing.

    Raises:
        ValueError: the group cannot be put out.
    """
    key, separator, value = argument.partition("=")
    group = key.lstrip("+")
    # A held-out judge is chosen from the judges' group, under a name of its own.
    if group in OPTIONAL and not (Path(config_dir()) / group).is_dir():
        group = {"heldout_judge": "judge@heldout_judge"}[group]
        key = group
    family = group.partition("@")[0]
    folder = Path(config_dir()) / family
    # An override of a key, not a choice of a group: null means null there.
    if not separator or not OFF.search(value) or not re.fullmatch(r"[a-z_]+", family) or not folder.is_dir():
        return [argument]
    if family in NULL_UNLESS_TOLD and value == "null":
        return []
    if (folder / "none.yaml").is_file():
        return [f"{key}={OFF.sub('none', value)}"]
    raise ValueError(
        f"{argument}: {family} cannot be put out; there is {', '.join(choices_of(family, [Path(config_dir())]))}"
    )


def before_writing(config: DictConfig, check: Callable[[DictConfig], None]) -> None:
    """Check a composed config when Hydra has not written anything yet. Raises Refused with the ValueError as cause."""
    # A copy without Hydra's own part, which the checks know nothing of.
    task = copy.deepcopy(config)
    with read_write(task), open_dict(task):
        del task["hydra"]
    try:
        check(task)
    except ValueError as error:
        raise Refused(str(error)) from error


# --- words ------------------------------------------------------------------------------------------------------------
def sentence(error: BaseException, config_name: str = "config", program: str = "rlaif-lab") -> str:
    """Return one sentence for an error, Hydra's own included, with the remedy where there is one."""
    return printable(_sentence(error, config_name, program))


def _sentence(error: BaseException, config_name: str, program: str) -> str:
    text = " ".join(str(error).split())
    arguments = sys.argv[1:]
    # Hydra's message on these is about its own grammar; users want to know what to type.
    if isinstance(error, OverrideParseException):
        return unreadable(str(error.override))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, choice = str(error.missing_cfg_file).rpartition("/")
        folders = [Path(config_dir()), *config_folders(arguments), *installed_folders()]
        options = list(choices_of(group, folders)) or list(error.options or [])
        if options:
            return f"{group}={choice}: no such choice{did_you_mean(choice, options)}; there is {', '.join(options)}"
    if unknown := re.match(r"Could not override '([^']+)'", text):
        return unknown_key(unknown[1], arguments, config_name, program)
    if empty := re.match(r"Could not find '([^']+)'", text):
        return f"{empty[1]}: no such choice, and no such group"
    if isinstance(error.__cause__, OmegaConfBaseException):
        text = f"{text} {' '.join(str(error.__cause__).splitlines()[:1])}"
    return text


def unreadable(override: str) -> str:
    """Return what to do about an override that Hydra's grammar does not take."""
    key, separator, value = override.partition("=")
    if not separator:
        return f"{override!r} is no override: write KEY=VALUE, or GROUP=CHOICE"
    quoted = value.strip("'\"").replace("\\", "\\\\").replace('"', '\\"')
    shell = f'{key}="{quoted}"'.replace("'", "'\\''")
    return f"{key}: the value {value!r} has signs that mean something to Hydra; quote it twice: '{shell}'"


def unknown_key(key: str, arguments: Sequence[str], config_name: str, program: str) -> str:
    """Return a hint at a key of the composed config, or at the choices of the group that have the key."""
    parent, _, last = key.rpartition(".")
    cfg = composed_without(key, arguments, config_name)
    node: Any = OmegaConf.select(cfg, parent) if parent and cfg is not None else cfg
    hint = ""
    if isinstance(node, DictConfig):
        close = did_you_mean(last, [str(name) for name in node])
        hint = close.replace("mean '", f"mean '{parent}.") if parent else close
        hint = hint or (elsewhere(parent, last) if parent else "")
        if parent and not node:  # a mapping that is empty until somebody adds to it, such as trainer.args
            hint = f"; to add it, write +{key}=..."
    elif cfg is not None and parent and node is not None:
        hint = f" ({parent} is {node!r} here, which has no keys of its own; other choices may have a mapping there)"
    elif cfg is not None and parent:
        # Only where the key is: a hint at one that is not there would lead from one mistake to the next.
        having = [f"{name!s}.{last}" for name, part in cfg.items() if isinstance(part, DictConfig) and last in part]
        hint = did_you_mean(key, having)
    return f"unknown key {key!r}{hint}; see {program} --cfg job"


def composed_without(key: str, arguments: Sequence[str], config_name: str) -> DictConfig | None:
    """Return the config of a command line less the overrides of one key, of a sweep and of Hydra; None: it fails."""
    plain = [a for a in arguments if "=" in a and not a.startswith(("-", "hydra"))]
    # In a sweep, the first value: any will do to see which keys there are.
    kept = [a.partition(",")[0] for a in plain if a.lstrip("+~").partition("=")[0] != key]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir(), version_base="1.3"):
            return compose(config_name, overrides=kept)
    # Only a hint depends on it.
    except Exception:
        return None
