"""Simulated arms whose truth is known: mean curves of many families, and what makes the rounds of a seed swing about
them. Shared by the scripts of this folder."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
START, RISE = 0.38, 0.5
"""Quality in round 0, and what a curve that ends gains in all."""
SAMPLES = 1900
"""Independent answers that are about as precise as 512 prompts x 4 samples, which are alike within a prompt."""

# Name -> swings of a round's gain with standard deviation 1: (rng, (arms, seeds, rounds)) -> the same shape.
Swing = Callable[[np.random.Generator, tuple[int, int, int]], Floats]


def correlated(rho: float) -> Swing:
    """Return swings of an AR(1) process with this lag-1 correlation."""

    def swing(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
        found = rng.standard_normal(shape)
        for index in range(1, shape[2]):
            found[..., index] = rho * found[..., index - 1] + np.sqrt(1.0 - rho**2) * found[..., index]
        return found

    return swing


def independent(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    """Gaussian swings."""
    return rng.standard_normal(shape)


def heavy(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    """Student t swings with 3 degrees of freedom."""
    return rng.standard_t(3, shape) / np.sqrt(3.0)


def falls(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    """Skewed swings: mostly small rises, now and then a large fall."""
    return 1.0 - rng.exponential(size=shape)


def jumps(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    """Skewed swings: mostly small falls, now and then a large rise."""
    return rng.exponential(size=shape) - 1.0


def calming(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    """Swings that shrink from 1.8 to 0.2."""
    return rng.standard_normal(shape) * np.linspace(1.8, 0.2, shape[2])


def growing(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    """Swings that grow from 0.2 to 1.8."""
    return rng.standard_normal(shape) * np.linspace(0.2, 1.8, shape[2])


def shared(rng: np.random.Generator, shape: tuple[int, int, int]) -> Floats:
    """Half of the variance is common to all seeds of an arm: they are then not independent, as the tests suppose."""
    common = rng.standard_normal((shape[0], 1, shape[2]))
    return np.sqrt(0.5) * (rng.standard_normal(shape) + common)


SWINGS: dict[str, Swing] = {
    "independent": independent,
    "mean-reverting": correlated(-0.3),
    "heavy-tailed": heavy,
    "large falls": falls,
    "large jumps": jumps,
    "calming": calming,
    "growing": growing,
    "positive .3": correlated(0.3),
    "positive .5": correlated(0.5),
    "shared": shared,
}


def observed(
    rng: np.random.Generator,
    curve: Floats,
    swing: str,
    spread: float,
    *,
    arms: int,
    seeds: int,
    samples: int = SAMPLES,
    missing: float = 0.0,
) -> Floats:
    """Return measured quality (arms, seeds, R + 1): a mean curve, training's swings on top of it, and evaluation.

    Args:
        rng: Source of randomness.
        curve: Mean quality in rounds 0 .. R: (R + 1,), or one per seed, (arms, seeds, R + 1).
        swing: Key of SWINGS.
        spread: Standard deviation of a round's swing, in quality.
        arms: How many.
        seeds: Of each arm.
        samples: Answers per evaluation; the measured quality is a share of so many.
        missing: Share of the rounds after the first that are not logged (nan).
    """
    shape = (arms, seeds, curve.shape[-1] - 1)
    wandering = np.cumsum(spread * SWINGS[swing](rng, shape), axis=-1)
    level = np.broadcast_to(curve, (*shape[:2], curve.shape[-1])).copy()
    level[..., 1:] += wandering
    # Beyond 0 and 1 the Gaussian error of evaluation stands in for the binomial one, so that no bound bends the truth.
    error = np.sqrt(np.clip(level * (1.0 - level), 0.05, 0.25) / samples)
    found = np.round((level + error * rng.standard_normal(level.shape)) * samples) / samples
    if missing:
        found[..., 1:][rng.random(shape) < missing] = np.nan
    return found


EVALUATION = 0.006
"""Standard error of a round's change, measured on prompts that the older and the newer policy both answered."""


def changed(
    rng: np.random.Generator, gain: Floats, swing: str, spread: float, *, arms: int, seeds: int, missing: float = 0.0
) -> Floats:
    """Return measured changes (arms, seeds, R): mean gains (R,) or (arms, seeds, R), swings, and evaluation's error.

    A measured change is a multiple of 1 / 4096 (512 prompts, 4 samples before and 4 after, half of them shared).
    """
    shape = (arms, seeds, gain.shape[-1])
    found = gain + spread * SWINGS[swing](rng, shape) + EVALUATION * rng.standard_normal(shape)
    found = np.round(found * 4096) / 4096
    if missing:
        found[rng.random(shape) < missing] = np.nan
    return found


# --- mean curves ------------------------------------------------------------------------------------------------------
def curves(last: int) -> dict[str, tuple[Floats, float]]:
    """Return name -> (quality in rounds 0 .. ``last``, where it ends: inf where it never does).

    The first nine are the families that the ceilings were built for, at several speeds; the rest are not among them.
    """
    t = np.arange(last + 1.0)

    def up(left: Floats) -> tuple[Floats, float]:
        return START + RISE * (1.0 - left), START + RISE

    slow = 0.6 * np.exp(-t / 2) + 0.4 * np.exp(-t / 20)
    scale = RISE / np.log(13.0)
    peak = last / 2.5
    return {
        "exponential, tau 3": up(np.exp(-t / 3)),
        "exponential, tau 5": up(np.exp(-t / 5)),
        "exponential, tau T/2": up(np.exp(-2 * t / last)),
        "power -.5": up((1 + t) ** -0.5),
        "power -1": up(1 / (1 + t)),
        "power -2": up((1 + t) ** -2.0),
        "log": (START + scale * np.log1p(t) / max(1.0, np.log1p(last) / np.log(13.0)), np.inf),
        "two speeds 2, 20": up(slow),
        "two speeds 2, T": up(0.7 * np.exp(-t / 2) + 0.3 * np.exp(-t / last)),
        "linear + exponential": (START + 0.3 * (1 - np.exp(-t / 3)) + 0.2 * t / last, np.inf),
        "logistic": up(1 - (1 / (1 + np.exp(-(t - last / 4) / (last / 20)))) * 1.0),
        "hump": (START + RISE * (t / peak) * np.exp(1 - t / peak), -np.inf),
        "linear": (START + RISE * t / last, np.inf),
        "constant": (np.full(last + 1, START), START),
        "stretched exponential": up(np.exp(-np.sqrt(t / 2))),
        "hyperbola": up(1 / (1 + t / 4)),
        "Gompertz": up(1 - np.exp(-4 * np.exp(-6 * t / last))),
        "second rise": (
            START + 0.3 * (1 - np.exp(-t / 2)) + 0.2 / (1 + np.exp(-(t - 0.9 * last) / (last / 20))),
            np.inf,
        ),
        "kink": up(np.maximum(0.0, 1 - 3 * t / last)),
        "square root": (START + RISE * np.sqrt(t / last), np.inf),
        "late step": (START + 0.4 * (1 - np.exp(-t / 2)) + 0.1 * (t > 0.8 * last), START + 0.5),
        "waves": up(np.exp(-t / 3) - 0.06 * np.sin(4 * np.pi * t / last)),
    }
