"""What several test files need: short ways to make records, and forward passes without any of the lab's batching."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from rlaif_lab.judges.base import Judge
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.organism.recipe import Recipe
from rlaif_lab.records import Comparison, Generation, Judgement, Prompt, Response, Verdict
from rlaif_lab.tasks.base import Skill, Task

RAGGED_PROMPTS = ("12+34=", "1=", "7+", "123+456+78=", "00+99=")


def tiny_recipe(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "skill": Skill(0.3, 0.5),
        "split": "policy_pretraining",
        "steps": 30,
        "batch_size": 32,
        "warmup_steps": 5,
        "width": 32,
        "layers": 2,
        "heads": 2,
    }
    return Recipe(**(fields | changes))


def prompts_of(texts: Sequence[str]) -> list[Prompt]:
    return [Prompt(f"test/{text}", text) for text in texts]


def response(text: str, logps: Sequence[float] = (), finished: bool = True) -> Response:
    """Token ids are made up, one per character and one for the end; log-probabilities default to -1 each."""
    ids = tuple(range(10, 10 + len(text) + 1))
    return Response(text, ids, tuple(logps) or (-1.0,) * len(ids), finished)


def generation(prompt: str, *texts: str) -> Generation:
    return Generation(Prompt(f"test/{prompt}", prompt), tuple(response(text) for text in texts))


def judgement(comparison: Comparison, i: int, j: int, probability: float | None) -> Judgement:
    status = "invalid" if probability is None else "tie" if probability == 0.5 else "ok"
    return Judgement(comparison, i, j, probability, probability, probability, status, 0.0, 0)


class ScriptedJudge(Judge):
    """Says what a function of the comparison says, and remembers what it was asked."""

    name = "scripted"

    def __init__(self, say: Callable[[Comparison], Verdict], sees_gold: bool = False) -> None:
        self.say, self.sees_gold = say, sees_gold
        self.asked: list[Comparison] = []
        self.context: JudgeContext | None = None

    def attach(self, context: JudgeContext) -> None:
        self.context = context

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        self.asked += comparisons
        return [self.say(comparison) for comparison in comparisons]


def attached(judge: Judge, gold: Task | None = None, seed: int = 0) -> Judge:
    """The judge, attached to a run without models."""

    def nothing(_: Any) -> Any:
        raise AssertionError("this judge needs no model")

    judge.attach(JudgeContext(seed, nothing, nothing, gold))
    return judge


def plain_logps(network: Any, prompt: Sequence[int], answer: Sequence[int]) -> Tensor:
    """Log-probability of each answer token: one unpadded sequence, one forward pass, nothing else."""
    ids = torch.tensor([[*prompt, *answer]])
    logits = network(input_ids=ids).logits[0].float()
    logps = torch.log_softmax(logits, -1)[len(prompt) - 1 : -1]
    return logps.gather(-1, torch.tensor(list(answer))[:, None])[:, 0]
