"""Chatbot Arena and MT-Bench's human judgements: two whole conversations and who won.

Verdicts of these sets are on whole conversations. What comes after the first different answer is therefore part of the
responses, and only what both have in common is what is asked.
"""

from __future__ import annotations

from typing import Any

from rlaif_lab.tasks.formats.base import (
    FIRST,
    SECOND,
    TIE,
    FileFormat,
    LabelledResponses,
    Turns,
    listed,
    number,
    optional,
)
from rlaif_lab.tasks.formats.conversations import split_where_they_part, turns_of
from rlaif_lab.tasks.read_rows import FileRow

WINNERS = {
    "model_a": FIRST, "model_b": SECOND, "tie": TIE, "tie(bothbad)": TIE, "bothbad": TIE,
    "both_bad": TIE,
}  # fmt: skip
FLAGS = {"winner_model_a": FIRST, "winner_model_b": SECOND, "winner_tie": TIE}


def conversations(row: FileRow) -> tuple[Turns, Turns]:
    """Return both conversations, up to the turn that was judged where the row says which (a turn is two messages)."""
    end = None
    if row.values.get("turn") is not None:
        turn = number(row, "turn", row.values["turn"])
        if turn < 1 or turn != int(turn):
            raise ValueError(f"{row.where}: turn must be a number from 1; got {row.values['turn']!r}")
        end = 2 * int(turn)
    return tuple(turns_of(row, name, listed(row, name))[:end] for name in ("conversation_a", "conversation_b"))  # type: ignore[return-value]


def arena_context(row: FileRow) -> Turns:
    return arena_pairs(row, TIE)[0]


def arena_pairs(row: FileRow, prob_first: float) -> tuple[Turns, list[LabelledResponses]]:
    return _pair(row, *conversations(row), prob_first)


def _pair(row: FileRow, first: Turns, second: Turns, prob: float) -> tuple[Turns, list[LabelledResponses]]:
    context, one, other = split_where_they_part(row, first, second)
    return context, [LabelledResponses(one, other, prob, optional(row, "model_a"), optional(row, "model_b"))]


# --- the competition's set of 55,000 ----------------------------------------------------------------------------------
def arena55k_context(row: FileRow) -> Turns:
    return _told(row)[0]


def arena55k_pairs(row: FileRow, prob_first: float = TIE) -> tuple[Turns, list[LabelledResponses]]:
    flags = {name: number(row, name, row.values.get(name)) for name in FLAGS}
    if sorted(flags.values()) != [0, 0, 1]:
        raise ValueError(f"{row.where}: exactly one of {', '.join(FLAGS)} must be 1; got {list(flags.values())}")
    winner = next(name for name, value in flags.items() if value == 1)
    context, first, second = _told(row)
    return context, [
        LabelledResponses(first, second, FLAGS[winner], optional(row, "model_a"), optional(row, "model_b"))
    ]


def _told(row: FileRow) -> tuple[Turns, str, str]:
    asked = listed(row, "prompt")
    sides = []
    for column in ("response_a", "response_b"):
        said = listed(row, column)
        if len(said) != len(asked) or not all(isinstance(item, str) for item in [*asked, *said]):
            raise ValueError(f"{row.where}: prompt and {column} must be lists of as many texts")
        turns: list[Any] = [turn for q, a in zip(asked, said, strict=True) for turn in (("user", q), ("assistant", a))]
        sides.append(tuple(turns))
    return split_where_they_part(row, sides[0], sides[1])


ARENA = FileFormat(
    ("conversation_a", "conversation_b", "winner"),
    "Chatbot Arena",
    arena_context,
    pairs=arena_pairs,
    label="winner",
    codes=WINNERS,
)
ARENA55K = FileFormat(
    ("prompt", "response_a", "response_b", *FLAGS), "Chatbot Arena's competition", arena55k_context, arena55k_pairs
)
MT_BENCH = FileFormat(
    ("conversation_a", "conversation_b", "winner", "turn"),
    "MT-Bench's human judgements",
    arena_context,
    pairs=arena_pairs,
    label="winner",
    codes=WINNERS,
)
