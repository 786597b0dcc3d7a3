"""The lab's own columns: prompt, first, second, label; prompt, chosen, rejected; and a prompt alone."""

from __future__ import annotations

from rlaif_lab.tasks.formats.base import (
    FIRST,
    SECOND,
    TIE,
    FileFormat,
    LabelledResponses,
    Turns,
    number,
    optional,
    short,
    text,
)  # fmt: skip
from rlaif_lab.tasks.formats.conversations import (
    ends_with_a_question,
    is_messages,
    one_context,
    turns_of,
    with_system,
)  # fmt: skip
from rlaif_lab.tasks.formats.transcripts import answered_transcript
from rlaif_lab.tasks.read_rows import FileRow

BESIDE = ("input", "context", "history", "system_prompt", "passage")
"""Columns that belong to what is asked in the data sets that have them."""


# --- the prompt -------------------------------------------------------------------------------------------------------
def prompt_context(row: FileRow, column: str = "prompt", *, without_answer: bool = False) -> Turns:
    """Return what a row asks: a text or messages, with its ``system`` and ``input`` columns.

    without_answer: an assistant's turn at the end of messages is left out, since answering is the policy's part.

    Raises:
        ValueError: with the line, also where another column belongs to what is asked and would be left out.
    """
    value = row.values.get(column)
    if isinstance(value, list):
        turns = turns_of(row, column, value)
        if without_answer:
            turns = _without_answer(row, turns)
        turns = with_system(row, ends_with_a_question(row, column, turns))
        if optional(row, "input") is not None:
            turns = (*turns[:-1], ("user", f"{turns[-1][1]}\n\n{text(row, 'input')}"))
    elif isinstance(value, str):
        if not value.strip():
            raise ValueError(f"{row.where}: the prompt is empty")
        given = optional(row, "input")
        turns = with_system(row, (("user", value if given is None else f"{value}\n\n{given}"),))
    else:
        raise ValueError(f"{row.where}: {column} must be a text or a list of turns; it is {short(value)}")
    return turns


def _without_answer(row: FileRow, turns: Turns) -> Turns:
    if turns and turns[-1][0] == "assistant":
        turns = turns[:-1]
    if not turns or turns[-1][0] != "user":
        raise ValueError(f"{row.where}: a conversation must end with a user's turn, or with the answer to one")
    return turns


def beside_the_prompt(row: FileRow) -> str | None:
    """Return the name of a column that belongs to what is asked and that nobody has mentioned."""
    return next((name for name in BESIDE if row.values.get(name) not in (None, "", [])), None)


def refuse_an_answer_as_prompt(row: FileRow, key: str, column: str = "prompt") -> None:
    """Raise ValueError where a prompt is a conversation written out whose last turn is an answer."""
    value = row.values.get(column)
    if isinstance(value, str) and answered_transcript(value):
        raise ValueError(
            f"{row.where}: {column} is a conversation written out as text that ends in an answer, so it is no prompt; "
            f"{key}.format=hh reads transcripts of 'Human:' and 'Assistant:' and leaves the answer out"
        )


# --- labelled ---------------------------------------------------------------------------------------------------------
def labelled_pairs(row: FileRow, prob_first: float) -> tuple[Turns, list[LabelledResponses]]:
    first, second = text(row, "first"), text(row, "second")
    authors = optional(row, "author_first"), optional(row, "author_second")
    return prompt_context(row), [LabelledResponses(first, second, prob_first, *authors)]


def judgebench_pairs(row: FileRow, prob_first: float) -> tuple[Turns, list[LabelledResponses]]:
    author = optional(row, "response_model")  # one model wrote both
    pair = LabelledResponses(text(row, "response_A"), text(row, "response_B"), prob_first, author, author)
    return prompt_context(row, "question"), [pair]


# --- preference -------------------------------------------------------------------------------------------------------
def preference_pairs(row: FileRow, prob_first: float = FIRST) -> tuple[Turns, list[LabelledResponses]]:
    """Return every chosen response beside every rejected one, and the one conversation that all of them answer."""
    chosen, rejected = row.values["chosen"], row.values["rejected"]
    if is_messages(chosen) and is_messages(rejected):
        before_chosen, good = _answered(row, "chosen")
        before_rejected, bad = _answered(row, "rejected")
        context, goods, bads = one_context(row, ("chosen", "rejected"), before_chosen, before_rejected), [good], [bad]
    else:
        if _no_prompt(row):
            raise ValueError(
                f"{row.where}: column 'prompt' is missing, which only chat messages can do without{_hint(row)}"
            )
        context = prompt_context(row)
        refuse_an_answer_as_prompt(row, "bank")
        goods, bads = _responses(row, "chosen"), _responses(row, "rejected")
    # Equal scores are a tie, whichever the file calls chosen.
    prob = TIE if score_difference(row) == 0 else FIRST
    authors = optional(row, "chosen_model"), optional(row, "rejected_model")
    found = [LabelledResponses(good, bad, prob, *authors, slots_given=False) for good in goods for bad in bads]
    return context, found


def _answered(row: FileRow, column: str) -> tuple[Turns, str]:
    """Return the conversation before the last answer of a column of messages, and that answer."""
    turns = turns_of(row, column, row.values[column])
    if turns[-1][0] != "assistant":
        raise ValueError(f"{row.where}: the messages of {column!r} must end with the assistant's turn")
    before, answer = turns[:-1], turns[-1][1]
    # Messages hold the whole conversation, or only what follows the prompt.
    whole = bool(before) and before[0][0] != "assistant"
    if _no_prompt(row):
        context = with_system(row, ends_with_a_question(row, column, before))
    elif not whole:
        context = (*prompt_context(row), *before)
    else:
        context = with_system(row, ends_with_a_question(row, column, before))
        _agree(row, column, context)
    return ends_with_a_question(row, column, context), answer


def _no_prompt(row: FileRow) -> bool:
    value = row.values.get("prompt")
    return value is None or (isinstance(value, str) and not value.strip())


def _agree(row: FileRow, column: str, context: Turns) -> None:
    """Raise ValueError where the prompt says something that the conversation beside it does not."""
    stated = row.values["prompt"]
    if isinstance(stated, list):
        turns = turns_of(row, "prompt", stated)
        if context[: len(turns)] == turns or context[-len(turns) :] == turns:
            return
    elif isinstance(stated, str) and any(role == "user" and said.strip() == stated.strip() for role, said in context):
        return
    raise ValueError(
        f"{row.where}: the prompt is no turn of the conversation in {column!r}; map another column with "
        "columns.prompt, or leave prompt out of the file"
    )


def _responses(row: FileRow, column: str) -> list[str]:
    """Return the text, or each text of a list; messages only where they are the answer alone."""
    value = row.values[column]
    if isinstance(value, str):
        return [value]
    if is_messages(value):
        turns = turns_of(row, column, value)
        if len(turns) == 1 and turns[0][0] == "assistant":
            return [turns[0][1]]
    elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        return value
    raise ValueError(
        f"{row.where}: {column} must be a text or chat messages (both chosen and rejected), or a list of texts; got "
        f"{short(value)}"
    )


def _hint(row: FileRow) -> str:
    found = [row.values[name] for name in ("chosen", "rejected")]
    if all(isinstance(value, str) and answered_transcript(value) for value in found):
        return "; bank.format=hh reads transcripts of 'Human:' and 'Assistant:'"
    return ""


def score_difference(row: FileRow) -> float:
    """Return the score of the chosen minus that of the rejected; 1 where there are none."""
    for pattern in ("score_{}", "{}_score"):
        columns = [pattern.format(which) for which in ("chosen", "rejected")]
        values = [row.values.get(name) for name in columns]
        if any(value is None or value == "" for value in values):
            continue
        try:
            good, bad = (number(row, name, value) for name, value in zip(columns, values, strict=True))
        except ValueError:
            raise ValueError(
                f"{row.where}: {columns[0]} and {columns[1]} must be numbers; got {short(values)}, of which one is not "
                "a number"
            ) from None
        if good < bad:
            raise ValueError(f"{row.where}: {columns[0]} is {values[0]}, less than {columns[1]}, which is {values[1]}")
        return good - bad
    return 1.0


def preference_context(row: FileRow) -> Turns:
    return preference_pairs(row)[0] if {"chosen", "rejected"} <= set(row.values) else prompt_context(row)


LABELLED = FileFormat(
    ("prompt", "first", "second", "label"),
    "your own pairs with a label",
    prompt_context,
    labelled_pairs,
    label="label",
    codes={"first": FIRST, "a": FIRST, "second": SECOND, "b": SECOND, "tie": TIE},
    numbers=True,
)
JUDGEBENCH = FileFormat(
    ("question", "response_A", "response_B", "label"),
    "JudgeBench",
    lambda row: prompt_context(row, "question"),
    judgebench_pairs,
    label="label",
    codes={"a>b": FIRST, "b>a": SECOND, "a=b": TIE},
)
PREFERENCE = FileFormat(
    ("chosen", "rejected"),
    "prompt, chosen, rejected, as text, messages or lists of texts",
    preference_context,
    preference_pairs,
)
