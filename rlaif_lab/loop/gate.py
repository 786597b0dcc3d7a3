"""The gate: nothing is trained under a judge that is at chance on the first round's own samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlaif_lab.judges.base import Judge
from rlaif_lab.metrics.agreement import at_chance, gate_message
from rlaif_lab.records import Judgement
from rlaif_lab.tasks.base import Task


@dataclass(frozen=True)
class Gate:
    """force: train all the same. confidence: of the interval of the judge's accuracy, which must not hold one half."""

    force: bool = False
    confidence: float = 0.95

    def check(self, judge: Judge, task: Task, judgements: Sequence[Judgement]) -> None:
        """Raises ValueError for a judge at chance. Judges that know nothing by design pass, as does everything on a
        task without gold, where nobody can tell."""
        if self.force or judge.null or not task.has_gold:
            return
        correct, wrong = decided(task, judgements)
        if at_chance(correct, wrong, self.confidence):
            raise ValueError(gate_message(judge.name, correct, wrong, self.confidence))


def decided(task: Task, judgements: Sequence[Judgement]) -> tuple[int, int]:
    """How many comparisons of unequal quality the judge decided rightly, and wrongly: the first such of each prompt,
    since those of one prompt are not independent. Its ties count as neither."""
    right: dict[str, bool] = {}
    for judgement in judgements:
        c, probability = judgement.comparison, judgement.prob_first_wins
        if c.prompt.id in right or probability is None or probability == 0.5:
            continue
        difference = task.quality(c.prompt, c.first) - task.quality(c.prompt, c.second)
        if difference != 0:
            right[c.prompt.id] = (probability > 0.5) == (difference > 0)
    return sum(right.values()), len(right) - sum(right.values())
