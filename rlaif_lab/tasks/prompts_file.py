"""Prompts of one's own, from a file or a dataset. Nobody has graded the answers, so there is no gold."""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlaif_lab.config import did_you_mean
from rlaif_lab.records import Prompt
from rlaif_lab.seeding import rng_for
from rlaif_lab.tasks.base import Split, Task
from rlaif_lab.tasks.formats import AUTO, FORMATS, check_format, to_name
from rlaif_lab.tasks.formats.base import Turns
from rlaif_lab.tasks.formats.columns import check_nothing_left_out, renamed
from rlaif_lab.tasks.formats.conversations import is_messages
from rlaif_lab.tasks.formats.plain import preference_context, prompt_context, refuse_an_answer_as_prompt
from rlaif_lab.tasks.read_rows import FORMATS as ENDINGS
from rlaif_lab.tasks.read_rows import FileRow, ending, read_rows, wrong_ending

SHIPPED = Path(__file__).resolve().parent.parent / "data" / "open_prompts.jsonl"
# Columns beside the prompt that a named format reads itself.
READ_BY = {"alpaca": ("input", "history"), "helpsteer3": ("context",), "alpaca_eval": ("input",)}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_ENDLESS = sys.maxsize


@dataclass(frozen=True)
class Columns:
    """Names of a file's columns.

    prompt: the prompt, as text or as a list of {role, content}; an assistant's turn at its end is left out, since
    answering is the policy's part. id: the prompt's identity, unique; None: a hash of the prompt. system: a system turn
    before it. input: a text that is put behind it, after an empty line; None: there must be none.
    """

    prompt: str = "prompt"
    id: str | None = None
    system: str | None = "system"
    input: str | None = None

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> Columns:
        known = list(cls.__dataclass_fields__)
        for key, name in columns.items():
            if key not in known:
                hint = did_you_mean(str(key), known)
                raise ValueError(f"task.columns has no {key!r}{hint}; it takes {', '.join(known)}")
            if not isinstance(name, str) and (name is not None or key == "prompt"):
                raise ValueError(f"task.columns.{key} must be the name of a column; got {name!r}")
        return cls(**columns)

    def ours(self) -> dict[str, str]:
        """Map our names -> the file's, as far as there is one."""
        named = {"prompt": self.prompt, "system": self.system, "input": self.input}
        return {ours: theirs for ours, theirs in named.items() if theirs is not None}


class PromptsFile(Task):
    """path: a file (.jsonl, .json, .csv, .parquet), a folder, or a dataset's hub id; None: the prompts that come with
        the lab. split, subset: of a folder or hub dataset.
    format: how a row holds a conversation, see ``rlaif_lab.tasks.formats``; auto: in the prompt's column, and with the
        conversation around it where chosen and rejected are given as messages. A named format knows its own columns.
    columns: {prompt, id, system, input}, see Columns. ignore: columns beside the prompt that may be left out.
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
        format: str = AUTO,
        ignore: Sequence[str] = (),
    ) -> None:
        if max_response_tokens < 1:
            raise ValueError(f"task.max_response_tokens must be at least 1; got {max_response_tokens}")
        if not 0.0 < evaluation_share < 1.0:
            raise ValueError(f"task.evaluation_share must lie in (0, 1); got {evaluation_share}")
        if max_characters is not None and max_characters < 1:
            raise ValueError(f"task.max_characters must be at least 1 or null; got {max_characters}")
        self.path = str(SHIPPED) if path is None else path
        self.max_response_tokens, self.split, self.subset, self.name = max_response_tokens, split, subset, name
        check_format(format, "task.format")
        self.columns, self.format, self.ignore = Columns.of(columns or {}), format, tuple(ignore)
        self.repeats = repeat
        self.evaluation_share, self.repeat, self.max_characters = evaluation_share, repeat, max_characters
        self._check_path()
        self._orders: dict[tuple[Split, int, int], list[Prompt]] = {}

    def _check_path(self) -> None:
        place = Path(self.path).expanduser()
        if place.is_file() and ending(place) not in ENDINGS:
            raise ValueError(f"{wrong_ending(place, 'task.path')}; or give a folder or a hub id")
        # What has one of our endings was meant as a file, and no hub id.
        if not self.path or (not place.exists() and (ending(place) in ENDINGS or not _HUB_ID.fullmatch(self.path))):
            raise ValueError(f"task.path: {self.path!r} does not exist, and is no hub id (owner/name) either")

    # --- what a task is ---------------------------------------------------------------------------------------
    def available(self, split: Split) -> int:
        held = self.distinct(split)
        # An empty split cannot be gone through again.
        return _ENDLESS if held and self.repeat else held

    def distinct(self, split: Split) -> int:
        return len(self._splits.get(split, ()))

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
            # Seeds and stores go by id: asked again, a prompt needs another.
            found.append(replace(prompt, id=f"{prompt.id}#{again + 1}") if again else prompt)
        return found

    def quality(self, prompt: Prompt, response: str) -> float:
        """Return nan: there is no gold."""
        return float("nan")

    def identity(self) -> str:
        """Return an identity by content: the same path with other prompts is another task."""
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
        """Return the prompts of a split as they are gone through for the first time (``again`` = 0), the second, ..."""
        if (split, seed, again) not in self._orders:
            prompts = self._splits[split]
            order = rng_for(seed, "task order", self.name, split, again).permutation(len(prompts))
            self._orders[split, seed, again] = [prompts[i] for i in order]
        return self._orders[split, seed, again]

    def _read(self) -> dict[str, Prompt]:
        """Read the prompts by id, in the order of the file. Raises ValueError when nothing is left."""
        seen: dict[tuple[Any, ...], None] = {}
        prompts: dict[str, Prompt] = {}
        for row in read_rows(self.path, self.split, self.subset, key="task.path"):
            prompt = self._prompt(row)
            # Whatever its id: a duplicate asks the same.
            content = (prompt.text, prompt.turns)
            too_long = self.max_characters is not None and _characters(prompt) > self.max_characters
            if too_long or content in seen:
                continue
            if prompt.id in prompts:
                raise ValueError(f"{row.where}: id {prompt.id!r} has been given to another prompt already")
            seen[content] = None
            prompts[prompt.id] = prompt
            self._keep(prompt, row)
        if not prompts:
            raise ValueError(f"task.path: no prompts in {self.path!r}")
        return prompts

    def _keep(self, prompt: Prompt, row: FileRow) -> None:
        """Take what else a row says of a prompt; here nothing."""

    def _prompt(self, row: FileRow) -> Prompt:
        context = self._context(row)
        text = context[-1][1]
        # A text stays a text; turns are kept where the file has messages, or where there is more than the question.
        messages = self.format == AUTO and isinstance(row.values.get(self.columns.prompt), list)
        turns = context if messages or len(context) > 1 else ()
        own = hashlib.sha256(repr((text, turns)).encode()).hexdigest()[:16]
        if self.columns.id is not None:
            own = str(_column(row, self.columns.id, "id"))
        return Prompt(f"{self.name}/{own}", text, turns)

    def _context(self, row: FileRow) -> Turns:
        """Return what is asked, as turns. Raises ValueError, with file and line, where something would be left out."""
        # columns.system=null: a system column of the file is not wanted.
        ignore = self.ignore if self.columns.system else (*self.ignore, "system")
        row, ours = renamed(row, {}, ignore), renamed(row, self.columns.ours(), ignore)
        known = [] if self.columns.input is None else ["input"]
        check_nothing_left_out(ours, [*known, *READ_BY.get(self.format, ())], "task")
        if self.format != AUTO:
            return FORMATS[self.format].context(FileRow(row.where, {**row.values, **ours.values}))
        value = _column(row, self.columns.prompt, "prompt")
        if not isinstance(value, (str, list)):
            raise ValueError(
                f"{row.where}: column {self.columns.prompt!r} must be a text or a list of turns; it is a "
                f"{type(value).__name__}"
            )
        # Preference data as messages: the conversation around them is what is asked.
        if (
            all(is_messages(row.values.get(name)) for name in ("chosen", "rejected"))
            and self.columns.prompt == "prompt"
        ):
            return preference_context(ours)
        refuse_an_answer_as_prompt(ours, "task")
        return prompt_context(ours, without_answer=True)


def _column(row: FileRow, name: str, key: str) -> Any:
    if name not in row.values:
        hint = did_you_mean(name, list(row.values))
        named = "" if hint or key != "prompt" else to_name(row, "task")
        raise ValueError(
            f"{row.where}: no column {name!r} (task.columns.{key}){hint}; there is {', '.join(row.values) or 'none'}"
            f"{'; ' + named if named else ''}"
        )
    return row.values[name]


def _characters(prompt: Prompt) -> int:
    # Without turns their sum is 0.
    return sum(len(content) for _, content in prompt.turns) or len(prompt.text)


def _uniform(prompt: Prompt) -> float:
    """Return a number in [0, 1), decided by what is asked."""
    content = repr((prompt.text, prompt.turns)).encode()
    # Salted, since an id may be a hash of the same content.
    return int.from_bytes(hashlib.sha256(b"split" + content).digest()[:7], "big") / 2**56
