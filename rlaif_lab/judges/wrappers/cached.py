"""A judge that is never asked the same twice: verdicts by content, kept across runs."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.verdict_store import VerdictStore
from rlaif_lab.judges.wrappers.base import Wrapper
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.records import Comparison, Prompt, Score, Status, Verdict
from rlaif_lab.store.files import cache_root

KEPT: tuple[Status, ...] = ("ok", "tie", "invalid", "refused")
"""What a judge said. Not what kept it from answering: that is tried again."""

CLAIM_S = 60.0
"""How long what a process was asking stays its own after it died."""
LOOK_S = 0.2
"""Between two looks for what another process is asking."""

T = TypeVar("T")
S = TypeVar("S", Verdict, Score)


class CachedJudge(Wrapper):
    """Looks a verdict up by (prompt, responses in their order, identity of the judge) before it asks ``of``. What is
    found costs nothing: no time, no tokens, no money.

    path: the store; None: ``verdicts/verdicts.sqlite`` in the lab's cache folder, shared by all runs and processes.
        What one of them is asking the others wait for, so that nothing is paid twice.
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
        # The identity of now: weights of a live policy change from round to round.
        judge = self.of.identity()
        keys = [_key(judge, c.prompt, c.first, c.second) for c in comparisons]
        # Equal comparisons are one key, and asked once.
        asked = dict(zip(keys, comparisons, strict=True))
        return self._found(keys, asked, self.of.verdicts, self.store.get, self.store.put)

    def scores(self, responses: Sequence[tuple[Prompt, str]]) -> list[Score]:
        judge = self.of.identity()
        keys = [_key(judge, prompt, text) for prompt, text in responses]
        asked = dict(zip(keys, responses, strict=True))
        return self._found(keys, asked, self.of.scores, self.store.get_scores, self.store.put_scores)

    def _found(
        self,
        keys: Sequence[str],
        items: Mapping[str, T],
        ask: Callable[[list[T]], list[S]],
        get: Callable[[Sequence[str]], dict[str, S]],
        put: Callable[[Mapping[str, S]], None],
    ) -> list[S]:
        """Return what is stored, and what is missing: asked here, or waited for where another process is asking it."""
        held = {key: _free(found) for key, found in get(list(items)).items()}
        with self._claiming() as claim:
            for some in _portions({key: item for key, item in items.items() if key not in held}, self.save_every):
                # First what nobody else is asking, then waiting for the rest: two processes share the work.
                self._ask(claim(list(some)), some, held, ask=ask, get=get, put=put)
            # What another process has claimed comes in time, or is taken over when its claim runs out.
            while missing := {key: item for key, item in items.items() if key not in held}:
                held |= {key: _free(found) for key, found in get(list(missing)).items()}
                left = [key for key in missing if key not in held]
                # Claims of a process that has died run out after CLAIM_S.
                mine = claim(left)
                for some in _portions({key: items[key] for key in mine}, self.save_every):
                    self._ask(list(some), some, held, ask=ask, get=get, put=put)
                # Only when there was nothing to do: otherwise the asking itself has taken the time.
                if left and not mine:
                    time.sleep(LOOK_S)
        return [held[key] for key in keys]

    def _ask(
        self,
        mine: Sequence[str],
        items: Mapping[str, T],
        held: dict[str, S],
        ask: Callable[[list[T]], list[S]],
        get: Callable[[Sequence[str]], dict[str, S]],
        put: Callable[[Mapping[str, S]], None],
    ) -> None:
        """Fill in ``held`` for the keys that are claimed. Somebody may have stored them before the claim."""
        # Between the first look and the claim somebody may have stored it.
        held |= {key: _free(found) for key, found in get(mine).items()}
        some = {key: items[key] for key in mine if key not in held}
        if some:
            said = dict(zip(some, ask(list(some.values())), strict=True))
            # A failure (a time-out, say) is this process's to report, and others' to try again.
            put({key: found for key, found in said.items() if found.status in KEPT})
            held |= said

    @contextmanager
    def _claiming(self) -> Iterator[Callable[[list[str]], list[str]]]:
        """Yield how to claim keys. What is claimed stays so while this process lives, and is given back at the end, so
        that others ask what was not stored."""
        owner, claimed, over = uuid.uuid4().hex, set[str](), threading.Event()

        def renew() -> None:
            # Four times within a claim's life: one that comes late does not lose it.
            while not over.wait(CLAIM_S / 4):
                self.store.claim(sorted(claimed), owner, CLAIM_S)

        def claim(keys: list[str]) -> list[str]:
            mine = self.store.claim(keys, owner, CLAIM_S) if keys else []
            claimed.update(mine)
            return mine

        renewing = threading.Thread(target=renew, name="claims", daemon=True)
        renewing.start()
        try:
            yield claim
        finally:
            over.set()
            renewing.join()
            if claimed:
                # Even after an error: others need not wait until the claims run out.
                self.store.release(owner)


def _key(judge: str, prompt: Prompt, *texts: str) -> str:
    # repr keeps fields apart; "surrogatepass", since texts may hold lone surrogates.
    content = repr((judge, prompt.id, prompt.text, prompt.turns, texts))
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def _free(found: T) -> T:
    """Return it at no cost: what was paid for once is not paid again."""
    return replace(found, latency_s=0.0, tokens=0, cost_usd=0.0)  # type: ignore[type-var]


def _portions(missing: dict[str, T], size: int) -> list[dict[str, T]]:
    """Yield portions of about ``size`` each; what belongs to one prompt comes together, since a judge computes it
    together."""
    by_prompt: dict[str, dict[str, T]] = {}
    for key, item in missing.items():
        prompt = item.prompt if isinstance(item, Comparison) else item[0]  # type: ignore[index]
        by_prompt.setdefault(prompt.id, {})[key] = item
    portions: list[dict[str, T]] = []
    for group in by_prompt.values():
        # A prompt's group is not split: a portion may be larger than `size`.
        if not portions or len(portions[-1]) >= size:
            portions.append({})
        portions[-1] |= group
    return portions
