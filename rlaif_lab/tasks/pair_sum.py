"""Find two of five digits with a given sum: verification is easier than generation.

``38261:9=`` asks for two of the digits 3 8 2 6 1 whose sum ends in 9; ``18`` and ``36`` are right. To answer, pairs
must be searched; to check an answer, two digits are added up. A demonstrator therefore slips less often when checking.

Unsystematic error (slip): two digits of the list that do not have the sum.
Systematic error (misconception): the pair whose *difference* is asked for, where there is one.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from rlaif_lab.records import Prompt
from rlaif_lab.tasks.base import Problems, ProceduralTask, Skill

LENGTH = 5


class PairSum(ProceduralTask):
    """check_slip: how often a demonstrator slips when checking, relative to when answering (0: never, 1: as often)."""

    def __init__(self, check_slip: float = 0.1) -> None:
        super().__init__()
        if not 0.0 <= check_slip <= 1.0:
            raise ValueError(f"task.check_slip must lie in [0, 1]; got {check_slip}")
        self.check_slip = check_slip
        self.name = f"pair_sum{check_slip:g}"
        self.alphabet = "0123456789:="
        self.num_problems = 10 ** (LENGTH + 1)
        self.max_response_tokens = 3  # two digits, end of sequence

    def canonical(self, problems: Problems) -> Problems:
        """Of all orders of the same five digits, the ascending one."""
        places = 10 ** np.arange(LENGTH, 0, -1)
        digits = np.sort(problems[:, None] // places % 10, axis=1)
        return digits @ places + problems % 10

    def is_problem(self, problems: Problems) -> np.ndarray:
        digits = problems[:, None] // 10 ** np.arange(LENGTH, 0, -1) % 10
        first, second = np.triu_indices(LENGTH, 1)
        sums = (digits[:, first] + digits[:, second]) % 10
        return (sums == (problems % 10)[:, None]).any(axis=1)

    def prompt_text(self, problem: int) -> str:
        digits, total = divmod(problem, 10)
        return f"{digits:0{LENGTH}d}:{total}="

    def demonstrate(self, problems: Problems, skill: Skill, rng: np.random.Generator) -> list[str]:
        slips = rng.random(len(problems)) < skill.slip
        misconceived = rng.random(len(problems)) < skill.misconception
        which = rng.random(len(problems))
        answers = []
        for problem, slip, wrong_rule, u in zip(problems.tolist(), slips, misconceived, which, strict=True):
            right, by_difference, other = _kinds(self.prompt_text(problem))
            choices = right
            if slip and other:
                choices = other
            elif wrong_rule and by_difference:
                choices = by_difference
            answers.append(choices[int(u * len(choices))])
        return answers

    def verify(self, problems: Problems, candidates: list[str], skill: Skill, rng: np.random.Generator) -> list[bool]:
        """Adds the two digits up; a slip turns the verdict round. The misconception does not survive the check."""
        slips = rng.random(len(problems)) < skill.slip * self.check_slip
        return [
            (candidate in _kinds(self.prompt_text(problem))[0]) != slip
            for problem, candidate, slip in zip(problems.tolist(), candidates, slips.tolist(), strict=True)
        ]

    def quality(self, prompt: Prompt, response: str) -> float:
        return float(response in _kinds(prompt.text)[0])

    def gold_answer(self, prompt: Prompt) -> str:
        """The first of them in order, where several are right."""
        return _kinds(prompt.text)[0][0]

    def misconceived_quality(self, prompt: Prompt, response: str) -> float:
        right, by_difference, _ = _kinds(prompt.text)
        return float(response in (by_difference or right))


def _kinds(prompt: str) -> tuple[list[str], list[str], list[str]]:
    """All answers (smaller digit first): with the sum, with the difference instead, and with neither."""
    digits, total = prompt.rstrip("=").split(":")
    pairs = sorted({"".join(sorted(pair)) for pair in combinations(digits, 2)})
    right = [p for p in pairs if (int(p[0]) + int(p[1])) % 10 == int(total)]
    by_difference = [p for p in pairs if int(p[1]) - int(p[0]) == int(total) and p not in right]
    return right, by_difference, [p for p in pairs if p not in right and p not in by_difference]
