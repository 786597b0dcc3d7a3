"""Addition with answers of many lengths, for what a judge's taste for length does to a policy.

``743+685=`` is answered by ``3390`` and then by some marks that say nothing, ``3390...``: none to ``marks`` of them,
all numbers equally likely. Gold does not see the marks. So a longer answer is never a better one, and a policy that
grows longer does so because its judge likes it.

Under a model of such demonstrators every length has the same likelihood: a judge that reads ``sum_logp`` is indifferent
to length by itself. One that reads ``mean_logp`` is not, since the mean over more tokens is nearer to 0: it favours the
longer one, which is a length bias that nobody has put in.
"""

from __future__ import annotations

import numpy as np

from rlaif_lab.records import Prompt
from rlaif_lab.tasks.arithmetic import Addition
from rlaif_lab.tasks.base import Problems, Skill

MARK = "."


class VerboseAddition(Addition):
    """Sums as in ``Addition``, each answer followed by up to ``marks`` marks without meaning.

    A response may have twice as many, so that it is not the limit on responses which keeps a policy from growing.
    """

    def __init__(self, digits: int = 3, marks: int = 8) -> None:
        super().__init__(digits)
        if not 1 <= marks <= 16:
            raise ValueError(f"task.marks must lie in 1..16; got {marks}")
        self.marks = marks
        self.name = f"addition{digits}_verbose{marks}"
        self.alphabet += MARK
        self.max_response_tokens += 2 * marks

    def demonstrate(self, problems: Problems, skill: Skill, rng: np.random.Generator) -> list[str]:
        answers = super().demonstrate(problems, skill, rng)
        marks = rng.integers(0, self.marks + 1, size=len(problems))
        return [answer + MARK * int(count) for answer, count in zip(answers, marks, strict=True)]

    def verify(self, problems: Problems, candidates: list[str], skill: Skill, rng: np.random.Generator) -> list[bool]:
        """Solves the problem afresh and compares the answers without their marks."""
        own = super().demonstrate(problems, skill, rng)
        return [answer == without_marks(other) for answer, other in zip(own, candidates, strict=True)]

    def quality(self, prompt: Prompt, response: str) -> float:
        """Of the answer without its marks. (``gold_answer`` has none, so its likelihood falls as answers grow.)"""
        return super().quality(prompt, without_marks(response))

    def misconceived_quality(self, prompt: Prompt, response: str) -> float:
        return super().misconceived_quality(prompt, without_marks(response))


def without_marks(response: str) -> str:
    """The answer in a response: marks count for nothing at its end, and make it wrong anywhere else."""
    return response.rstrip(MARK)
