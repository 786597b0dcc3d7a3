"""Verdicts that must outlive a crash: one SQLite file, safe for several processes and for SIGKILL at any instant."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlaif_lab.records import Score, Verdict

Kind = Literal["verdict", "score"]

APPLICATION_ID = 0x524C4146  # written into the file's header, so that another program's database is told apart
WAIT_S = 60.0
"""How long to wait for another process that is writing."""

COLUMNS = "kind, key, value, status, latency_s, tokens, raw, cost_usd, details"
TYPED_COLUMNS = (
    "kind TEXT NOT NULL, key TEXT NOT NULL, value REAL, status TEXT NOT NULL, latency_s REAL NOT NULL, "
    "tokens INTEGER NOT NULL, raw TEXT, cost_usd REAL NOT NULL, details TEXT"
)


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
        self._lock = threading.Lock()
        with self._errors_told():
            if path is not None:
                from rlaif_lab.store.files import writing

                with writing(path):
                    path.parent.mkdir(parents=True, exist_ok=True)
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
        """The verdicts that are there, by key."""
        return {key: Verdict(value, *rest) for key, value, *rest in self._get("verdict", keys)}

    def put(self, verdicts: Mapping[str, Verdict]) -> None:
        """Keeps verdicts; they are on disk when it returns. A key that is there already keeps what it has."""
        self._put("verdict", {key: (v.prob_first_wins, v) for key, v in verdicts.items()})

    def get_scores(self, keys: Sequence[str]) -> dict[str, Score]:
        """``get`` for direct scores."""
        return {key: Score(value, *rest) for key, value, *rest in self._get("score", keys)}

    def put_scores(self, scores: Mapping[str, Score]) -> None:
        """``put`` for direct scores."""
        self._put("score", {key: (s.value, s) for key, s in scores.items()})

    def put_failures(self, failures: Mapping[str, Verdict | Score]) -> None:
        """Keeps what was asked, and maybe paid, without bringing an answer. It counts in ``spent``, but ``get`` does
        not find it, so that the question may be asked again."""
        rows = [
            _row("score" if isinstance(failure, Score) else "verdict", key, None, failure)
            for key, failure in failures.items()
        ]
        self._insert("INSERT INTO failures", rows)

    def spent(self, prefix: str = "") -> Spent:
        """The sum over answers and failures whose key begins with ``prefix``. Each counts ``details["requests"]``
        requests, one if it does not say."""
        select = "SELECT tokens, cost_usd, details FROM {} WHERE substr(key, 1, ?) = ?"
        sums = (
            "SELECT COALESCE(SUM(COALESCE(json_extract(details, '$.requests'), 1)), 0), COALESCE(SUM(tokens), 0), "
            f"COALESCE(SUM(cost_usd), 0.0) FROM ({select.format('answers')} UNION ALL {select.format('failures')})"
        )
        with self._lock, self._errors_told():
            return Spent(*self._database.execute(sums, (len(prefix), prefix) * 2).fetchone())

    def put_note(self, key: str, note: Mapping[str, Any]) -> None:
        """Keeps something else, as JSON; the first of a key stands."""
        with self._lock, self._errors_told(), self._transaction():
            self._database.execute("INSERT OR IGNORE INTO notes VALUES (?, ?)", (key, json.dumps(note, sort_keys=True)))

    def note(self, key: str) -> dict[str, Any] | None:
        with self._lock, self._errors_told():
            row = self._database.execute("SELECT note FROM notes WHERE key = ?", (key,)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def __len__(self) -> int:
        """Answers held: verdicts and scores, no failures, no notes."""
        with self._lock, self._errors_told():
            return int(self._database.execute("SELECT COUNT(*) FROM answers").fetchone()[0])

    def close(self) -> None:
        with self._lock:
            self._database.close()

    # --- SQL ----------------------------------------------------------------------------------------------------
    def _prepare(self) -> None:
        """Makes the tables in a new file; checks whose an old one is before anything is written to it."""
        execute = self._database.execute
        application = execute("PRAGMA application_id").fetchone()[0]
        tables = execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0]
        if application != APPLICATION_ID and (application != 0 or tables != 0):
            raise ValueError(
                f"{str(self.path)!r} is a database of something else, no store of verdicts; use another file"
            )
        execute("PRAGMA synchronous = FULL")  # a paid verdict also survives a power cut
        if application == APPLICATION_ID:
            return
        deadline = time.monotonic() + WAIT_S
        while True:  # the switch does not wait for others who are making the same file
            try:
                execute("PRAGMA journal_mode = WAL")
                break
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        with self._transaction():
            if execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] == 0:
                execute(f"CREATE TABLE answers ({TYPED_COLUMNS}, PRIMARY KEY (kind, key))")
                execute(f"CREATE TABLE failures ({TYPED_COLUMNS})")
                execute("CREATE TABLE notes (key TEXT PRIMARY KEY, note TEXT NOT NULL)")
                execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _get(self, kind: Kind, keys: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        sql = (
            "SELECT key, value, status, latency_s, tokens, raw, cost_usd, details FROM answers "
            "WHERE kind = ? AND key IN (SELECT value FROM json_each(?))"
        )
        with self._lock, self._errors_told():
            rows = self._database.execute(sql, (kind, json.dumps(list(keys)))).fetchall()
        for *row, details in rows:
            yield (*row, None if details is None else json.loads(details))

    def _put(self, kind: Kind, items: Mapping[str, tuple[float | None, Verdict | Score]]) -> None:
        self._insert("INSERT OR IGNORE INTO answers", [_row(kind, key, v, item) for key, (v, item) in items.items()])

    def _insert(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        with self._lock, self._errors_told(), self._transaction():
            self._database.executemany(f"{statement} ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, on disk at the end. IMMEDIATE waits for other writers at once, and so cannot deadlock."""
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
        """SQLite's errors, as sentences for the user."""
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


def _row(kind: Kind, key: str, value: float | None, item: Verdict | Score) -> tuple[Any, ...]:
    details = None if item.details is None else json.dumps(item.details, sort_keys=True)
    return kind, key, value, item.status, item.latency_s, item.tokens, item.raw, item.cost_usd, details
