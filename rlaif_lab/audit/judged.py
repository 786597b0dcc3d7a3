"""Verdicts beside what is known of the responses, as arrays: what all measures read."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlaif_lab.audit.pairs import LabelledPair
from rlaif_lab.judges.asking import both_orders, debias
from rlaif_lab.judges.base import Judge
from rlaif_lab.records import Comparison, Floats, Generation, Judgement, Status, asked_in_one_order


@dataclass(frozen=True)
class Judged:
    """N comparisons, each judged in both orders.

    prob_first_wins, shown_first, shown_second: as in records.Judgement, nan without a verdict. gold_difference:
    quality of first minus second in [-1, 1], nan without gold. length_difference: in characters, first minus second.
    own_first, own_second: the judge itself wrote it. prompts: identity of each comparison's prompt. one_order: one
    order of each was asked, whose verdict is both shown_first and shown_second.
    """

    prompts: Sequence[Hashable]
    prob_first_wins: Floats
    shown_first: Floats
    shown_second: Floats
    gold_difference: Floats
    length_difference: Floats
    own_first: npt.NDArray[np.bool_]
    own_second: npt.NDArray[np.bool_]
    statuses: Sequence[Status]
    one_order: bool = False

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def self_difference(self) -> Floats:
        """Return 1 where only the first is the judge's own, -1 where only the second is, else 0."""
        return self.own_first.astype(float) - self.own_second.astype(float)

    def status_share(self, status: Status) -> float:
        return sum(s == status for s in self.statuses) / len(self) if len(self) else float("nan")


def judge_pairs(judge: Judge, pairs: Sequence[LabelledPair]) -> list[Judgement]:
    """Return every pair in both orders, averaged, failures kept."""
    comparisons = [pair.comparison for pair in pairs]
    return [
        debias(comparison, 0, 1, shown_first, shown_second)
        for comparison, (shown_first, shown_second) in zip(comparisons, both_orders(judge, comparisons), strict=True)
    ]


def on_bank(pairs: Sequence[LabelledPair], judgements: Sequence[Judgement], self_author: str | None = None) -> Judged:
    """Return the judge's verdicts on a bank. self_author: the bank's name for what the judge itself wrote."""
    # From a probability in {0, 0.5, 1} to a difference in {-1, 0, 1}.
    gold = np.array([2.0 * pair.prob_first_is_better - 1.0 for pair in pairs])
    own_first = np.array([self_author is not None and pair.author_first == self_author for pair in pairs], dtype=bool)
    own_second = np.array([self_author is not None and pair.author_second == self_author for pair in pairs], dtype=bool)
    return _judged(judgements, gold, own_first, own_second)


def on_policy(judgements: Sequence[Judgement], generations: Sequence[Generation], qualities: Floats) -> Judged:
    """Return the verdicts on a round's own samples. qualities: (N, k), nan throughout for a task without gold. Whose
    answers they are is not asked: all are the policy's."""
    # By id, since judgements hold prompts and not positions.
    row = {generation.prompt.id: i for i, generation in enumerate(generations)}
    gold = np.array(
        [
            qualities[row[j.comparison.prompt.id], j.sample_first]
            - qualities[row[j.comparison.prompt.id], j.sample_second]
            for j in judgements
        ]
    )
    nobody = np.zeros(len(judgements), dtype=bool)
    return _judged(judgements, gold, nobody, nobody)


def subset(judged: Judged, chosen: npt.NDArray[np.bool_]) -> Judged:
    """Return the comparisons where ``chosen`` (N,) is True."""
    # Every array of the record, so that a new one cannot be forgotten.
    arrays = {name: value[chosen] for name, value in vars(judged).items() if isinstance(value, np.ndarray)}
    kept = np.flatnonzero(chosen).tolist()
    statuses = [judged.statuses[i] for i in kept]
    return Judged(**arrays, prompts=[judged.prompts[i] for i in kept], statuses=statuses, one_order=judged.one_order)


def _judged(
    judgements: Sequence[Judgement],
    gold_difference: Floats,
    own_first: npt.NDArray[np.bool_],
    own_second: npt.NDArray[np.bool_],
) -> Judged:
    return Judged(
        prompts=[j.comparison.prompt.id for j in judgements],
        prob_first_wins=_numbers([j.prob_first_wins for j in judgements]),
        shown_first=_numbers([j.prob_first_wins_shown_first for j in judgements]),
        shown_second=_numbers([j.prob_first_wins_shown_second for j in judgements]),
        gold_difference=gold_difference.astype(float),
        length_difference=np.array([_length_difference(j.comparison) for j in judgements], dtype=float),
        own_first=own_first,
        own_second=own_second,
        statuses=[j.status for j in judgements],
        # All of them: a wrapper that asks one order only does so throughout.
        one_order=bool(judgements) and all(map(asked_in_one_order, judgements)),
    )


def _length_difference(comparison: Comparison) -> int:
    return len(comparison.first) - len(comparison.second)


def _numbers(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], dtype=float)
