"""Which kind of curve an arm follows: families compared by the error on a seed that they have not seen."""

from __future__ import annotations

from dataclasses import dataclass

from rlaif_lab.report.statistics import Interval


@dataclass(frozen=True)
class FamilyError:
    """One family. error: root mean square error per round on the seed left out, mean over seeds with its interval.
    behind: its error minus the best family's, paired by seed; 0 throughout for the best itself.
    parameters: of the fit to the other seeds, by name."""

    name: str
    error: Interval
    behind: Interval
    parameters: dict[str, float]


@dataclass(frozen=True)
class Families:
    """errors: the best family first. sentence: which wins, and by how much."""

    errors: tuple[FamilyError, ...]
    sentence: str
    seeds: int

    @property
    def best(self) -> str:
        return self.errors[0].name
