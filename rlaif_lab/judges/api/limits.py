"""What the API judge may do to an endpoint and to a purse: concurrency, rates, retries, budget."""

from __future__ import annotations

import asyncio
import email.utils
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass

from rlaif_lab.judges.verdict_store import Spent

FIRST_BACKOFF_S = 0.5


@dataclass(frozen=True)
class Limits:
    """Limits of an API judge; its ValueErrors name the key of the judge's config.

    max_concurrency: requests in flight at once, at most. timeout_s: seconds one request may take.
    retries: further attempts after one that failed. max_wait_s: longest wait between two attempts; a server that asks
        for a longer one ends the run, which can be resumed.
    requests_per_minute, tokens_per_minute: rates, None: no limit. Requests are spaced evenly, without bursts.
    max_calls, max_tokens_total, max_usd: what a run may spend, retries and earlier runs in its directory included,
        None: no limit. None of them is ever exceeded: before it is sent, a request must fit in with the most that it
        and those in flight can use.
    price_per_million_input, price_per_million_output: in US dollars, None: nothing is paid.
    wait_s: seconds to wait for a server that is not there, or says that it is loading, before it counts as gone.
    failures_in_row: questions in a row that the server failed to answer, all attempts included, after which the run
        stops. What came of them is no verdict; a resumed run asks them again.
    """

    max_concurrency: int = 16
    timeout_s: float = 60.0
    retries: int = 5
    max_wait_s: float = 120.0
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    max_calls: int | None = None
    max_tokens_total: int | None = None
    max_usd: float | None = None
    price_per_million_input: float | None = None
    price_per_million_output: float | None = None
    wait_s: float = 0.0
    failures_in_row: int = 8

    def __post_init__(self) -> None:
        if self.max_concurrency < 1:
            raise ValueError(f"judge.max_concurrency must be at least 1; got {self.max_concurrency}")
        if self.retries < 0:
            raise ValueError(f"judge.retries must not be negative; got {self.retries}")
        if not (math.isfinite(self.wait_s) and self.wait_s >= 0):
            raise ValueError(f"judge.wait_s must be 0 or more seconds; got {self.wait_s}")
        if self.failures_in_row < 1:
            raise ValueError(f"judge.failures_in_row must be at least 1; got {self.failures_in_row}")
        for key in ("timeout_s", "max_wait_s", "requests_per_minute", "tokens_per_minute"):
            value = getattr(self, key)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"judge.{key} must be positive; got {value}")
        for key in ("max_calls", "max_tokens_total", "max_usd"):
            value = getattr(self, key)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"judge.{key} must be positive, or null for no limit; got {value}")
        for key in ("price_per_million_input", "price_per_million_output"):
            value = getattr(self, key)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"judge.{key} must not be negative; got {value}")
        if self.max_usd is not None and None in (self.price_per_million_input, self.price_per_million_output):
            raise ValueError(
                "judge.max_usd needs judge.price_per_million_input and judge.price_per_million_output, which say what "
                "tokens cost"
            )

    @property
    def has_budget(self) -> bool:
        return (self.max_calls, self.max_tokens_total, self.max_usd) != (None, None, None)

    def allow(self, spent: Spent) -> bool:
        """Return whether that much may be spent."""
        return (
            (self.max_calls is None or spent.requests <= self.max_calls)
            and (self.max_tokens_total is None or spent.tokens <= self.max_tokens_total)
            # A budget of 1.00 must not be missed by a rounding.
            and (self.max_usd is None or spent.usd <= self.max_usd * (1 + 1e-9))  # the sum of many roundings
        )

    def cost(self, prompt_tokens: int, completion_tokens: int) -> Spent:
        """Return what one request with so many tokens spends."""
        usd = (
            prompt_tokens * (self.price_per_million_input or 0.0)
            + completion_tokens * (self.price_per_million_output or 0.0)
        ) / 1e6
        return Spent(1, prompt_tokens + completion_tokens, usd)


class Budget:
    """Lets a request go only if what it may cost at most, with those in flight, fits what is left."""

    def __init__(self, limits: Limits, spent: Spent) -> None:
        self.limits, self.spent = limits, spent
        self._reserved: list[Spent] = []
        self._changed = asyncio.Condition()

    async def reserve(self, most: Spent) -> bool:
        """Return whether the budget allows a request; if so, ``settle`` must follow. Waits while requests in flight may
        yet turn out cheaper than was reserved for them."""
        async with self._changed:
            # Reservations are the most that requests can cost: while any is open, it may turn out to leave room.
            while not self.limits.allow(total(self.spent, most, *self._reserved)):
                if not self._reserved:
                    return False
                await self._changed.wait()
            if self.limits.has_budget:
                # Without a budget nobody waits, so nothing has to be counted.
                self._reserved.append(most)
            return True

    async def settle(self, most: Spent, actual: Spent) -> None:
        """Book what a request did cost, in place of what was reserved."""
        self.spent = total(self.spent, actual)
        if self.limits.has_budget:
            # One of equals: it does not matter which.
            self._reserved.remove(most)
            async with self._changed:
                self._changed.notify_all()


def total(*parts: Spent) -> Spent:
    return Spent(sum(p.requests for p in parts), sum(p.tokens for p in parts), sum(p.usd for p in parts))


class Pace:
    """When a request may be sent: rates, and the pauses a server asked for. Lives as long as the judge."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._requests_free_at = self._tokens_free_at = self._paused_until = 0.0

    async def turn(self, tokens: float, jitter: float) -> None:
        """Return when a request of about so many tokens may be sent. jitter: in [0, 1), spreads out those that wait
        for the end of one pause."""
        now = time.monotonic()
        at = now
        if self.limits.requests_per_minute is not None:
            at = max(at, self._requests_free_at)
            # The next request's time is taken at once, before this one waits: others come after it.
            self._requests_free_at = max(now, self._requests_free_at) + 60 / self.limits.requests_per_minute
        if self.limits.tokens_per_minute is not None:
            at = max(at, self._tokens_free_at)
            self._tokens_free_at = max(now, self._tokens_free_at) + 60 * tokens / self.limits.tokens_per_minute
        if at > now:
            await asyncio.sleep(at - now)
        # Again after each pause: another request may have made it longer meanwhile.
        while (pause := self._paused_until - time.monotonic()) > 0:
            await asyncio.sleep(pause + jitter * min(1.0, pause))

    def correct(self, estimated: float, actual: float) -> None:
        """Book what a request did use, in place of what it was thought to."""
        if self.limits.tokens_per_minute is not None:
            # In both directions: a request that took less lets the next one go sooner.
            self._tokens_free_at += 60 * (actual - estimated) / self.limits.tokens_per_minute

    def pause(self, seconds: float) -> None:
        """Send nothing before then."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)


def backoff(attempt: int, jitter: float, longest: float) -> float:
    """Return seconds before attempt ``attempt`` + 1 (from 0): exponential with full jitter, jitter in [0, 1)."""
    # Full jitter (Brooker, AWS 2015): many that failed at one time do not come back at one time.
    return jitter * min(longest, FIRST_BACKOFF_S * 2.0 ** min(attempt, 60))


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return seconds to wait as a response's headers have it, in either form of RFC 9110; None if they say nothing
    usable.

    now: Unix time. A date that is past: 0.
    """
    # OpenAI's own header, in milliseconds, is finer than the standard's.
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    text = headers.get("retry-after")
    if (seconds := _number(text)) is not None:
        return seconds
    try:
        date = email.utils.parsedate_to_datetime(text or "")
    except ValueError:
        return None
    return max(0.0, date.timestamp() - now)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None
