"""A bank of a policy's own answers, graded: for tasks with truth and without demonstrators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from rlaif_lab import progress
from rlaif_lab.audit.bank import PairBank
from rlaif_lab.audit.pairs import LabelledPair, better_and_worse
from rlaif_lab.config.ranges import Seed
from rlaif_lab.records import Generation
from rlaif_lab.seeding import rng_for
from rlaif_lab.tasks.base import ProceduralTask, Split, Task

if TYPE_CHECKING:
    from rlaif_lab.models.language_model import LanguageModel
    from rlaif_lab.sampling.engine import Engine

TRIED_AT_ONCE = 16
SPLITS: tuple[Split, ...] = ("judge_pretraining", "evaluation")
"""Where prompts are taken from: never those that are trained on; of evaluation only where there are no others."""


@dataclass(frozen=True)
class SampledBank(PairBank):
    """Answers of the untrained policy to prompts that are never trained on: one of the best beside one of the worst.

    pairs: how many, one a prompt. samples: answers to each prompt. prompts: how many are tried at most for that, since
    where all answers are equally good there is no pair; None: four times as many as pairs. seed: of the bank and not of
    the run. Subsets are the task's levels of difficulty, where it has any.
    """

    pairs: int = 64
    samples: int = 8
    prompts: int | None = None
    seed: Seed = 0
    name: str = "graded"
    graded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for key, least in (("pairs", 1), ("samples", 2), ("prompts", 1)):
            value = getattr(self, key)
            if value is not None and value < least:
                raise ValueError(f"bank.{key} must be at least {least}; got {value}")

    def load(self, task: Task) -> list[LabelledPair]:
        """Check the task; the pairs need a policy (``of_policy``)."""
        if not task.has_gold:
            raise ValueError(
                f"bank {self.name!r} is of graded answers, and task {task.name!r} has no gold: use bank=file"
            )
        return []

    def of_policy(self, task: Task, policy: LanguageModel, engine: Engine) -> list[LabelledPair]:
        """Sample and grade until there are as many pairs as asked for, or no more prompts to be tried."""
        from rlaif_lab.sampling.config import SamplingConfig

        self.load(task)
        split: Split = next((split for split in SPLITS if task.available(split) > 0), "evaluation")
        # Four times as many prompts as pairs: where all answers are equally good there is none.
        most = min(self.prompts or 4 * self.pairs, task.available(split))
        found: list[LabelledPair] = []
        with progress.bar(total=most, desc="bank: answering") as shown:
            # A few at a time: sampling stops as soon as there are enough pairs.
            for start in range(0, most, TRIED_AT_ONCE):
                asked = task.prompts(split, start, min(TRIED_AT_ONCE, most - start), self.seed)
                # By where it starts, so that a larger bank begins with the pairs of a smaller one.
                identity = (self.seed, "graded bank", start)
                config = SamplingConfig(k=self.samples)
                drawn = engine.generate(policy, asked, config, task.max_response_tokens, identity)
                found += graded_pairs(task, drawn, author=policy.name, seed=self.seed)
                shown.update(len(asked))
                if len(found) >= self.pairs:
                    break
        return found[: self.pairs]


def graded_pairs(task: Task, generations: Sequence[Generation], *, author: str, seed: int) -> list[LabelledPair]:
    """Return a pair for every prompt whose answers differ in quality, one of the best and one of the worst."""
    found = []
    for generation in generations:
        prompt = generation.prompt
        # Equal texts have equal quality, and are one answer.
        texts = list(dict.fromkeys(response.text for response in generation.responses))
        qualities = [task.quality(prompt, text) for text in texts]
        best, worst = max(qualities), min(qualities)
        if best == worst:
            continue
        # By the prompt's identity: which of several best answers is taken does not depend on the others.
        rng = rng_for(seed, "graded pair", prompt.id)
        better, worse = (
            texts[int(rng.choice([i for i, quality in enumerate(qualities) if quality == level]))]
            for level in (best, worst)
        )
        subset = task.difficulty(prompt) or ""
        source = f"graded answers to {prompt.id}"
        found.append(
            better_and_worse(
                prompt, better, worse, subset=subset, author_better=author, author_worse=author, source=source
            )
        )
    return found


def pairs_of(bank: PairBank, task: Task, policy: LanguageModel, engine: Engine) -> list[LabelledPair]:
    """Return a bank's pairs, of whatever kind it is; none where it is made by demonstrators that the task has not.

    engine: samples the policy's answers, for a bank that is made of them.
    """
    if isinstance(bank, SampledBank):
        return bank.of_policy(task, policy, engine)
    # A task without demonstrators has no such bank; the run continues without it.
    if bank.graded and not isinstance(task, ProceduralTask):
        return []
    return bank.load(task)
