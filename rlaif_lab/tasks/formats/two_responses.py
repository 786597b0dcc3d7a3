"""Two responses with a verdict of their own kind: HelpSteer2 and 3, PKU-SafeRLHF, AlpacaEval's annotations."""

from __future__ import annotations

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
    text,
)  # fmt: skip
from rlaif_lab.tasks.formats.conversations import ends_with_a_question, turns_of, with_system
from rlaif_lab.tasks.formats.plain import prompt_context
from rlaif_lab.tasks.formats.transcripts import helpsteer_turns
from rlaif_lab.tasks.read_rows import FileRow


def helpsteer2_context(row: FileRow) -> Turns:
    return with_system(row, ends_with_a_question(row, "prompt", helpsteer_turns(text(row, "prompt"))))


def helpsteer2_pairs(row: FileRow, prob_first: float = TIE) -> tuple[Turns, list[LabelledResponses]]:
    prob = _by_strength(row, "preference_strength")
    return helpsteer2_context(row), [LabelledResponses(text(row, "response_1"), text(row, "response_2"), prob)]


def helpsteer3_context(row: FileRow) -> Turns:
    return with_system(row, ends_with_a_question(row, "context", turns_of(row, "context", listed(row, "context"))))


def helpsteer3_pairs(row: FileRow, prob_first: float = TIE) -> tuple[Turns, list[LabelledResponses]]:
    prob = _by_strength(row, "overall_preference")
    return helpsteer3_context(row), [LabelledResponses(text(row, "response1"), text(row, "response2"), prob)]


def _by_strength(row: FileRow, column: str) -> float:
    """Read how much better the second response is, from -3 to 3."""
    strength = number(row, column, row.values.get(column))
    if not -3 <= strength <= 3:
        raise ValueError(f"{row.where}: {column} must lie in [-3, 3]; got {strength:g}")
    return FIRST if strength < 0 else SECOND if strength > 0 else TIE


def pku_pairs(row: FileRow, prob_first: float) -> tuple[Turns, list[LabelledResponses]]:
    authors = optional(row, "response_0_source"), optional(row, "response_1_source")
    pair = LabelledResponses(text(row, "response_0"), text(row, "response_1"), prob_first, *authors)
    return prompt_context(row), [pair]


def alpaca_eval_context(row: FileRow) -> Turns:
    return prompt_context(row, "instruction")


def alpaca_eval_pairs(row: FileRow, prob_first: float = TIE) -> tuple[Turns, list[LabelledResponses]]:
    """Read ``preference``: 1 for the first output, 2 for the second, between them by how sure; 0 and 1.5 are ties."""
    said = number(row, "preference", row.values.get("preference"))
    if said != 0 and not 1 <= said <= 2:
        raise ValueError(f"{row.where}: preference must be 0 or lie in [1, 2]; got {said:g}")
    prob = TIE if said in (0, 1.5) else FIRST if said < 1.5 else SECOND
    authors = optional(row, "generator_1"), optional(row, "generator_2")
    pair = LabelledResponses(text(row, "output_1"), text(row, "output_2"), prob, *authors)
    return alpaca_eval_context(row), [pair]


HELPSTEER2 = FileFormat(
    ("prompt", "response_1", "response_2", "preference_strength"),
    "HelpSteer2's preferences",
    helpsteer2_context,
    helpsteer2_pairs,
)
HELPSTEER3 = FileFormat(
    ("context", "response1", "response2", "overall_preference"),
    "HelpSteer3's preferences",
    helpsteer3_context,
    helpsteer3_pairs,
)
PKU_SAFERLHF = FileFormat(
    ("prompt", "response_0", "response_1", "better_response_id"),
    "PKU-SafeRLHF (columns.better_response_id=safer_response_id for the safer one)",
    prompt_context,
    pku_pairs,
    label="better_response_id",
    codes={"0": FIRST, "1": SECOND},
)
ALPACA_EVAL = FileFormat(
    ("instruction", "output_1", "output_2", "preference"),
    "AlpacaEval's annotations",
    alpaca_eval_context,
    alpaca_eval_pairs,
)
