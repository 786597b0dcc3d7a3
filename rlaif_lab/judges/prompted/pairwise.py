"""An instruct model that is shown both responses and asked which one is better (Lee et al. 2309.00267)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from rlaif_lab.instructions.criteria import criteria_text
from rlaif_lab.instructions.reading import is_refusal
from rlaif_lab.instructions.template import JudgeTemplate
from rlaif_lab.judges.prompted.base import ANSWER_TOKENS, Asked, LocalJudge, Words, conversation_key
from rlaif_lab.models.access import JudgeContext, PolicyWeights
from rlaif_lab.records import Comparison, Prompt, Verdict
from rlaif_lab.sampling.config import SamplingConfig

if TYPE_CHECKING:
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.models.sources import ModelSource

PairwiseReading = Literal["probabilities", "votes"]


class PromptedJudge(LocalJudge):
    """Asks by a template which response is better. Both orders are asked and averaged by ``judge_generations``.

    criteria: what counts, as a text, or the name of a file in ``conf/criteria``.
    template: the name of a file in ``conf/template``, or a path.
    reads: ``probabilities``: of the verdict's tokens, right after the template's cue, normalised over the labels; a tie
        label counts half. ``votes``: the share of ``votes`` sampled answers; what states no verdict is no vote.
    reasoning: the model thinks in words first, at most ``reasoning_tokens`` of them, once per vote.
    clamp: with reasoning, probabilities are moved into this interval, since a verdict that follows its own reasons is
        surer than it is right (Bai et al. 2212.08073 clamp to 0.4-0.6); None: not.
    minimum_mass: a verdict is ``invalid`` when the labels (or the votes that state one) have less than this share of
        the probability (of the votes).
    """

    def __init__(
        self,
        weights: PolicyWeights | ModelSource,
        criteria: str = "helpful_honest_harmless",
        template: str = "pairwise",
        reads: PairwiseReading = "probabilities",
        votes: int = 5,
        temperature: float = 1.0,
        reasoning: bool = False,
        reasoning_tokens: int = 192,
        clamp: Sequence[float] | None = (0.4, 0.6),
        minimum_mass: float = 0.1,
        batch_size: int = 12,
        name: str = "prompted",
    ) -> None:
        super().__init__(weights, batch_size, name)
        if reads not in get_args(PairwiseReading):
            raise ValueError(f"judge.reads must be one of {', '.join(get_args(PairwiseReading))}; got {reads!r}")
        if votes < 1 or reasoning_tokens < 1:
            raise ValueError(
                f"judge.votes and judge.reasoning_tokens must be at least 1; got {votes} and {reasoning_tokens}"
            )
        if temperature < 0 or (temperature == 0 and reads == "votes" and votes > 1):
            raise ValueError(
                f"judge.temperature must be positive for several votes to differ (0: greedy); got {temperature}"
            )
        if clamp is not None and not (len(clamp) == 2 and 0 <= clamp[0] <= 0.5 <= clamp[1] <= 1):
            raise ValueError(f"judge.clamp must be null or an interval around 0.5, e.g. [0.4, 0.6]; got {clamp}")
        if not 0 <= minimum_mass <= 1:
            raise ValueError(f"judge.minimum_mass must lie in [0, 1]; got {minimum_mass}")
        self.criteria, self.template = criteria_text(criteria), JudgeTemplate.load(template)
        self.reads, self.votes, self.temperature = reads, votes, float(temperature)
        self.reasoning, self.reasoning_tokens = reasoning, reasoning_tokens
        # Without reasons there is nothing that could have made it overconfident.
        self.clamp = None if clamp is None or not reasoning else (float(clamp[0]), float(clamp[1]))
        self.minimum_mass = minimum_mass
        self.check_template()

    def check_template(self) -> None:
        if self.template.takes_principle:
            raise ValueError(
                f"judge.template {self.template.name!r} asks for a {{principle}}: use judge=constitution, or another "
                "template"
            )

    def check_tokenizer(self, tokenizer: Any, model: str) -> None:
        super().check_tokenizer(tokenizer, model)
        if self.reads == "probabilities":
            # Before weights load: a tokenizer that splits a label is reported at once.
            self.label_tokens(tokenizer, model)

    def label_tokens(self, tokenizer: Any, model: str) -> Any:
        from rlaif_lab.judges.prompted.labels import LabelTokens

        return LabelTokens.of(tokenizer, self.template.all_labels(), self.template.cue, model, "judge.reads=votes")

    def attach(self, context: JudgeContext) -> None:
        super().attach(context)
        if self.reads == "probabilities":
            self.labels = self.label_tokens(self.tokenizer, self.name)

    def describe(self) -> str:
        how = f"{self.votes} votes" if self.reads == "votes" else "verdict-token probabilities"
        after = " after reasoning" if self.reasoning else ""
        return f"{self.name}: {self.describe_weights()}, asked by template {self.template.name!r}, read by {how}{after}"

    def identity(self) -> str:
        settings: list[Any] = [self.reads, self.reasoning, self.clamp, self.minimum_mass]
        # Draws are part of the identity only where something is drawn.
        if self.reads == "votes" or self.reasoning:
            settings += [self.votes, self.temperature, self.reasoning_tokens, self.seed]
        return repr([*self.asking_identity(), self.template.identity(), self.criteria, settings])

    # --- verdicts -----------------------------------------------------------------------------------------------
    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return self.answered([self.question(comparison) for comparison in comparisons])

    def question(self, comparison: Comparison, principle: str | None = None) -> Asked:
        messages = self.template.render(comparison, self.criteria, principle)
        # The path in the tree of prompts: instructions, then this conversation, then its first response.
        return Asked.of(messages, conversation_key(comparison.prompt), comparison.first)

    def answered(self, questions: Sequence[Asked]) -> list[Verdict]:
        # Room for an answer is wanted from the start: a prompt that leaves none is not asked.
        spare = ANSWER_TOKENS + (self.reasoning_tokens if self.reasoning else 0)
        return self.ask(questions, Verdict, spare, self._by_votes if self.reads == "votes" else self._by_probabilities)

    def _by_probabilities(
        self, model: LanguageModel, asked: list[Asked], prompts: list[Prompt], encoded: list[list[int]]
    ) -> tuple[list[Verdict], int]:
        tokens = 0
        thoughts: list[str | None] = [None] * len(asked)
        if self.reasoning:
            # The cue ends the thoughts: the verdict is read after it, from its tokens.
            stop = (self.template.cue,) if self.template.cue else ()
            config = SamplingConfig(k=1, temperature=self.temperature, stop=stop, batch_size=self.batch_size)
            answers = [a[0] for a in self.answers(model, prompts, config, self.reasoning_tokens)]
            tokens += sum(map(len, encoded)) + sum(len(answer.token_ids) for answer in answers)
            said = [answer.text.strip() for answer in answers]
            thoughts = list(said)
            encoded = self.begun(model, encoded, said)
        else:
            encoded = self.begun(model, encoded)
        read = self.labels.probabilities(model, encoded, [a.path for a in asked], self.batch_size)
        verdicts = []
        for values, mass, top, thought in zip(
            read.normalised().tolist(), read.mass.tolist(), read.top.tolist(), thoughts, strict=True
        ):
            details = {"mass": mass if math.isfinite(mass) else None}
            if len(values) == 3 and math.isfinite(values[2]):
                details["tie"] = values[2]
            if not mass >= self.minimum_mass:  # nan, from weights that are not finite, is not enough either
                next_word = model.tokenizer.decode([top])
                words = f"{thought or ''}{self.template.cue}{next_word}"
                verdicts.append(Verdict(None, "invalid", raw=words, details=details))
                continue
            # A tie counts half for each.
            verdicts.append(self._verdict(values[0] + sum(values[2:]) / 2, thought, details))
        return verdicts, tokens + read.tokens

    def _by_votes(
        self, model: LanguageModel, asked: list[Asked], prompts: list[Prompt], encoded: list[list[int]]
    ) -> tuple[list[Verdict], int]:
        config = SamplingConfig(k=self.votes, temperature=self.temperature, batch_size=self.batch_size)
        limit = self.reasoning_tokens if self.reasoning else ANSWER_TOKENS
        answers = self.answers(model, prompts, config, limit)
        tokens = sum(map(len, encoded)) + sum(len(a.token_ids) for several in answers for a in several)
        return [self._count(self.words(model, several)) for several in answers], tokens

    def _count(self, answers: Words | Sequence[str]) -> Verdict:
        """Return the verdict that several answers amount to."""
        answers = Words.of(answers)
        texts = answers.texts
        # None: this answer states no verdict.
        read = [self.template.parse(*one, answers.opened) for one in zip(texts, answers.cut, strict=True)]
        votes = Counter(read)
        unread = [text for text, vote in zip(texts, read, strict=True) if vote is None]
        stated = len(texts) - len(unread)
        details = {name: votes[name] for name in ("first", "second", "tie") if votes[name]} | {"unread": len(unread)}
        raw = "\n---\n".join(texts) if self.reasoning or unread else None
        # Too few to go by; a refusal is told apart, since it says something different about the judge.
        if not stated or stated < self.minimum_mass * len(texts):
            refused = sum(map(is_refusal, unread)) > len(unread) / 2
            return Verdict(None, "refused" if refused else "invalid", raw=raw, details=details)
        return self._verdict((votes["first"] + votes["tie"] / 2) / stated, raw, details)

    def _verdict(self, probability: float, raw: str | None, details: dict[str, Any]) -> Verdict:
        if self.clamp is not None:
            probability = float(np.clip(probability, *self.clamp))  # nan stays nan
        return Verdict.of(probability, raw=raw, details=details)
