"""Randomness as a pure function of identity.

Every random number in the lab is addressed by *what it is for* (run seed, stage, round, item), never by
when it is drawn. Batch size, order of prompts, a crash and a resume therefore change nothing.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

# Constants of SplitMix64: 2^64 over the golden ratio, and the multipliers of the finaliser ("mix13" of David Stafford).
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def seed_for(*identity: int | str | float) -> int:
    """Return a 63-bit seed for this identity, e.g. ``seed_for(run_seed, "sample", round_index, prompt.id)``."""
    # repr keeps 1 and "1" apart, and ("a", "b") from ("a, b",); numpy's numbers count as Python's.
    plain = tuple(part.item() if isinstance(part, np.generic) else part for part in identity)
    # 63 bits, so that torch and numpy take it as a signed integer.
    return int.from_bytes(hashlib.blake2b(repr(plain).encode(), digest_size=8).digest(), "big") >> 1


def rng_for(*identity: int | str | float) -> np.random.Generator:
    """Return a numpy generator of its own for this identity."""
    return np.random.default_rng(seed_for(*identity))


def splitmix64(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection that scrambles 64-bit integers."""
    # Wrapping around is what is wanted of 64-bit integers.
    with np.errstate(over="ignore"):
        z = x + _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * _MIX_1
        z = (z ^ (z >> np.uint64(27))) * _MIX_2
        return z ^ (z >> np.uint64(31))


def uniforms(seeds: npt.NDArray[np.uint64], stream: int | npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Return one uniform in [0, 1) per seed, for counter ``stream``, one for all or one for each. Shapes: (N,) ->
    (N,)."""
    # Seeds and counters are scrambled apart before they meet: otherwise neighbours in either would give similar
    # numbers.
    bits = splitmix64(splitmix64(seeds) ^ splitmix64(np.full_like(seeds, stream)))
    # The upper 53 bits, as many as a float64 holds exactly: never 1.
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
