"""Where classes and YAML files of a user's own lie: the folder that a command is run from, ``--config-dir``,
``hydra.searchpath``, and installed packages that name their conf folder by an entry point.

A package adds choices by ``[project.entry-points."rlaif_lab.conf"]`` with ``any_name = "package.conf"``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

from rlaif_lab.config.trusted import TRUST, only_trusted

ENTRY_POINT = "rlaif_lab.conf"
MOST_VALUES = 20_000
"""Of one file of settings. The lab's own longest has some hundred."""
DEEPEST = 50


class InstalledConfigs(SearchPathPlugin):
    """Adds the conf folders of installed packages to Hydra's search path."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for entry in entry_points(group=ENTRY_POINT):
            # At the end of the search path: the lab's own choices come first.
            search_path.append(provider=entry.name, path=f"pkg://{entry.value}")


def config_folders(arguments: Sequence[str]) -> list[Path]:
    """Return the user's own config folders that a command line names, where they are folders."""
    found: list[str] = []
    for i, argument in enumerate(arguments):
        # As Hydra takes it, with a space or with an equals sign.
        if argument in ("--config-dir", "-cd") and i + 1 < len(arguments):
            found.append(arguments[i + 1])
        elif argument.startswith("--config-dir="):
            found.append(argument.partition("=")[2])
        elif argument.lstrip("+").startswith("hydra.searchpath="):
            paths = argument.partition("=")[2].strip("[]'\"").split(",")
            # Packages are not folders here, and bring choices of their own.
            found += [path.strip(" '\"").removeprefix("file://") for path in paths if "pkg://" not in path]
    return [Path(path).absolute() for path in found if Path(path).is_dir()]


def installed_folders() -> list[Path]:
    """Return the conf folders of installed packages."""
    found = []
    for entry in entry_points(group=ENTRY_POINT):
        spec = find_spec(entry.value)
        found += [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    return found


def check_sizes(folders: Sequence[Path]) -> None:
    """Look at the size of the YAML files of the user's own config folders, which Hydra would write out in full.

    Raises:
        ValueError: one comes to too much, by aliases of aliases, aliases of themselves, or depth.
    """
    for folder in folders:
        for file in sorted(folder.rglob("*.yaml")):
            try:
                # Composed, not loaded: aliases stay references, and are counted and not written out.
                root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
                counted = _values(root, {}, ())
            except RecursionError:
                counted = MOST_VALUES + 1
            except (OSError, ValueError, yaml.YAMLError):
                continue  # Hydra says so, if it is composed
            if counted > MOST_VALUES:
                raise ValueError(f"{file}: comes to more than {MOST_VALUES} values, or is nested too deeply")


def _values(node: yaml.Node | None, known: dict[int, int], above: tuple[int, ...]) -> int:
    """Return how many values a node comes to, its aliases written out; each node is gone through once."""
    # An alias of itself, or a depth that nobody means.
    if id(node) in above or len(above) > DEEPEST:
        raise RecursionError
    if id(node) not in known:
        inside = [*above, id(node)]
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        # A mapping's keys are values too: they are written out with it.
        known[id(node)] = 1 + sum(_values(child, known, tuple(inside)) for child in children)
    return known[id(node)]


def open_places(arguments: Sequence[str]) -> None:
    """Let ``_target_`` name classes in the folder that the command is run from, and beside its config folders.

    At the end of the path, so that nothing there can stand in for a library; for child processes too. A folder that
    the user has not started is resumed without: what lies where one stands may be a stranger's.
    """
    if only_trusted() and not os.environ.get(TRUST):
        Plugins.instance().register(InstalledConfigs)
        return
    folders = [Path.cwd(), *(folder.parent for folder in config_folders(arguments))]
    added = [str(folder) for folder in dict.fromkeys(folders) if str(folder) not in sys.path]
    sys.path += added
    if added:
        known = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join([*([known] if known else []), *added])
    Plugins.instance().register(InstalledConfigs)
