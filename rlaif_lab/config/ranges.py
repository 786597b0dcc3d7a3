"""Ranges that settings have besides their type, for the annotations of signatures: ``k: Count = 4``.

The check reads them before anything is built (rlaif_lab/config/types.py), so that a message can name the dotted key.
Upper bounds only refuse what cannot be meant.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt

Count = Annotated[int, Ge(1), Le(10**9)]
"""How many there are, at least one."""

Number = Annotated[int, Ge(0), Le(10**9)]
"""How many there are, or 0 for none."""

Seed = Annotated[int, Ge(0), Lt(2**32)]

Size = Annotated[int, Ge(1), Le(1_000_000)]
"""Of a batch, of a set of samples, of a text in tokens: what has to fit into memory at once."""

Share = Annotated[float, Ge(0), Le(1)]
"""A share or a probability, both ends included."""

Positive = Annotated[float, Gt(0), Le(1e9)]

NotNegative = Annotated[float, Ge(0), Le(1e9)]

Finite = Annotated[float, Ge(-1e9), Le(1e9)]
"""Of either sign."""

LearningRate = Annotated[float, Gt(0), Le(1e3)]
"""Anything above about 1 diverges, which is for the round to say; this refuses slips of the keyboard."""


@dataclass(frozen=True)
class Written:
    """What a text may be, in words, where no list of values says it: ``Annotated[str, Written("exact | number")]``."""

    allowed: str
