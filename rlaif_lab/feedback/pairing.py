"""Win rates -> preference pairs: which responses of a prompt are set against each other, and how many."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np

from rlaif_lab.feedback.matrices import win_rates
from rlaif_lab.judges.asking import comparisons_of
from rlaif_lab.records import Floats, Generation, PreferencePair
from rlaif_lab.seeding import seed_for

Strategy = Literal["best_vs_worst", "best_vs_random", "best_vs_all", "all_pairs"]
Source = Literal["judge", "revisions"]
T = TypeVar("T")


@dataclass(frozen=True)
class Pairing:
    """How pairs are drawn from a prompt's judged responses.

    strategy: ``best_vs_worst`` (highest against lowest win rate, one pair per prompt at most), ``best_vs_random``
        (against one of the others, drawn by identity), ``best_vs_all`` (against each of the others) or ``all_pairs``.
    tie_margin: a comparison with |prob - 0.5| <= tie_margin makes no pair.
    max_margin: nor does one with |prob - 0.5| > max_margin, None: no limit. Leaves out what is too easy.
    budget: pairs (or groups, for a learner that reads those) per round at most, None: no limit. All arms then train
        on equally many; which ones are kept is decided by the prompt's identity, not by the judge.
    source: ``judge`` (pairs are what it prefers) or ``revisions`` (the policy's rewritten answer is chosen against its
        original, Bai et al. 2212.08073; the other settings are then ignored).
    """

    strategy: Strategy = "best_vs_worst"
    tie_margin: float = 0.0
    max_margin: float | None = None
    budget: int | None = None
    source: Source = "judge"

    def __post_init__(self) -> None:
        if self.source not in get_args(Source):
            raise ValueError(f"pairing.source must be one of {', '.join(get_args(Source))}; got {self.source!r}")
        if self.strategy not in get_args(Strategy):
            raise ValueError(f"pairing.strategy must be one of {', '.join(get_args(Strategy))}; got {self.strategy!r}")
        if not 0.0 <= self.tie_margin < 0.5:
            raise ValueError(f"pairing.tie_margin must lie in [0, 0.5); got {self.tie_margin}")
        if self.max_margin is not None and not self.tie_margin < self.max_margin <= 0.5:
            raise ValueError(
                f"pairing.max_margin must lie above tie_margin and be at most 0.5, or null; got {self.max_margin}"
            )
        if self.budget is not None and self.budget < 1:
            raise ValueError(f"pairing.budget must be at least 1 or null; got {self.budget}")


def make_pairs(
    generations: Sequence[Generation], prob_beats: Floats, pairing: Pairing, *identity: int | str
) -> list[PreferencePair]:
    """Return the round's training pairs, in the order of ``generations``, at most ``pairing.budget`` of them."""
    # Any probability is at most 1: no limit.
    limit = 1.0 if pairing.max_margin is None else 0.5 + pairing.max_margin
    pairs = [
        PreferencePair(generations[p].prompt, chosen, rejected, float(prob_beats[p, chosen, rejected]))
        for p, chosen, rejected in _candidates(generations, prob_beats, pairing.strategy, *identity)
        # nan compares false: no verdict, no pair. So does a best that lost its direct comparison with the other.
        if 0.5 + pairing.tie_margin < prob_beats[p, chosen, rejected] <= limit
    ]
    return within_budget(pairs, pairing.budget, lambda pair: _rank(pair, pairing.strategy, *identity))


def within_budget(items: list[T], budget: int | None, rank: Callable[[T], int]) -> list[T]:
    """Return the ``budget`` items of lowest rank, in their own order; all of them without a budget."""
    if budget is None or len(items) <= budget:
        return items
    # The lowest ranks are kept, in the items' own order: the budget must not reorder the batch.
    ranks = [rank(item) for item in items]
    return [items[i] for i in sorted(sorted(range(len(items)), key=ranks.__getitem__)[:budget])]


def _rank(pair: PreferencePair, strategy: Strategy, *identity: int | str) -> int:
    """Return where a pair stands in line for the budget: the same whichever of the two the judge chose."""
    several = strategy in ("all_pairs", "best_vs_all")
    # With several pairs to a prompt, the two samples tell them apart; sorted, so that the judge's choice does not.
    samples = sorted((pair.sample_chosen, pair.sample_rejected)) if several else []
    return seed_for("pair budget", *identity, pair.prompt.id, *samples)


def _candidates(
    generations: Sequence[Generation], prob_beats: Floats, strategy: Strategy, *identity: int | str
) -> Iterator[tuple[int, int, int]]:
    """Return (prompt, winner, loser), in the order of the prompts."""
    if strategy == "all_pairs":
        yield from _all_pairs(generations, prob_beats)
        return
    rates = win_rates(prob_beats)
    # A response without any verdict is neither the best nor the worst.
    best = np.where(np.isnan(rates), -np.inf, rates).argmax(axis=1).tolist()  # the first of equals
    worst = np.where(np.isnan(rates), np.inf, rates).argmin(axis=1).tolist()
    for p, generation in enumerate(generations):
        if strategy == "best_vs_worst":
            yield p, best[p], worst[p]
            continue
        texts = [response.text for response in generation.responses]
        others = [i for i in _first_occurrences(texts) if texts[i] != texts[best[p]]]
        if strategy == "best_vs_random" and others:
            # By the prompt's identity: the same opponent's place in line whatever else is in the batch.
            others = [others[seed_for("pair opponent", *identity, generation.prompt.id) % len(others)]]
        for other in others:
            yield p, best[p], other


def _first_occurrences(texts: Sequence[str]) -> list[int]:
    # Backwards, so that of equal texts the first one's number stays.
    return sorted({text: i for i, text in reversed(list(enumerate(texts)))}.values())


def _all_pairs(generations: Sequence[Generation], prob_beats: Floats) -> list[tuple[int, int, int]]:
    """Return (prompt, winner, loser) of every pair of different texts, by their first occurrence."""
    found = []
    for p, generation in enumerate(generations):
        pairs = comparisons_of(generation)
        # A comparison without verdict (nan) comes out as lost here, and makes no pair further on.
        found += [(p, i, j) if prob_beats[p, i, j] >= 0.5 else (p, j, i) for i, j in pairs]
    return found
