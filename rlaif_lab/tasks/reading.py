"""Texts as people read them: what a task writes in an order of its own is turned round, and the right answer given.

Everything that shows prompts and responses to people asks here: the page's sample browser, notebooks, W&B's tables,
cards and the audit's mistakes. Training, judging and files keep the text as the policy sees it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlaif_lab.records import Prompt
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.base import Task

NUMBER = re.compile(r"\d+")
BACKWARDS = "This task writes numbers least significant digit first; here they are the usual way round."


def readable_text(task: Task, text: str) -> str:
    """Return a prompt or a response of the task as a person would write it."""
    # With VerboseAddition, which is one.
    if isinstance(task, Addition):
        return NUMBER.sub(lambda number: number[0][::-1], text)
    return text


def display(task: Task, prompt: Prompt, responses: Sequence[str]) -> list[str]:
    """Return the prompt and then its responses as a person would write them."""
    return [readable_text(task, text) for text in (prompt.text, *responses)]


def right_answer(task: Task, prompt: Prompt) -> str | None:
    """Return the right answer as a person would write it; None where the task has no single one, or cannot tell."""
    if not task.has_gold:
        return None
    try:
        answer = task.gold_answer(prompt)
    except Exception:  # a prompt that is none of the task's
        return None
    return None if answer is None else readable_text(task, answer)
