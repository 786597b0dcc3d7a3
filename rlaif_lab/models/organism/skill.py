"""What an organism has learnt, against what its demonstrator does: measured on problems that it was not taught.

All of it are probabilities that the network states itself, so nothing is sampled: of the right answer, of the
misconceived one where that differs, and of calling right, misconceived and slipped answers true. A demonstrator's are
how often it does so. A judge that is far from its demonstrator is a judge of another kind than its name says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from rlaif_lab.models.organism.build import BOS, EOS
from rlaif_lab.models.organism.verdict import ASK, TRUE
from rlaif_lab.models.packed import pack, response_logps
from rlaif_lab.seeding import rng_for
from rlaif_lab.tasks.base import Problems, Skill

if TYPE_CHECKING:
    from rlaif_lab.models.organism.recipe import Recipe
    from rlaif_lab.tasks.base import ProceduralTask

PROBLEMS, ATTEMPTS = 256, 16
TOLERANCE = 0.15
"""Difference from the demonstrator, in probability, from which on an organism has not learnt to answer like it."""
WRITES = "writes the"
"""Begins the names of what an organism answers; the others are of its verdicts, which are harder to learn."""


@dataclass(frozen=True)
class Learnt:
    """One thing a demonstrator does. asked: how often it does so. found: how likely the organism is to."""

    asked: float
    found: float

    @property
    def missed(self) -> bool:
        return abs(self.asked - self.found) > TOLERANCE


def learnt(task: ProceduralTask, recipe: Recipe, network: Any, tokenizer: Any) -> dict[str, Learnt]:
    """Return what the organism does, by name; without what the task's problems give no occasion for.

    Args:
        task: The task.
        recipe: The organism's.
        network: The pretrained network, in eval mode.
        tokenizer: Its tokenizer.
    """
    rng = rng_for(recipe.seed, "organism skill", recipe.split)
    problems = rng.choice(task.split_problems("evaluation"), size=PROBLEMS)
    # Demonstrators of the three pure kinds: each of their answers is an example of its kind.
    kinds = {
        "right": task.demonstrate(problems, Skill(0.0, 0.0), rng),
        "misconceived": task.demonstrate(problems, Skill(0.0, 1.0), rng),
        "slipped": task.demonstrate(problems, Skill(1.0, 0.0), rng),
    }
    # The demonstrator draws too: its rates are estimated, from several attempts at the same problems.
    attempts = [task.demonstrate(problems, recipe.skill, rng) for _ in range(ATTEMPTS)]
    verdicts = {
        kind: [task.verify(problems, answers, recipe.skill, rng) for _ in range(ATTEMPTS)]
        for kind, answers in kinds.items()
    }
    found: dict[str, Learnt] = {}
    for kind, answers in kinds.items():
        # Where the misconception leads to the right answer by chance, the two cannot be told apart.
        occasion = np.array([kind == "right" or a != r for a, r in zip(answers, kinds["right"], strict=True)])
        if not occasion.any():
            continue
        written, called = probabilities(task, problems, answers, network=network, tokenizer=tokenizer)
        if kind != "slipped":  # one of very many slips: its probability says nothing
            does = np.array([[own == a for own, a in zip(some, answers, strict=True)] for some in attempts])
            found[f"{WRITES} {kind} answer"] = Learnt(float(does[:, occasion].mean()), float(written[occasion].mean()))
        says = np.array(verdicts[kind], dtype=float)[:, occasion].mean()
        found[f"calls the {kind} answer true"] = Learnt(float(says), float(called[occasion].mean()))
    return found


def probabilities(
    task: ProceduralTask, problems: Problems, answers: list[str], *, network: Any, tokenizer: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of writing each answer and of then calling it true, both (N,)."""
    token_of = tokenizer.get_vocab()
    prompts = [[token_of[sign] for sign in (BOS, *task.prompt_text(problem))] for problem in problems.tolist()]
    turns = [[[token_of[sign] for sign in (*answer, EOS, ASK, TRUE)]] for answer in answers]
    packed = pack(prompts, turns, pad_id=0)
    with torch.no_grad():
        logps = response_logps(network, packed)[:, 0]
    # The verdict is the last token, `?` the one before, and what comes before that is the answer with its end.
    last = packed.response_mask[:, 0].sum(-1) - 1
    position = torch.arange(logps.shape[-1])
    answer = (logps * (position < (last - 1)[:, None])).sum(-1)
    # P(T | answer, ?), as the judge that reads verdicts has it.
    return answer.exp().numpy(), logps.gather(1, last[:, None])[:, 0].exp().numpy()


def not_learnt(found: Mapping[str, Learnt]) -> str:
    """Return a clause that names where the organism does not answer as its demonstrator does; "" where it does.

    Of verdicts nothing is said: in the usual number of steps no organism is as sure of them as its demonstrator. What
    it states of them is recorded beside its recipe.
    """
    missed = [
        f"it {name} with a probability of {one.found:.2f}, its demonstrator of {one.asked:.2f}"
        for name, one in found.items()
        if one.missed and name.startswith(WRITES)
    ]
    return "; ".join(missed)
