"""Short ways to have an API judge, and something to ask it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlaif_lab.judges.api.judge import ApiJudge
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.records import Comparison, Prompt


def comparisons(count: int, start: int = 0) -> list[Comparison]:
    return [Comparison(Prompt(str(i), f"Question {i}?"), f"one {i}", f"two {i}") for i in range(start, start + count)]


def judge_at(url: str, directory: Path | None = None, seed: int = 0, **options: Any) -> ApiJudge:
    """Attached, and quick to give up."""
    quick = {"api_key_env": None, "model": "rule", "retries": 2, "timeout_s": 5.0}
    judge = ApiJudge(url, **{**quick, **options})

    def nothing(_: Any) -> Any:
        raise AssertionError("this judge needs no weights")

    judge.attach(JudgeContext(seed, nothing, nothing, None, directory))
    return judge
