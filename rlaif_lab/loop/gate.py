"""The gate: nothing is trained under a judge that is at chance on the first round's own samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlaif_lab.config import GateSettings
from rlaif_lab.judges.base import Judge
from rlaif_lab.metrics.agreement import at_chance, gate_message
from rlaif_lab.records import FAILURES, Judgement
from rlaif_lab.tasks.base import Task


@dataclass(frozen=True)
class Gate(GateSettings):
    """force: train all the same. confidence: of the interval of the judge's accuracy, which must not hold one half.
    max_failed: share of a round's judgements that may fail, for whatever cause but a spent budget; more end the run.
    """

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_failed <= 1.0:
            raise ValueError(f"gate.max_failed is a share and must lie in [0, 1]; got {self.max_failed}")

    def check_failures(self, judge: Judge, judgements: Sequence[Judgement], round_index: int) -> None:
        """Raise ValueError where the judge failed on more than ``max_failed`` of what it was asked in a round."""
        # A spent budget is planned, not a fault of the judge.
        asked = [j for j in judgements if j.status != "over_budget"]
        failed = [j for j in asked if j.prob_first_wins is None]
        # "No more than", so that max_failed=1 lets everything pass, even a judge that never answers.
        if not asked or len(failed) <= self.max_failed * len(asked):
            return
        counts = ", ".join(f"{n} {s}" for s in FAILURES if (n := sum(j.status == s for j in failed)))
        said = next((" ".join(j.raw.split())[:120] for j in failed if j.raw), "nothing")
        raise ValueError(
            f"judge {judge.name!r} failed on {len(failed)} of the {len(asked)} comparisons of round {round_index} "
            f"({counts}; it said for instance {said!r}), more than gate.max_failed={self.max_failed:g} allows: correct "
            "the judge, or raise the limit to train on the rest"
        )

    def check(self, judge: Judge, task: Task, judgements: Sequence[Judgement]) -> None:
        """Raise ValueError for a judge at chance. Judges that know nothing by design pass, as does everything on a
        task without gold, where nobody can tell."""
        if self.force or judge.null or not task.has_gold:
            return
        correct, wrong = decided(task, judgements)
        if at_chance(correct, wrong, self.confidence):
            raise ValueError(gate_message(judge.name, correct, wrong, self.confidence))


def decided(task: Task, judgements: Sequence[Judgement]) -> tuple[int, int]:
    """Return how many comparisons of unequal quality the judge decided rightly, and wrongly: the first such of each
    prompt, since those of one prompt are not independent. Its ties count as neither."""
    right: dict[str, bool] = {}
    for judgement in judgements:
        c, probability = judgement.comparison, judgement.prob_first_wins
        # A tie says neither; the prompt's first decided pair may come later.
        if c.prompt.id in right or probability is None or probability == 0.5:
            continue
        difference = task.quality(c.prompt, c.first) - task.quality(c.prompt, c.second)
        if difference != 0:
            right[c.prompt.id] = (probability > 0.5) == (difference > 0)
    return sum(right.values()), len(right) - sum(right.values())
