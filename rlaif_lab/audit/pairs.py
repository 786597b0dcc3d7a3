"""A comparison whose better response is known."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rlaif_lab.records import Comparison, Prompt
from rlaif_lab.seeding import seed_for


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """A comparison with gold.

    prob_first_is_better: 1, 0, or 0.5 where the two are equally good. subset: what kind of pair it is, may be empty.
    author_first, author_second: who wrote them, where that is known. source: where it stands, e.g. ``bank.jsonl, line
    12``.
    """

    comparison: Comparison
    prob_first_is_better: float
    subset: str = ""
    author_first: str | None = None
    author_second: str | None = None
    source: str = ""

    def __post_init__(self) -> None:
        assert self.prob_first_is_better in (0.0, 0.5, 1.0), self

    def turned(self) -> LabelledPair:
        """Return the same pair with the responses in the other order."""
        return replace(
            self,
            comparison=self.comparison.swapped(),
            prob_first_is_better=1.0 - self.prob_first_is_better,
            author_first=self.author_second,
            author_second=self.author_first,
        )


def better_and_worse(
    prompt: Prompt,
    better: str,
    worse: str,
    subset: str = "",
    author_better: str | None = None,
    author_worse: str | None = None,
    source: str = "",
    tie: bool = False,
) -> LabelledPair:
    """Return a pair in an order that says nothing about its label: decided by the two texts alone, whichever is better.

    (An unseeded slot makes one judge's score on one bank change from run to run: allenai/reward-bench#272.)
    """
    pair = LabelledPair(
        Comparison(prompt, better, worse),
        0.5 if tie else 1.0,
        subset,
        author_first=author_better,
        author_second=author_worse,
        source=source,
    )
    # Decided by the texts: whichever is better, and in every process the same.
    low, high = sorted((better, worse))
    low_is_first = seed_for("slot", prompt.text, low, high) % 2 == 0
    return pair if (better == low) == low_is_first else pair.turned()
