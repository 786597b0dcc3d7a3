"""A language model as judge, reading its own log-likelihoods or its verdict tokens. Self-judging is this judge
with the policy's weights."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import torch

from rlaif_lab.judges.base import Judge
from rlaif_lab.models.access import JudgeContext, PolicyWeights
from rlaif_lab.models.language_model import inference
from rlaif_lab.models.limits import out_of_memory, positions
from rlaif_lab.models.organism.verdict import verdict_logit, verdict_tokens
from rlaif_lab.models.packed import Packed, pack, response_logps
from rlaif_lab.records import Comparison, Prompt, Score, Verdict

if TYPE_CHECKING:
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.models.sources import ModelSource

LikelihoodReading = Literal["mean_logp", "sum_logp", "verdict"]

SHORT = 128
"""Characters of a prompt up to which padding costs next to nothing."""


class Read(NamedTuple):
    """value: the score, in nats; nan where there is none. tokens: of the response. why: there is none."""

    value: float
    tokens: int
    why: str | None = None


class ModelJudge(Judge):
    """Scores each response by itself and prefers the higher score, so the order shown cannot matter.

    weights: ``live``, ``previous`` or ``initial`` for the policy's own, else where another model comes from.
    reads: what the score is, in nats.
        ``mean_logp``: mean log-probability per token, times the mean length of the two that are compared.
        ``sum_logp``: log-probability of the whole response.
        ``verdict``: log-odds of the verdict tokens when asked whether the response is right (pointwise).
    prob_first_wins = sigmoid(score of the first - score of the second). Equal scores are a tie.
    """

    gives_scores = True
    writes = True

    def __init__(
        self,
        weights: PolicyWeights | ModelSource,
        reads: LikelihoodReading = "mean_logp",
        batch_size: int = 128,
        name: str = "model",
    ) -> None:
        if isinstance(weights, str) and weights not in get_args(PolicyWeights):
            raise ValueError(
                f"judge.weights must be one of {', '.join(get_args(PolicyWeights))}, or the source of another "
                f"model (a mapping with _target_); got {weights!r}"
            )
        if reads not in get_args(LikelihoodReading):
            raise ValueError(f"judge.reads must be one of {', '.join(get_args(LikelihoodReading))}; got {reads!r}")
        if batch_size < 1:
            raise ValueError(f"judge.batch_size must be at least 1; got {batch_size}")
        self.weights, self.reads, self.batch_size, self.name = weights, reads, batch_size, name

    def attach(self, context: JudgeContext) -> None:
        self.context = context
        if not isinstance(self.weights, str):
            # From another model: loaded once, by whoever attaches first, and shared.
            self.other = context.load(self.weights)
        if self.reads == "verdict":
            # At attach, not at the first verdict: hours of sampling may lie between.
            verdict_tokens(self.model().tokenizer)  # refuses a model that cannot give verdicts

    def sources(self) -> list[ModelSource]:
        return [] if isinstance(self.weights, str) else [self.weights]

    def needs_previous_policy(self) -> bool:
        return self.weights == "previous"

    def model(self) -> LanguageModel:
        """Return the judging weights as of now."""
        if isinstance(self.weights, str):
            return self.context.policy(self.weights)
        # The policy may have moved to a GPU since this model was loaded.
        device = self.context.policy("live").device
        if self.other.device != device:
            self.other.network.to(device)
        return self.other

    def describe(self) -> str:
        whose = f"the policy's own {self.weights} weights" if isinstance(self.weights, str) else str(self.weights)
        return f"{self.name}: {whose}, read by {self.reads}"

    def language_model(self) -> LanguageModel:
        return self.model()

    def identity(self) -> str:
        return f"{self.model().weights_hash()} read by {self.reads}"

    def scores(self, responses: Sequence[tuple[Prompt, str]]) -> list[Score]:
        start = time.perf_counter()
        found, tokens = self._score_all(responses)
        latency = (time.perf_counter() - start) / len(responses)
        # The same remainder rule as in `verdicts`: the sum over responses is what was processed.
        each, rest = divmod(tokens, len(responses))
        return [
            Score.of(
                found[prompt, text].value, latency_s=latency, tokens=each + (i < rest), raw=found[prompt, text].why
            )
            for i, (prompt, text) in enumerate(responses)
        ]

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        start = time.perf_counter()
        # Responses by themselves, not pairs: one that occurs in many comparisons is scored once.
        scores, tokens = self._score_all([(c.prompt, text) for c in comparisons for text in (c.first, c.second)])
        latency = (time.perf_counter() - start) / len(comparisons)
        each, rest = divmod(tokens, len(comparisons))  # shared out so that the sum is what was processed
        return [
            Verdict.of_log_odds(
                self._log_odds(scores[c.prompt, c.first], scores[c.prompt, c.second]),
                latency_s=latency,
                tokens=each + (i < rest),
                raw=scores[c.prompt, c.first].why or scores[c.prompt, c.second].why,
            )
            for i, c in enumerate(comparisons)
        ]

    def _log_odds(self, first: Read, second: Read) -> float:
        """Return the log-odds that the first wins, in nats."""
        # Per token, long and short responses are on one footing; times their mean length, the odds are in nats again.
        scale = (first.tokens + second.tokens) / 2 if self.reads == "mean_logp" else 1.0
        return scale * (first.value - second.value)

    def _score_all(self, responses: Sequence[tuple[Prompt, str]]) -> tuple[dict[tuple[Prompt, str], Read], int]:
        """Return what is read of every response, each computed once, and the tokens processed for all of them."""
        texts: dict[Prompt, dict[str, None]] = {}  # every response of a prompt once, in order of appearance
        for prompt, text in responses:
            texts.setdefault(prompt, {})[text] = None
        model, tokens = self.model(), 0
        scores: dict[tuple[Prompt, str], Read] = {}
        groups: dict[int, list[tuple[Prompt, list[str]]]] = {}
        for prompt, group in texts.items():
            groups.setdefault(length_class(prompt), []).append((prompt, list(group)))
        for _, alike in sorted(groups.items()):
            for at in range(0, len(alike), self.batch_size):
                tokens += self._score(model, alike[at : at + self.batch_size], scores)
        return scores, tokens

    def _score(
        self,
        model: LanguageModel,
        groups: Sequence[tuple[Prompt, list[str]]],
        scores: dict[tuple[Prompt, str], Read],
    ) -> int:
        """Fill in what is read of every response of these prompts; returns the tokens processed. A response that, with
        its prompt, is longer than the model reads has no score."""
        room = positions(model.network.config) or math.inf
        asked = int(self.reads == "verdict")  # the token that asks for a verdict, one for each response
        encoded = iter(model.encode_responses([text for _, group in groups for text in group]))
        prompts, kept, rows = [], [], []
        for (prompt, group), ids in zip(groups, model.encode_prompts([prompt for prompt, _ in groups]), strict=True):
            fitting = {}
            for text in group:
                response = next(encoded)
                length = len(ids) + len(response) + asked
                if length > room:
                    why = f"(not read: {length} tokens, of which the model reads {room} at most)"
                    scores[prompt, text] = Read(math.nan, len(response), why)
                else:
                    fitting[text] = response
            if fitting:
                prompts.append(ids)
                kept.append((prompt, list(fitting)))
                rows.append(list(fitting.values()))
        if not kept:
            return 0
        # (B prompts, n responses each, R tokens): a prompt's tokens are read once for all of its responses.
        batch = pack(prompts, rows, model.pad_id).to(model.device)
        with inference(model.network), out_of_memory("judge.batch_size"):
            values, lengths = self._read(model, batch)
        for (prompt, group), row, sizes in zip(kept, values.tolist(), lengths.tolist(), strict=True):
            scores.update({(prompt, text): Read(row[i], sizes[i]) for i, text in enumerate(group)})
        return int(batch.prompt_mask.sum() + batch.response_mask.sum()) + asked * sum(map(len, rows))

    def _read(self, model: LanguageModel, batch: Packed) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores and response lengths in tokens: (B, n) each."""
        lengths = batch.response_mask.sum(-1)
        if self.reads == "verdict":
            return verdict_logit(model, batch), lengths
        logps = response_logps(model.network, batch).sum(-1)
        # A response of no tokens has a log-probability of 0, not of nan.
        return (logps / lengths.clamp(min=1) if self.reads == "mean_logp" else logps), lengths


def length_class(prompt: Prompt) -> int:
    """Return a number that prompts of like length share, within a factor of the square root of 2: read together, they
    need little padding. All short ones are alike."""
    characters = len(prompt.text) + sum(len(content) for _, content in prompt.turns)
    return 0 if characters <= SHORT else 1 + int(2 * math.log2(characters / SHORT))
