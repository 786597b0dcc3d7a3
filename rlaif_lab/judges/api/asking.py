"""Questions to an endpoint: each is asked once, and what an earlier run was told is not asked again."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from rlaif_lab.judges.api.answers import Keeper, Record, Tally, record_of
from rlaif_lab.judges.api.client import Asker, Endpoint, open_clients, run_apart
from rlaif_lab.judges.api.features import Features
from rlaif_lab.judges.api.ledger import Ledger
from rlaif_lab.judges.api.limits import Budget, Limits, Pace
from rlaif_lab.judges.api.probe import AbsentError, meet
from rlaif_lab.judges.api.reading import Form, Question
from rlaif_lab.judges.verdict_store import Spent, VerdictStore
from rlaif_lab.records import Verdict

if TYPE_CHECKING:
    from openai import AsyncOpenAI


class Asking:
    """Answers questions from the store, and asks the endpoint for what is missing, within the limits.

    prefix: what the keys of all answers begin with: what decides them, apart from the question.
    """

    def __init__(self, endpoint: Endpoint, limits: Limits, store: VerdictStore, *, prefix: str, seed: int) -> None:
        self.endpoint, self.limits, self.store = endpoint, limits, store
        self.prefix, self.seed = prefix, seed
        self.pace = Pace(limits)

    def asker(self, clients: Sequence[AsyncOpenAI]) -> Asker:
        """Return what sends requests and keeps to the budget."""
        budgeted = self.limits.has_budget
        # What was spent before counts, other processes' included.
        budget = Budget(self.limits, self.store.spent(self.prefix) if budgeted else Spent())
        ledger = Ledger(self.store, self.prefix, self.limits) if budgeted else None
        return Asker(clients, self.endpoint, self.limits, pace=self.pace, budget=budget, seed=self.seed, ledger=ledger)

    def key(self, question: Question) -> str:
        """Return what the answers to a question are kept under."""
        content = json.dumps(question.messages, sort_keys=True)
        # By the words that are sent: equal questions of different comparisons are one.
        return self.prefix + hashlib.sha256(content.encode()).hexdigest()[:32]

    def answers(self, tally: Tally[Record], questions: Sequence[Question], features: Features) -> dict[str, Record]:
        """Return one answer per key; equal questions are asked once, stored ones not at all."""
        distinct = {self.key(question): question for question in questions}
        # Stored answers first: what was paid for is not asked again.
        records = self._stored(tally, list(distinct))
        missing = {key: question for key, question in distinct.items() if tally.missing(records[key])}
        if missing:
            run_apart(lambda: self._ask_all(tally, missing, records, features))
        return {key: tally.result(records[key]) for key in distinct}

    def _stored(self, tally: Tally[Record], keys: Sequence[str]) -> dict[str, list[Record]]:
        """Return what earlier requests brought, by question, up to the first request that is not there."""
        rows = {key: [f"{key}/{i}" for i in range(tally.wanted)] for key in keys}
        requests = [name for row in rows.values() for name in row]
        held: Mapping[str, Any] = (self.store.get if tally.kind is Verdict else self.store.get_scores)(requests)
        # Up to the first gap, where an earlier run got no answer: votes are asked one after the other.
        return {key: [held[name] for name in takewhile(held.__contains__, row)] for key, row in rows.items()}

    async def _ask_all(
        self,
        tally: Tally[Record],
        missing: Mapping[str, Question],
        records: Mapping[str, list[Record]],
        features: Features,
    ) -> None:
        """Complete the records of these questions, ``max_concurrency`` requests at a time."""
        keeper = Keeper(self.store)
        waiting = iter(missing.items())
        async with open_clients(self.endpoint, self.limits) as clients:
            asker = self.asker(clients)

            async def work() -> None:
                for key, question in waiting:  # shared by all workers: each question goes to one of them
                    await self._ask(
                        asker, keeper, tally, key=key, question=question, records=records[key], features=features
                    )

            try:
                # A task for each request that may be in flight; an error in one cancels the others.
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self.limits.max_concurrency, len(missing))):
                        group.create_task(work())
            except BaseExceptionGroup as errors:
                # The first is the cause; the others were cancelled by it.
                raise errors.exceptions[0] from None
            finally:
                # What has arrived is paid, and kept whatever happened.
                keeper.flush()
            if asker.failed_in_a_row:  # the last ones: was it them, or is nobody there any more?
                # Checked at once, without waiting: otherwise a chunk of failures would pass for verdicts.
                try:
                    await meet(clients, self.endpoint, replace(self.limits, wait_s=0.0))
                except AbsentError as error:
                    raise asker.gone("nothing answers there", error.reason) from None

    async def _ask(
        self,
        asker: Asker,
        keeper: Keeper,
        tally: Tally[Record],
        *,
        key: str,
        question: Question,
        records: list[Record],
        features: Features,
    ) -> None:
        """Send requests for one question, one after the other, until it has its votes or one of them fails."""
        # A first token that two labels share cannot tell them apart: the words have to.
        if not question.one_token_tells:
            features = replace(features, logprobs=False)
        form: Form = "json" if features.json else "text"
        while missing := tally.missing(records):
            name = f"{key}/{len(records)}"
            reply = await asker.ask(name, question, form, features, missing)
            record = record_of(tally.kind, reply, question, form, tally.minimum)
            # Before it is stored: a server may repeat the key that it was given.
            records.append(record := replace(record, raw=self.endpoint.redacted(record.raw or "")))
            # Nothing was sent, nothing is kept: the budget may be larger next time.
            if reply.spent.requests:
                await keeper.keep(name, record, reply.lasting, reply.reserved)
            # A failure of this call; the question may be asked again later.
            if not reply.lasting:
                return
