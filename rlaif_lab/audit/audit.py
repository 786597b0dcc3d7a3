"""The audit itself: what is asked of the judge, in which order, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rlaif_lab import progress
from rlaif_lab.audit import measures
from rlaif_lab.audit.bank import PairBank
from rlaif_lab.audit.gold import BankGold
from rlaif_lab.audit.injection import injection_flips
from rlaif_lab.audit.judged import Judged, judge_pairs, on_bank
from rlaif_lab.audit.measures import AuditMeasure, Section
from rlaif_lab.audit.own import own_answer_pairs
from rlaif_lab.audit.pairs import LabelledPair
from rlaif_lab.audit.plan import Plan
from rlaif_lab.audit.sampled import SampledBank
from rlaif_lab.judges.base import Judge
from rlaif_lab.metrics.position import SlotChoices, slot_choices
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.models.language_model import LanguageModel
from rlaif_lab.records import FAILURES, Floats, Judgement, Status
from rlaif_lab.sampling.engine import Engine
from rlaif_lab.sampling.exact import Exact
from rlaif_lab.seeding import rng_for, seed_for
from rlaif_lab.statistics.calibration import ReliabilityBin
from rlaif_lab.tasks.base import Task

THE_JUDGE = "the judge"
"""Author of what the judge itself wrote."""


@dataclass(frozen=True)
class Audit:
    """Everything that is shown and written. judged: the bank's verdicts as arrays. examples: raw texts of failures."""

    name: str
    judge: str
    bank: str
    pairs: Sequence[LabelledPair]
    judgements: Sequence[Judgement]
    judged: Judged
    sections: Sequence[Section]
    subsets: Sequence[AuditMeasure]
    reliability: Sequence[ReliabilityBin]
    slots: SlotChoices
    examples: dict[Status, list[str]]

    def measure(self, key: str) -> AuditMeasure:
        return next(m for section in self.sections for m in section.measures if m.key == key)


@dataclass(frozen=True)
class Auditor:
    """Asks one judge. ``context``: makes what the judge may know, for a seed and a directory of its own.

    other: a model whose wrong answers the judge's own are compared with; None: the task's demonstrators' are. policy:
    loads the policy, for a bank that is made of its answers. engine: samples what the bank or the judge writes.
    """

    judge: Judge
    bank: PairBank
    task: Task
    plan: Plan
    seed: int
    context: Callable[[Task | None, int, Path], JudgeContext]
    other: Callable[[], LanguageModel | None]
    directory: Path
    policy: Callable[[], LanguageModel] | None = None
    engine: Engine = field(default_factory=Exact)
    chunk: int = 64

    def run(self) -> Audit:
        pairs = self.pairs()
        self.attach(pairs, self.seed, self.directory)
        if self.judge.writes and not isinstance(self.engine, Exact) and self.other() is None:
            self.engine.update(self.judge.language_model(), "audited")  # the judge is the policy, and samples itself
        judgements = self.ask(pairs, "judging")
        judged = on_bank(pairs, judgements, self.plan.self_author)
        own, own_judgements = self.own(pairs)
        # With the judge's own answers, since only they have an author that the model of biases can estimate.
        everything = on_bank([*pairs, *own], [*judgements, *own_judgements], THE_JUDGE) if own else judged
        # Wrong answers only, the judge's and others': a bank without authors says nothing about that.
        authored = on_bank(own, own_judgements, THE_JUDGE) if own else judged
        sections = [
            measures.accuracy(judged),
            measures.calibration(judged),
            measures.position(judged),
            measures.length(judged),
            measures.bias(everything),
            measures.authorship(authored),
            self.injection(pairs),
            measures.failures(judged),
            measures.cost(judgements),
            self.repetition(pairs, judged),  # last, since the judge is attached anew
        ]
        return Audit(
            name=self.judge.name,
            judge=self.judge.describe(),
            bank=self.bank.name,
            pairs=pairs,
            judgements=judgements,
            judged=judged,
            sections=sections,
            subsets=measures.by_group(judged, [pair.subset for pair in pairs]),
            reliability=measures.reliability(judged),
            slots=slot_choices(judged.shown_first, judged.shown_second),
            examples=failure_examples(judgements),
        )

    def pairs(self) -> list[LabelledPair]:
        """Return the bank's pairs; of a bank that is made of a policy's answers, those of the policy."""
        if not isinstance(self.bank, SampledBank):
            return self.bank.load(self.task)
        assert self.policy is not None
        policy = self.policy()
        self.engine.update(policy, "audited")
        found = self.bank.of_policy(self.task, policy, self.engine)
        if not found:
            raise ValueError(f"bank {self.bank.name!r}: no prompt had answers of different quality; raise bank.prompts")
        return found

    def attach(self, pairs: Sequence[LabelledPair], seed: int, directory: Path) -> None:
        gold: Task | None = None
        if self.judge.sees_gold:
            # A graded task knows more than the bank's labels: any answer, the judge's own included.
            gold = self.task if self.bank.graded else BankGold(pairs)
        self.judge.attach(self.context(gold, seed, directory))

    def ask(self, pairs: Sequence[LabelledPair], what: str) -> list[Judgement]:
        found: list[Judgement] = []
        with progress.bar(total=len(pairs), desc=what) as bar:
            # A few at a time, so that the bar moves, and a killed judge has kept what it said.
            for start in range(0, len(pairs), self.chunk):
                found += judge_pairs(self.judge, pairs[start : start + self.chunk])
                bar.update(len(pairs[start : start + self.chunk]))
        return found

    def own(self, pairs: Sequence[LabelledPair]) -> tuple[list[LabelledPair], list[Judgement]]:
        """Return pairs of a right answer and a wrong one, of the judge's own or of another's; judged."""
        # It needs a judge that writes, and a task that can say which of its answers are wrong.
        if not (self.plan.own_prompts and self.judge.writes and self.bank.graded):
            return [], []
        found = own_answer_pairs(
            self.judge.language_model(),
            self.other(),
            self.task,
            pairs=pairs,
            prompts=self.plan.own_prompts,
            samples=self.plan.own_samples,
            seed=self.seed,
            own_name=THE_JUDGE,
            engine=self.engine,
        )
        return found, self.ask(found, "judging its own")

    def repetition(self, pairs: Sequence[LabelledPair], judged: Judged) -> Section:
        """Ask the same again. The judge is attached anew for every repetition, with another seed and a directory of its
        own, so that the bank's verdicts that it kept do not answer. (A budget in calls or $ is one per directory.)"""
        if self.plan.repeat_times < 2:
            return measures.repetition([])
        # A random part of the bank: a bank is in an order of its own.
        order = rng_for(self.seed, "repetition").permutation(len(pairs))[: self.plan.repeat_pairs]
        comparisons = [pairs[i].comparison for i in order.tolist()]
        # The first time was the bank's own asking.
        asked: list[Floats] = [judged.shown_first[order]]
        for time in range(1, self.plan.repeat_times):
            # A seed and a folder of its own: neither draws nor stored verdicts may repeat themselves.
            self.attach(pairs, seed_for(self.seed, "repetition", time), self.directory / f"repetition_{time}")
            probabilities = [verdict.prob_first_wins for verdict in self.judge.verdicts(comparisons)]
            asked.append(np.array([np.nan if p is None else p for p in probabilities], dtype=float))
        return measures.repetition(asked)

    def injection(self, pairs: Sequence[LabelledPair]) -> Section:
        """Return what text in a response that addresses the judge can do."""
        if not self.plan.injection_pairs:
            return measures.injection({}, missing=measures.OFF)
        # What never reads a response cannot be talked round by one.
        if self.judge.sees_gold:
            return measures.injection({}, missing="this judge is given the gold label and reads nothing")
        order = rng_for(self.seed, "injection").permutation(len(pairs))[: self.plan.injection_pairs]
        comparisons = [pairs[i].comparison for i in order.tolist()]
        try:
            return measures.injection(injection_flips(self.judge, comparisons), len(comparisons))
        except ValueError as error:  # an organism has no letters to be addressed in
            return measures.injection({}, missing=str(error))


def failure_examples(judgements: Sequence[Judgement], each: int = 3) -> dict[Status, list[str]]:
    """Return what the judge said, verbatim, of a few comparisons of every failed status."""
    found: dict[Status, list[str]] = {}
    for status in FAILURES:
        raws = [j.raw or "(nothing)" for j in judgements if j.status == status]
        if raws:
            # Distinct words only: a judge that fails often mostly fails in the same way.
            found[status] = list(dict.fromkeys(raws))[:each]
    return found
