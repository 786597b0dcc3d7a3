"""Prompts of one's own, from a file or a dataset. Nobody has graded the answers, so there is no gold."""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlaif_lab.config import did_you_mean
from rlaif_lab.records import Prompt
from rlaif_lab.seeding import rng_for
from rlaif_lab.tasks.base import Split, Task
from rlaif_lab.tasks.read_rows import FORMATS, read_rows

SHIPPED = Path(__file__).resolve().parent.parent / "data" / "open_prompts.jsonl"
ROLES = ("system", "user", "assistant")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_ENDLESS = sys.maxsize


@dataclass(frozen=True)
class Columns:
    """prompt: the column with the prompt, as text or as a list of {role, content}; an assistant's turn at its end is
    left out, since answering is the policy's part. id: the column with the prompt's identity, unique; None: a hash of
    the prompt."""

    prompt: str = "prompt"
    id: str | None = None

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> Columns:
        known = list(cls.__dataclass_fields__)
        for key in columns:
            if key not in known:
                hint = did_you_mean(str(key), known)
                raise ValueError(f"task.columns has no {key!r}{hint}; it takes {', '.join(known)}")
        return cls(**columns)


class PromptsFile(Task):
    """path: a file (.jsonl, .json, .csv, .parquet), a folder, or a dataset's hub id; None: the prompts that come with
        the lab. split, subset: of a folder or hub dataset.
    columns: {prompt, id}, see Columns.
    evaluation_share: of the prompts, kept for evaluation; which ones is decided by a hash of the prompt, so the two
        splits are disjoint for every seed and whatever else is in the file.
    repeat: when all prompts have been seen, go through them again in another order, under other ids; otherwise a run
        that needs more prompts than there are is refused.
    max_characters: longer prompts are left out; None: none is. Duplicates are left out always.
    """

    has_gold = False

    def __init__(
        self,
        path: str | None,
        max_response_tokens: int,
        split: str = "train",
        subset: str | None = None,
        columns: Mapping[str, Any] | None = None,
        evaluation_share: float = 0.2,
        repeat: bool = False,
        max_characters: int | None = None,
        name: str = "prompts",
    ) -> None:
        if max_response_tokens < 1:
            raise ValueError(f"task.max_response_tokens must be at least 1; got {max_response_tokens}")
        if not 0.0 < evaluation_share < 1.0:
            raise ValueError(f"task.evaluation_share must lie in (0, 1); got {evaluation_share}")
        if max_characters is not None and max_characters < 1:
            raise ValueError(f"task.max_characters must be at least 1 or null; got {max_characters}")
        self.path = str(SHIPPED) if path is None else path
        self.max_response_tokens, self.split, self.subset, self.name = max_response_tokens, split, subset, name
        self.columns = Columns.of(columns or {})
        self.evaluation_share, self.repeat, self.max_characters = evaluation_share, repeat, max_characters
        self._check_path()
        self._orders: dict[tuple[Split, int, int], list[Prompt]] = {}

    def _check_path(self) -> None:
        place = Path(self.path).expanduser()
        if place.is_file() and place.suffix not in FORMATS:
            raise ValueError(
                f"task.path must be a file of {', '.join(FORMATS)}, a folder or a hub id; got {self.path!r}"
            )
        if not self.path or (not place.exists() and (place.suffix in FORMATS or not _HUB_ID.fullmatch(self.path))):
            raise ValueError(f"task.path: {self.path!r} does not exist, and is no hub id (owner/name) either")

    # --- what a task is ---------------------------------------------------------------------------------------
    def available(self, split: Split) -> int:
        held = len(self._splits.get(split, ()))
        return _ENDLESS if held and self.repeat else held

    def prompts(self, split: Split, start: int, count: int, seed: int) -> list[Prompt]:
        held = len(self._splits.get(split, ()))
        if start + count > self.available(split):
            raise ValueError(
                f"task {self.name!r}: split {split!r} has {held} prompts, but positions {start} to {start + count} "
                "were asked for; use fewer, or task.repeat=true"
            )
        found = []
        for position in range(start, start + count):
            again, place = divmod(position, held)
            prompt = self._order(split, seed, again)[place]
            found.append(replace(prompt, id=f"{prompt.id}#{again + 1}") if again else prompt)
        return found

    def quality(self, prompt: Prompt, response: str) -> float:
        """nan: there is no gold."""
        return float("nan")

    def identity(self) -> str:
        """By content: the same path with other prompts is another task."""
        digest = hashlib.sha256()
        for split, prompts in sorted(self._splits.items()):
            digest.update(repr((split, prompts)).encode())
        return f"{self.name} {digest.hexdigest()[:16]}"

    # --- reading ----------------------------------------------------------------------------------------------
    @functools.cached_property
    def _splits(self) -> dict[Split, list[Prompt]]:
        prompts = self._read()
        evaluation = {p.id for p in prompts.values() if _uniform(p) < self.evaluation_share}
        return {
            "rounds": [p for p in prompts.values() if p.id not in evaluation],
            "evaluation": [p for p in prompts.values() if p.id in evaluation],
        }

    def _order(self, split: Split, seed: int, again: int) -> list[Prompt]:
        """The prompts of a split as they are gone through for the first time (``again`` = 0), the second, ..."""
        if (split, seed, again) not in self._orders:
            prompts = self._splits[split]
            order = rng_for(seed, "task order", self.name, split, again).permutation(len(prompts))
            self._orders[split, seed, again] = [prompts[i] for i in order]
        return self._orders[split, seed, again]

    def _read(self) -> dict[str, Prompt]:
        """By id, in the order of the file. Raises ValueError when nothing is left."""
        seen: dict[tuple[Any, ...], None] = {}
        prompts: dict[str, Prompt] = {}
        for where, row in read_rows(self.path, self.split, self.subset):
            prompt = self._prompt(where, row)
            content = (prompt.text, prompt.turns)
            too_long = self.max_characters is not None and _characters(prompt) > self.max_characters
            if too_long or content in seen:
                continue
            if prompt.id in prompts:
                raise ValueError(f"{where}: id {prompt.id!r} has been given to another prompt already")
            seen[content] = None
            prompts[prompt.id] = prompt
        if not prompts:
            raise ValueError(f"task.path: no prompts in {self.path!r}")
        return prompts

    def _prompt(self, where: str, row: Mapping[str, Any]) -> Prompt:
        said = _column(where, row, self.columns.prompt, "prompt")
        turns: tuple[tuple[str, str], ...] = ()
        if isinstance(said, str):
            text = said
        elif isinstance(said, list):
            turns = _conversation(where, said)
            text = turns[-1][1]
        else:
            raise ValueError(
                f"{where}: column {self.columns.prompt!r} must be a text or a list of turns; it is a "
                f"{type(said).__name__}"
            )
        if not text.strip():
            raise ValueError(f"{where}: the prompt is empty")
        own = hashlib.sha256(repr((text, turns)).encode()).hexdigest()[:16]
        if self.columns.id is not None:
            own = str(_column(where, row, self.columns.id, "id"))
        return Prompt(f"{self.name}/{own}", text, turns)


def _column(where: str, row: Mapping[str, Any], name: str, key: str) -> Any:
    if name not in row:
        hint = did_you_mean(name, list(row))
        raise ValueError(f"{where}: no column {name!r} (task.columns.{key}){hint}; there is {', '.join(row) or 'none'}")
    return row[name]


def _conversation(where: str, turns: list[Any]) -> tuple[tuple[str, str], ...]:
    """Up to the last user's turn, which has to be the last but for one of the assistant."""
    found = []
    for i, turn in enumerate(turns):
        if not (
            isinstance(turn, Mapping) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
        ):
            raise ValueError(f"{where}: turn {i} must be an object with role and content, both texts; it is {turn!r}")
        if turn["role"] not in ROLES:
            raise ValueError(f"{where}: the role of turn {i} must be one of {', '.join(ROLES)}; got {turn['role']!r}")
        found.append((turn["role"], turn["content"]))
    if found and found[-1][0] == "assistant":
        found.pop()
    if not found or found[-1][0] != "user":
        raise ValueError(f"{where}: a conversation must end with a user's turn, or with the answer to one")
    return tuple(found)


def _characters(prompt: Prompt) -> int:
    return sum(len(content) for _, content in prompt.turns) or len(prompt.text)


def _uniform(prompt: Prompt) -> float:
    """In [0, 1), decided by what is asked."""
    content = repr((prompt.text, prompt.turns)).encode()
    return int.from_bytes(hashlib.sha256(b"split" + content).digest()[:7], "big") / 2**56
