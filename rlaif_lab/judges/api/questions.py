"""What an endpoint is asked about a comparison or a single response, and what its words are worth."""

from __future__ import annotations

from rlaif_lab.instructions.template import JudgeTemplate, ScoreTemplate
from rlaif_lab.judges.api.reading import Form, Question
from rlaif_lab.records import Comparison, Prompt


def verdict_question(
    comparison: Comparison,
    template: JudgeTemplate,
    criteria: str,
    *,
    reasoning: bool,
    clamp: tuple[float, float] | None,
) -> Question:
    """Return the question which of two responses is better: 1 for the first, 0 for the second, 0.5 for a tie."""
    worth = {"first": 1.0, "second": 0.0, "tie": 0.5}

    def parse(words: str, form: Form) -> float | None:
        label = template.stated(words, "verdict" if form == "json" else None)
        return None if label is None else worth[template.choice_of(label)]

    return Question(
        template.render(comparison, criteria),
        dict(zip(template.all_labels(), worth.values(), strict=False)),
        parse,
        field="verdict",
        cue=template.cue,
        reasoning=reasoning,
        clamp=clamp,
    )


def score_question(
    prompt: Prompt, response: str, template: ScoreTemplate, *, criteria: str, reasoning: bool
) -> Question:
    """Return the question how good one response is, on the template's scale."""
    messages = template.render_single(prompt, response, criteria)
    values = {label: float(label) for label in template.all_labels()}

    def parse(words: str, form: Form) -> float | None:
        return template.stated(words, "score" if form == "json" else None)

    return Question(messages, values, parse, field="score", cue=template.cue, reasoning=reasoning)
