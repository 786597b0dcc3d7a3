"""Everything that is said about an arm: verdict, ceiling, why, and how it compares."""

from __future__ import annotations

from dataclasses import dataclass

from rlaif_lab.plateau.attribution import Attribution
from rlaif_lab.plateau.comparisons import GapRecovered
from rlaif_lab.plateau.families import Families
from rlaif_lab.plateau.saturation import Saturation
from rlaif_lab.plateau.verdict import NO_DETECTOR, Verdict
from rlaif_lab.report.arms import Arm, Study


@dataclass(frozen=True)
class ArmVerdict:
    """One arm, over its runs.

    label: the arm's. seeds: runs in it that are whole (to their last round, or stopped on a plateau).
    verdict: state, round, detector traces. saturation: the ceiling, or why there is none; None below 4 rounds.
    families: None below 2 seeds. attribution: None without gold. pgr: None for floor and ceiling themselves, and where
    either is missing.
    headline: such as ``plateaued at round 12 (ceiling .615, .600 to .630)``. why: a sentence.
    """

    label: str
    seeds: int
    verdict: Verdict
    saturation: Saturation | None
    families: Families | None
    attribution: Attribution | None
    pgr: GapRecovered | None
    headline: str
    why: str

    @property
    def state(self) -> str:
        return self.verdict.state

    @property
    def round(self) -> int | None:
        return self.verdict.round


def arm_verdicts(study: Study, baseline: str = "self", floor: str | None = None) -> list[ArmVerdict]:
    """One per arm, in the order of ``study.arms``. floor: of PGR, an arm's name or label; the baseline by default."""
    return [arm_verdict(arm) for arm in study.arms]


def arm_verdict(arm: Arm) -> ArmVerdict:
    seeds = len(arm.complete)
    verdict = Verdict("undecided", None, None, NO_DETECTOR, {}, seeds, 0)
    return ArmVerdict(
        arm.label, seeds, verdict, None, None, None, None, f"undecided ({NO_DETECTOR})", "No reason is known."
    )
