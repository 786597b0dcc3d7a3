"""People who compare answers, simulated: gold with stated noise, at a stated price."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlaif_lab.judges.oracle import NoisyOracleJudge
from rlaif_lab.records import Comparison, Prompt, Verdict


class SimulatedAnnotator(NoisyOracleJudge):
    """Stands in for people, as the annotators of AlpacaFarm do (Dubois et al. 2305.14387): it knows gold, and is wrong
    at a stated rate. It says so in the run's log, since no person knows gold.

    flip: probability that a preference is reversed, by pair; the same in both orders. Equal quality is a tie.
    seconds, usd: what a comparison takes and costs, once for both orders together. A verdict's details have
    ``human_seconds`` (of the comparison, so the same in both orders).
    """

    is_annotator = True

    def __init__(
        self, flip: float = 0.1, seconds: float = 30.0, usd: float = 0.67, name: str = "simulated_annotator"
    ) -> None:
        super().__init__(flip=flip, name=name)
        for key, value in (("seconds", seconds), ("usd", usd)):
            if value < 0:
                raise ValueError(f"judge.{key} must not be negative; got {value}")
        self.seconds, self.usd = float(seconds), float(usd)

    def identity(self) -> str:
        return f"{super().identity()}, {self.seconds} s, {self.usd} USD"

    def describe(self) -> str:
        return (
            f"{self.name} (simulated from gold: {self.flip:.0%} of preferences flipped, {self.seconds:g} s and "
            f"${self.usd:g} per comparison)"
        )

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        # A label is paid once, though both orders of a comparison ask for it.
        paid: set[tuple[Prompt, frozenset[str]]] = set()
        verdicts = []
        for comparison, verdict in zip(comparisons, super().verdicts(comparisons), strict=True):
            pair = comparison.prompt, frozenset((comparison.first, comparison.second))
            cost = 0.0 if pair in paid else self.usd
            verdicts.append(replace(verdict, cost_usd=cost, details={"human_seconds": self.seconds}))
            paid.add(pair)
        return verdicts
