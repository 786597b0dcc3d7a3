"""HH-RLHF (Anthropic/hh-rlhf): chosen and rejected as transcripts; also with the prompt in a column of its own."""

from __future__ import annotations

from rlaif_lab.tasks.formats.base import FIRST, FileFormat, LabelledResponses, Turns, text
from rlaif_lab.tasks.formats.conversations import ends_with_a_question, split_where_they_part, with_system
from rlaif_lab.tasks.formats.transcripts import hh_turns
from rlaif_lab.tasks.read_rows import FileRow


def context(row: FileRow) -> Turns:
    """Return the conversation up to the last question: of ``prompt`` where there is one, else of ``chosen``."""
    column = "prompt" if isinstance(row.values.get("prompt"), str) else "chosen"
    # A prompt ends in "Assistant:" with nothing after it, `chosen` in its answer: neither is part of the question.
    turns = hh_turns(row, column, text(row, column))
    return with_system(row, ends_with_a_question(row, column, turns[:-1] if turns[-1][0] == "assistant" else turns))


def pairs(row: FileRow, prob_first: float = FIRST) -> tuple[Turns, list[LabelledResponses]]:
    if isinstance(row.values.get("prompt"), str):
        before = context(row)
        # As ``hh_turns`` strips them.
        good, bad = text(row, "chosen").strip(), text(row, "rejected").strip()
    else:
        chosen, rejected = (hh_turns(row, column, text(row, column)) for column in ("chosen", "rejected"))
        before, good, bad = split_where_they_part(row, chosen, rejected)
        before = with_system(row, before)
    # Chosen stands first because it is better, so the file's order says nothing of slots.
    return before, [LabelledResponses(good, bad, prob_first, slots_given=False)]


HH = FileFormat(("chosen", "rejected"), "HH-RLHF's transcripts of 'Human:' and 'Assistant:'", context, pairs)
