"""The little Markdown that cards are written in."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any


def front_matter(fields: Mapping[str, Any]) -> str:
    """Return the metadata as the Hub reads it; JSON is YAML."""
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in fields.items()), "---"])


def table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: Any) -> str:
    if value is None:
        return "n/a"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def printable(text: str) -> str:
    """Return the text on one line without characters that are not shown: control codes, and those that turn a line's
    direction."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(str(text).split()))


def escape(text: str) -> str:
    """Return the text of a config as text in a table's cell."""
    return re.sub(r"([\\|`*_<>\[\]&~$])", r"\\\1", printable(text))


def code(text: str) -> str:
    """Return the text in the type of code, whatever backticks it holds."""
    shown = printable(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    # CommonMark takes a space off each end, so that a backtick may stand there.
    space = " " if "`" in shown or not shown.strip() else ""
    return f"{fence}{space}{shown}{space}{fence}"


def fenced(text: str, language: str) -> str:
    """Return a code block whose fence is longer than any run of backticks in it."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"
