"""Addition with a misconception: the default task.

All numbers are written least significant digit first, because a small causal LM learns addition in that order and
hardly in the other (Lee et al. 2307.03381): 347 + 586 = 933 is the prompt ``743+685=`` with the answer ``3390``.

Unsystematic error (slip): one random digit of the answer is replaced by another.
Systematic error (misconception): a column that makes exactly ten is written as 0 and its carry is forgotten. This
changes the answer of about a quarter of the problems.
"""

from __future__ import annotations

import functools

import numpy as np

from rlaif_lab.records import Prompt
from rlaif_lab.tasks.base import Problems, ProceduralTask, Skill


class Addition(ProceduralTask):
    """Sums of two numbers of ``digits`` digits each, zero-padded."""

    def __init__(self, digits: int = 3) -> None:
        super().__init__()
        if not 1 <= digits <= 3:
            raise ValueError(f"task.digits must lie in 1..3; got {digits}")
        self.digits = digits
        self.name = f"addition{digits}"
        self.alphabet = "0123456789+="
        self.num_problems = 10 ** (2 * digits)
        self.max_response_tokens = digits + 2  # the digits, the last carry, end of sequence

    def prompt_text(self, problem: int) -> str:
        first, second = divmod(problem, 10**self.digits)
        return f"{first:0{self.digits}d}"[::-1] + "+" + f"{second:0{self.digits}d}"[::-1] + "="

    def canonical(self, problems: Problems) -> Problems:
        """Of a + b and b + a, the one with the smaller number first."""
        first, second = np.divmod(problems, 10**self.digits)
        return np.minimum(first, second) * 10**self.digits + np.maximum(first, second)

    def demonstrate(self, problems: Problems, skill: Skill, rng: np.random.Generator) -> list[str]:
        misconceived = rng.random(len(problems)) < skill.misconception
        answers = self._answers(problems, misconceived)
        slips = np.flatnonzero(rng.random(len(problems)) < skill.slip)
        columns = rng.integers(0, self.digits + 1, size=len(slips))
        answers[slips, columns] = (answers[slips, columns] + rng.integers(1, 10, size=len(slips))) % 10
        return _to_text(answers)

    def quality(self, prompt: Prompt, response: str) -> float:
        return float(response == self.gold_answer(prompt))

    def gold_answer(self, prompt: Prompt) -> str:
        return self._solve(prompt, misconceived=False)

    def misconceived_quality(self, prompt: Prompt, response: str) -> float:
        return float(response == self._solve(prompt, misconceived=True))

    def _solve(self, prompt: Prompt, misconceived: bool) -> str:
        first, second = prompt.text.rstrip("=").split("+")
        return _add(first, second, misconceived)

    def _answers(self, problems: Problems, misconceived: np.ndarray) -> np.ndarray:
        """Digits of the answer, least significant first. Shapes: (N,), (N,) -> (N, digits + 1)."""
        first, second = np.divmod(problems, 10**self.digits)
        carry = np.zeros_like(problems)
        answer = np.empty((len(problems), self.digits + 1), dtype=np.int64)
        for column in range(self.digits):
            total = first // 10**column % 10 + second // 10**column % 10 + carry
            answer[:, column] = total % 10
            carry = ((total > 10) | ((total == 10) & ~misconceived)).astype(np.int64)
        answer[:, self.digits] = carry
        return answer


@functools.lru_cache(maxsize=1 << 16)
def _add(first: str, second: str, misconceived: bool) -> str:
    """The sum of two numbers written least significant digit first; the same rule as ``Addition._answers``."""
    answer, carry = "", 0
    for a, b in zip(first, second, strict=True):
        total = int(a) + int(b) + carry
        answer += str(total % 10)
        carry = int(total > 10 or (total == 10 and not misconceived))
    return answer + str(carry)


def _to_text(digits: np.ndarray) -> list[str]:
    return ["".join(map(str, row)) for row in digits.tolist()]
