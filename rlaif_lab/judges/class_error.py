"""A judge of exactly known competence on one class of errors, for the class law."""

from __future__ import annotations

from dataclasses import replace

from rlaif_lab.judges.oracle import OracleJudge
from rlaif_lab.records import Comparison, Verdict
from rlaif_lab.seeding import seed_for


class ClassErrorJudge(OracleJudge):
    """The oracle, except that it prefers the task's misconception to the right answer on a share of the prompts.

    Only comparisons of a right answer with the misconceived one are concerned, so the judge's competence on this class,
    J = P(right) - P(wrong), is 1 - 2 ``share`` by construction, and 1 on every other class. On which prompts it errs is
    decided by the prompt and the run's seed: the same in both orders and in every round, so the error is systematic.

    Args:
        share: Share of the class that is judged wrongly, in [0, 1].
        name: What the judge is called in reports.
    """

    gives_scores = False  # its errors are of comparisons

    def __init__(self, share: float = 0.5, name: str = "class_error") -> None:
        super().__init__(name)
        if not 0.0 <= share <= 1.0:
            raise ValueError(f"judge.share is a probability and must lie in [0, 1]; got {share}")
        self.share = float(share)

    def identity(self) -> str:
        return f"{super().identity()}, seed {self.seed}, wrong on {self.share} of the misconception's comparisons"

    def describe(self) -> str:
        return f"{self.name} (gold, but wrong on {self.share:g} of the misconception's comparisons)"

    def _verdict(self, comparison: Comparison) -> Verdict:
        verdict = super()._verdict(comparison)
        if not self._is_of_the_class(comparison):
            return verdict
        if verdict.prob_first_wins is None:
            return verdict
        # By prompt alone: the judge holds its misconception in every round, and in both orders.
        wrong = seed_for(self.seed, "class error", comparison.prompt.id) / 2**63 < self.share
        return replace(verdict, prob_first_wins=1.0 - verdict.prob_first_wins) if wrong else verdict

    def _is_of_the_class(self, comparison: Comparison) -> bool:
        """Return whether one response is right, and the other wrong and right under the misconception."""
        prompt = comparison.prompt
        # 1.0 is right: qualities may be graded in between.
        kinds = {
            (self.gold.quality(prompt, text) == 1.0, self.gold.misconceived_quality(prompt, text) == 1.0)
            for text in (comparison.first, comparison.second)
        }
        return kinds == {(True, False), (False, True)}
