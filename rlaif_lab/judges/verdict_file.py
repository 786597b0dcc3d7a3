"""The file that verdicts are kept in: its tables, its transactions, and SQLite's errors as sentences."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlaif_lab.store.network import on_network

APPLICATION_ID = 0x524C4146  # written into the file's header, so that another program's database is told apart
WAIT_S = 60.0
"""How long to wait for another process that is writing."""

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


class VerdictFile:
    """One SQLite file, safe for several processes and for SIGKILL at any instant.

    path: the file, made with its folder if it is not there; None keeps everything in memory.
    ValueError: the file is not such a store, is corrupt, or stays locked; DiskError (a ValueError): full or read-only
    disk.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        # One connection for all threads, so one at a time.
        self._lock = threading.Lock()
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

    def close(self) -> None:
        with self._lock:
            self._database.close()

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
