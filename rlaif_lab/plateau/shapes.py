"""The curves that a loop's quality may follow, all of them linear but for one or two parameters.

With t the round and f a shape without scale, quality is a + b f(t), or a + b f(t) + c g(t).

    exponential            exp(-t / tau)
    stretched exponential  exp(-(t / tau)^s)                                s from 0.4 to 2.5
    power law              (1 + t / k)^-c
    two speeds             exp(-t / tau) and exp(-t / tau')
    logistic               1 / (1 + exp((t - m) / w))
    Gompertz               exp(-exp(-(t - m) / w))
    kink                   min(t, k)
    log                    log(1 + t / k)                                   never ends
    root                   t^s                                              never ends
    linear                 t                                                never ends
    linear + exponential   t and exp(-t / tau)                              never ends
    hump                   d and d log d, d = sqrt(KL) or sqrt(t); or t exp(-t / tau)    (Gao et al. 2210.10760)

All but the hump rise throughout, and so promise no less than they have reached.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlaif_lab.records import Floats


@dataclass(frozen=True)
class Shapes:
    """A family at K values of what is not linear in it.

    name: the family's. at: columns, the first of them 1, at the rounds seen, (K, n, p). twice: at twice the last round,
    (K, p). end: where the curve ends; as ``twice`` where it never does, or so slowly that it is not to be looked so far
    ahead, (K, p). rises: whether it never falls.
    """

    name: str
    at: Floats
    twice: Floats
    end: Floats
    rises: bool = True


Column = Callable[[Floats], Floats]
"""Rounds (n,) -> values of one column for each of the K shapes, (K, n)."""


def family(
    name: str,
    rounds: Floats,
    columns: list[Column],
    limits: list[float] | list[Floats] | None,
    *,
    slow: npt.NDArray[np.bool_] | None = None,
    rises: bool = True,
) -> Shapes:
    """Return a family from its columns.

    Args:
        name: Of the family.
        rounds: The rounds seen (n,).
        columns: Without the constant one.
        limits: What each column tends to; None for a family that never ends.
        slow: Which shapes are not to be followed to their end, (K,); None: none.
        rises: See `Shapes`.
    """
    later = np.array([2.0 * rounds[-1]])
    at = np.stack([column(rounds) for column in columns], -1)
    twice = np.stack([column(later)[:, 0] for column in columns], -1)
    count = at.shape[0]
    end = twice
    if limits is not None:
        # What each column tends to; a column that ends where it is now is its own limit.
        end = np.stack([np.broadcast_to(np.asarray(limit), (count,)) for limit in limits], -1)
        # Too slow to be followed to the end: looked at as far as twice the rounds.
        end = end if slow is None else np.where(slow[:, None], twice, end)
    ones = np.ones((count, 1))
    return Shapes(
        name,
        np.concatenate([np.ones((count, len(rounds), 1)), at], -1),
        np.concatenate([ones, twice], -1),
        np.concatenate([ones, end], -1),
        rises,
    )


def crossed(*values: Floats) -> list[Floats]:
    """Return every combination, each parameter as (K, 1)."""
    return [grid.reshape(-1, 1) for grid in np.meshgrid(*values, indexing="ij")]


@functools.lru_cache(maxsize=64)
def _families(given: tuple[float, ...]) -> tuple[Shapes, ...]:
    rounds = np.array(given)
    last = rounds[-1]
    # Grids are geometric: curves differ by ratios of their scales.
    tau = np.geomspace(0.3, 5.0 * last, 80)[:, None]
    fast, slow = crossed(np.geomspace(0.3, last, 22), np.geomspace(0.6, 5.0 * last, 26))
    # Two speeds that are nearly one are the exponential, and ill-conditioned.
    apart = (slow > 1.5 * fast)[:, 0]
    fast, slow = fast[apart], slow[apart]
    offset, power = crossed(np.geomspace(0.25, 16.0, 7), np.geomspace(0.1, 8.0, 40))
    middle, width = crossed(np.linspace(0.0, 1.5 * last, 41), np.geomspace(0.02 * last, 0.5 * last, 20))
    scale, stretch = crossed(np.geomspace(0.3, 3.0 * last, 30), np.array([0.4, 0.5, 0.65, 0.8, 1.25, 1.6, 2.0, 2.5]))
    knee = np.geomspace(0.1, 4.0 * last, 16)[:, None]
    root = np.array([0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 1.25])[:, None]
    peak = np.geomspace(0.5, 3.0 * last, 100)[:, None]
    knees = np.linspace(1.0, last, 40)[:, None]
    one = np.ones((1, 1))
    return (
        family("exponential", rounds, [lambda t: np.exp(-t / tau)], [0.0]),
        family("stretched exponential", rounds, [lambda t: np.exp(-((t / scale) ** stretch))], [0.0]),
        family("power law", rounds, [lambda t: (1.0 + t / offset) ** -power], [0.0]),
        family(
            "two speeds",
            rounds,
            [lambda t: np.exp(-t / fast), lambda t: np.exp(-t / slow)],
            [0.0, 0.0],
            slow=slow[:, 0] > last,
        ),
        # Held so that exp does not overflow; beyond it the curve is flat.
        family("logistic", rounds, [lambda t: 1.0 / (1.0 + np.exp(np.clip((t - middle) / width, -60, 60)))], [0.0]),
        family("Gompertz", rounds, [lambda t: np.exp(-np.exp(np.clip(-(t - middle) / width, -60, 6)))], [1.0]),
        family("kink", rounds, [lambda t: np.minimum(t, knees)], [knees[:, 0]]),
        family("log", rounds, [lambda t: np.log1p(t / knee)], None),
        family("root", rounds, [lambda t: t**root], None),
        family("linear", rounds, [lambda t: t * one], None),
        # `t + 0.0 * tau`: the same column for every tau, in the shape of the others.
        family("linear + exponential", rounds, [lambda t: t + 0.0 * tau, lambda t: np.exp(-t / tau)], None),
        family("hump", rounds, [lambda t: t * np.exp(-t / peak)], [0.0], rises=False),
    )


def families(rounds: Floats, kl: Floats | None = None) -> list[Shapes]:
    """Return every family at the rounds seen (n,), increasing from 0.

    kl: mean KL to the initial policy in those rounds, nats (n,), for the hump; it is taken to grow on as it did, with
    the square root of the rounds. None: sqrt(t) stands for its root.
    """
    found = list(_families(tuple(rounds.tolist())))
    root = np.sqrt(rounds) if kl is None else np.sqrt(np.maximum(kl, 0.0))
    # KL grows with the rounds, its root with their root: at twice the rounds by sqrt(2).
    further = float(root[-1]) * np.sqrt(2.0)

    def terms(d: Floats) -> Floats:
        return np.stack([np.ones_like(d), d, d * np.log(np.where(d > 0, d, 1.0))], -1)

    at, twice = terms(root)[None], terms(np.array([further]))
    return [*found, Shapes("hump", at, twice, twice, rises=False)]
