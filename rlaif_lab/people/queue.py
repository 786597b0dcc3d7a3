"""The queue of comparisons that people label: one SQLite file, one transaction for every label.

The queue is what both sides share: the run that asks, and the page on which people answer. A label is on disk before
the page says so, and a comparison that is in the queue is never added again, so a kill on either side loses nothing and
asks nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from rlaif_lab.records import Comparison, Prompt
from rlaif_lab.store.network import on_network

Choice = Literal["first", "second", "tie", "skip", "flag"]
CHOICES: tuple[Choice, ...] = get_args(Choice)
LABELS = ("first", "second", "tie")
"""The choices that count as a label. ``skip`` leaves the item to others, ``flag`` closes it for the owner to look
at."""

WAIT_S = 30.0
"""Seconds to wait for another process that is writing."""
RESERVED_S = 1800.0
"""Seconds for which an item that somebody looks at is kept from the others."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    id TEXT PRIMARY KEY, position INTEGER NOT NULL, prompt TEXT NOT NULL, first TEXT NOT NULL, second TEXT NOT NULL,
    criteria TEXT, gold TEXT, ai REAL, needed INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0,
    closed INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS open_items ON items (position) WHERE closed = 0 AND gold IS NULL AND done < needed;
CREATE TABLE IF NOT EXISTS labels (
    id INTEGER PRIMARY KEY AUTOINCREMENT, item TEXT NOT NULL, annotator TEXT NOT NULL, choice TEXT NOT NULL,
    swapped INTEGER NOT NULL, seconds REAL NOT NULL, reason TEXT, at REAL NOT NULL, undone INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS item_states ON items (gold, closed, needed, done, ai, id);
CREATE INDEX IF NOT EXISTS said ON labels (item, choice) WHERE undone = 0;
CREATE INDEX IF NOT EXISTS times ON labels (annotator, seconds) WHERE undone = 0;
CREATE INDEX IF NOT EXISTS flags ON labels (id) WHERE choice = 'flag' AND undone = 0;
CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS one_each ON labels (item, annotator) WHERE undone = 0;
CREATE INDEX IF NOT EXISTS by_annotator ON labels (annotator, id) WHERE undone = 0;
CREATE TABLE IF NOT EXISTS reservations (
    item TEXT NOT NULL, annotator TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (item, annotator));
"""


COLUMNS = "item, annotator, choice, swapped, seconds, reason, at"
UNKNOWN = -1
"""In the column ``swapped``: nobody knows what was shown first."""


@dataclass(frozen=True)
class Item:
    """A comparison to be labelled.

    Attributes:
        id: Decided by what is compared and under which criteria, whatever the order of the two.
        prompt: What the two responses answer.
        first: The response whose text comes first in the alphabet; which one is shown first is decided per annotator.
        second: The other one.
        criteria: What to judge by; None for no instruction.
        gold: The right choice of an attention check; None for an item that is really asked.
        ai: The AI judge's probability that ``first`` is better; None where it is not known.
        needed: Labels wanted from different people.
        done: Labels it has.
        closed: Whether it is out of the queue: read by the run, or flagged.
    """

    id: str
    prompt: Prompt
    first: str
    second: str
    criteria: str | None = None
    gold: Choice | None = None
    ai: float | None = None
    needed: int = 1
    done: int = 0
    closed: bool = False


@dataclass(frozen=True)
class Label:
    """What one person said of one item.

    Attributes:
        item: The item's id.
        annotator: Who said it.
        choice: In the item's own order, whatever was shown first.
        swapped: Whether ``second`` was shown first; None where that is not known, as of labels from elsewhere.
        seconds: Time spent on it, pauses left out.
        reason: In their own words, where given.
        at: Seconds since the epoch.
    """

    item: str
    annotator: str
    choice: Choice
    swapped: bool | None
    seconds: float
    reason: str | None = None
    at: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Progress:
    """How far a queue is.

    Attributes:
        items: Items that are really asked.
        labels: Labels they have.
        missing: Labels that are still needed.
        flagged: Items that somebody flagged.
        seconds: Time that all labels took, checks and skips included.
    """

    items: int
    labels: int
    missing: int
    flagged: int
    seconds: float


@dataclass(frozen=True)
class Limits:
    """What people may spend on a queue, and what they are told.

    Attributes:
        labels: Labels in all; None for no limit, as below.
        seconds: Time of all labels.
        usd: Dollars.
        usd_per_hour: What people are paid.
        guidelines: A longer text that the page shows on request, such as a constitution.
        page: Address of a page that is over this queue; None where none was opened.
    """

    labels: int | None = None
    seconds: float | None = None
    usd: float | None = None
    usd_per_hour: float = 0.0
    guidelines: str | None = None
    page: str | None = None

    @property
    def most_seconds(self) -> float:
        """Return the seconds that minutes and dollars allow; inf for no limit."""
        paid = self.usd / self.usd_per_hour * 3600.0 if self.usd is not None and self.usd_per_hour else math.inf
        return min(paid, math.inf if self.seconds is None else self.seconds)


@dataclass(frozen=True)
class Said:
    """How many people made which choice of an item that is really asked, and what the AI judge says of it."""

    item: str
    first: int
    tie: int
    second: int
    ai: float | None


def item_of(comparison: Comparison, criteria: str | None = None) -> Item:
    """Return the item of a comparison: the same for both orders of its responses."""
    low, high = sorted((comparison.first, comparison.second))
    prompt = comparison.prompt
    key = json.dumps([prompt.id, prompt.text, prompt.turns, low, high, criteria])
    # A model may write half of a surrogate pair, which UTF-8 has no bytes for.
    return Item(hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:24], prompt, low, high, criteria)


def check_of(comparison: Comparison, prob_first_is_better: float, criteria: str | None = None) -> Item:
    """Return an attention check: an item whose right choice is known. It looks like any other on the page, and is
    another item than the same comparison that is really asked."""
    item = item_of(comparison, criteria)
    # Turned round where item_of turned the responses round.
    better = prob_first_is_better if comparison.first <= comparison.second else 1.0 - prob_first_is_better
    gold: Choice = "tie" if better == 0.5 else "first" if better > 0.5 else "second"
    return replace(item, id=hashlib.sha256(f"check {item.id}".encode()).hexdigest()[:24], gold=gold)


class LabelQueue:
    """The queue in one file, shared by any number of processes and threads.

    Args:
        path: The file; made with its folder if it is not there.

    Raises:
        ValueError: if the file is not such a queue, is corrupt, or stays locked.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._told():
            # Transactions are begun by hand (`_transaction`), and a lock guards the one connection of all threads.
            self._database = sqlite3.connect(path, timeout=WAIT_S, isolation_level=None, check_same_thread=False)
            self._use_journal()
            self._database.executescript(SCHEMA)

    def _use_journal(self) -> None:
        """Use a write-ahead log where the file system takes one; network file systems do not."""
        try:
            self._database.execute(f"PRAGMA journal_mode={'DELETE' if on_network(self.path.parent) else 'WAL'}")
        except sqlite3.OperationalError:
            self._database.execute("PRAGMA journal_mode=DELETE")
        # A label is on the disk when its transaction ends, even if the power fails then.
        self._database.execute("PRAGMA synchronous=FULL")

    # --- the side that asks ---------------------------------------------------------------------------------------
    def add(self, items: Sequence[Item]) -> int:
        """Put items into the queue; return how many were new. One that is there keeps its labels."""
        with self._transaction() as database:
            return _insert(database, items)

    def add_within(self, items: Sequence[Item], room: Callable[[Progress], float]) -> list[str]:
        """Put in as many of the new items as there is room for; return the ids of those that are in the queue then, the
        ones that were there before first.

        What is in the queue and what is added is one transaction, so that processes which share a queue share its
        budget.

        Args:
            items: What is to be asked.
            room: Returns, for how far the queue is, how many items more are allowed.
        """
        with self._transaction() as database:
            known = {item.id: None for item in items if _is_in(database, item.id)}
            new = [item for item in items if item.id not in known]
            most = room(_progress(database)) if new else 0.0
            allowed = new if most >= len(new) else new[: max(0, int(most))]
            _insert(database, allowed)
        return [*known, *(item.id for item in allowed)]

    def missing(self, ids: Iterable[str]) -> int:
        """Return how many labels these items still need; a closed one needs none."""
        with self._reading() as database:
            rows = (
                database.execute("SELECT needed - done, closed FROM items WHERE id = ?", (i,)).fetchone() for i in ids
            )
            return sum(max(0, left) for left, closed in (row for row in rows if row) if not closed)

    def labels(self, ids: Iterable[str] | None = None) -> list[Label]:
        """Return the labels of these items, or of all, skips and flags included, in the order in which they came."""
        with self._reading() as database:
            rows = database.execute(f"SELECT {COLUMNS} FROM labels WHERE undone = 0 ORDER BY id").fetchall()
        wanted = None if ids is None else set(ids)
        return [_label(row) for row in rows if wanted is None or row[0] in wanted]

    def close_items(self, ids: Iterable[str]) -> None:
        """Take items out of the queue: their labels are used, and are not undone any more."""
        with self._transaction() as database:
            database.executemany("UPDATE items SET closed = 1 WHERE id = ?", [(i,) for i in ids])

    # --- the side that answers ------------------------------------------------------------------------------------
    def next_item(self, annotator: str, check_every: int = 10) -> Item | None:
        """Return what this person should label now, and keep it from the others; None when nothing is left.

        Somebody who comes back gets the item they were at. Every ``check_every`` labels an attention check comes, if
        there is one that they have not had.
        """
        now = time.time()
        limits = self.limits()
        with self._transaction() as database:
            if limits.most_seconds < math.inf and _spent(database) >= limits.most_seconds:
                return None
            # What somebody left without a label is free for others again.
            database.execute("DELETE FROM reservations WHERE until < ?", (now,))
            # The item they were at, unless it was closed or has had its labels meanwhile.
            held = database.execute(
                "SELECT i.id FROM reservations r JOIN items i ON i.id = r.item WHERE r.annotator = ? AND i.closed = 0 "
                "AND (i.gold IS NOT NULL OR i.done < i.needed) ORDER BY r.until DESC LIMIT 1",
                (annotator,),
            ).fetchone()
            chosen = held or self._check_due(database, annotator, check_every) or self._open(database, annotator)
            if chosen is None:
                return None
            database.execute(
                "INSERT OR REPLACE INTO reservations VALUES (?, ?, ?)", (chosen[0], annotator, now + RESERVED_S)
            )
            return _item(database.execute("SELECT * FROM items WHERE id = ?", chosen).fetchone())

    def _check_due(self, database: sqlite3.Connection, annotator: str, every: int) -> tuple[str] | None:
        (count,) = database.execute(
            "SELECT COUNT(*) FROM labels WHERE annotator = ? AND undone = 0", (annotator,)
        ).fetchone()
        # In the middle of a stretch of labels, so that nobody's first item is a check.
        if every <= 0 or count % every != every // 2:
            return None
        found: tuple[str] | None = database.execute(
            "SELECT id FROM items WHERE gold IS NOT NULL AND closed = 0 AND NOT EXISTS (SELECT 1 FROM labels l WHERE "
            "l.item = items.id AND l.annotator = ? AND l.undone = 0) ORDER BY position LIMIT 1",
            (annotator,),
        ).fetchone()
        return found

    def _open(self, database: sqlite3.Connection, annotator: str) -> tuple[str] | None:
        """Return the first item that needs a label which nobody is giving, and that this person has not had."""
        found: tuple[str] | None = database.execute(
            # Named, since SQLite would otherwise go through all items and sort them.
            "SELECT id FROM items INDEXED BY open_items WHERE closed = 0 AND gold IS NULL AND done < needed "
            "AND done + (SELECT COUNT(*) FROM reservations r WHERE r.item = items.id) < needed "
            "AND NOT EXISTS (SELECT 1 FROM labels l WHERE l.item = items.id AND l.annotator = ? AND l.undone = 0) "
            "ORDER BY position LIMIT 1",
            (annotator,),
        ).fetchone()
        return found

    def label(self, label: Label) -> None:
        """Keep a label; it is on disk when this returns. The same label again changes nothing.

        Raises:
            ValueError: for an item that is not in the queue or is closed, for a choice that there is not, and for
                another label of the same person on the same item.
        """
        if label.choice not in CHOICES:
            raise ValueError(f"a choice must be one of {', '.join(CHOICES)}; got {label.choice!r}")
        # Written so that nan is refused too; 1e7 s are 116 days.
        if not 0.0 <= label.seconds < 1e7:
            raise ValueError(f"the seconds of a label must be finite and not negative; got {label.seconds}")
        with self._transaction() as database:
            row = database.execute("SELECT closed FROM items WHERE id = ?", (label.item,)).fetchone()
            if row is None:
                raise ValueError(f"item {label.item!r} is not in the queue")
            # Before it matters whether the item is closed: a page whose connection broke off sends a label that arrived
            # again.
            held = database.execute(
                "SELECT choice FROM labels WHERE item = ? AND annotator = ? AND undone = 0",
                (label.item, label.annotator),
            ).fetchone()
            if held is not None:
                if held[0] != label.choice:
                    raise ValueError(f"{label.annotator} said {held[0]} of item {label.item!r} before; undo it first")
                return
            if row[0]:
                raise ValueError(f"item {label.item!r} is closed; its labels have been used")
            row = (
                label.item,
                label.annotator,
                label.choice,
                _order(label.swapped),
                label.seconds,
                _storable(label.reason),
            )
            database.execute(
                "INSERT INTO labels (item, annotator, choice, swapped, seconds, reason, at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*row, label.at or time.time()),
            )
            # A skip leaves the item open. A flag closes it, but no attention check, which the others get too.
            if label.choice in LABELS:
                database.execute("UPDATE items SET done = done + 1 WHERE id = ?", (label.item,))
            elif label.choice == "flag":
                database.execute("UPDATE items SET closed = 1 WHERE id = ? AND gold IS NULL", (label.item,))
            database.execute("DELETE FROM reservations WHERE item = ? AND annotator = ?", (label.item, label.annotator))

    def undo(self, annotator: str) -> str | None:
        """Take this person's last label back, and give them the item again; return its id.

        None where there is none, or where the run has used it already.
        """
        with self._transaction() as database:
            last = database.execute(
                "SELECT l.id, l.item, l.choice, i.closed FROM labels l JOIN items i ON i.id = l.item "
                "WHERE l.annotator = ? AND l.undone = 0 ORDER BY l.id DESC LIMIT 1",
                (annotator,),
            ).fetchone()
            # Closed, and not by this person's own flag: its labels are used.
            if last is None or (last[3] and last[2] != "flag"):
                return None
            number, item, choice, _ = last
            # Marked and not deleted: the time that it took was spent.
            database.execute("UPDATE labels SET undone = 1 WHERE id = ?", (number,))
            if choice in LABELS:
                database.execute("UPDATE items SET done = done - 1 WHERE id = ?", (item,))
            elif choice == "flag":
                database.execute("UPDATE items SET closed = 0 WHERE id = ?", (item,))
            database.execute(
                "INSERT OR REPLACE INTO reservations VALUES (?, ?, ?)", (item, annotator, time.time() + RESERVED_S)
            )
            return str(item)

    def last_at(self, annotator: str) -> float:
        """Return when this person last said something; -inf where they have not."""
        return self._last(annotator)[1]

    def last_item(self, annotator: str) -> str | None:
        """Return the item of which this person last said something."""
        return self._last(annotator)[0]

    def _last(self, annotator: str) -> tuple[str | None, float]:
        with self._reading() as database:
            found = database.execute(
                "SELECT item, at FROM labels WHERE annotator = ? AND undone = 0 ORDER BY id DESC LIMIT 1", (annotator,)
            ).fetchone()
        return (str(found[0]), float(found[1])) if found else (None, -math.inf)

    # --- limits -----------------------------------------------------------------------------------------------------
    def limits(self) -> Limits:
        """Return what people may spend, and what they are told."""
        with self._reading() as database:
            held = dict(database.execute("SELECT key, value FROM settings").fetchall())
        return Limits(**{key: json.loads(held[key]) for key in Limits.__dataclass_fields__ if key in held})

    def limit(self, limits: Limits) -> None:
        """Set anew what people may spend, and what they are told.

        The page's address is not theirs to set: see ``note_page``.
        """
        self._set({key: value for key, value in asdict(limits).items() if key != "page"})

    def note_page(self, address: str | None) -> None:
        """Remember at which address a page is over this queue; None when it ends."""
        self._set({"page": address})

    def _set(self, values: Mapping[str, Any]) -> None:
        with self._transaction() as database:
            rows = [(key, json.dumps(value)) for key, value in values.items()]
            database.executemany("INSERT OR REPLACE INTO settings VALUES (?, ?)", rows)

    def spent_out(self) -> bool:
        """Return whether people have spent the time or the money that there is. The page then gives nothing out."""
        most = self.limits().most_seconds
        with self._reading() as database:
            return most < math.inf and _spent(database) >= most

    # --- for the owner --------------------------------------------------------------------------------------------
    def progress(self) -> Progress:
        """Return how far the queue is. Attention checks count for the time only."""
        with self._reading() as database:
            return _progress(database)

    def items(self, ids: Iterable[str] | None = None) -> list[Item]:
        """Return all items, attention checks included, in the order in which they came; or those of these ids, in
        theirs."""
        with self._reading() as database:
            if ids is None:
                rows = database.execute("SELECT * FROM items ORDER BY position").fetchall()
            else:
                found = (database.execute("SELECT * FROM items WHERE id = ?", (i,)).fetchone() for i in ids)
                rows = [row for row in found if row is not None]
        return [_item(row) for row in rows]

    def item(self, item_id: str) -> Item | None:
        """Return one item; None where it is not in the queue."""
        return next(iter(self.items([item_id])), None)

    def done_by(self, annotator: str) -> int:
        """Return how often this person has said something, skips and attention checks included."""
        with self._reading() as database:
            (count,) = database.execute(
                "SELECT COUNT(*) FROM labels WHERE annotator = ? AND undone = 0", (annotator,)
            ).fetchone()
        return int(count)

    def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Return how often each person made each choice, attention checks included."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT annotator, choice, COUNT(*) FROM labels WHERE undone = 0 GROUP BY annotator, choice"
            ).fetchall()
        found: dict[str, dict[str, int]] = {}
        for annotator, choice, count in rows:
            found.setdefault(annotator, {})[choice] = count
        return found

    def said(self) -> list[Said]:
        """Return, for every item that has a label, how many people made which choice."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT l.item, SUM(l.choice = 'first'), SUM(l.choice = 'tie'), SUM(l.choice = 'second'), i.ai "
                "FROM labels l JOIN items i ON i.id = l.item "
                "WHERE l.undone = 0 AND l.choice IN ('first', 'tie', 'second') AND i.gold IS NULL GROUP BY l.item"
            ).fetchall()
        return [Said(item, first, tie, second=second, ai=ai) for item, first, tie, second, ai in rows]

    def labels_of(self, item_id: str) -> list[Label]:
        """Return what people said of one item."""
        with self._reading() as database:
            rows = database.execute(
                f"SELECT {COLUMNS} FROM labels WHERE item = ? AND undone = 0 ORDER BY id", (item_id,)
            ).fetchall()
        return [_label(row) for row in rows]

    def flags(self, most: int) -> list[Label]:
        """Return the last so many flags."""
        with self._reading() as database:
            rows = database.execute(
                f"SELECT {COLUMNS} FROM labels WHERE choice = 'flag' AND undone = 0 ORDER BY id DESC LIMIT ?", (most,)
            ).fetchall()
        return [_label(row) for row in rows]

    def checks(self) -> dict[str, tuple[int, int]]:
        """Return, for each person, how many attention checks they passed, of how many."""
        with self._reading() as database:
            rows = database.execute(
                "SELECT l.annotator, SUM(l.choice = i.gold), COUNT(*) "
                "FROM items i CROSS JOIN labels l ON l.item = i.id "  # the few checks first
                "WHERE i.gold IS NOT NULL AND l.undone = 0 AND l.choice IN ('first', 'tie', 'second') "
                "GROUP BY l.annotator"
            ).fetchall()
        return {annotator: (passed, of) for annotator, passed, of in rows}

    def median_seconds(self, annotator: str) -> float:
        """Return the median time of this person's labels; nan without any."""
        with self._reading() as database:
            (count,) = database.execute(
                "SELECT COUNT(*) FROM labels WHERE annotator = ? AND undone = 0", (annotator,)
            ).fetchone()
            # With an even number, the upper of the middle two.
            row = database.execute(
                "SELECT seconds FROM labels WHERE annotator = ? AND undone = 0 ORDER BY seconds LIMIT 1 OFFSET ?",
                (annotator, count // 2),
            ).fetchone()
        return float(row[0]) if row else math.nan

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # --- SQLite ---------------------------------------------------------------------------------------------------
    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Open a transaction that is there whole or not at all. IMMEDIATE waits for other writers, and cannot
        deadlock."""
        with self._lock, self._told():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                # An interrupt too leaves nothing half done.
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        # Two threads must not use one connection at once.
        with self._lock, self._told():
            yield self._database

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn SQLite's errors into one sentence."""
        try:
            yield
        except sqlite3.Error as error:
            raise ValueError(f"the queue of labels {str(self.path)!r} cannot be used: {error}") from error


def _is_in(database: sqlite3.Connection, item_id: str) -> bool:
    return database.execute("SELECT 1 FROM items WHERE id = ?", (item_id,)).fetchone() is not None


def _insert(database: sqlite3.Connection, items: Sequence[Item]) -> int:
    """Add those that are not there; return how many they were."""
    (last,) = database.execute("SELECT COALESCE(MAX(position), -1) FROM items").fetchone()
    new = 0
    for item in items:
        prompt = json.dumps([item.prompt.id, item.prompt.text, item.prompt.turns])
        texts = (prompt, _storable(item.first), _storable(item.second), _storable(item.criteria))
        new += database.execute(
            "INSERT OR IGNORE INTO items (id, position, prompt, first, second, criteria, gold, ai, needed) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (item.id, last + 1 + new, *texts, item.gold, item.ai, item.needed),
        ).rowcount
    return new


def _progress(database: sqlite3.Connection) -> Progress:
    items, labels, missing = database.execute(
        "SELECT COUNT(*), COALESCE(SUM(done), 0), "
        "COALESCE(SUM(CASE WHEN closed THEN 0 ELSE MAX(0, needed - done) END), 0) FROM items WHERE gold IS NULL"
    ).fetchone()
    (flagged,) = database.execute(
        "SELECT COUNT(DISTINCT item) FROM labels WHERE choice = 'flag' AND undone = 0"
    ).fetchone()
    return Progress(items, labels, missing, flagged, _spent(database))


def _item(row: Sequence[Any]) -> Item:
    item_id, _, prompt, first, second, criteria, gold, ai, needed, done, closed = row
    prompt_id, text, turns = json.loads(prompt)
    return Item(
        id=item_id,
        prompt=Prompt(prompt_id, text, tuple((role, said) for role, said in turns)),
        first=first,
        second=second,
        criteria=criteria,
        gold=gold,
        ai=ai,
        needed=needed,
        done=done,
        closed=bool(closed),
    )


def _label(row: Sequence[Any]) -> Label:
    item, annotator, choice, swapped, seconds, reason, at = row
    shown = None if swapped == UNKNOWN else bool(swapped)
    return Label(item, annotator, choice, swapped=shown, seconds=seconds, reason=reason, at=at)


def _order(swapped: bool | None) -> int:
    return UNKNOWN if swapped is None else int(swapped)


def _spent(database: sqlite3.Connection) -> float:
    """Return the seconds of all labels, those that were taken back included: they were spent."""
    (seconds,) = database.execute("SELECT COALESCE(SUM(seconds), 0.0) FROM labels").fetchone()
    return float(seconds)


def _storable(text: str | None) -> str | None:
    """Return a text as SQLite takes it: half of a surrogate pair becomes a question mark."""
    return None if text is None else text.encode("utf-8", "replace").decode()
