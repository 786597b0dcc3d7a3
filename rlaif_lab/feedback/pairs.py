"""Preference pairs, as the judge decided them."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif_lab.feedback.base import Collected, FeedbackKind, Samples, Source
from rlaif_lab.feedback.pairing import make_pairs
from rlaif_lab.records import Position, PreferencePair
from rlaif_lab.store.tables import PAIRS


class Pairs(FeedbackKind):
    """The pairs that ``pairing`` draws from a segment's judged responses. All runs have them, since their number is
    logged."""

    name = "pairs"
    stage = PAIRS

    def collect(self, at: Position, samples: Samples, source: Source) -> Collected:
        settings, generations = source.settings, samples.generations

        def compute(positions: Sequence[int]) -> list[PreferencePair]:
            chosen = [generations[i] for i in positions]
            beats = samples.prob_beats[list(positions)]
            return make_pairs(chosen, beats, settings.pairing, settings.seed, at.index)

        everything = range(len(generations))  # in one piece: the budget is that of the segment
        found = source.store.stage(at.index, PAIRS, everything, compute, chunk=len(generations), segment=at.segment)
        return Collected(found.records)
