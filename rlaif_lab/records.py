"""The typed, frozen records that pass between the stages of a round.

    Prompt -> Generation -> Comparison -> Judgement -> PreferencePair

No record carries gold quality: what the judge sees cannot contain the answer key.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from rlaif_lab.returned import number, shown

Status = Literal["ok", "tie", "refused", "invalid", "timed_out", "over_budget"]
"""What became of a verdict. ``ok``: a preference; ``tie``: judged equal; ``refused``: the judge declined;
``invalid``: it failed or could not be read; ``timed_out``: no answer in time; ``over_budget``: never asked, since the
run's budget was spent. Only ``ok`` and ``tie`` carry a probability."""

STATUSES: tuple[Status, ...] = get_args(Status)
FAILURES: tuple[Status, ...] = ("invalid", "refused", "timed_out", "over_budget")
"""Statuses without a probability, the one that tells most about a judge first."""

Details = Mapping[str, Any]
"""What a judge has to say of a verdict beyond its probability, as JSON: a principle drawn, votes, a panel's members."""


Floats = npt.NDArray[np.float64]

Metrics = dict[str, float]
"""Values by name, as in a row of metrics.jsonl."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a run stands: which round, and which segment of it, each from 0. A round that samples anew while it trains
    has several segments, every other just one.

    Example: ``Position(3)``, the fourth round; ``Position(3, 1)``, what it samples for the second time.
    """

    index: int
    segment: int = 0


ROUNDING = 1e-6
"""By how much a computed probability may leave [0, 1]."""


ONE_ORDER = "one_order"
"""In the details of a verdict: its judge was asked one order, and its verdict taken for both."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt. ``id`` is its identity everywhere (seeds, stores, disjointness checks).

    text: what is asked; of a conversation, its last user turn. turns: the conversation as (role, content), where there
    is one; a chat model is shown it in its own template, and without it ``text`` as a single user turn.
    """

    id: str
    text: str
    turns: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Response:
    """One sampled continuation of a prompt.

    token_ids: as sampled, the end-of-sequence token included when ``finished``.
    logps: log-probability (nats) of each token under the sampling weights at temperature 1, untruncated;
        same length as ``token_ids``.
    finished: True when the model ended it (EOS or a stop string), False when it hit ``max_new_tokens``.
    """

    text: str
    token_ids: tuple[int, ...]
    logps: tuple[float, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class Generation:
    """One prompt with its k responses, in sample order."""

    prompt: Prompt
    responses: tuple[Response, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two responses to one prompt, in the order in which a judge is shown them."""

    prompt: Prompt
    first: str
    second: str

    def swapped(self) -> Comparison:
        return Comparison(self.prompt, self.second, self.first)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of one comparison in one order.

    prob_first_wins: in [0, 1], present exactly when ``status`` is ``ok`` or ``tie``.
    latency_s: seconds this verdict took (a batch's time is shared out evenly).
    tokens: tokens the judge processed for it. cost_usd: what they cost, where they cost something.
    raw: the judge's own words, where it has any; kept for every failure.
    details: what else it has to say, as JSON.
    """

    prob_first_wins: float | None
    status: Status = "ok"
    latency_s: float = 0.0
    tokens: int = 0
    raw: str | None = None
    cost_usd: float = 0.0
    details: Details | None = None

    @classmethod
    def of(
        cls,
        probability: float,
        *,
        latency_s: float = 0.0,
        tokens: int = 0,
        raw: str | None = None,
        cost_usd: float = 0.0,
        details: Details | None = None,
    ) -> Verdict:
        """Return the verdict that a computed probability makes; ``invalid`` where it is none, as nan is.

        Whatever computes a probability makes its verdict so: no comparison with nan decides anything.
        """
        # Written so that nan, which is neither above nor below, is caught too.
        if not -ROUNDING <= probability <= 1.0 + ROUNDING:
            said = f"(no probability: {probability}){'' if raw is None else chr(10) + raw}"
            return cls(None, "invalid", latency_s, tokens=tokens, raw=said, cost_usd=cost_usd, details=_finite(details))
        probability = min(1.0, max(0.0, float(probability)))
        return cls(
            probability,
            "tie" if probability == 0.5 else "ok",
            latency_s,
            tokens=tokens,
            raw=raw,
            cost_usd=cost_usd,
            details=details,
        )

    @classmethod
    def of_log_odds(cls, log_odds: float, **rest: Any) -> Verdict:
        """Return what ``of`` gives for log-odds in nats; what is not finite is ``invalid``, not certainty."""
        if not math.isfinite(log_odds):
            return cls.of(math.nan, **rest)
        # exp overflows above 709.
        return cls.of(1.0 / (1.0 + math.exp(-max(-500.0, min(500.0, log_odds)))), **rest)

    def __post_init__(self) -> None:
        _check_answer(self, "prob_first_wins", ("ok", "tie"))
        if self.prob_first_wins is not None and not 0.0 <= self.prob_first_wins <= 1.0:
            raise ValueError(
                f"a Verdict's prob_first_wins must lie in [0, 1]; got {self.prob_first_wins} (Verdict.of makes what is "
                "not finite an invalid verdict)"
            )


@dataclass(frozen=True, slots=True)
class Score:
    """A judge's direct score of one response (higher is better), on the judge's own scale.

    value: finite, present exactly when ``status`` is ``ok``. The rest as in Verdict.
    """

    value: float | None
    status: Status = "ok"
    latency_s: float = 0.0
    tokens: int = 0
    raw: str | None = None
    cost_usd: float = 0.0
    details: Details | None = None

    @classmethod
    def of(
        cls,
        value: float,
        *,
        latency_s: float = 0.0,
        tokens: int = 0,
        raw: str | None = None,
        cost_usd: float = 0.0,
        details: Details | None = None,
    ) -> Score:
        """Return the score that a computed number makes; ``invalid`` where it is not finite."""
        if not math.isfinite(value):
            said = f"(no number: {value}){'' if raw is None else chr(10) + raw}"
            return cls(None, "invalid", latency_s, tokens=tokens, raw=said, cost_usd=cost_usd, details=_finite(details))
        return cls(float(value), "ok", latency_s, tokens=tokens, raw=raw, cost_usd=cost_usd, details=details)

    def __post_init__(self) -> None:
        _check_answer(self, "value", ("ok",))
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a Score's value must be finite; got {self.value} (Score.of makes it an invalid score)")


def _check_answer(answer: Verdict | Score, field: str, with_number: tuple[Status, ...]) -> None:
    """Check what a judge, perhaps of the user's own, has made of its answer; other libraries' numbers become Python's.

    Raises ValueError with the field that is wrong.
    """
    kind = type(answer).__name__
    if answer.status not in STATUSES:
        raise ValueError(f"a {kind}'s status must be one of {', '.join(STATUSES)}; got {shown(answer.status)}")
    value = getattr(answer, field)
    if (value is not None) != (answer.status in with_number):
        raise ValueError(
            f"a {kind} has a {field} exactly where its status is {' or '.join(with_number)}; got {field}="
            f"{shown(value)} and status={answer.status!r}"
        )
    for name in (field, "latency_s", "cost_usd", "tokens"):
        value = getattr(answer, name)
        if type(value) is (int if name == "tokens" else float) or (value is None and name == field):
            continue
        found = number(value)
        if found is None or (name == "tokens" and not found.is_integer()):
            raise ValueError(
                f"a {kind}'s {name} must be a {'count' if name == 'tokens' else 'number'}; got {shown(value)}"
            )
        object.__setattr__(answer, name, int(found) if name == "tokens" else found)
    if answer.raw is not None and not isinstance(answer.raw, str):
        raise ValueError(f"a {kind}'s raw must be a text or None; got {shown(answer.raw)}")
    if answer.details is not None and not isinstance(answer.details, Mapping):
        raise ValueError(f"a {kind}'s details must be a mapping or None; got {shown(answer.details)}")


def _finite(details: Details | None) -> Details | None:
    """Return the details without numbers that JSON has not got."""
    if details is None:
        return None
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in details.items()
    }


@dataclass(frozen=True, slots=True)
class Judgement:
    """The debiased record of one comparison: both orders asked, averaged.

    sample_first, sample_second: which of the prompt's k responses were compared.
    prob_first_wins: mean over both orders; None unless ``status`` is ``ok`` or ``tie``.
    prob_first_wins_shown_first / _shown_second: the same event (``first`` is better) as judged when ``first``
        was shown in slot one / in slot two. They differ by the judge's position bias.
    """

    comparison: Comparison
    sample_first: int
    sample_second: int
    prob_first_wins: float | None
    prob_first_wins_shown_first: float | None
    prob_first_wins_shown_second: float | None
    status: Status
    latency_s: float
    tokens: int
    raw: str | None = None
    cost_usd: float = 0.0
    details: Details | None = None


def asked_in_one_order(judgement: Judgement) -> bool:
    """Return whether both orders of a judgement are one verdict, so that they say nothing of the judge's lean to a
    slot."""
    return bool((judgement.details or {}).get(ONE_ORDER, False))


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """A training pair. ``prob_chosen_wins`` >= 0.5 by construction; soft-label losses use it as the label."""

    prompt: Prompt
    sample_chosen: int
    sample_rejected: int
    prob_chosen_wins: float


@dataclass(frozen=True, slots=True)
class Revision:
    """A response that its own author criticised and rewrote (Constitutional AI, Bai et al. 2212.08073).

    original: the policy's first answer. steps: (principle, critique, rewritten text) in order, one per revision.
    revised: the last rewriting, with its tokens; its ``logps`` are empty, since it was sampled under another prompt.
    """

    prompt: Prompt
    original: Response
    steps: tuple[tuple[str, str, str], ...]
    revised: Response
