"""Which kind of curve an arm follows: families compared by their error on a seed that they have not seen.

Each family is fitted by least squares to the rounds of all seeds but one, and predicts the one left out; the error is
the root mean square over its rounds. A family with more parameters gets nothing for free this way. With d the square
root of the KL divergence to the initial policy (nats per sequence):

    constant      Q_t = a
    linear        Q_t = a + b t
    exponential   Q_t = a - b exp(-t / tau)
    power law     Q_t = a - b (1 + t)^-c
    hump          Q_t = a + d (alpha - beta log d)     over-optimisation (Gao et al. 2210.10760, the form for RL)

Exponential and power law are linear but for one parameter, which is searched on a grid (variable projection).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlaif_lab.records import Floats
from rlaif_lab.statistics.intervals import Interval, t_interval

GRID = 200  # values of the parameter that is not linear


@dataclass(frozen=True)
class Seen:
    """One seed: quality (n,) at ``rounds`` (n,), and KL to the initial policy in nats (n,), None where it was not
    measured."""

    rounds: Floats
    quality: Floats
    kl: Floats | None = None


@dataclass(frozen=True)
class FamilyError:
    """One family. error: root mean square error per round on the seed left out, mean over seeds with its interval.
    behind: its error minus the best family's, paired by seed; 0 throughout for the best itself.
    parameters: of the fit to all seeds, by the names of the module's formulas."""

    name: str
    error: Interval
    behind: Interval
    parameters: dict[str, float]


@dataclass(frozen=True)
class Families:
    """errors: the best family first. sentence: which wins, and by how much. turned: whether the hump is the best and
    its top lies within the distances seen, so that quality has turned."""

    errors: tuple[FamilyError, ...]
    sentence: str
    seeds: int
    turned: bool

    @property
    def best(self) -> str:
        return self.errors[0].name


def compare(seeds: Mapping[int, Seen], confidence: float = 0.95) -> Families | None:
    """Compare the families; None for fewer than 2 seeds. The hump takes part only where every seed has its KL. Seeds
    may differ in length. Pure, and the same whatever the order of the seeds."""
    known = [seeds[seed] for seed in sorted(seeds)]
    if len(known) < 2 or min(len(seen.rounds) for seen in known) < 2:
        return None
    # Every family is compared on the same seeds, so one that some seeds cannot fit is left out.
    names = [name for name in PARAMETERS if name != "hump" or all(seen.kl is not None for seen in known)]
    fits = {name: _fits(name, known) for name in names}
    # fits[0] is of all seeds, fits[1 + i] of all but seed i.
    errors = {
        name: [_error(held_out, fit) for held_out, fit in zip(known, fits[name][1:], strict=True)] for name in names
    }
    best = min(names, key=lambda name: sum(errors[name]))
    found = [
        FamilyError(
            name,
            t_interval(errors[name], confidence),
            # Paired by seed: which seed is hard to predict is hard for all families.
            t_interval([mine - its for mine, its in zip(errors[name], errors[best], strict=True)], confidence),
            fits[name][0].parameters,
        )
        for name in sorted(names, key=lambda name: sum(errors[name]))
    ]
    turned = best == "hump" and _turned(found[0], known)
    return Families(tuple(found), _sentence(found, turned), len(known), turned)


def _error(seen: Seen, fitted: Fit) -> float:
    return float(np.sqrt(np.mean((fitted.predict(seen) - seen.quality) ** 2)))


def _sentence(found: Sequence[FamilyError], turned: bool) -> str:
    first, second = found[0], found[1]
    # Not shown to be worse: the paired difference reaches down to 0.
    close = [error.name for error in found[1:] if error.behind.low <= 0.0]
    text = f"{first.name} predicts a seed left out best (error {first.error.mean:.4f} per round)"
    if first.name == "hump":
        text += ", and quality has turned" if turned else ", though quality has not turned yet"
    if close:
        return f"{text}; not shown to be worse: {', '.join(close)}"
    return f"{text}; next is {second.name}, worse by {second.behind.mean:.4f}"


def _turned(hump: FamilyError, seeds: Sequence[Seen]) -> bool:
    """Return whether the seeds went well past the top of d (alpha - beta log d), exp(alpha / beta - 1) if beta > 0."""
    alpha, beta = hump.parameters["alpha"], hump.parameters["beta"]
    furthest = float(np.mean([np.sqrt(seen.kl.max()) for seen in seeds if seen.kl is not None]))
    # In logarithms, as exp(alpha / beta - 1) may overflow; 0.9, so that the top was passed and not just reached.
    return beta > 0 and alpha / beta - 1.0 < math.log(0.9 * furthest)


# --- fitting ----------------------------------------------------------------------------------------------------------
PARAMETERS: dict[str, tuple[str, ...]] = {
    "constant": ("a",),
    "linear": ("a", "b"),
    "exponential": ("a", "b", "tau"),
    "power law": ("a", "b", "c"),
    "hump": ("a", "alpha", "beta"),
}


@dataclass(frozen=True)
class Fit:
    """A family with its parameters, by the names of the module's formulas."""

    family: str
    parameters: dict[str, float]

    def predict(self, seen: Seen) -> Floats:
        """Return the quality (n,) at the rounds (or distances) of ``seen``."""
        names = PARAMETERS[self.family]
        shape = np.array([self.parameters[names[-1]]])
        linear = _columns(self.family, seen, shape)[0]
        # The last name is the shape's, which is in the columns already.
        result: Floats = linear @ np.array([self.parameters[name] for name in names[: linear.shape[1]]])
        return result


def _columns(family: str, seen: Seen, shapes: Floats) -> Floats:
    """Return what the linear parameters are multiplied by, for each value of the one that is not: (shapes, n,
    linear)."""
    t = np.broadcast_to(seen.rounds, (len(shapes), len(seen.rounds)))
    ones, shapes = np.ones_like(t), shapes[:, None]
    if family == "constant":
        return ones[:, :, None]
    if family == "linear":
        return np.stack([ones, t], 2)
    if family == "exponential":
        return np.stack([ones, -np.exp(-t / shapes)], 2)
    if family == "power law":
        return np.stack([ones, -((1.0 + t) ** -shapes)], 2)
    assert family == "hump" and seen.kl is not None
    # KL is estimated, and may come out below 0 by rounding.
    d = np.broadcast_to(np.sqrt(np.maximum(seen.kl, 0.0)), t.shape)
    # d log d is 0 at d = 0.
    return np.stack([ones, d, -d * np.log(np.where(d > 0, d, 1.0))], 2)


def _shapes(family: str, last_round: float) -> Floats:
    """Return values tried for the parameter that is not linear; one placeholder where all are."""
    if family == "exponential":
        # From curves that have ended after a round to such as are straight within what was seen.
        return np.geomspace(0.2, 10.0 * last_round, GRID)
    return np.geomspace(0.01, 10.0, GRID) if family == "power law" else np.zeros(1)


def _fits(family: str, seeds: Sequence[Seen]) -> list[Fit]:
    """Fit all seeds, then without the first, without the second, ...: least squares over all rounds, from each seed's
    normal equations, which add up."""
    shapes = _shapes(family, max(float(seen.rounds[-1]) for seen in seeds))
    designs = [_columns(family, seen, shapes) for seen in seeds]
    squares = np.stack([np.einsum("knp,knq->kpq", design, design) for design in designs])  # (seeds, shapes, p, p)
    products = np.stack([np.einsum("knp,n->kp", d, seen.quality) for d, seen in zip(designs, seeds, strict=True)])
    # Without seed i: its normal equations are subtracted from the sum, and nothing is fitted twice.
    left = np.concatenate([squares.sum(0)[None], squares.sum(0) - squares])
    right = np.concatenate([products.sum(0)[None], products.sum(0) - products])
    # Columns may be all but collinear at the ends of the grid.
    solved = np.einsum("fkpq,fkq->fkp", np.linalg.pinv(left, rcond=1e-13, hermitian=True), right)
    chosen = (solved * right).sum(2).argmax(1)  # the explained sum of squares
    names = PARAMETERS[family]
    fits = []
    for parameters, index in zip(solved, chosen, strict=True):
        values = [*parameters[index].tolist(), float(shapes[index])]
        # strict=False: families without a shape have one name less than values.
        fits.append(Fit(family, dict(zip(names, values, strict=False))))
    return fits
