"""An instruct model that grades each response by itself; grades become preferences, or the reward as they are."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from rlaif_lab.instructions.criteria import criteria_text
from rlaif_lab.instructions.reading import is_refusal
from rlaif_lab.instructions.template import ScoreTemplate
from rlaif_lab.judges.prompted.base import ANSWER_TOKENS, Asked, LocalJudge, Words, conversation_key
from rlaif_lab.models.access import JudgeContext, PolicyWeights
from rlaif_lab.records import Comparison, Prompt, Score, Verdict
from rlaif_lab.sampling.config import SamplingConfig

if TYPE_CHECKING:
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.models.sources import ModelSource

GradeReading = Literal["expected", "sampled"]


class PointwiseJudge(LocalJudge):
    """Grades one response at a time, so the order shown cannot matter.

    As a direct reward (``scores``): d-RLAIF, Lee et al. 2309.00267. The additive five-point grade is that of Yuan et
    al. 2401.10020 (``template=score_additive_5``).

    reads: ``expected``: the mean of the template's grades under the probabilities of their tokens, normalised over the
        grades. ``sampled``: the mean of ``votes`` sampled grades.
    scale: prob_first_wins = sigmoid(scale x (grade of the first - grade of the second)), with grades in the
        template's units; 1 makes a difference of one grade 73 : 27.
    tie_margin: grades that differ by no more are a tie.
    minimum_mass: a grade is ``invalid`` when all grades together have less than this probability (share of votes).
    """

    gives_scores = True

    def __init__(
        self,
        weights: PolicyWeights | ModelSource,
        criteria: str = "helpful_honest_harmless",
        template: str = "score_1_to_10",
        reads: GradeReading = "expected",
        votes: int = 5,
        temperature: float = 1.0,
        scale: float = 1.0,
        tie_margin: float = 0.0,
        minimum_mass: float = 0.1,
        batch_size: int = 12,
        name: str = "pointwise",
    ) -> None:
        super().__init__(weights, batch_size, name)
        if reads not in get_args(GradeReading):
            raise ValueError(f"judge.reads must be one of {', '.join(get_args(GradeReading))}; got {reads!r}")
        if votes < 1:
            raise ValueError(f"judge.votes must be at least 1; got {votes}")
        if temperature < 0 or (temperature == 0 and reads == "sampled" and votes > 1):
            raise ValueError(
                f"judge.temperature must be positive for several votes to differ (0: greedy); got {temperature}"
            )
        if scale <= 0:
            raise ValueError(f"judge.scale must be positive; got {scale}")
        if tie_margin < 0:
            raise ValueError(f"judge.tie_margin must not be negative; got {tie_margin}")
        if not 0 <= minimum_mass <= 1:
            raise ValueError(f"judge.minimum_mass must lie in [0, 1]; got {minimum_mass}")
        self.criteria, self.template = criteria_text(criteria), ScoreTemplate.load(template)
        self.reads, self.votes, self.temperature = reads, votes, float(temperature)
        self.scale, self.tie_margin, self.minimum_mass = float(scale), float(tie_margin), float(minimum_mass)

    def check_tokenizer(self, tokenizer: Any, model: str) -> None:
        super().check_tokenizer(tokenizer, model)
        if self.reads == "expected":
            self.label_tokens(tokenizer, model)

    def label_tokens(self, tokenizer: Any, model: str) -> Any:
        from rlaif_lab.judges.prompted.labels import LabelTokens

        return LabelTokens.of(tokenizer, self.template.all_labels(), self.template.cue, model, "judge.reads=sampled")

    def attach(self, context: JudgeContext) -> None:
        super().attach(context)
        if self.reads == "expected":
            self.labels = self.label_tokens(self.tokenizer, self.name)

    def describe(self) -> str:
        how = f"mean of {self.votes} sampled grades" if self.reads == "sampled" else "expected grade"
        return f"{self.name}: {self.describe_weights()}, asked by template {self.template.name!r}, read as {how}"

    def identity(self) -> str:
        settings: list[Any] = [self.reads, self.scale, self.tie_margin, self.minimum_mass]
        if self.reads == "sampled":
            settings += [self.votes, self.temperature, self.seed]
        return repr([*self.asking_identity(), self.template.identity(), self.criteria, settings])

    # --- grades -------------------------------------------------------------------------------------------------
    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        start = time.perf_counter()
        # Graded once for all comparisons that it occurs in.
        responses = list(dict.fromkeys((c.prompt, text) for c in comparisons for text in (c.first, c.second)))
        scores = dict(zip(responses, self.scores(responses), strict=True))
        tokens = sum(score.tokens for score in scores.values())
        each, rest = divmod(tokens, max(1, len(comparisons)))
        latency = (time.perf_counter() - start) / max(1, len(comparisons))
        return [
            replace(
                self._compare(scores[c.prompt, c.first], scores[c.prompt, c.second]),
                latency_s=latency,
                tokens=each + (i < rest),
            )
            for i, c in enumerate(comparisons)
        ]

    def _compare(self, first: Score, second: Score) -> Verdict:
        # One ungraded response fails the comparison: the other's grade alone prefers nothing.
        for score in (first, second):
            if score.value is None:
                return Verdict(None, score.status, raw=score.raw, details=score.details)
        assert first.value is not None and second.value is not None
        difference = first.value - second.value
        details = {"scores": [first.value, second.value]}
        if abs(difference) <= self.tie_margin:
            return Verdict(0.5, "tie", details=details)
        return Verdict.of_log_odds(self.scale * difference, details=details)

    def scores(self, responses: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """Return scores in the template's units, from its minimum to its maximum."""
        questions = [
            Asked.of(self.template.render_single(prompt, text, self.criteria), conversation_key(prompt))
            for prompt, text in responses
        ]
        return self.ask(questions, Score, ANSWER_TOKENS, self._sampled if self.reads == "sampled" else self._expected)

    def _expected(
        self, model: LanguageModel, asked: list[Asked], prompts: list[Prompt], encoded: list[list[int]]
    ) -> tuple[list[Score], int]:
        encoded = self.begun(model, encoded)
        read = self.labels.probabilities(model, encoded, [a.path for a in asked], self.batch_size)
        # The template's labels are its grades in ascending order.
        grades = range(self.template.minimum, self.template.maximum + 1)
        scores = []
        for values, mass, top in zip(read.normalised().tolist(), read.mass.tolist(), read.top.tolist(), strict=True):
            if not mass >= self.minimum_mass:  # nan, from weights that are not finite, is not enough either
                words = f"{self.template.cue}{model.tokenizer.decode([top])}"
                held = {"mass": mass if math.isfinite(mass) else None}
                scores.append(Score(None, "invalid", raw=words, details=held))
            else:
                # The mean of the grades: a distribution says more than its most likely grade.
                expected = sum(grade * value for grade, value in zip(grades, values, strict=True))
                scores.append(Score.of(expected, details={"mass": mass}))
        return scores, read.tokens

    def _sampled(
        self, model: LanguageModel, asked: list[Asked], prompts: list[Prompt], encoded: list[list[int]]
    ) -> tuple[list[Score], int]:
        config = SamplingConfig(k=self.votes, temperature=self.temperature, batch_size=self.batch_size)
        answers = self.answers(model, prompts, config, ANSWER_TOKENS)
        tokens = sum(map(len, encoded)) + sum(len(a.token_ids) for several in answers for a in several)
        return [self._mean(self.words(model, several)) for several in answers], tokens

    def _mean(self, answers: Words | Sequence[str]) -> Score:
        answers = Words.of(answers)
        texts = answers.texts
        grades = [self.template.parse_score(*one, answers.opened) for one in zip(texts, answers.cut, strict=True)]
        stated = [grade for grade in grades if grade is not None]
        unread = [text for text, grade in zip(texts, grades, strict=True) if grade is None]
        details = {"grades": grades}
        raw = "\n---\n".join(texts) if unread else None
        if not stated or len(stated) < self.minimum_mass * len(texts):
            refused = sum(map(is_refusal, unread)) > len(unread) / 2
            return Score(None, "refused" if refused else "invalid", raw=raw, details=details)
        return Score.of(sum(stated) / len(stated), raw=raw, details=details)
