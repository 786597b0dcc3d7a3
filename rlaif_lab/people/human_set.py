"""A fixed set of comparisons by which people measure all arms of a sweep: what it is, and where it is kept.

The set is drawn once for every untrained policy, and frozen in a file in the sweep's folder: prompts that nobody trains
on, the untrained policy's answer to each (the reference), and of some of them a second answer of its. All runs share
one queue, so that a comparison which several of them have is asked once: the fixed pairs always, a policy's answer
wherever two runs have the same.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_lab.config.ranges import Count, Number, Seed
from rlaif_lab.records import Comparison, Prompt
from rlaif_lab.store.files import writing

if TYPE_CHECKING:
    from rlaif_lab.judges.base import Judge

FOLDER = "human_set"
"""In the folder of the sweep, or of a run by itself."""


class HumanSet:
    """How large the set is, who judges it, and when.

    Args:
        by: Who labels: real people (``judge@human_set.by=people``), or an annotator simulated from gold.
        prompts: On how many prompts a policy's answer is compared with the reference.
        pairs: On how many of them two answers of the untrained policy are compared, by which every arm's judge is
            audited; 0: none.
        every: Rounds between two looks at the policy; null: only after the last round. Training waits for people each
            time.
        seed: Which prompts; the same for all runs, whatever theirs.

    Raises:
        ValueError: for more pairs than prompts, or somebody to judge who is no annotator.
    """

    def __init__(
        self, by: Judge, prompts: Count = 50, pairs: Number = 50, every: Count | None = None, seed: Seed = 0
    ) -> None:
        if pairs > prompts:
            raise ValueError(f"human_set.pairs must be at most human_set.prompts, which is {prompts}; got {pairs}")
        if not by.is_annotator:
            raise ValueError(
                f"human_set.by must be people, or an annotator simulated from gold (simulated_annotator); got "
                f"{by.name!r}"
            )
        self.by, self.prompts, self.pairs, self.every, self.seed = by, prompts, pairs, every, seed

    def is_due(self, round_index: int) -> bool:
        """Return whether people look at the policy of this round, if it is not the last."""
        return self.every is not None and round_index % self.every == 0


@dataclass(frozen=True)
class Entry:
    """Attributes:
    prompt: The prompt.
    reference: The untrained policy's answer, with which every policy's is compared.
    other: A second answer of the untrained policy; None where there is no fixed pair.
    """

    prompt: Prompt
    reference: str
    other: str | None

    @property
    def pair(self) -> Comparison | None:
        """The fixed pair; None where there is none, or its two answers are equal."""
        if self.other is None or self.other == self.reference:
            return None
        return Comparison(self.prompt, self.reference, self.other)


@dataclass(frozen=True)
class SharedSet:
    """A set as a run has it.

    Attributes:
        settings: What was asked for.
        folder: Where set and queue are, shared by the runs of a sweep.
        identity: All that decides the set: the untrained policy's weights, the task, and the settings.
    """

    settings: HumanSet
    folder: Path
    identity: str

    @property
    def file(self) -> Path:
        """Where the frozen set is."""
        return self.folder / f"set-{hashlib.sha256(self.identity.encode()).hexdigest()[:16]}.jsonl"

    def frozen(self) -> list[Entry] | None:
        """Return the set; None where no run has drawn it yet.

        Raises:
            ValueError: if the file is damaged.
        """
        try:
            lines = self.file.read_text(encoding="utf-8").split("\n")
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"{str(self.file)!r} cannot be read: {error}; restore it from a copy") from error
        try:
            found = [_entry(json.loads(line)) for line in lines if line]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{str(self.file)!r} is damaged ({type(error).__name__}: {error}); restore it from a copy, since the "
                "labels in the folder are of this set"
            ) from error
        if len(found) != self.settings.prompts:
            raise ValueError(
                f"{str(self.file)!r} is damaged ({len(found)} prompts in place of {self.settings.prompts}); restore "
                "it from a copy, since the labels in the folder are of this set"
            )
        return found

    def freeze(self, entries: Sequence[Entry]) -> None:
        """Write the set, unless another run was first: what is there stays."""
        temporary = self.file.with_suffix(f".{os.getpid()}.tmp")
        with writing(self.file):
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(_row(entry)) + "\n" for entry in entries)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, self.file)  # whole or not at all, and never over another's
            except FileExistsError:
                pass
            except OSError:  # a file system without links
                if not self.file.exists():
                    os.replace(temporary, self.file)
            temporary.unlink(missing_ok=True)


def _row(entry: Entry) -> dict[str, object]:
    prompt = {"id": entry.prompt.id, "text": entry.prompt.text, "turns": entry.prompt.turns}
    return {"prompt": prompt, "reference": entry.reference, "other": entry.other}


def _entry(row: Mapping[str, Any]) -> Entry:
    prompt = row["prompt"]
    turns = tuple((role, said) for role, said in prompt["turns"])
    reference, other = row["reference"], row["other"]
    if not isinstance(reference, str) or not isinstance(other, str | None):
        raise ValueError("an answer is no text")
    return Entry(Prompt(prompt["id"], prompt["text"], turns), reference, other)
