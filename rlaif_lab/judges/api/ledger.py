"""What requests may cost, written down before they are sent: a kill at any instant leaves no spending unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from rlaif_lab.judges.api.limits import Limits
from rlaif_lab.judges.verdict_store import Spent, VerdictStore


class Ledger:
    """Reservations of one judge in its store. A reservation counts as spent at its bound until the record of what the
    request did cost takes its place; that of a process which was killed counts so for ever.

    Requests that come while the disk is busy are written together next, in the order in which they came.
    """

    def __init__(self, store: VerdictStore, prefix: str, limits: Limits) -> None:
        self.store, self.prefix, self.limits = store, prefix, limits
        self.waiting: list[tuple[Spent, asyncio.Future[int | None]]] = []
        self.lock = asyncio.Lock()

    async def reserve(self, most: Spent) -> int | None:
        """Write down that a request may cost ``most``; None when what all processes spend does not leave so much."""
        answer: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self.waiting.append((most, answer))
        # Whoever gets the lock writes for all that wait: one fsync for many requests.
        async with self.lock:
            taken, self.waiting = self.waiting, []
            if taken:
                # In a thread: the event loop goes on while the disk is busy.
                tickets = await asyncio.to_thread(self._write, [most for most, _ in taken])
                for (_, future), ticket in zip(taken, tickets, strict=True):
                    # Its request was interrupted meanwhile; the reservation stays, and counts, which is on the safe
                    # side.
                    if not future.cancelled():
                        future.set_result(ticket)
        return await answer

    async def correct(self, ticket: int, cost: Spent) -> None:
        """Put what a request did cost in place of its bound."""
        await asyncio.to_thread(self.store.correct, ticket, cost)

    def _write(self, bounds: Sequence[Spent]) -> list[int | None]:
        return self.store.reserve(self.prefix, bounds, self.limits.allow)
