"""A judge's preference for length, estimated by regression and taken off its verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rlaif_lab.judges.base import Judge
from rlaif_lab.judges.wrappers.base import Wrapper, length_feature, logit, with_logit
from rlaif_lab.models.access import JudgeContext
from rlaif_lab.records import Comparison, Verdict
from rlaif_lab.store.files import read_json_file, write_atomically


@dataclass(frozen=True)
class LengthEffect:
    """coefficient: nats of log-odds per unit of tanh(difference in characters / scale). comparisons: it was estimated
    from so many."""

    coefficient: float
    scale: float
    comparisons: int


class LengthControl(Wrapper):
    """Subtracts b tanh(dlen / scale) from the log-odds of every verdict, where dlen = characters by which the first is
    longer.

    (b, scale) are estimated once, from the first call with at least ``minimum`` verdicts: scale is the standard
    deviation of dlen, b the slope of logit(p) = a + b tanh(dlen / scale) by least squares. From then on they are
    frozen, and kept with the run. A verdict so depends on nothing but the pair; and a policy that drifts towards longer
    answers is met by the same judge in every round, where coefficients estimated anew each round would absorb the drift
    that is to be seen. Calls before that are not corrected.

    With ``coefficient`` given (and ``scale``, in characters) nothing is estimated.

    The idea is that of length-controlled AlpacaEval (Dubois et al. 2404.04475). Its limit: where longer answers *are*
    better, the part of quality that goes with length is taken off as well.
    """

    def __init__(
        self,
        of: Judge,
        coefficient: float | None = None,
        scale: float = 100.0,
        minimum: int = 100,
        name: str = "length_control",
    ) -> None:
        super().__init__(of, name)
        if scale <= 0:
            raise ValueError(f"judge.scale must be positive (characters); got {scale}")
        if minimum < 3:
            raise ValueError(f"judge.minimum must be at least 3 verdicts to put a line through; got {minimum}")
        self.minimum = minimum
        self.given = None if coefficient is None else LengthEffect(float(coefficient), float(scale), 0)
        self.effect = self.given

    def attach(self, context: JudgeContext) -> None:
        super().attach(context)
        self.file: Path | None = None
        if self.given is None and context.directory is not None:
            self.file = context.directory / f"{self.name}.json"
            if self.file.exists():
                # Estimated once a run: a resumed one goes on with the same correction.
                self.effect = LengthEffect(**read_json_file(self.file))

    def verdicts(self, comparisons: Sequence[Comparison]) -> list[Verdict]:
        verdicts = self.of.verdicts(comparisons)
        if self.effect is None:
            self.effect = self._estimated(comparisons, verdicts)
        effect = self.effect
        if effect is None:
            return verdicts
        return [
            verdict if verdict.prob_first_wins is None else _corrected(effect, comparison, verdict)
            for comparison, verdict in zip(comparisons, verdicts, strict=True)
        ]

    def _estimated(self, comparisons: Sequence[Comparison], verdicts: Sequence[Verdict]) -> LengthEffect | None:
        known = [
            (c, v.prob_first_wins) for c, v in zip(comparisons, verdicts, strict=True) if v.prob_first_wins is not None
        ]
        # A slope from a handful of verdicts would correct with noise, for the rest of the run.
        if len(known) < self.minimum:
            return None
        effect = length_effect([c for c, _ in known], [p for _, p in known])
        if self.file is not None:
            write_atomically(self.file, json.dumps(asdict(effect)).encode())
        return effect

    def settings(self) -> str:
        if self.effect is None:
            return "length effect not estimated yet"
        return f"less {self.effect.coefficient:.4g} tanh(characters longer / {self.effect.scale:.4g})"

    def identity(self) -> str:
        if self.effect is None:
            raise ValueError(
                f"judge {self.name!r} has not estimated the length effect yet, so its verdicts cannot be cached; put "
                "the cache inside (length_control of cached of ...), or give judge.coefficient"
            )
        return repr([type(self).__name__, asdict(self.effect), self.of.identity()])


def length_effect(comparisons: Sequence[Comparison], prob_first_wins: Sequence[float]) -> LengthEffect:
    """Fit logit(p) by least squares on an intercept (position) and tanh(dlen / sd). No effect where all lengths
    differ equally."""
    differences = np.array([len(c.first) - len(c.second) for c in comparisons], dtype=float)
    scale = float(differences.std())
    # Without spread in length there is no slope to estimate.
    if scale == 0.0:
        return LengthEffect(0.0, 1.0, len(comparisons))
    x = np.tanh(differences / scale)
    y = np.array([logit(p) for p in prob_first_wins])
    # Centred, so that the intercept (a preference for a slot) does not enter the slope.
    x -= x.mean()
    return LengthEffect(float(x @ (y - y.mean()) / (x @ x)), scale, len(comparisons))


def _corrected(effect: LengthEffect, comparison: Comparison, verdict: Verdict) -> Verdict:
    assert verdict.prob_first_wins is not None
    length = effect.coefficient * length_feature(comparison, effect.scale)
    # Without an effect on this pair the verdict stays as it is, to the last bit.
    return with_logit(verdict, logit(verdict.prob_first_wins) - length) if length else verdict
