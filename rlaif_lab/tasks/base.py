"""What a task is: prompts in disjoint splits, and gold quality that no judge ever receives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from rlaif_lab.records import Prompt
from rlaif_lab.returned import check_returns, named, number, records, shown
from rlaif_lab.seeding import rng_for, splitmix64

Split = Literal["policy_pretraining", "judge_pretraining", "rounds", "evaluation"]
SPLITS: tuple[Split, ...] = get_args(Split)
Problems = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Skill:
    """How well a demonstrator knows a task.

    slip: probability of an unsystematic error (a random digit is wrong), fresh on every attempt.
    misconception: probability of the task's systematic error, on the problems where it can occur.
    """

    slip: float
    misconception: float

    def __post_init__(self) -> None:
        for name, value in (("slip", self.slip), ("misconception", self.misconception)):
            object.__setattr__(self, name, float(value))  # 1 and 1.0 are one recipe
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"skill.{name} is a probability and must lie in [0, 1]; got {value}")


class Task(ABC):
    """Prompts and gold quality. A new task is one subclass of this (or of ProceduralTask) plus one YAML."""

    name: str
    max_response_tokens: int
    has_gold: bool = True
    """False for prompts whose answers nobody has graded: what needs gold is then "n/a" (null in the metrics)."""

    repeats: bool = False
    """True where prompts come again when all have been seen: what is measured on them is then not independent, and a
    guarantee that supposes fresh prompts (the detector's alpha) does not hold."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Have the prompts of a task and what it says of answers checked where it says so."""
        super().__init_subclass__(**kwargs)
        check_returns(cls, "prompts", _checked_prompts)
        check_returns(cls, "quality", _checked_quality)

    @abstractmethod
    def available(self, split: Split) -> int:
        """Return how many prompts this split holds, those that come again included."""

    def distinct(self, split: Split) -> int:
        """Return how many of those are different; fewer than ``available`` where the task ``repeats``."""
        return self.available(split)

    @abstractmethod
    def prompts(self, split: Split, start: int, count: int, seed: int) -> list[Prompt]:
        """Return ``count`` prompts of this split from position ``start`` of its order under ``seed``.

        Positions never overlap, so rounds that take consecutive slices always see fresh prompts.
        """

    @abstractmethod
    def quality(self, prompt: Prompt, response: str) -> float:
        """Return the gold quality in [0, 1]; nan for a task without gold."""

    def gold_answer(self, prompt: Prompt) -> str | None:
        """Return a response of quality 1, for held-out likelihoods; None where there is no one such to tell."""
        return None

    def difficulty(self, prompt: Prompt) -> str | None:
        """Return the level of a prompt, by which quality is told apart; None where the task has no levels."""
        return None

    def identity(self) -> str:
        """Return what decides its prompts, in words; part of a run's fingerprint. A task read from a file goes by
        content.

        A task that keeps the same question in other words in one split has other splits than it had in 0.1.0, so that
        a run of that version is not continued with other prompts.
        """
        together = isinstance(self, ProceduralTask) and type(self).canonical is not ProceduralTask.canonical
        return f"{self.name}, twins in one split" if together else self.name

    def misconceived_quality(self, prompt: Prompt, response: str) -> float:
        """Return the quality for somebody who fully holds the task's misconception. Default: there is none."""
        return self.quality(prompt, response)


def _checked_prompts(task: Task, found: Any, split: Split, start: int, count: int, seed: int) -> list[Prompt]:
    where = named(task, "prompts")
    prompts = records(where, found, Prompt, count)
    seen: dict[str, Prompt] = {}
    for prompt in prompts:
        if not isinstance(prompt.id, str) or not isinstance(prompt.text, str):
            wrong = prompt.id if not isinstance(prompt.id, str) else prompt.text
            raise ValueError(f"{where}: a Prompt's id and text must be texts; got {shown(wrong)} in split {split!r}")
        if not prompt.text and not prompt.turns:
            raise ValueError(f"{where}: prompt {prompt.id!r} of split {split!r} has no text")
        if prompt.id in seen:
            same = "twice" if seen[prompt.id] == prompt else "to two different prompts"
            raise ValueError(
                f"{where}: the id {prompt.id!r} is given {same} among the prompts from position {start} of split "
                f"{split!r}; an id is a prompt's identity"
            )
        seen[prompt.id] = prompt
    return prompts


def _checked_quality(task: Task, found: Any, prompt: Prompt, response: str) -> float:
    quality = float(found) if isinstance(found, (bool, np.bool_)) else number(found)
    if quality is None or (task.has_gold and not 0.0 <= quality <= 1.0):
        raise ValueError(
            f"{named(task, 'quality')} must return a number in [0, 1]; it returned {shown(found)} for prompt "
            f"{prompt.id!r}"
        )
    return quality


class ProceduralTask(Task):
    """A task whose problems are the integers 0 .. num_problems-1 and whose demonstrators can be simulated.

    The split of a problem is a hash of its canonical number, so the four splits are disjoint for every seed, and the
    same question in other words (a + b, b + a) is never in two of them.
    """

    alphabet: str
    """Every character that prompts and responses are written in."""
    num_problems: int

    def __init__(self) -> None:
        self.split_shares: dict[Split, float] = {
            "policy_pretraining": 0.35,
            "judge_pretraining": 0.35,
            "rounds": 0.20,
            "evaluation": 0.10,
        }
        self._orders: dict[tuple[Split, int], Problems] = {}

    # --- what a subclass says -------------------------------------------------------------------------------
    @abstractmethod
    def prompt_text(self, problem: int) -> str: ...

    @abstractmethod
    def demonstrate(self, problems: Problems, skill: Skill, rng: np.random.Generator) -> list[str]:
        """One attempt per problem by a demonstrator of this skill."""

    def verify(self, problems: Problems, candidates: list[str], skill: Skill, rng: np.random.Generator) -> list[bool]:
        """Does a demonstrator of this skill call each candidate right? By default it solves the problem afresh
        and compares: it verifies exactly as well as it generates."""
        return [own == other for own, other in zip(self.demonstrate(problems, skill, rng), candidates, strict=True)]

    def canonical(self, problems: Problems) -> Problems:
        """Return one number for all problems that are the same question in other words: (N,) -> (N,).

        They share a split, so that no evaluation prompt is a pretraining prompt turned round. By default every problem
        is a question of its own.
        """
        return problems

    def is_problem(self, problems: Problems) -> np.ndarray:
        """Which of these numbers are problems at all: (N,) -> (N,) bool."""
        return np.ones(len(problems), dtype=bool)

    # --- what follows from it -------------------------------------------------------------------------------
    def split_problems(self, split: Split) -> Problems:
        """All problems of a split, ascending."""
        names = list(self.split_shares)
        edges = np.cumsum([0.0, *self.split_shares.values()])
        where = names.index(split)
        problems = self.canonical(np.arange(self.num_problems, dtype=np.int64)).astype(np.uint64)
        position = (splitmix64(problems ^ np.uint64(0x5EED)) >> np.uint64(11)).astype(np.float64) * 2.0**-53
        found = np.flatnonzero((position >= edges[where]) & (position < edges[where + 1])).astype(np.int64)
        return found[self.is_problem(found)]

    def available(self, split: Split) -> int:
        return len(self.split_problems(split))

    def prompts(self, split: Split, start: int, count: int, seed: int) -> list[Prompt]:
        if (split, seed) not in self._orders:
            order = self.split_problems(split)
            rng_for(seed, "task order", self.name, split).shuffle(order)
            self._orders[split, seed] = order
        chosen = self._orders[split, seed][start : start + count]
        if len(chosen) < count:
            raise ValueError(
                f"task {self.name!r}: split {split!r} has {self.available(split)} problems, but positions "
                f"{start} to {start + count} were asked for; use fewer rounds or fewer prompts per round"
            )
        return [self.to_prompt(int(problem)) for problem in chosen]

    def to_prompt(self, problem: int) -> Prompt:
        text = self.prompt_text(problem)
        return Prompt(id=f"{self.name}/{text}", text=text)
