"""Instruction data without labels, for prompts: Alpaca and ShareGPT; pairs where chosen and rejected stand beside."""

from __future__ import annotations

from rlaif_lab.tasks.formats.base import FIRST, FileFormat, LabelledResponses, Turns, listed, optional, short, text
from rlaif_lab.tasks.formats.conversations import ends_with_a_question, turns_of, with_system
from rlaif_lab.tasks.read_rows import FileRow

SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "chatgpt": "assistant", "bard": "assistant",
    "assistant": "assistant", "model": "assistant", "system": "system",
}  # fmt: skip


# --- Alpaca -----------------------------------------------------------------------------------------------------------
def alpaca_context(row: FileRow) -> Turns:
    """Return history (pairs of question and answer), then the instruction with its input after an empty line."""
    asked, given = text(row, "instruction"), optional(row, "input")
    turns: list[tuple[str, str]] = []
    for item in listed(row, "history") if row.values.get("history") else []:
        if not (isinstance(item, list) and len(item) == 2 and all(isinstance(said, str) for said in item)):
            raise ValueError(f"{row.where}: history must be a list of [question, answer]; got {short(item)}")
        turns += [("user", item[0]), ("assistant", item[1])]
    turns.append(("user", asked if given is None else f"{asked}\n\n{given}"))
    return with_system(row, ends_with_a_question(row, "instruction", tuple(turns)))


def alpaca_pairs(row: FileRow, prob_first: float = FIRST) -> tuple[Turns, list[LabelledResponses]]:
    return alpaca_context(row), [_chosen_and_rejected(row, text(row, "chosen"), text(row, "rejected"))]


def _chosen_and_rejected(row: FileRow, good: str, bad: str) -> LabelledResponses:
    return LabelledResponses(good, bad, FIRST, slots_given=False)


# --- ShareGPT ---------------------------------------------------------------------------------------------------------
def sharegpt_context(row: FileRow) -> Turns:
    """Return the conversation without its last answer. A text in ``tools`` cannot be shown, so it is refused."""
    if row.values.get("tools"):
        raise ValueError(f"{row.where}: the row has tools, which a text cannot carry; take the row out")
    turns = turns_of(row, "conversations", listed(row, "conversations"), role="from", content="value", roles=SPEAKERS)
    turns = turns[:-1] if turns and turns[-1][0] == "assistant" else turns
    return with_system(row, ends_with_a_question(row, "conversations", turns))


def sharegpt_pairs(row: FileRow, prob_first: float = FIRST) -> tuple[Turns, list[LabelledResponses]]:
    context, answers = sharegpt_context(row), []
    for column in ("chosen", "rejected"):
        ((role, said),) = turns_of(row, column, [row.values.get(column)], role="from", content="value", roles=SPEAKERS)
        if role != "assistant":
            raise ValueError(f"{row.where}: {column} must be the assistant's; it is the {role}'s")
        answers.append(said)
    return context, [_chosen_and_rejected(row, *answers)]


ALPACA = FileFormat(
    ("instruction",), "Alpaca: instruction with its input; pairs where chosen and rejected stand beside",
    alpaca_context, alpaca_pairs,
)  # fmt: skip
SHAREGPT = FileFormat(
    ("conversations",), "ShareGPT: from and value; pairs where chosen and rejected stand beside",
    sharegpt_context, sharegpt_pairs,
)  # fmt: skip
