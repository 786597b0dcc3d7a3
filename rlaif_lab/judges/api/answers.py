"""What requests brought: kept the moment they are there, and added up to a verdict or a score."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rlaif_lab.judges.api.client import Reply
from rlaif_lab.judges.api.reading import Answer, Form, Question, Vote, answer_of
from rlaif_lab.judges.verdict_store import VerdictStore
from rlaif_lab.records import FAILURES, Score, Status, Verdict

Record = TypeVar("Record", Verdict, Score)


def record_of(kind: type[Record], reply: Reply, question: Question, form: Form, minimum_mass: float) -> Record:
    """Return one request as a verdict or score of its own. Its details: read, form, votes (values, or why there is
    none), requests (retries included), mass (of the labels, where log-probabilities were read)."""
    if reply.completion is None:
        answer = Answer((reply.status,), "text", form, reply.text)
    else:
        answer = answer_of(reply.completion, question, form, minimum_mass)
    details: dict[str, Any] = {
        "read": answer.read,
        "form": form,
        "votes": list(answer.votes),
        "requests": reply.spent.requests,
    }
    # For one request: the minimum share counts over all votes, in `Tally.result`.
    if answer.mass is not None:
        details["mass"] = answer.mass
    if not reply.usage_given:
        # An upper bound counts against budgets; a reader must know that it is not the server's number.
        details["usage"] = "an upper bound"
    value, status = _outcome(kind, answer.votes, len(answer.votes), 0.0)
    return kind(
        value,
        status,
        latency_s=reply.latency_s,
        tokens=reply.spent.tokens,
        raw=answer.raw,
        cost_usd=reply.spent.usd,
        details=details,
    )


@dataclass(frozen=True)
class Tally(Generic[Record]):
    """How the requests made for one question add up.

    wanted: votes. minimum: share of them that must state something.
    """

    kind: type[Record]
    wanted: int
    minimum: float

    def missing(self, records: Sequence[Record]) -> int:
        """Return the votes still to be asked for: none where one request said it all."""
        # A probability, or a text where only one answer was asked for, is the whole answer.
        if any(_details(record)["read"] != "votes" for record in records):
            return 0
        return max(0, self.wanted - len(_votes(records)))

    def result(self, records: Sequence[Record]) -> Record:
        """Return the mean of the votes that state something, if there are enough of them; else the failure that tells
        most."""
        if len(records) == 1 and (self.wanted == 1 or _details(records[0])["read"] != "votes"):
            return records[0]
        votes = _votes(records)
        # Votes that were never asked (a spent budget, say) count as missing.
        value, status = _outcome(self.kind, votes, max(self.wanted, len(votes)), self.minimum)
        details = {
            **_details(records[0]),
            "votes": votes,
            "requests": sum(_details(record)["requests"] for record in records),
        }
        return self.kind(
            value,
            status,
            latency_s=sum(record.latency_s for record in records),
            tokens=sum(record.tokens for record in records),
            raw="\n---\n".join(record.raw or "" for record in records),
            cost_usd=sum(record.cost_usd for record in records),
            details=details,
        )


class Keeper:
    """Stores every record before its worker goes on. Those that arrive while the disk is busy go in together next."""

    def __init__(self, store: VerdictStore) -> None:
        self.store = store
        self.answers: dict[str, Verdict | Score] = {}
        self.failures: dict[str, Verdict | Score] = {}
        self.settled: list[int] = []
        self.lock = asyncio.Lock()

    async def keep(self, key: str, record: Verdict | Score, lasting: bool, reserved: Sequence[int] = ()) -> None:
        """Store a record. reserved: the reservations in whose place it comes."""
        # Taken over at once, so that an interruption finds it in `flush`.
        (self.answers if lasting else self.failures)[key] = record
        self.settled += reserved
        async with self.lock:
            # Somebody else's write may have taken it along.
            if self.answers or self.failures:
                # In a thread: fsync would hold up all requests in flight.
                await asyncio.to_thread(self._put, *self._take())

    def flush(self) -> None:
        """Store what an interruption left."""
        self._put(*self._take())

    def _take(self) -> tuple[dict[str, Verdict | Score], dict[str, Verdict | Score], list[int]]:
        taken = self.answers, self.failures, self.settled
        self.answers, self.failures, self.settled = {}, {}, []
        return taken

    def _put(
        self, answers: Mapping[str, Verdict | Score], failures: Mapping[str, Verdict | Score], settled: Sequence[int]
    ) -> None:
        self.store.put_records(answers, failures, settled)


def _outcome(
    kind: type[Verdict] | type[Score], votes: Sequence[Vote], wanted: int, minimum: float
) -> tuple[float | None, Status]:
    stated = [vote for vote in votes if not isinstance(vote, str)]
    if not stated or len(stated) < minimum * wanted:
        # Votes without a value are statuses of failures; the one that tells most is the answer's.
        return None, next(status for status in FAILURES if status in votes)
    value = sum(stated) / len(stated)
    return value, "tie" if kind is Verdict and value == 0.5 else "ok"


def _votes(records: Sequence[Record]) -> list[Vote]:
    return [vote for record in records for vote in _details(record)["votes"]]


def _details(record: Verdict | Score) -> Mapping[str, Any]:
    assert record.details is not None
    return record.details
