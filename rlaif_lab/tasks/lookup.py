"""Facts to be recalled: pure look-up, where no generation-verification gap is expected.

Every fact has a sign of its own, and ``水=`` is answered by the two digits that it happens to have. There is nothing to
compute and nothing to check: who does not know the fact cannot tell a right answer from a wrong one either.

Unsystematic error (slip): the share of facts the demonstrator never learnt; there it guesses anew every time. A more
skilled demonstrator knows all that a less skilled one knows.
Systematic error (misconception): on the contested facts (3 in 10) it gives, with this probability, one fixed false
value.

Facts must be seen to be known, so here pretraining covers all facts; rounds and evaluation still use disjoint ones.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from rlaif_lab.records import Prompt
from rlaif_lab.seeding import splitmix64
from rlaif_lab.tasks.base import Problems, ProceduralTask, Skill, Split

CONTESTED = 0.3
FIRST_SIGN = 0x4E00  # of Unicode's block of 20,992 ideographs: enough signs for one token per fact


class Lookup(ProceduralTask):
    """facts: how many there are."""

    def __init__(self, facts: int = 2000) -> None:
        super().__init__()
        if not 10 <= facts <= 20_000:
            raise ValueError(f"task.facts must lie in 10..20000; got {facts}")
        self.name = f"lookup{facts}"
        self.alphabet = "0123456789=" + "".join(chr(FIRST_SIGN + fact) for fact in range(facts))
        self.num_problems = facts
        self.max_response_tokens = 3  # two digits, end of sequence
        self.split_shares = {"rounds": 0.7, "evaluation": 0.3}

    def split_problems(self, split: Split) -> Problems:
        if split in ("policy_pretraining", "judge_pretraining"):
            return np.arange(self.num_problems, dtype=np.int64)
        return super().split_problems(split)

    def prompt_text(self, problem: int) -> str:
        return f"{chr(FIRST_SIGN + problem)}="

    def demonstrate(self, problems: Problems, skill: Skill, rng: np.random.Generator) -> list[str]:
        values = np.where(
            (_hashed(problems, "contested") < CONTESTED) & (rng.random(len(problems)) < skill.misconception),
            _false_value(problems),
            _value(problems),
        )
        unknown = _hashed(problems, "known") < skill.slip
        values = np.where(unknown, rng.integers(0, 100, size=len(problems)), values)
        return [f"{value:02d}" for value in values.tolist()]

    def quality(self, prompt: Prompt, response: str) -> float:
        return float(response == self.gold_answer(prompt))

    def gold_answer(self, prompt: Prompt) -> str:
        return f"{_value(_fact(prompt))[0]:02d}"

    def misconceived_quality(self, prompt: Prompt, response: str) -> float:
        fact = _fact(prompt)
        contested = _hashed(fact, "contested")[0] < CONTESTED
        return float(response == f"{(_false_value(fact) if contested else _value(fact))[0]:02d}")


def _fact(prompt: Prompt) -> Problems:
    return np.array([ord(prompt.text[0]) - FIRST_SIGN])


def _hashed(problems: Problems, what: str) -> npt.NDArray[np.float64]:
    """A fixed uniform in [0, 1) for every fact."""
    salt = np.uint64(int.from_bytes(what.encode(), "big") & 0xFFFFFFFFFFFF)
    return (splitmix64(splitmix64(problems.astype(np.uint64)) ^ salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _value(problems: Problems) -> npt.NDArray[np.int64]:
    return (_hashed(problems, "value") * 100).astype(np.int64)


def _false_value(problems: Problems) -> npt.NDArray[np.int64]:
    """Another value than the true one."""
    return (_value(problems) + 1 + (_hashed(problems, "false") * 99).astype(np.int64)) % 100
