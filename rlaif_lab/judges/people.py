"""People as a judge: comparisons go into a queue in the run's folder, and come back as people label them."""

from __future__ import annotations

import shlex
import socket
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlaif_lab.instructions.constitution import Constitution
from rlaif_lab.instructions.criteria import criteria_text
from rlaif_lab.judges.base import Judge
from rlaif_lab.records import Comparison, Prompt, Verdict
from rlaif_lab.store.files import MULTIRUN, TryLaterError
from rlaif_lab.tasks.prompts_file import SHIPPED, PromptsFile

if TYPE_CHECKING:
    from rlaif_lab.models.access import JudgeContext
    from rlaif_lab.people.queue import Item, Label, LabelQueue, Progress

QUEUE = "labels.sqlite"
"""Name of the queue's file, in the judge's folder."""
POLL_S = 1.0
TELL_S = 60.0
"""Seconds between two lines about how many labels are missing."""


class LabelsMissingError(TryLaterError):
    """A run has to wait for people and was told not to. It goes on by ``rlaif-resume`` once the labels are there."""


class PeopleJudge(Judge):
    """Asks people, on the page of ``rlaif-annotate``.

    Each pair of responses is asked once, whatever its order; who labels it sees the two in an order drawn for them.
    What several people say of one item is averaged. A flagged item is ``refused``, one beyond the budget
    ``over_budget``.

    Args:
        wait: Whether to wait for labels; else the run ends with exit code 75 and goes on by ``rlaif-resume``.
        labels_per_item: How many people label each item.
        evaluate: Whether people are also asked about the evaluation's comparisons and the bank, in every round. Off, so
            that a budget goes into labels that are trained on.
        criteria: What people are told to judge by: a question, or the name of a file in conf/criteria; null for no
            instruction.
        constitution: Principles that the page shows on request: a name in conf/constitution, or a path; null for none.
        checks: Pairs whose better response is known, as a bank (``+bank@judge.checks=file judge.checks.path=...``):
            attention checks that come in between; null for none.
        seconds: Expected time per label, by which the budget in minutes is planned before a label is there.
        usd_per_hour: What people are paid.
        max_labels: Budget in labels for the whole run, over rounds and kills; null for none.
        max_minutes: Budget in minutes. No comparison is put into the queue that is not expected to fit, and when the
            time is spent the page gives out nothing more; what has no label by then is ``over_budget``.
        max_usd: Budget in dollars, kept as minutes at ``usd_per_hour``.
        name: What the judge is called in reports.

    Raises:
        ValueError: for settings out of range.
        LabelsMissingError: with ``wait`` off, when labels are missing.
    """

    is_annotator = True

    def __init__(
        self,
        wait: bool = True,
        labels_per_item: int = 1,
        evaluate: bool = False,
        criteria: str | None = "Which response is better?",
        constitution: str | None = None,
        checks: Any = None,
        seconds: float = 30.0,
        usd_per_hour: float = 0.0,
        max_labels: int | None = None,
        max_minutes: float | None = None,
        max_usd: float | None = None,
        name: str = "people",
    ) -> None:
        if labels_per_item < 1:
            raise ValueError(f"judge.labels_per_item must be at least 1; got {labels_per_item}")
        for key, value in (("seconds", seconds), ("usd_per_hour", usd_per_hour)):
            if not 0.0 <= value < float("inf"):
                raise ValueError(f"judge.{key} must be finite and not negative; got {value}")
        for key, limit in (("max_labels", max_labels), ("max_minutes", max_minutes), ("max_usd", max_usd)):
            if limit is not None and not 0.0 < limit < float("inf"):
                raise ValueError(f"judge.{key} must be positive, or null for no limit; got {limit}")
        if max_usd is not None and usd_per_hour == 0.0:
            raise ValueError("judge.max_usd needs judge.usd_per_hour, which is 0")
        self.wait, self.labels_per_item, self.evaluate = wait, labels_per_item, evaluate
        # Read here, so that a missing file is reported before anything is asked.
        self.criteria = None if criteria is None else criteria_text(criteria)
        self.guidelines = None if constitution is None else Constitution.load(constitution).guidelines()
        if checks is not None and not hasattr(checks, "load"):
            raise ValueError(
                "judge.checks must be a bank of pairs (+bank@judge.checks=file judge.checks.path=known.jsonl) or null; "
                f"got {checks!r:.80}"
            )
        self.checks = [] if checks is None else checks.load(PromptsFile(str(SHIPPED), 1))
        self.seconds, self.usd_per_hour = seconds, usd_per_hour
        self.max_labels, self.max_minutes, self.max_usd = max_labels, max_minutes, max_usd
        self.name = name
        # What the AI said about a pair, for the owner's page; annotators are not shown it.
        self._ai: dict[tuple[Prompt, str, str], float | None] = {}

    def attach(self, context: JudgeContext) -> None:
        """Open the queue in the judge's folder. Raises ValueError outside a run, where labels would be lost."""
        from rlaif_lab.people.queue import LabelQueue, Limits, check_of

        if context.directory is None:
            raise ValueError(f"judge {self.name!r} keeps people's labels in a run's folder, and there is no run here")
        self.queue = LabelQueue(context.directory / QUEUE)
        limits = Limits(
            labels=self.max_labels,
            seconds=None if self.max_minutes is None else 60.0 * self.max_minutes,
            usd=self.max_usd,
            usd_per_hour=self.usd_per_hour,
            guidelines=self.guidelines,
        )
        self.most_seconds = limits.most_seconds
        self.queue.limit(limits)
        # Checks have fixed keys: those of an earlier start are not added twice.
        self.queue.add([check_of(pair.comparison, pair.prob_first_is_better, self.criteria) for pair in self.checks])

    def identity(self) -> str:
        raise ValueError(f"judge {self.name!r} has no stable identity: people answer once, and their labels are kept")

    def describe(self) -> str:
        each = f"{self.labels_per_item} labels per item" if self.labels_per_item > 1 else "one label per item"
        return f"{self.name} (real people, on the page of rlaif-annotate; {each})"

    def evaluator(self) -> Judge:
        return self if self.evaluate else NotAsked(self.name)

    def own_metrics(
        self, comparisons: Sequence[Comparison], verdicts: Sequence[tuple[Verdict, Verdict]], identical: int
    ) -> dict[str, float]:
        """Return people's win rate against round 0 with its interval, how far they agree and what it took, if they
        evaluate."""
        from rlaif_lab.judges.by_people import evaluation_by_people

        return evaluation_by_people(verdicts, identical) if self.evaluate else {}

    def note_ai(self, probabilities: Mapping[tuple[Prompt, str, str], float | None]) -> None:
        """Take note of an AI judge's probabilities that the lower text of a pair wins, for the owner's page."""
        self._ai.update(probabilities)

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        from rlaif_lab.people.queue import item_of

        # By pair: both orders of a comparison are one item, and one label.
        items = {item.id: item for item in (item_of(c, self.criteria) for c in comparisons)}
        # Added at once, so that the page can show how much there is to do; those that are there stay as they are.
        ids = self.queue.add_within([self._ready(item) for item in items.values()], self._room)
        self._wait_for(ids)
        labels: dict[str, list[Label]] = {item_id: [] for item_id in ids}
        for label in self.queue.labels(ids):
            labels[label.item].append(label)
        # Used from here on: these labels can no longer be taken back.
        self.queue.close_items(ids)
        paid: set[str] = set()
        found = []
        for c in comparisons:
            item = item_of(c, self.criteria)
            verdict = self._verdict(c, labels.get(item.id), free=item.id in paid)
            paid.add(item.id)
            found.append(verdict)
        return found

    # --- the queue ------------------------------------------------------------------------------------------------
    def _ready(self, item: Item) -> Item:
        from dataclasses import replace

        ai = self._ai.get((item.prompt, item.first, item.second))
        return replace(item, needed=self.labels_per_item, ai=ai)

    def _room(self, progress: Progress) -> float:
        """Return how many items more the budget allows: what is in the queue is paid for, or promised."""
        left = float("inf")
        if self.max_labels is not None:
            left = self.max_labels - progress.items * self.labels_per_item
        if self.most_seconds < float("inf"):
            # Time already spent, and what is still expected of items without a label.
            expected = progress.seconds + progress.missing * self.seconds
            left = min(left, (self.most_seconds - expected) / max(self.seconds, 1e-9))
        return left // self.labels_per_item if left < float("inf") else left

    def _wait_for(self, ids: Sequence[str]) -> None:
        told = -TELL_S
        # Until nothing is missing, or the money is gone: then nobody will label the rest.
        while (missing := self.queue.missing(ids)) and not self.queue.spent_out():
            what = "label is" if missing == 1 else "labels are"
            if not self.wait:
                # Exit code 75: a scheduler can start the run again when labels are there.
                raise LabelsMissingError(f"{missing} {what} missing; people give them on {self._page()}")
            if time.monotonic() - told >= TELL_S:
                print(f"{self.name}: waiting: {missing} {what} missing; people give them on {self._page()}", flush=True)
                told = time.monotonic()
            time.sleep(POLL_S)

    def _page(self) -> str:
        """Return where people label: the page that is open, else how to open one."""
        address, command = self.queue.limits().page, f"rlaif-annotate {shlex.quote(str(_run_of(self.queue)))}"
        if address is not None and _answers(address):
            return f"the page at {address} (each by their own link; opened by: {command})"
        return f"the page that this opens: {command}"

    # --- labels -> verdicts ---------------------------------------------------------------------------------------
    def _verdict(self, comparison: Comparison, labels: Sequence[Label] | None, *, free: bool) -> Verdict:
        """Return the verdict of these labels. free: the other order of this pair has been paid for."""
        from rlaif_lab.people.agreement import VALUES
        from rlaif_lab.people.queue import LABELS

        if labels is None:
            return Verdict(None, "over_budget")
        seconds = sum(label.seconds for label in labels)
        usd = 0.0 if free else seconds / 3600.0 * self.usd_per_hour
        said = [label for label in labels if label.choice in LABELS]
        details = {
            "by": "human",
            "human_seconds": seconds,
            "labels": [[label.annotator, label.choice, label.swapped] for label in labels],
        }
        reasons = "\n".join(f"{label.annotator}: {label.reason}" for label in labels if label.reason) or None
        if not said and not any(label.choice == "flag" for label in labels):
            return Verdict(None, "over_budget", cost_usd=usd)  # the time was spent before anybody got to it
        # One flag is enough: a person has seen something that nobody should train on.
        if any(label.choice == "flag" for label in labels):
            return Verdict(None, "refused", cost_usd=usd, raw=reasons, details=details)
        lower_wins = sum(VALUES[label.choice] for label in said) / len(said)
        # Items hold the lower text first; a comparison may not.
        probability = lower_wins if comparison.first <= comparison.second else 1.0 - lower_wins
        status = "tie" if probability == 0.5 else "ok"
        return Verdict(probability, status, cost_usd=usd, raw=reasons, details=details)  # type: ignore[arg-type]


class NotAsked(Judge):
    """Says of every comparison that people are not asked about it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def identity(self) -> str:
        return "people who are not asked"

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        return [Verdict(None, "over_budget") for _ in comparisons]


def _answers(address: str) -> bool:
    """Return whether somebody listens there: a page that was killed cannot say that it has ended."""
    parts = urllib.parse.urlsplit(address)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=1.0):
            return True
    except OSError:
        return False


def _run_of(queue: LabelQueue) -> Path:
    """Return the folder of the run, or of the sweep, that a queue belongs to."""
    # The queue may lie several folders deep (judge/human/labels.sqlite).
    for folder in queue.path.absolute().parents:
        if (folder / "run.json").exists() or (folder / MULTIRUN).exists():
            return folder
    return queue.path
