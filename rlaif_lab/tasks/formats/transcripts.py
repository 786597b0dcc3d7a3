"""Conversations written out as one text: those of HH-RLHF and of HelpSteer2."""

from __future__ import annotations

import re

from rlaif_lab.tasks.formats.base import Turns
from rlaif_lab.tasks.read_rows import FileRow

_HH = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_HELPSTEER = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
_ROLES = {"Human": "user", "User": "user", "Assistant": "assistant"}

# As conversations written out begin: "Human:", "### User:", "<|prompter|>:".
_OPENS = re.compile(r"\s*(?:#+ *|<\|?)?(?:human|user|prompter|question)(?:\|?>)? *:", re.IGNORECASE)
_SPEAKER = re.compile(
    r"(?:\n|#+ *)\s*(?:#+ *)?(human|user|prompter|question|assistant|bot|ai|gpt|answer) *:", re.IGNORECASE
)


def hh_turns(row: FileRow, column: str, text: str) -> Turns:
    """Split a transcript at ``Human:`` and ``Assistant:``, each after an empty line.

    Raises:
        ValueError: with the line, for a text that is no such transcript.
    """
    # Split with a group: what stands before the first mark, then name and text in turn.
    parts = _HH.split(text)
    if len(parts) < 3 or parts[0].strip() or parts[1] != "Human":
        raise ValueError(f"{row.where}: {column} must be a transcript that begins with 'Human:'")
    return tuple((_ROLES[name], said.strip()) for name, said in zip(parts[1::2], parts[2::2], strict=True))


def helpsteer_turns(text: str) -> Turns:
    """Split a prompt at HelpSteer2's marks between turns; without marks it is one user's turn."""
    parts = _HELPSTEER.split(text)
    # The first turn, the user's, has no mark before it.
    roles = ["user", *(_ROLES[name] for name in parts[1::2])]
    return tuple(zip(roles, parts[0::2], strict=True))


def answered_transcript(text: str) -> bool:
    """Tell whether a text is a conversation written out that ends in an answer: no prompt as it stands."""
    if not _OPENS.match(text):
        return False
    speakers = list(_SPEAKER.finditer(text))
    if not speakers or speakers[-1][1].lower() not in ("assistant", "bot", "ai", "gpt", "answer"):
        return False
    # Nothing after the last speaker: its answer is still to be given.
    return bool(text[speakers[-1].end() :].strip())
