"""Critique and revision: the policy looks at its own answer under a principle and rewrites it, n times over.

The supervised phase of Constitutional AI (Bai et al. 2212.08073). As a conversation:

    user: <prompt>   assistant: <answer>   user: <critique request>   assistant: <critique>
    user: <revision request>   assistant: <rewritten answer>

The next pass starts from the prompt with the rewritten answer in place of the first, under another principle.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlaif_lab.instructions.constitution import Constitution
from rlaif_lab.records import Generation, Prompt, Response, Revision
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.engine import sample

if TYPE_CHECKING:
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.sampling.engine import Engine


@dataclass(frozen=True)
class RevisionConfig:
    """How answers are criticised and rewritten.

    constitution: whose principles, a name in ``conf/constitution/`` or a path; one is drawn per answer and pass.
    passes: number of critique-revision passes. critique_tokens, revision_tokens: the longest of each.
    critique_form, revision_form: said after a principle's request, about the form of the reply.
    batch_size: answers worked on at once, None for as many rows as ``sampler.batch_size`` says; it does not change the
    result.
    """

    constitution: str = "general"
    passes: int = 1
    temperature: float = 0.7
    top_p: float = 1.0
    critique_tokens: int = 128
    revision_tokens: int = 192
    critique_form: str = "Answer in two or three sentences."
    revision_form: str = "Reply with the rewritten answer alone, without a word about the changes."
    batch_size: int | None = None

    def __post_init__(self) -> None:
        Constitution.load(self.constitution)  # what is wrong with the file is told before anything else is done
        for name in ("passes", "critique_tokens", "revision_tokens", "batch_size"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"revision.{name} must be at least 1; got {getattr(self, name)}")
        if self.temperature < 0:
            raise ValueError(f"revision.temperature must be 0 (greedy) or positive; got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"revision.top_p must lie in (0, 1]; got {self.top_p}")

    def sampling(self, rows: int) -> SamplingConfig:
        """Return how replies are sampled. rows: computed at once where this does not say."""
        return SamplingConfig(k=1, temperature=self.temperature, top_p=self.top_p, batch_size=self.batch_size or rows)


def critique_and_revise(
    model: LanguageModel,
    generations: Sequence[Generation],
    config: RevisionConfig,
    *,
    seed: int,
    round_index: int,
    engine: Engine,
    rows: int = 64,
) -> list[Revision]:
    """Return one revision of the first sample of every prompt, in their order.

    Which principle, and every draw, is decided by (seed, round, prompt, pass). An empty rewriting leaves the answer as
    it was; the empty text stays in ``steps``.

    Args:
        rows: replies computed at once, where ``config`` does not say.

    Raises:
        ValueError: for a model without a chat template.
    """
    constitution = Constitution.load(config.constitution)
    reply = functools.partial(_replies, engine, model, sampling=config.sampling(rows))
    # Recorded log-probabilities are of the first draw, and say nothing of a text that is changed.
    answers = [replace(g.responses[0], logps=()) for g in generations]
    steps: list[list[tuple[str, str, str]]] = [[] for _ in generations]
    for number in range(config.passes):
        # Drawn by prompt and pass, not by the answer: arms with other answers work under the same principles.
        principles = [constitution.draw("revision", seed, round_index, g.prompt.id, number) for g in generations]
        asked = [
            _asked(g.prompt, answer, f"{principle.critique} {config.critique_form}")
            for g, answer, principle in zip(generations, answers, principles, strict=True)
        ]
        identity = (seed, round_index, number)
        # Named apart, so that a critique and a revision of one pass have draws of their own.
        critiques = reply(asked, tokens=config.critique_tokens, identity=("critique", *identity))
        asked = [
            _asked(prompt, critique, f"{principle.revise} {config.revision_form}")
            for prompt, critique, principle in zip(asked, critiques, principles, strict=True)
        ]
        rewritten = reply(asked, tokens=config.revision_tokens, identity=("revision", *identity))
        for step, principle, critique, new in zip(steps, principles, critiques, rewritten, strict=True):
            step.append((principle.id, critique.text, new.text))
        answers = [
            # Nothing written: the answer stays, and the record shows the attempt.
            replace(new, logps=()) if new.text.strip() else old
            for old, new in zip(answers, rewritten, strict=True)
        ]
    return [
        Revision(g.prompt, g.responses[0], tuple(step), answer)
        for g, step, answer in zip(generations, steps, answers, strict=True)
    ]


def _asked(prompt: Prompt, answer: Response, request: str) -> Prompt:
    """Return the conversation, gone on with an answer and the next request. The identity stays the prompt's."""
    # A prompt without turns is a conversation of one.
    turns = prompt.turns or (("user", prompt.text),)
    return Prompt(prompt.id, request, (*turns, ("assistant", answer.text), ("user", request)))


def _replies(
    engine: Engine,
    model: LanguageModel,
    asked: Sequence[Prompt],
    *,
    sampling: SamplingConfig,
    tokens: int,
    identity: Sequence[int | str],
) -> list[Response]:
    return [g.responses[0] for g in sample(engine, model, asked, config=sampling, limit=tokens, identity=identity)]
