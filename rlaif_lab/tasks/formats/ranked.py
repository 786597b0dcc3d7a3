"""Several answers with ranks or scores: Nectar, UltraFeedback, RewardBench and RewardBench 2."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from rlaif_lab.tasks.formats.base import (
    FIRST,
    TIE,
    FileFormat,
    LabelledResponses,
    Turns,
    listed,
    number,
    short,
    text,
)  # fmt: skip
from rlaif_lab.tasks.formats.conversations import ends_with_a_question, with_system
from rlaif_lab.tasks.formats.plain import preference_context, preference_pairs, prompt_context
from rlaif_lab.tasks.formats.transcripts import hh_turns
from rlaif_lab.tasks.read_rows import FileRow


def _pairs_of(answers: list[tuple[float, str, str | None]]) -> list[LabelledResponses]:
    """Return all pairs of (how good, text, author), the better one first; equally good ones are ties."""
    ordered = sorted(answers, key=lambda answer: -answer[0])
    return [
        LabelledResponses(good[1], bad[1], TIE if good[0] == bad[0] else FIRST, good[2], bad[2], slots_given=False)
        for good, bad in combinations(ordered, 2)
    ]


def _field(row: FileRow, column: str, i: int, item: Any, key: str) -> Any:
    if not isinstance(item, Mapping) or item.get(key) is None:
        raise ValueError(f"{row.where}: item {i} of {column} must be an object with {key}; it is {short(item)}")
    return item[key]


def _author(item: Mapping[str, Any]) -> str | None:
    model = item.get("model")
    return model if isinstance(model, str) and model else None


def _answer(row: FileRow, column: str, i: int, item: Any, key: str) -> str:
    said = _field(row, column, i, item, key)
    if not isinstance(said, str):
        raise ValueError(f"{row.where}: item {i} of {column} must have a text as {key}; it is {short(said)}")
    return said


# --- Nectar -----------------------------------------------------------------------------------------------------------
def nectar_context(row: FileRow) -> Turns:
    turns = hh_turns(row, "prompt", text(row, "prompt"))
    # Nectar's prompts end in "Assistant:" with nothing after it.
    return with_system(
        row, ends_with_a_question(row, "prompt", turns[:-1] if turns[-1] == ("assistant", "") else turns)
    )


def nectar_pairs(row: FileRow, prob_first: float = FIRST) -> tuple[Turns, list[LabelledResponses]]:
    """Return all pairs of the ranked answers; rank 1 is the best."""
    answers = [
        (
            -number(row, f"rank {i}", _field(row, "answers", i, a, "rank")),
            _answer(row, "answers", i, a, "answer"),
            _author(a),
        )
        for i, a in enumerate(listed(row, "answers"))
    ]
    return nectar_context(row), _pairs_of(answers)


# --- UltraFeedback ----------------------------------------------------------------------------------------------------
def ultrafeedback_context(row: FileRow) -> Turns:
    return prompt_context(row, "instruction") if "completions" in row.values else preference_context(row)


def ultrafeedback_pairs(row: FileRow, prob_first: float = FIRST) -> tuple[Turns, list[LabelledResponses]]:
    """Return all pairs of the completions by their overall score; of the binarized set its chosen and rejected."""
    if "completions" not in row.values:
        return preference_pairs(row)
    answers = [
        (
            number(row, f"overall_score {i}", _field(row, "completions", i, a, "overall_score")),
            _answer(row, "completions", i, a, "response"),
            _author(a),
        )
        for i, a in enumerate(listed(row, "completions"))
    ]
    return ultrafeedback_context(row), _pairs_of(answers)


# --- RewardBench 2 ----------------------------------------------------------------------------------------------------
def rewardbench2_pairs(row: FileRow, prob_first: float = FIRST) -> tuple[Turns, list[LabelledResponses]]:
    """Return every right answer beside every wrong one: best of four is three pairs, all of which must be right."""
    goods, bads = listed(row, "chosen"), listed(row, "rejected")
    if not all(isinstance(said, str) for said in (*goods, *bads)) or not goods or not bads:
        raise ValueError(f"{row.where}: chosen and rejected must be lists of texts with at least one each")
    found = [LabelledResponses(good, bad, prob_first, slots_given=False) for good in goods for bad in bads]
    return prompt_context(row), found


NECTAR = FileFormat(("prompt", "answers"), "Nectar's ranked answers", nectar_context, nectar_pairs)
ULTRAFEEDBACK = FileFormat(
    (), "UltraFeedback: scored completions, or binarized", ultrafeedback_context, ultrafeedback_pairs
)
REWARDBENCH = FileFormat(("prompt", "chosen", "rejected"), "RewardBench", preference_context, preference_pairs)
REWARDBENCH2 = FileFormat(
    ("prompt", "chosen", "rejected"), "RewardBench 2 (best of four)", prompt_context, rewardbench2_pairs
)
