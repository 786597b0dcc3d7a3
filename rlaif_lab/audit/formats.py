"""Rows of a file as labelled pairs. What layouts there are stands in ``rlaif_lab.tasks.formats``.

labelled    prompt, first, second, label             label: first | second | tie, A | B, 1 | 2, or P(first) with a 0.5
preference  prompt, chosen, rejected                 RewardBench's and TRL's too; chosen and rejected may be messages
                                                     (then also without a prompt), or lists of texts (RewardBench 2)
judgebench  question, response_A, response_B, label  label: A>B | B>A | A=B

These three are told apart by their columns; every other format is named. Optional: subset (or source), system, input.
labelled: author_first, author_second. preference: chosen_model, rejected_model, and scores (score_chosen,
score_rejected, or the words the other way round), where equal scores are a tie. Two responses of the same text are a
tie, whatever the label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlaif_lab.audit.labels import codes_of, label_text, stated_codes
from rlaif_lab.audit.pairs import LabelledPair, better_and_worse
from rlaif_lab.records import Comparison, Prompt
from rlaif_lab.tasks.formats import AUTO, FORMATS, of_columns
from rlaif_lab.tasks.formats.base import FIRST, TIE, FileFormat, LabelledResponses, Turns, need, optional
from rlaif_lab.tasks.formats.columns import check_columns, check_nothing_left_out, renamed
from rlaif_lab.tasks.formats.plain import BESIDE
from rlaif_lab.tasks.read_rows import FileRow

KEY = "bank"
READ_BY = {"alpaca": ("input", "history"), "helpsteer3": ("context",), "alpaca_eval": ("input",)}
"""Columns beside the prompt that a named format reads itself."""


def parse(
    rows: Sequence[FileRow],
    form: str,
    columns: Mapping[str, str],
    bank: str,
    *,
    labels: Mapping[Any, Any] | None = None,
    ignore: Sequence[str] = (),
    limit: int | None = None,
) -> list[LabelledPair]:
    """Return rows of one format as pairs. Equal prompts share an id.

    Args:
        rows: all rows of the file, since what its labels mean is understood from all of them.
        form: name of the format, or ``auto``.
        columns: our name -> the file's, where they differ.
        bank: the bank's name, which begins the prompts' ids.
        labels: label -> first, second or tie; None to go by the format.
        ignore: columns beside the prompt that may be left out.
        limit: number of rows to be made into pairs; None for all.

    Raises:
        ValueError: with file and line, for a row that is not as the format says, and for a bank without pairs.
    """
    if not rows:
        raise ValueError(f"bank {bank!r} holds no pairs")
    check_columns(rows[0], columns, KEY)
    # All rows are read even if few are wanted: what a label means shows only in all of them.
    given = [renamed(row, columns, ignore) for row in rows]
    name = of_columns(given[0], KEY) if form == AUTO else form
    layout = FORMATS[name]
    if layout.pairs is None:
        raise ValueError(f"bank.format={name} holds no labelled pairs; it is for task.format")
    for row in given:
        for column in layout.columns:
            need(row, column, name)
    meaning = _meanings(given, name, layout, labels, columns)
    found = []
    for row in given[:limit]:
        # Columns that the user has named are read, so they are not left out in silence.
        known = [ours for ours in columns if ours in BESIDE]
        check_nothing_left_out(row, [*known, *READ_BY.get(name, ())], KEY)
        context, pairs = layout.pairs(row, meaning(row))
        prompt = _prompt(context, bank)
        found += [_labelled(row, prompt, pair) for pair in pairs]
    if not found:
        raise ValueError(f"bank {bank!r} holds no pairs")
    return found


def _meanings(
    rows: Sequence[FileRow], name: str, layout: FileFormat, labels: Mapping[Any, Any] | None, columns: Mapping[str, str]
) -> Any:
    """Return a function from a row to the probability that its first response is better."""
    column = layout.label
    if column is None:
        if labels is not None:
            raise ValueError(f"bank.labels: format {name} has no labels to be read; leave it out")
        return lambda row: FIRST
    stated = None if labels is None else stated_codes(labels, "bank.labels")
    # By the file's own words and lines, for messages.
    located = [(row.where, need(row, column, name)) for row in rows]
    codes = codes_of(located, layout, stated=stated, column=columns.get(column, column), key="bank.labels")
    return lambda row: codes[label_text(row.values[column])]


def _labelled(row: FileRow, prompt: Prompt, pair: LabelledResponses) -> LabelledPair:
    subset = optional(row, "subset") or optional(row, "source") or ""
    authors = (pair.author_first, pair.author_second)
    if pair.slots_given:
        comparison = Comparison(prompt, pair.first, pair.second)
        # Slots as the file has them: which response a label calls the first matters.
        made = LabelledPair(comparison, pair.prob_first, subset, *authors, source=row.where)
    else:
        # Slots are drawn by the texts, as the file puts the better one first.
        made = better_and_worse(
            prompt, pair.first, pair.second, subset, *authors, source=row.where, tie=pair.prob_first == TIE
        )
    same = pair.first == pair.second  # a pair of one and the same text has no better response
    return replace(made, prob_first_is_better=TIE) if same else made


def _prompt(context: Turns, bank: str) -> Prompt:
    text = context[-1][1]
    turns = context if len(context) > 1 else ()
    # By content: equal prompts share an id, whatever row they are in.
    digest = hashlib.blake2b(repr((text, turns)).encode(), digest_size=6).hexdigest()
    return Prompt(f"{bank}/{digest}", text, turns)
