"""YAML files that are data, not configuration (templates, constitutions, criteria): found by name, with line numbers
for what is wrong in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlaif_lab.config import config_dir, did_you_mean

MOST_VALUES = 20_000
"""Of a file with its aliases written out. A longest file of the lab's own has some hundred."""


@dataclass(frozen=True)
class YamlFile:
    """A parsed YAML file. lines: 1-based line of every node by its path, e.g. ``("principles", 3, "id")``."""

    path: Path
    data: Any
    text: str
    lines: dict[tuple[str | int, ...], int]

    def at(self, *keys: str | int) -> str:
        """Return ``file, line n`` of a node, for error messages."""
        return f"{self.path}, line {self.lines.get(keys, 1)}"

    def line_with(self, needle: str, *keys: str | int) -> str:
        """Return ``file, line n`` of the first line at or after a node that holds ``needle``, else of the node."""
        start = self.lines.get(keys, 1)
        for number, line in enumerate(self.text.splitlines()[start - 1 :], start=start):
            if needle in line:
                return f"{self.path}, line {number}"
        return self.at(*keys)


def find_yaml(kind: str, name_or_path: str) -> Path:
    """Return the file that ``name_or_path`` means: a path, or the name of a file in ``conf/<kind>/``.

    Raises ValueError when there is no such file.
    """
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise ValueError(f"{kind} file {name_or_path!r} does not exist")
        return path
    shipped = {file.stem: file for file in sorted((Path(config_dir()) / kind).glob("*.yaml"))}
    if name_or_path not in shipped:
        raise ValueError(
            f"there is no {kind} {name_or_path!r}{did_you_mean(name_or_path, list(shipped))}; give one of "
            f"{', '.join(shipped)}, or the path of a YAML file"
        )
    return shipped[name_or_path]


def read_yaml(path: Path) -> YamlFile:
    """Return the parsed file. Raises ValueError, naming file and line, for what is no YAML or holds a key twice."""
    try:
        text = path.read_text(encoding="utf-8")
        # Both: the nodes know their lines, the data are what is read.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = "" if mark is None else f", line {mark.line + 1}"
        raise ValueError(f"{path}{line}: not valid YAML ({error.problem})") from None
    except RecursionError:
        raise ValueError(f"{path}: is nested too deeply") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file ({error})") from None
    lines: dict[tuple[str | int, ...], int] = {}

    seen = 0

    def walk(node: yaml.Node | None, keys: tuple[str | int, ...]) -> None:
        nonlocal seen
        # As often as it is walked into, not as it is written: a few aliases of aliases come to billions.
        seen += 1
        if seen > MOST_VALUES or len(keys) > 50:  # aliases of aliases, or of themselves
            raise ValueError(f"{path}: comes to more than {MOST_VALUES} values, or is nested more than 50 deep")
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = (*keys, str(key.value))
                line = key.start_mark.line + 1
                # PyYAML would keep the last without a word.
                if name in lines:
                    raise ValueError(f"{path}, line {line}: {key.value!r} is given twice")
                lines[name] = line
                walk(value, name)
        elif isinstance(node, yaml.SequenceNode):
            for number, value in enumerate(node.value):
                lines[(*keys, number)] = value.start_mark.line + 1
                walk(value, (*keys, number))

    walk(root, ())
    return YamlFile(path, data, text, lines)


def read_mapping(path: Path, required: tuple[str, ...], optional: tuple[str, ...]) -> YamlFile:
    """Return a YAML file that is one mapping with these keys. Raises ValueError, naming file and line, when it is
    not."""
    file = read_yaml(path)
    if not isinstance(file.data, dict):
        raise ValueError(f"{path}, line 1: must be a mapping with the keys {', '.join(required)}")
    known = [*required, *optional]
    for key in file.data:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ValueError(f"{file.at(str(key))}: unknown key {key!r}{hint}; known are {', '.join(known)}")
    for key in required:
        if key not in file.data:
            raise ValueError(f"{path}, line 1: the key {key!r} is missing")
    return file
