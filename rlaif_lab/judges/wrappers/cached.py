"""A judge that is never asked the same twice: verdicts by content, kept across runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.verdict_store import VerdictStore
from rlaif_lab.judges.wrappers.base import Wrapper
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.organism.cache import cache_root
from rlaif_lab.records import Comparison, Prompt, Score, Status, Verdict

KEPT: tuple[Status, ...] = ("ok", "tie", "invalid", "refused")
"""What a judge said. Not what kept it from answering: that is tried again."""

T = TypeVar("T")


class CachedJudge(Wrapper):
    """Looks a verdict up by (prompt, responses in their order, identity of the judge) before it asks ``of``. What is
    found costs nothing: no time, no tokens, no money.

    path: the store; None: ``verdicts/verdicts.sqlite`` in the lab's cache folder, shared by all runs and processes.
    save_every: verdicts asked for between two writes, which is what a crash may cost.

    The identity names the judge's weights as of now, so verdicts of a policy that judges itself are found again only by
    a run that has come to the very same weights.
    """

    def __init__(self, of: Judge, path: str | None = None, save_every: int = 512, name: str = "cached") -> None:
        super().__init__(of, name)
        if save_every < 1:
            raise ValueError(f"judge.save_every must be at least 1; got {save_every}")
        self.path = None if path is None else Path(path)
        self.save_every = save_every

    def attach(self, context: JudgeContext) -> None:
        super().attach(context)
        self.store = VerdictStore(self.path or cache_root() / "verdicts" / "verdicts.sqlite")

    def settings(self) -> str:
        return f"verdicts kept in {self.path or cache_root() / 'verdicts'}"

    def identity(self) -> str:
        return self.of.identity()

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        judge = self.of.identity()
        keys = [_key(judge, c.prompt, c.first, c.second) for c in comparisons]
        held = {key: _free(verdict) for key, verdict in self.store.get(keys).items()}
        missing = {key: c for key, c in zip(keys, comparisons, strict=True) if key not in held}
        for some in _portions(missing, self.save_every):
            asked = dict(zip(some, self.of.verdicts(list(some.values())), strict=True))
            self.store.put({key: verdict for key, verdict in asked.items() if verdict.status in KEPT})
            held |= asked
        return [held[key] for key in keys]

    def scores(self, responses: Sequence[tuple[Prompt, str]]) -> list[Score]:
        judge = self.of.identity()
        keys = [_key(judge, prompt, text) for prompt, text in responses]
        held = {key: _free(score) for key, score in self.store.get_scores(keys).items()}
        missing = {key: response for key, response in zip(keys, responses, strict=True) if key not in held}
        for some in _portions(missing, self.save_every):
            asked = dict(zip(some, self.of.scores(list(some.values())), strict=True))
            self.store.put_scores({key: score for key, score in asked.items() if score.status in KEPT})
            held |= asked
        return [held[key] for key in keys]


def _key(judge: str, prompt: Prompt, *texts: str) -> str:
    content = repr((judge, prompt.id, prompt.text, prompt.turns, texts))
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _free(found: T) -> T:
    """What was paid for once is not paid again."""
    return replace(found, latency_s=0.0, tokens=0, cost_usd=0.0)  # type: ignore[type-var]


def _portions(missing: dict[str, T], size: int) -> list[dict[str, T]]:
    """Of about ``size`` each; what belongs to one prompt comes together, since a judge computes it together."""
    by_prompt: dict[str, dict[str, T]] = {}
    for key, item in missing.items():
        prompt = item.prompt if isinstance(item, Comparison) else item[0]  # type: ignore[index]
        by_prompt.setdefault(prompt.id, {})[key] = item
    portions: list[dict[str, T]] = []
    for group in by_prompt.values():
        if not portions or len(portions[-1]) >= size:
            portions.append({})
        portions[-1] |= group
    return portions
