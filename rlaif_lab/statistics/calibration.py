"""Do probabilities mean what they say? Brier score, expected calibration error, and the bins of a reliability plot.

Inputs everywhere: ``probabilities`` (N,) in [0, 1], and ``outcomes`` (N,) in [0, 1]: 1 where the event happened, 0
where it did not, 0.5 where it half did (two equally good responses). All raise ValueError for shapes that differ or
values outside [0, 1], and give nan (or no bins) where N = 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlaif_lab.records import Floats
from rlaif_lab.seeding import rng_for


@dataclass(frozen=True)
class ReliabilityBin:
    """probability: mean stated. frequency: mean outcome. count: how many fell into it."""

    probability: float
    frequency: float
    count: int


def brier(probabilities: npt.ArrayLike, outcomes: npt.ArrayLike) -> float:
    """Return the mean squared distance (Brier 1950): 0 is perfect, 0.25 is what always saying 0.5 gets on yes-or-no
    outcomes."""
    stated, happened = _checked(probabilities, outcomes)
    return float(np.mean((stated - happened) ** 2)) if len(stated) else float("nan")


def ece(probabilities: npt.ArrayLike, outcomes: npt.ArrayLike, bins: int = 10) -> float:
    """Return the expected calibration error: mean over bins, by count, of |stated - happened|. 0 is perfect.

    Bins of equal mass (Nguyen and O'Connor 1508.05154; Roelofs et al. 2012.08668), see ``reliability_bins``. With few
    items it is above 0 for a perfectly calibrated judge too: compare with ``ece_if_calibrated``.
    """
    found = reliability_bins(probabilities, outcomes, bins)
    total = sum(b.count for b in found)
    return sum(b.count * abs(b.probability - b.frequency) for b in found) / total if total else float("nan")


def ece_if_calibrated(probabilities: npt.ArrayLike, bins: int = 10, draws: int = 200) -> float:
    """Return the mean ECE that these probabilities have where they are right: outcomes drawn from them ``draws``
    times."""
    stated, _ = _checked(probabilities, probabilities)
    if not len(stated):
        return float("nan")
    # One draw of outcomes for each row, by an identity of its own: the same probabilities give the same number.
    uniforms = rng_for("ece if calibrated", len(stated), draws).random((draws, len(stated)))
    # Bins depend on what is stated, not on what happens, so all draws share them.
    which = _bin_of(stated, bins)
    # Sums of outcome - probability, (draws, bins); |sum| / N is count x |stated - happened| / N, the bin's share.
    gaps = np.zeros((draws, int(which.max()) + 1))
    np.add.at(gaps.T, which, ((uniforms < stated) - stated).T)
    return float(np.abs(gaps).sum(axis=1).mean() / len(stated))


def reliability_bins(probabilities: npt.ArrayLike, outcomes: npt.ArrayLike, bins: int = 10) -> list[ReliabilityBin]:
    """Return at most ``bins`` bins of equal mass, by ascending probability.

    Equal probabilities always share a bin, so that the order of the items cannot matter: a judge that knows only a few
    numbers gets fewer, larger bins.
    """
    stated, happened = _checked(probabilities, outcomes)
    if not len(stated):
        return []
    which = _bin_of(stated, bins)
    return [
        ReliabilityBin(float(stated[which == b].mean()), float(happened[which == b].mean()), int((which == b).sum()))
        for b in np.unique(which)
    ]


def _bin_of(stated: Floats, bins: int) -> npt.NDArray[np.int64]:
    """Return the bin number of each item, by the middle of the ranks that its probability takes up."""
    if bins < 1:
        raise ValueError(f"bins must be at least 1; got {bins}")
    # Bins by value, not by item: ties share one, so that the order of the items decides nothing.
    _, position, counts = np.unique(stated, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    return np.floor(middle / len(stated) * bins).astype(np.int64)[position]


def _checked(probabilities: npt.ArrayLike, outcomes: npt.ArrayLike) -> tuple[Floats, Floats]:
    stated, happened = np.asarray(probabilities, dtype=float), np.asarray(outcomes, dtype=float)
    if stated.ndim != 1 or stated.shape != happened.shape:
        raise ValueError(
            f"probabilities and outcomes must be two lists of one length; got {stated.shape}, {happened.shape}"
        )
    # Written so that nan, which compares false with everything, is refused as well.
    for name, values in (("probabilities", stated), ("outcomes", happened)):
        if not ((values >= 0.0) & (values <= 1.0)).all():
            raise ValueError(f"{name} must lie in [0, 1]; got {values[~((values >= 0.0) & (values <= 1.0))][0]}")
    return stated, happened
