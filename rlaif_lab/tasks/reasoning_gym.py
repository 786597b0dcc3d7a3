"""Problems of the library reasoning-gym, for any model that reads text: made afresh, with graders.

The library seeds problem i of a data set with ``seed + i``, so neighbouring seeds give the same problems. Here a run's
seed chooses a range of indices of its own, and which split a problem belongs to is a hash of its *text*: whatever the
seeds, no problem of one split is ever asked in another. Two equal texts are one problem, asked once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

from rlaif_lab.config import did_you_mean
from rlaif_lab.records import Prompt
from rlaif_lab.tasks.base import Split, Task
from rlaif_lab.tasks.graders import graded
from rlaif_lab.tasks.graders.extract import WAYS, Where, extract

SHARES: dict[str, float] = {
    "rounds": 0.45, "reserve": 0.05, "evaluation": 0.3, "policy_pretraining": 0.1, "judge_pretraining": 0.1,
}  # fmt: skip
"""Of all texts. reserve: the end of the split ``rounds``, which a judge may be given to learn from."""
# So many problems stand for no end of them; positions from its half upwards count from the end.
ENDLESS = 1 << 40
CHUNK = 500  # problems that one instance of a data set makes; some make them all at once
RANGE = 1 << 24  # indices of one seed
# All seeds of the library stay below RANGES * RANGE = 2^31.
RANGES = 128
PROBED = 256  # problems that are made to see whether texts come again
REMEMBERED = 4096  # problems whose records are kept, since making one again may take long
PATIENCE = 20  # times the problems found so far, without a new one, after which there is none

OnFailure = Literal["stop", "wrong"]


class ReasoningGym(Task):
    """Problems of one data set of reasoning-gym.

    dataset, params: its name, and what the data set takes besides seed and size. suffix: put behind every question,
    such as how to answer. answer: which part of a response counts, see ``graders.extract``. failing_grader: a grader of
    the library that raises on a response ``stop``s the run with a sentence, or counts it as ``wrong``. seed: of the
    problems. Quality is what the library's own grader says, partial credit included.
    """

    def __init__(
        self,
        dataset: str,
        max_response_tokens: int,
        params: Mapping[str, Any] | None = None,
        suffix: str = "",
        answer: Where = "whole",
        failing_grader: OnFailure = "stop",
        seed: int = 0,
        name: str | None = None,
    ) -> None:
        if max_response_tokens < 1:
            raise ValueError(f"task.max_response_tokens must be at least 1; got {max_response_tokens}")
        if answer not in WAYS:
            raise ValueError(f"task.answer must be one of {', '.join(WAYS)}; got {answer!r}")
        if failing_grader not in get_args(OnFailure):
            raise ValueError(
                f"task.failing_grader must be one of {', '.join(get_args(OnFailure))}; got {failing_grader!r}"
            )
        if not 0 <= seed < RANGES:
            raise ValueError(f"task.seed must lie in 0..{RANGES - 1}; got {seed}")
        self.dataset, self.params = dataset, {str(key): value for key, value in (params or {}).items()}
        self.max_response_tokens, self.suffix, self.answer = max_response_tokens, suffix, answer
        self.failing_grader, self.seed, self.name = failing_grader, seed, name or dataset
        self._streams: dict[int, _Stream] = {}
        self._entries: dict[tuple[str, str], dict[str, Any]] = {}
        self._chunks: dict[tuple[int, int], Any] = {}
        self._check_reproducible()  # and whatever is wrong with the parameters

    def _check_reproducible(self) -> None:
        """Raise ValueError where one and the same index gives several problems: answers could not be graded later."""
        made = self._chunk(0, 0)
        again = _create(self.dataset, self.params, self._first(0, 0))
        # Twice from one instance, once from another.
        if len({_problem(data, 1)["question"] for data in (made, made, again)}) > 1:
            raise ValueError(
                f"task.dataset: reasoning-gym's {self.dataset} gives another problem each time it is asked for the "
                "same one, so its answers could not be graded later; use another data set"
            )

    # --- what a task is -----------------------------------------------------------------------------------------------
    def available(self, split: Split) -> int:
        """Return how many problems there are: ENDLESS unless texts come again soon."""
        # Seed 0 stands for all: the parameters decide how soon texts come again.
        return self._stream(0).available(split)

    def prompts(self, split: Split, start: int, count: int, seed: int) -> list[Prompt]:
        """Return problems by position. Those from ``available`` downwards are problems of their own, so that an endless
        split has a far end."""
        if count < 1:
            return []
        stream = self._stream(seed)
        from_the_end = split == "rounds" and start >= ENDLESS // 2
        if from_the_end:
            # What has no end has no last problem: the far end is a split of its own, read backwards.
            last = ENDLESS - start
            found = stream.problems("reserve", last)[last - count : last][::-1]
        else:
            found = stream.problems(split, start + count)[start:]
        return [self._prompt(seed, index) for index in found]

    def quality(self, prompt: Prompt, response: str) -> float:
        entry, chunk = self._entry(prompt)
        answer = extract(response, self.answer)
        if self.failing_grader == "stop":
            name = f"of reasoning-gym's {self.dataset} (task.failing_grader=wrong counts such responses as wrong)"
            return graded(name, prompt.text, response, lambda: chunk.score_answer(answer, entry))
        try:
            return graded(self.dataset, prompt.text, response, lambda: chunk.score_answer(answer, entry))
        except ValueError:
            return 0.0

    def gold_answer(self, prompt: Prompt) -> str | None:
        """Return the library's answer, in the form in which it is looked for; None where its grader does not take
        it."""
        answer = self._entry(prompt)[0].get("answer")
        if not isinstance(answer, str) or not answer:
            return None
        response = f"<answer>{answer}</answer>" if self.answer == "tag" else answer
        return response if self.quality(prompt, response) == 1.0 else None

    def difficulty(self, prompt: Prompt) -> str | None:
        """Return what the library says of its difficulty: the problem's own value where there is one, else the
        range."""
        metadata = self._entry(prompt)[0].get("metadata", {})
        levels = metadata.get("difficulty")
        if isinstance(levels, Mapping):
            said = {
                key: metadata.get(key, value) for key, value in levels.items() if not isinstance(value, (dict, str))
            }
            kept = {key: value for key, value in said.items() if isinstance(value, (int, float, bool, list, tuple))}
            return " ".join(f"{key} {_short(value)}" for key, value in kept.items()) or None
        return None if levels is None else f"difficulty {_short(levels)}"

    def identity(self) -> str:
        from importlib.metadata import version

        settings = (self.params, self.suffix, self.answer, self.failing_grader, self.seed, self.max_response_tokens)
        digest = hashlib.sha256(repr(settings).encode()).hexdigest()[:16]
        # Another version of the library may make other problems of the same seed.
        return f"{self.name} {self.dataset} reasoning-gym {version('reasoning_gym')} {digest}"

    # --- problems -----------------------------------------------------------------------------------------------------
    def _stream(self, seed: int) -> _Stream:
        if seed not in self._streams:
            self._streams[seed] = _Stream(self, seed)
        return self._streams[seed]

    def _chunk(self, seed: int, number: int) -> Any:
        """Return the data set that makes problems ``number * CHUNK`` and on of a run's seed."""
        if (seed, number) not in self._chunks:
            self._chunks[seed, number] = _create(self.dataset, self.params, self._first(seed, number))
        return self._chunks[seed, number]

    def _first(self, seed: int, number: int) -> int:
        """Return what the library's data set of this chunk is seeded with; problem i of it with i more."""
        # Seeds 0 to 127 of a run have ranges of their own.
        return ((self.seed * 31 + seed) % RANGES) * RANGE + number * CHUNK

    def text(self, seed: int, index: int) -> str:
        """Return what problem ``index`` of a run's seed asks."""
        question = _problem(self._chunk(seed, index // CHUNK), index % CHUNK)["question"]
        return f"{question}{self.suffix}"

    def _prompt(self, seed: int, index: int) -> Prompt:
        return Prompt(f"{self.name}/{seed}/{index}", self.text(seed, index))

    def _entry(self, prompt: Prompt) -> tuple[dict[str, Any], Any]:
        """Return the library's record of a prompt, and the data set that grades it; made anew where another process
        asks."""
        found = re.fullmatch(rf"{re.escape(self.name)}/(-?\d+)/(\d+)", prompt.id)
        if found is None:
            raise ValueError(f"prompt {prompt.id!r} is none of task {self.name!r}")
        seed, index = int(found[1]), int(found[2])
        chunk = self._chunk(seed, index // CHUNK)
        key = (prompt.id, prompt.text)
        if key in self._entries:
            return self._entries[key], chunk
        entry = _problem(chunk, index % CHUNK)
        if f"{entry['question']}{self.suffix}" != prompt.text:
            raise ValueError(
                f"prompt {prompt.id!r} was made by another version of reasoning-gym, or with other settings"
            )
        if len(self._entries) >= REMEMBERED:
            del self._entries[next(iter(self._entries))]  # the oldest
        self._entries[key] = entry
        return entry, chunk


class _Stream:
    """The problems of one seed in the order of their indices, each text once, sorted into splits as they come."""

    def __init__(self, task: ReasoningGym, seed: int) -> None:
        self.task, self.seed = task, seed
        self.found: dict[str, list[int]] = {split: [] for split in SHARES}
        self.texts: set[bytes] = set()
        self.next = self.missed = 0

    @property
    def exhausted(self) -> bool:
        # If one of n + 1 equally likely texts were still missing, 20 n draws would miss it with probability e^-20.
        return self.missed > 200 + PATIENCE * len(self.texts) or self.next >= RANGE

    def problems(self, split: str, count: int) -> list[int]:
        """Return the first ``count`` of a split. Raises ValueError where there are not so many."""
        while len(self.found[split]) < count:
            if self.exhausted:
                raise ValueError(
                    f"task {self.task.name!r}: split {split!r} has {len(self.found[split])} problems, but {count} were "
                    "asked for; use fewer rounds or fewer prompts per round, or parameters that allow for more"
                )
            self.draw()
        return self.found[split][:count]

    def draw(self) -> None:
        # Hashes take less memory than the texts.
        digest = hashlib.sha256(self.task.text(self.seed, self.next).encode()).digest()
        if digest in self.texts:
            self.missed += 1
        else:
            self.missed = 0
            self.texts.add(digest)
            self.found[_split_of(digest)].append(self.next)
        self.next += 1

    def available(self, split: str) -> int:
        while self.next < PROBED:
            self.draw()
        # Not one of them twice: as good as endless.
        if len(self.texts) == self.next:
            return ENDLESS
        # Too few to call them endless: drawn on until all are found, or until it can be told.
        while not self.exhausted and self.next < 20 * PROBED and len(self.texts) < 0.9 * self.next:
            self.draw()
        if len(self.texts) >= 0.9 * self.next:
            return ENDLESS
        # As far as they were found: there may be more, but not less.
        return len(self.found[split])


def _problem(data: Any, index: int) -> dict[str, Any]:
    """Make a problem. Some generators draw from Python's global state, so it is given one of its own for that."""
    before = random.getstate()
    random.seed(data.seed + index)
    try:
        made: dict[str, Any] = data[index]
        return made
    finally:
        random.setstate(before)


def _split_of(digest: bytes) -> str:
    position = int.from_bytes(digest[:7], "big") / 2**56
    edge = 0.0
    for split, share in SHARES.items():
        edge += share
        if position < edge:
            return split
    return "judge_pretraining"  # the shares add up to 1 but for rounding


def _create(dataset: str, params: Mapping[str, Any], seed: int) -> Any:
    """Make a data set of the library. Raises ValueError, one sentence, for whatever is wrong with it."""
    try:
        from reasoning_gym.factory import DATASETS, create_dataset
    except ImportError:
        raise ValueError("task=reasoning_gym needs the library: pip install 'rlaif-lab[reasoning]'") from None
    if dataset not in DATASETS:
        hint = did_you_mean(dataset, list(DATASETS))
        raise ValueError(f"task.dataset: reasoning-gym has no {dataset!r}{hint}; it has {', '.join(sorted(DATASETS))}")
    known = [f.name for f in dataclasses.fields(DATASETS[dataset][1]) if f.name not in ("seed", "size")]
    for key in params:
        if key not in known:
            hint = did_you_mean(key, known)
            raise ValueError(f"task.params: {dataset} has no {key!r}{hint}; it takes {', '.join(known) or 'none'}")
    try:
        made = create_dataset(dataset, seed=seed, size=CHUNK, **params)
        _problem(made, 0)
    except Exception as error:  # assertions of its own, and whatever follows from values that it does not check
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"task.params: {dataset} cannot be made with {dict(params)}: {reason}") from None
    return made


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "-".join(_short(item) for item in dict.fromkeys(value))
    return f"{value:g}" if isinstance(value, float) else str(value)
