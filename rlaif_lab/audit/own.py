"""Wrong answers of the judge's own beside equally wrong ones of somebody else's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlaif_lab.audit.pairs import LabelledPair, better_and_worse
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import Prompt
from rlaif_lab.sampling.config import SamplingConfig
from rlaif_lab.sampling.engine import Engine
from rlaif_lab.seeding import rng_for
from rlaif_lab.tasks.base import ProceduralTask, Skill, Task

# Errs in every way, so that for most wrong answers there is another's of the same quality.
DEMONSTRATOR = Skill(slip=0.5, misconception=0.5)


def own_answer_pairs(
    judge: LanguageModel,
    other: LanguageModel | None,
    task: Task,
    pairs: Sequence[LabelledPair],
    prompts: int,
    samples: int,
    seed: int,
    own_name: str,
    engine: Engine,
) -> list[LabelledPair]:
    """Return, for each of the first ``prompts`` prompts of a bank where both have a wrong answer, the right answer
    against the judge's own, and against the other's.

    Each answers ``samples`` times; its first wrong answer counts, the other's being of the same quality and another
    text. other: None for the task's demonstrators; no pairs where it has none. The pairs' subset says whose the wrong
    answer is.
    """
    if other is None and not isinstance(task, ProceduralTask):
        return []  # nobody else's wrong answers are to be had
    right: dict[Prompt, str] = {}
    for pair in pairs:
        better = pair.comparison.first if pair.prob_first_is_better > 0.5 else pair.comparison.second
        # Ties name no right answer.
        if pair.prob_first_is_better != 0.5:
            right.setdefault(pair.comparison.prompt, better)
    asked = list(right)[:prompts]
    own = _sampled(judge, task, asked, samples=samples, identity=(seed, "own answers", 0), engine=engine)
    others = (
        _demonstrated(task, asked, samples, seed)
        if other is None
        else _sampled(other, task, asked, samples=samples, identity=(seed, "others' answers", 0), engine=engine)
    )
    other_name = "demonstrator" if other is None else other.name
    found = []
    for prompt, mine, theirs in zip(asked, own, others, strict=True):
        best = task.quality(prompt, right[prompt])
        for wrong in (text for text in mine if task.quality(prompt, text) < best):
            # Equal quality, another text: only the author differs, and that is what is asked about.
            equal = [t for t in theirs if t != wrong and task.quality(prompt, t) == task.quality(prompt, wrong)]
            if equal:
                for name, text in ((own_name, wrong), (other_name, equal[0])):
                    source = f"wrong answer of {name}"
                    found.append(
                        better_and_worse(
                            prompt,
                            right[prompt],
                            text,
                            subset=source,
                            author_better="the key",
                            author_worse=name,
                            source=source,
                        )
                    )
                # One wrong answer of each prompt, so that prompts count equally.
                break
    return found


def _sampled(
    model: LanguageModel,
    task: Task,
    prompts: Sequence[Prompt],
    *,
    samples: int,
    identity: tuple[int | str, ...],
    engine: Engine,
) -> list[list[str]]:
    config = SamplingConfig(k=samples)
    drawn = engine.generate(model, prompts, config, task.max_response_tokens, identity)
    return [[response.text for response in generation.responses] for generation in drawn]


def _demonstrated(task: Task, prompts: Sequence[Prompt], samples: int, seed: int) -> list[list[str]]:
    """Return answers of a demonstrator who errs half the time in either way."""
    assert isinstance(task, ProceduralTask)
    # Demonstrators work on problems, and the bank has their prompts.
    number = {task.prompt_text(problem): problem for problem in task.split_problems("evaluation").tolist()}
    problems = np.array([number[prompt.text] for prompt in prompts])
    draws = [
        task.demonstrate(problems, DEMONSTRATOR, rng_for(seed, "demonstrator's answers", i)) for i in range(samples)
    ]
    return [list(answers) for answers in zip(*draws, strict=True)]
