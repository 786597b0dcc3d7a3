"""Verdicts that must outlive a crash, by key; what they cost, and who is asking for which."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlaif_lab.judges.verdict_file import VerdictFile
from rlaif_lab.records import Score, Verdict

Kind = Literal["verdict", "score"]

COLUMNS = "kind, key, value, status, latency_s, tokens, raw, cost_usd, details"


@dataclass(frozen=True)
class Spent:
    """What was paid so far. requests: sent, retries included. tokens: processed. usd: at the prices of that time."""

    requests: int = 0
    tokens: int = 0
    usd: float = 0.0


class VerdictStore(VerdictFile):
    """Verdicts (and direct scores, in a key space of their own) by key. The first write of a key stands for good.

    ``put`` returns when the disk has it. Any number of processes and threads may share a file (see VerdictFile).
    """

    def __init__(self, path: Path | None) -> None:
        # Sums so far by prefix: budgets ask for them before every request.
        self._summed: dict[str, dict[str, tuple[int, Spent]]] = {}
        super().__init__(path)

    def get(self, keys: Sequence[str]) -> dict[str, Verdict]:
        """Return the verdicts that are there, by key."""
        return {key: Verdict(value, *rest) for key, value, *rest in self._get("verdict", keys)}

    def put(self, verdicts: Mapping[str, Verdict]) -> None:
        """Keep verdicts; they are on disk when it returns. A key that is there already keeps what it has."""
        self.put_records(verdicts, {}, ())

    def get_scores(self, keys: Sequence[str]) -> dict[str, Score]:
        """Return stored direct scores, as ``get`` does verdicts."""
        return {key: Score(value, *rest) for key, value, *rest in self._get("score", keys)}

    def put_scores(self, scores: Mapping[str, Score]) -> None:
        """Store direct scores, as ``put`` does verdicts."""
        self.put_records(scores, {}, ())

    def put_failures(self, failures: Mapping[str, Verdict | Score], settled: Sequence[int] = ()) -> None:
        """Keep what was asked, and maybe paid, without bringing an answer. It counts in ``spent``, but ``get`` does
        not find it, so that the question may be asked again."""
        self.put_records({}, failures, settled)

    def put_records(
        self, answers: Mapping[str, Verdict | Score], failures: Mapping[str, Verdict | Score], settled: Sequence[int]
    ) -> None:
        """Do ``put``, ``put_scores`` and ``put_failures`` in one instant, in place of these reservations."""
        insert = f"INTO {{}} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        # In one transaction: a crash must not leave an answer that is paid and a reservation for it, which would count
        # twice.
        with self._lock, self._errors_told(), self._transaction():
            execute = self._database.executemany
            # The first write of a key stands: two processes that asked the same keep one answer.
            execute(f"INSERT OR IGNORE {insert.format('answers')}", [_record(*item) for item in answers.items()])
            failed = [_record(key, item, failed=True) for key, item in failures.items()]
            execute(f"INSERT {insert.format('failures')}", failed)
            execute("DELETE FROM reservations WHERE id = ?", [(number,) for number in settled])

    # --- what is spent --------------------------------------------------------------------------------------------
    def spent(self, prefix: str = "") -> Spent:
        """Return the sum over answers and failures whose key begins with ``prefix``, and over what is reserved under
        it. Each record counts ``details["requests"]`` requests, one if it does not say."""
        with self._lock, self._errors_told(), self._transaction():
            return self._spent(prefix)

    def reserve(self, prefix: str, bounds: Sequence[Spent], allow: Callable[[Spent], bool]) -> list[int | None]:
        """Write down, before they are sent, what requests may cost at most, as far as ``allow`` lets the sum of all
        spending grow; returns the number of each reservation, None where it was not allowed.

        On disk when it returns; whatever other processes do, the sum of what was allowed is never exceeded.
        """
        numbers: list[int | None] = []
        with self._lock, self._errors_told(), self._transaction():
            known = self._spent(prefix)
            for bound in bounds:
                # Added up as they come: each is allowed on top of those before it.
                sum_ = Spent(known.requests + bound.requests, known.tokens + bound.tokens, known.usd + bound.usd)
                if not allow(sum_):
                    numbers.append(None)
                    continue
                known = sum_
                row = (prefix, bound.requests, bound.tokens, bound.usd)
                cursor = self._database.execute(
                    "INSERT INTO reservations (prefix, requests, tokens, usd) VALUES (?, ?, ?, ?)", row
                )
                numbers.append(cursor.lastrowid)
        return numbers

    def correct(self, number: int, cost: Spent) -> None:
        """Put what a request did cost in place of its bound."""
        row = (cost.requests, cost.tokens, cost.usd, number)
        with self._lock, self._errors_told(), self._transaction():
            self._database.execute("UPDATE reservations SET requests = ?, tokens = ?, usd = ? WHERE id = ?", row)

    def _spent(self, prefix: str) -> Spent:
        """Return what has been spent. Only rows since the last sum are read: none is ever changed or taken away."""
        rows = self._summed.setdefault(prefix, {"answers": (0, Spent()), "failures": (0, Spent())})
        # Rows are only ever added to these two tables, so those after the last rowid are all that is new.
        for table, (last, known) in rows.items():
            requests, tokens, usd, newest = self._database.execute(
                "SELECT COALESCE(SUM(COALESCE(json_extract(details, '$.requests'), 1)), 0), COALESCE(SUM(tokens), 0), "
                f"COALESCE(SUM(cost_usd), 0.0), COALESCE(MAX(rowid), ?) FROM {table} "
                # substr and not LIKE: a prefix may hold wildcards.
                "WHERE rowid > ? AND substr(key, 1, ?) = ?",
                (last, last, len(prefix), prefix),
            ).fetchone()
            rows[table] = newest, Spent(known.requests + requests, known.tokens + tokens, known.usd + usd)
        reserved = self._database.execute(
            "SELECT COALESCE(SUM(requests), 0), COALESCE(SUM(tokens), 0), COALESCE(SUM(usd), 0.0) FROM reservations "
            "WHERE substr(prefix, 1, ?) = ?",
            (len(prefix), prefix),
        ).fetchone()
        parts = [known for _, known in rows.values()] + [Spent(*reserved)]
        return Spent(sum(p.requests for p in parts), sum(p.tokens for p in parts), sum(p.usd for p in parts))

    # --- who asks what ----------------------------------------------------------------------------------------------
    def claim(self, keys: Sequence[str], owner: str, seconds: float) -> list[str]:
        """Say that ``owner`` is asking these, for so many seconds; returns those that nobody else is asking.

        A claim of the same owner is made longer, and one that has run out, since its owner died, is taken over.
        """
        now = time.time()
        rows = [(key, owner, now + seconds, now) for key in keys]
        sql = (
            # Taken over only where it is one's own or has run out, which the claim of a living owner never does.
            "INSERT INTO claims (key, owner, until) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
            "owner = excluded.owner, until = excluded.until WHERE claims.owner = excluded.owner OR claims.until < ?"
        )
        # json_each: one parameter however many keys, where SQLite limits their number.
        mine = "SELECT key FROM claims WHERE owner = ? AND key IN (SELECT value FROM json_each(?))"
        with self._lock, self._errors_told(), self._transaction():
            self._database.executemany(sql, rows)
            held = {key for (key,) in self._database.execute(mine, (owner, json.dumps(list(keys))))}
        return [key for key in keys if key in held]

    def release(self, owner: str) -> None:
        """Take back all claims of ``owner``."""
        with self._lock, self._errors_told(), self._transaction():
            self._database.execute("DELETE FROM claims WHERE owner = ?", (owner,))

    # --- notes --------------------------------------------------------------------------------------------------------
    def put_note(self, key: str, note: Mapping[str, Any]) -> None:
        """Keep something else, as JSON; the first of a key stands."""
        with self._lock, self._errors_told(), self._transaction():
            self._database.execute("INSERT OR IGNORE INTO notes VALUES (?, ?)", (key, json.dumps(note, sort_keys=True)))

    def note(self, key: str) -> dict[str, Any] | None:
        with self._lock, self._errors_told():
            row = self._database.execute("SELECT note FROM notes WHERE key = ?", (key,)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def __len__(self) -> int:
        """Return answers held: verdicts and scores, no failures, no notes."""
        with self._lock, self._errors_told():
            return int(self._database.execute("SELECT COUNT(*) FROM answers").fetchone()[0])

    def _get(self, kind: Kind, keys: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        sql = (
            "SELECT key, value, status, latency_s, tokens, raw, cost_usd, details FROM answers "
            "WHERE kind = ? AND key IN (SELECT value FROM json_each(?))"
        )
        with self._lock, self._errors_told():
            rows = self._database.execute(sql, (kind, json.dumps(list(keys)))).fetchall()
        for *row, details in rows:
            yield (*row, None if details is None else json.loads(details))


def _record(key: str, item: Verdict | Score, failed: bool = False) -> tuple[Any, ...]:
    if isinstance(item, Score):
        return _row("score", key, None if failed else item.value, item)
    return _row("verdict", key, None if failed else item.prob_first_wins, item)


def _row(kind: Kind, key: str, value: float | None, item: Verdict | Score) -> tuple[Any, ...]:
    details = None if item.details is None else json.dumps(item.details, sort_keys=True)
    return kind, key, value, item.status, item.latency_s, item.tokens, item.raw, item.cost_usd, details
