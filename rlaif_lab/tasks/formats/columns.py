"""Columns by other names, and columns that would be left out although they belong to what is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlaif_lab.config import did_you_mean
from rlaif_lab.tasks.formats.base import names
from rlaif_lab.tasks.formats.plain import BESIDE
from rlaif_lab.tasks.read_rows import FileRow


def renamed(row: FileRow, columns: Mapping[str, str], ignore: Sequence[str] = ()) -> FileRow:
    """Return the row with the file's columns under our names, and without those to be ignored.

    A column of the file that has one of our names by chance, while another was named for it, is out of the way.
    """
    # The file's own names too: a column that was renamed is not there twice.
    taken = {*columns, *columns.values(), *ignore}
    values = {name: value for name, value in row.values.items() if name not in taken}
    named = {ours: row.values[theirs] for ours, theirs in columns.items() if theirs in row.values}
    return FileRow(row.where, values | named)


def check_columns(row: FileRow, columns: Mapping[str, str], key: str) -> None:
    """Raise ValueError for a column that the first row has not got."""
    held = list(row.values)
    for ours, theirs in columns.items():
        if theirs not in held:
            hint = did_you_mean(str(theirs), held)
            raise ValueError(f"{key}.columns.{ours}: {row.where} has no column {theirs!r}{hint}; it has {names(held)}")


def check_nothing_left_out(row: FileRow, known: Sequence[str], key: str) -> None:
    """Raise ValueError where a column that belongs to what is asked would be left out.

    Args:
        row: under our names, without the columns that the user wants to be ignored.
        known: columns that the format reads.
        key: family of the setting, for messages.
    """
    for name in BESIDE:
        if name in known or row.values.get(name) in (None, "", []):
            continue
        where = "system" if name == "system_prompt" else "input"
        # No column of ours takes a history; only the format alpaca reads it.
        add = "" if name == "history" else f"add it with {key}.columns.{where}={name}, or "
        alpaca = f"read the file with {key}.format=alpaca, " if name in ("input", "history") else ""
        raise ValueError(
            f"{row.where}: column {name!r} stands beside the prompt and would be left out: {alpaca}{add}say that it is "
            f"not wanted with {key}.ignore=[{name}]"
        )
