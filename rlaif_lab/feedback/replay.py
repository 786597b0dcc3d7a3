"""Which rounds' feedback a round trains on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlaif_lab.feedback.pairing import within_budget
from rlaif_lab.learners.base import Example
from rlaif_lab.seeding import seed_for


@dataclass(frozen=True)
class Replay:
    """A window over the rounds, the latest always whole.

    window: how many rounds count, the latest included; 1: only that one, None: all of them.
    share: how many older examples are mixed in, as a multiple of the latest round's; None: all in the window. Which
        ones is decided by their identity.
    """

    window: int | None = 1
    share: float | None = None

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ValueError(
                f"replay.window must be at least 1 (only the latest round) or null (all); got {self.window}"
            )
        if self.share is not None and self.share < 0:
            raise ValueError(f"replay.share must not be negative, or null (all in the window); got {self.share}")

    def rounds_before(self, index: int) -> range:
        """The earlier rounds that round ``index`` trains on, oldest first."""
        return range(0 if self.window is None else max(0, index - self.window + 1), index)

    def mix(self, latest: list[Example], older: Sequence[Example], *identity: int | str) -> list[Example]:
        """The latest examples with their share of older ones behind them."""
        budget = None if self.share is None else round(self.share * len(latest))
        numbered = list(enumerate(older))
        kept = within_budget(
            numbered,
            budget,
            lambda item: seed_for("replay", *identity, item[1].round_index, item[1].prompt.id, item[0]),
        )
        return [*latest, *(example for _, example in kept)]
