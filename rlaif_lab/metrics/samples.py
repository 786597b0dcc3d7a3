"""A round's first responses with what the judge and gold say of them, for a look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rlaif_lab.feedback.matrices import win_rates
from rlaif_lab.metrics.quality import gold_qualities
from rlaif_lab.records import Floats, Generation
from rlaif_lab.tasks.base import Task
from rlaif_lab.tasks.reading import display, right_answer

SampleRow = list[Any]
"""Round, prompt, number of the sample, response, right answer, win rate among the prompt's samples, gold quality: the
columns of ``tracking.base.SAMPLE_COLUMNS``. Texts are as a person would write them."""


def sample_rows(
    index: int, generations: Sequence[Generation], prob_beats: Floats, task: Task, prompts: int = 64
) -> list[SampleRow]:
    """Return one row for each response to the first prompts. prob_beats: (N, k, k)."""
    # The first prompts only: the table is for a look.
    shown = generations[:prompts]
    qualities, rates = gold_qualities(task, shown), win_rates(prob_beats[:prompts])
    found: list[SampleRow] = []
    for n, g in enumerate(shown):
        prompt, *responses = display(task, g.prompt, [response.text for response in g.responses])
        right = right_answer(task, g.prompt)
        for i, response in enumerate(responses):
            found.append([index, prompt, i, response, right, float(rates[n, i]), float(qualities[n, i])])
    return found
