"""The layouts of files that are read, in one table. A new one is a FileFormat and a line here."""

from __future__ import annotations

from rlaif_lab.config import did_you_mean
from rlaif_lab.tasks.formats.arena import ARENA, ARENA55K, MT_BENCH
from rlaif_lab.tasks.formats.base import FileFormat, names
from rlaif_lab.tasks.formats.hh import HH
from rlaif_lab.tasks.formats.instructions import ALPACA, SHAREGPT
from rlaif_lab.tasks.formats.plain import JUDGEBENCH, LABELLED, PREFERENCE
from rlaif_lab.tasks.formats.ranked import NECTAR, REWARDBENCH, REWARDBENCH2, ULTRAFEEDBACK
from rlaif_lab.tasks.formats.two_responses import ALPACA_EVAL, HELPSTEER2, HELPSTEER3, PKU_SAFERLHF
from rlaif_lab.tasks.read_rows import FileRow

AUTO = "auto"
FORMATS: dict[str, FileFormat] = {
    "labelled": LABELLED,
    "judgebench": JUDGEBENCH,
    "preference": PREFERENCE,
    "trl": PREFERENCE,
    "rewardbench": REWARDBENCH,
    "rewardbench2": REWARDBENCH2,
    "ultrafeedback": ULTRAFEEDBACK,
    "hh": HH,
    "nectar": NECTAR,
    "arena": ARENA,
    "arena55k": ARENA55K,
    "mt_bench": MT_BENCH,
    "helpsteer2": HELPSTEER2,
    "helpsteer3": HELPSTEER3,
    "pku_saferlhf": PKU_SAFERLHF,
    "alpaca_eval": ALPACA_EVAL,
    "alpaca": ALPACA,
    "sharegpt": SHAREGPT,
}
BY_COLUMNS = ("labelled", "judgebench", "preference")
"""Those that a bank is read as without being told, if its first row has their columns. The others must be named."""


def check_format(form: str, key: str) -> None:
    """Raise ValueError for a format that is in no table."""
    if form not in (AUTO, *FORMATS):
        known = (AUTO, *FORMATS)
        raise ValueError(f"{key} must be one of {', '.join(known)}{did_you_mean(str(form), known)}; got {form!r}")


def of_columns(row: FileRow, key: str) -> str:
    """Return the format that a row's columns belong to, or raise ValueError with the one to name."""
    for form in BY_COLUMNS:
        if all(column in row.values for column in FORMATS[form].columns):
            return form
    known = "; ".join(f"{form}: {', '.join(FORMATS[form].columns)}" for form in BY_COLUMNS)
    raise ValueError(
        f"{row.where}: the columns {names(list(row.values))} belong to no known format ({known}); "
        f"{to_name(row, key) or f'map them with {key}.columns'}"
    )


def to_name(row: FileRow, key: str) -> str:
    """Say which named format a row's columns look like; nothing where none."""
    fits = [form for form, held in FORMATS.items() if held.columns and set(held.columns) <= set(row.values)]
    # The layout with the most columns is the closest.
    best = max(fits, key=lambda form: len(FORMATS[form].columns), default=None)
    if best is None or best in BY_COLUMNS:
        return ""
    # Chatbot Arena's files have a column `turn` too, so that columns do not tell the two apart.
    if best == "mt_bench":
        return f"they look like Chatbot Arena or MT-Bench: {key}.format=arena or {key}.format=mt_bench reads them"
    return f"they look like {FORMATS[best].about}: {key}.format={best} reads them"
