"""Chat messages as files hold them, and the one conversation that two responses answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlaif_lab.tasks.formats.base import Turns, optional, short
from rlaif_lab.tasks.read_rows import FileRow

ROLES = ("system", "user", "assistant")
BEYOND_TEXT = (
    "tool_calls", "function_call", "tool_call_id", "audio", "images", "image", "reasoning_content", "reasoning",
    "thinking",
)  # fmt: skip
"""What a message may hold besides its content and would be lost, since prompts are texts."""


def is_messages(value: Any) -> bool:
    """Tell whether a value is a list of chat messages: by its type, never by what a text looks like."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(item, Mapping) and {"role", "content"} <= set(item) for item in value)
    )


def turns_of(
    row: FileRow, column: str, messages: Sequence[Any], *, role: str = "role", content: str = "content",
    roles: Mapping[str, str] | None = None,
) -> Turns:  # fmt: skip
    """Return messages as turns.

    Args:
        row: for messages about mistakes.
        column: likewise.
        messages: objects with a role and a content, which is a text or a list of text parts.
        role: the key of the role.
        content: the key of the content.
        roles: the file's names of roles -> ours; None where they are ours.

    Raises:
        ValueError: with the line, for anything that would be lost or made up.
    """
    known = {name: name for name in ROLES} if roles is None else roles
    found = []
    for i, message in enumerate(messages):
        where = f"{row.where}: turn {i} of {column!r}"
        if not isinstance(message, Mapping) or role not in message or content not in message:
            raise ValueError(f"{where} must be an object with {role} and {content}; it is {short(message)}")
        lost = [key for key in BEYOND_TEXT if message.get(key)]
        if lost:
            raise ValueError(f"{where} holds {lost[0]}, which a text cannot carry; take the row out")
        name = message[role]
        if not isinstance(name, str) or name not in known:
            raise ValueError(f"{where} has the {role} {short(name)}; it must be one of {', '.join(known)}")
        found.append((known[name], _content(where, message[content])))
    return tuple(found)


def _content(where: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(map(_is_text_part, value)):
        return "".join(part["text"] for part in value)
    raise ValueError(f"{where} has no text as its content, nor a list of text parts; it is {short(value)}")


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def ends_with_a_question(row: FileRow, column: str, turns: Turns) -> Turns:
    """Return the turns, which must end with the user's."""
    if not turns or turns[-1][0] != "user":
        raise ValueError(f"{row.where}: the messages of {column!r} must end the prompt with a user's turn")
    if not turns[-1][1].strip():
        raise ValueError(f"{row.where}: the prompt is empty")
    return turns


def with_system(row: FileRow, turns: Turns) -> Turns:
    """Put the ``system`` column first, where there is one."""
    system = optional(row, "system")
    # The same text in both places is one system turn.
    if system is None or (turns and turns[0] == ("system", system)):
        return turns
    if turns and turns[0][0] == "system":
        raise ValueError(f"{row.where}: the column 'system' says something else than the conversation's system turn")
    return (("system", system), *turns)


def one_context(row: FileRow, columns: tuple[str, str], first: Turns, second: Turns) -> Turns:
    """Return what both responses answer. Two responses are compared only under one and the same conversation."""
    if first != second:
        same = sum(1 for _ in _common(first, second))
        raise ValueError(
            f"{row.where}: {columns[0]} and {columns[1]} answer different conversations (they part at turn {same}), so "
            "they cannot be compared; take the row out, or give the conversation up to there as the prompt"
        )
    return first


def split_where_they_part(row: FileRow, first: Turns, second: Turns) -> tuple[Turns, str, str]:
    """Return the common beginning, up to the last user's turn in it, and what follows it in each, as text.

    For verdicts on whole conversations: what comes after the first different answer belongs to the response.
    """
    common = list(_common(first, second))
    # The context ends with a question, so a last answer that both have in common belongs to the responses.
    while common and common[-1][0] != "user":
        common.pop()
    if not common:
        raise ValueError(f"{row.where}: the two conversations do not begin with the same user's turn")
    start = len(common)
    # One is nothing but a beginning of the other.
    if start == len(first) or start == len(second):
        raise ValueError(f"{row.where}: a conversation ends without an answer")
    return tuple(common), as_text(first[start:]), as_text(second[start:])


def _common(first: Turns, second: Turns) -> Turns:
    count = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        count += 1
    return first[:count]


def as_text(turns: Turns) -> str:
    """Return an answer as it is; of more turns all, the later ones under their roles."""
    return "\n\n".join(said if i == 0 else f"{role.capitalize()}: {said}" for i, (role, said) in enumerate(turns))
