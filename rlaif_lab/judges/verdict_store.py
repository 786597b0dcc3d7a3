"""Verdicts that must outlive a crash: one SQLite file, safe for several processes and for SIGKILL at any instant."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlaif_lab.records import Score, Verdict
from rlaif_lab.store.network import on_network

Kind = Literal["verdict", "score"]

APPLICATION_ID = 0x524C4146  # written into the file's header, so that another program's database is told apart
WAIT_S = 60.0
"""How long to wait for another process that is writing."""

COLUMNS = "kind, key, value, status, latency_s, tokens, raw, cost_usd, details"
TYPED_COLUMNS = (
    "kind TEXT NOT NULL, key TEXT NOT NULL, value REAL, status TEXT NOT NULL, latency_s REAL NOT NULL, "
    "tokens INTEGER NOT NULL, raw TEXT, cost_usd REAL NOT NULL, details TEXT"
)


TABLES = {
    "answers": f"{TYPED_COLUMNS}, PRIMARY KEY (kind, key)",
    "failures": TYPED_COLUMNS,
    "notes": "key TEXT PRIMARY KEY, note TEXT NOT NULL",
    "reservations": "id INTEGER PRIMARY KEY AUTOINCREMENT, prefix TEXT NOT NULL, requests INTEGER NOT NULL, "
    "tokens INTEGER NOT NULL, usd REAL NOT NULL",
    "claims": "key TEXT PRIMARY KEY, owner TEXT NOT NULL, until REAL NOT NULL",
}


@dataclass(frozen=True)
class Spent:
    """What was paid so far. requests: sent, retries included. tokens: processed. usd: at the prices of that time."""

    requests: int = 0
    tokens: int = 0
    usd: float = 0.0


class VerdictStore:
    """Verdicts (and direct scores, in a key space of their own) by key. The first write of a key stands for good.

    path: the file, made with its folder if it is not there; None keeps everything in memory.
    ``put`` returns when the disk has it. Any number of processes and threads may share a file.
    ValueError: the file is not such a store, is corrupt, or stays locked; DiskError (a ValueError): full or read-only
    disk.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        # One connection for all threads, so one at a time.
        self._lock = threading.Lock()
        # Sums so far by prefix: budgets ask for them before every request.
        self._summed: dict[str, dict[str, tuple[int, Spent]]] = {}
        with self._errors_told():
            if path is not None:
                from rlaif_lab.store.files import writing

                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
            # isolation_level=None: transactions are begun here by hand, as IMMEDIATE.
            self._database = sqlite3.connect(
                ":memory:" if path is None else path, timeout=WAIT_S, isolation_level=None, check_same_thread=False
            )
        try:
            with self._errors_told():
                self._prepare()
        except BaseException:
            self._database.close()
            raise

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

    def close(self) -> None:
        with self._lock:
            self._database.close()

    # --- SQL ----------------------------------------------------------------------------------------------------
    def _prepare(self) -> None:
        """Make the tables in a new file; checks whose an old one is before anything is written to it."""
        execute = self._database.execute
        application = execute("PRAGMA application_id").fetchone()[0]
        # An empty file, or one without tables, may be made a store; a database of something else is left alone.
        tables = execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        if application != APPLICATION_ID and (application != 0 or tables != 0):
            raise ValueError(
                f"{str(self.path)!r} is a database of something else, no store of verdicts; use another file"
            )
        execute("PRAGMA synchronous = FULL")  # a paid verdict also survives a power cut
        if self.path is not None:
            self._choose_journal()
        held = {name for (name,) in execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if set(TABLES) <= held:
            # Nothing to write: readers do not wait for writers.
            return
        with self._transaction():  # also of a store of an earlier version
            for name, columns in TABLES.items():
                execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
            if application != APPLICATION_ID:
                execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _choose_journal(self) -> None:
        """Choose write-ahead logging, which needs shared memory; on network file systems, or where it fails, a plain
        one."""
        assert self.path is not None
        wanted = "DELETE" if on_network(self.path.parent) else "WAL"
        deadline = time.monotonic() + WAIT_S
        while True:  # the switch does not wait for others who are making the same file
            try:
                mode = str(self._database.execute("PRAGMA journal_mode").fetchone()[0]).upper()
                if mode != wanted:
                    mode = str(self._database.execute(f"PRAGMA journal_mode = {wanted}").fetchone()[0]).upper()
                # A mode that this file system does not allow may fail only when something is read.
                self._database.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
                return
            except sqlite3.OperationalError as error:
                busy = (error.sqlite_errorcode & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
                if not busy and wanted == "WAL":
                    wanted = "DELETE"
                # On a network after a second: whoever has it open in the other mode will not let go.
                elif busy and wanted == "DELETE" and time.monotonic() > deadline - WAIT_S + 1.0:
                    return  # another process holds it open as it is
                elif not busy or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _get(self, kind: Kind, keys: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        sql = (
            "SELECT key, value, status, latency_s, tokens, raw, cost_usd, details FROM answers "
            "WHERE kind = ? AND key IN (SELECT value FROM json_each(?))"
        )
        with self._lock, self._errors_told():
            rows = self._database.execute(sql, (kind, json.dumps(list(keys)))).fetchall()
        for *row, details in rows:
            yield (*row, None if details is None else json.loads(details))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Open a transaction: all or nothing, on disk at the end. IMMEDIATE waits for other writers at once, and so
        cannot deadlock."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    @contextmanager
    def _errors_told(self) -> Iterator[None]:
        """Turn SQLite's errors into sentences for the user."""
        try:
            yield
        except sqlite3.Error as error:
            from rlaif_lab.store.files import DiskError

            code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF  # the low byte: the error without its cause
            if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
                raise DiskError(f"cannot write {str(self.path)!r}: {error}; the verdicts it holds are kept") from error
            if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                raise ValueError(
                    f"{str(self.path)!r} is no store of verdicts, or a corrupt one ({error}); delete it to have its "
                    "verdicts asked again, or use another file"
                ) from error
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise ValueError(
                    f"{str(self.path)!r} was held by another process for more than {WAIT_S:.0f} s"
                ) from error
            raise


def _record(key: str, item: Verdict | Score, failed: bool = False) -> tuple[Any, ...]:
    if isinstance(item, Score):
        return _row("score", key, None if failed else item.value, item)
    return _row("verdict", key, None if failed else item.prob_first_wins, item)


def _row(kind: Kind, key: str, value: float | None, item: Verdict | Score) -> tuple[Any, ...]:
    details = None if item.details is None else json.dumps(item.details, sort_keys=True)
    return kind, key, value, item.status, item.latency_s, item.tokens, item.raw, item.cost_usd, details
