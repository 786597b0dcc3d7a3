"""Pair banks: where labelled pairs come from. A new source is one subclass plus one YAML in conf/bank/."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rlaif_lab.audit.formats import parse
from rlaif_lab.audit.labels import stated_codes
from rlaif_lab.audit.pairs import LabelledPair, better_and_worse
from rlaif_lab.config.ranges import Seed
from rlaif_lab.seeding import rng_for
from rlaif_lab.tasks.base import ProceduralTask, Skill, Task
from rlaif_lab.tasks.formats import AUTO, check_format
from rlaif_lab.tasks.read_rows import FORMATS, FileRow, ending, read_rows, wrong_ending

SHIPPED = Path(__file__).resolve().parent.parent / "data" / "pair_banks"


class PairBank(ABC):
    """``__init__`` only checks and keeps its arguments."""

    name: str
    graded: ClassVar[bool] = False
    """Whether the task can grade any answer to the bank's prompts, not only those in it."""

    @abstractmethod
    def load(self, task: Task) -> list[LabelledPair]:
        """Return the pairs, the same ones every time. ValueError, with file and line where there is one, for what
        cannot be read."""


@dataclass(frozen=True)
class TaskBank(PairBank):
    """Made by a task's demonstrators: the right answer against a slip (subset ``slip``), and against what the task's
    misconception makes of it (subset ``misconception``).

    Of problems of the evaluation split, on which nothing is ever trained. pairs: how many, half of them misconceptions
    as far as the task has any. seed: of the bank and not of the run, so that all runs and rounds ask the same.
    """

    pairs: int = 400
    seed: Seed = 0
    name: str = "task"
    graded: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise ValueError(f"bank.pairs must be at least 1; got {self.pairs}")

    def load(self, task: Task) -> list[LabelledPair]:
        if not isinstance(task, ProceduralTask):
            raise ValueError(
                f"bank {self.name!r} is made by demonstrators, and task {task.name!r} has none: use bank=general or "
                "bank=file"
            )
        problems = task.split_problems("evaluation")
        # By the bank's seed, not the run's: all runs and rounds ask about the same pairs.
        rng_for(self.seed, "pair bank", task.name).shuffle(problems)
        # More than are wanted, since on many problems misconception and slip lead to the right answer.
        problems = problems[: 20 * self.pairs]
        prompts = [task.to_prompt(problem) for problem in problems.tolist()]
        right, slips, misconceptions = (
            task.demonstrate(problems, skill, rng_for(self.seed, "pair bank", task.name, kind))
            for kind, skill in (("right", Skill(0, 0)), ("slip", Skill(1, 0)), ("misconception", Skill(0, 1)))
        )

        def wrong(answers: list[str], i: int) -> bool:
            return task.quality(prompts[i], answers[i]) < task.quality(prompts[i], right[i])

        everything = range(len(prompts))
        # Misconceptions first, half of the pairs: there are fewer problems on which they show.
        misled = [i for i in everything if wrong(misconceptions, i)][: self.pairs // 2]
        # A problem gives one pair only, so that pairs are independent.
        taken = set(misled)
        slipped = [i for i in everything if i not in taken and wrong(slips, i)][: self.pairs - len(misled)]
        kinds = [("misconception", misconceptions, misled), ("slip", slips, slipped)]
        found = [
            better_and_worse(prompts[i], right[i], answers[i], kind, source=f"{self.name}, {kind} {number}")
            for kind, answers, chosen in kinds
            for number, i in enumerate(chosen, 1)
        ]
        if not found:
            raise ValueError(f"bank {self.name!r}: no demonstrator gets a problem of task {task.name!r} wrong")
        return found


@dataclass(frozen=True)
class FileBank(PairBank):
    """Pairs in a file.

    path: of a .jsonl, .json, .csv or .parquet file, or the name of a shipped bank. format: see ``audit.formats``; auto:
    by the columns. columns: our column name -> the file's, where they differ. labels: label -> first, second or tie,
    where the format does not say it. ignore: columns beside the prompt that may be left out. limit: the first so many
    rows, None: all.
    """

    path: str
    format: str = AUTO
    columns: Mapping[str, str] | None = None
    labels: Mapping[Any, str] | None = None
    ignore: Sequence[str] = ()
    limit: int | None = None
    name: str = "file"

    def __post_init__(self) -> None:
        _check_reading(self.format, self.labels, self.limit)
        if not self.file().is_file():
            shipped = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.jsonl")))
            raise ValueError(f"bank.path: there is no file {self.path!r}; shipped banks are {shipped}")
        if ending(self.file()) not in FORMATS:
            raise ValueError(wrong_ending(self.file(), "bank.path"))

    def file(self) -> Path:
        # The name of a shipped bank wins over a file of that name: banks are known by name.
        shipped = SHIPPED / f"{self.path}.jsonl"
        return shipped if shipped.is_file() else Path(self.path).expanduser()

    def load(self, task: Task) -> list[LabelledPair]:
        return _pairs(self, read_rows(self.file(), key="bank.path"))


@dataclass(frozen=True)
class HubBank(PairBank):
    """Pairs in a data set that ``datasets.load_dataset`` finds: a hub id or a local folder.

    dataset, subset, split: its arguments path, name and split. The rest as in FileBank.
    """

    dataset: str
    split: str = "train"
    subset: str | None = None
    format: str = AUTO
    columns: Mapping[str, str] | None = None
    labels: Mapping[Any, str] | None = None
    ignore: Sequence[str] = ()
    limit: int | None = None
    name: str = "hub"

    def __post_init__(self) -> None:
        _check_reading(self.format, self.labels, self.limit)

    def load(self, task: Task) -> list[LabelledPair]:
        return _pairs(self, read_rows(self.dataset, self.split, self.subset, key="bank.dataset"))


def _pairs(bank: FileBank | HubBank, rows: Iterable[FileRow]) -> list[LabelledPair]:
    return parse(
        list(rows),
        bank.format,
        dict(bank.columns or {}),
        bank.name,
        labels=None if bank.labels is None else dict(bank.labels),
        ignore=list(bank.ignore),
        limit=bank.limit,
    )


def _check_reading(form: str, labels: Mapping[Any, str] | None, limit: int | None) -> None:
    check_format(form, "bank.format")
    if labels is not None:
        stated_codes(labels, "bank.labels")
    if limit is not None and limit < 1:
        raise ValueError(f"bank.limit must be at least 1 or null; got {limit}")
