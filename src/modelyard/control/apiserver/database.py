"""The SQLite file behind the store: every version of every object under one global revision.

Multi-version as in etcd: `log` has one row per change, `object` points at the newest row of each living object. So a
list can show any revision that is not compacted, and a watch can replay from it. All methods block; `store` calls them
from threads of its own.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from modelyard.base.errors import UserError

Object = dict[str, Any]
EventType = Literal["ADDED", "MODIFIED", "DELETED"]
_APPLICATION = 0x4D594152  # "MYAR": tells our files from other SQLite files
_VERSION = 1
_SCHEMA = """
CREATE TABLE log(
    revision INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, type TEXT NOT NULL, resource TEXT NOT NULL,
    namespace TEXT NOT NULL, name TEXT NOT NULL, previous INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX log_key ON log(resource, namespace, name, revision);
CREATE TABLE object(
    resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, revision INTEGER NOT NULL,
    PRIMARY KEY(resource, namespace, name)) WITHOUT ROWID;
CREATE TABLE compacted(revision INTEGER NOT NULL);
INSERT INTO compacted VALUES (0);
"""
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Key(NamedTuple):
    """resource: `models.modelyard.dev`; namespace: "" for kinds without one."""

    resource: str
    namespace: str
    name: str


class Stored(NamedTuple):
    """One version of an object; body: JSON that carries its own resourceVersion."""

    key: Key
    revision: int
    body: bytes


class Event(NamedTuple):
    """One change; before: the body that it replaced."""

    type: EventType
    key: Key
    revision: int
    body: bytes
    before: bytes | None


class Page(NamedTuple):
    """Part of a list as it was at `revision`; more: whether something follows."""

    revision: int
    items: tuple[Stored, ...]
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A wish to write one object.

    expected: the revision that must be the newest, 0 for "must not exist". remove: the body is the last one.
    require: another object that must be at that very revision in the same transaction.
    """

    key: Key
    expected: int
    body: Object
    remove: bool = False
    require: tuple[Key, int] | None = None


@dataclass(frozen=True, slots=True)
class Range:
    """What to list. namespace None: all; after: (namespace, name) of the last one seen; at: a past revision."""

    resource: str
    namespace: str | None = None
    after: tuple[str, str] | None = None
    limit: int | None = None
    at: int | None = None


class Raced(Exception):
    """Somebody else was faster. key: the object that moved; current: its newest revision, 0 when it does not exist."""

    def __init__(self, key: Key, current: int) -> None:
        super().__init__(f"{key.resource} {key.namespace}/{key.name} is at {current}")
        self.key = key
        self.current = current


class Compacted(Exception):
    """The revision is older than what is kept. oldest: the oldest that can still be asked for."""

    def __init__(self, oldest: int) -> None:
        super().__init__(f"compacted up to {oldest}")
        self.oldest = oldest


class Unreached(Exception):
    """The revision was never reached. newest: the newest there is."""

    def __init__(self, newest: int) -> None:
        super().__init__(f"the newest revision is {newest}")
        self.newest = newest


class DiskFull(Exception):
    """Nothing was written: no space left."""


class Database:
    """One connection. The writer's is the only one that changes anything."""

    def __init__(self, connection: sqlite3.Connection, now: Callable[[], float]) -> None:
        self._connection = connection
        self._now = now
        self._encoder = msgspec.json.Encoder()

    def close(self) -> None:
        """Close the connection; the last one folds the write-ahead log into the file."""
        self._connection.close()

    def bounds(self) -> tuple[int, int]:
        """(oldest, newest) revision that may be asked for."""
        row = self._connection.execute(
            "SELECT (SELECT revision FROM compacted), coalesce((SELECT seq FROM sqlite_sequence WHERE name='log'), 0)"
        ).fetchone()
        return int(row[0]), int(row[1])

    def apply(self, changes: Sequence[Change]) -> list[Event | Raced]:
        """Write them in order in one transaction; one that lost a race is answered and leaves no trace."""
        try:
            with self._transaction("IMMEDIATE"):
                return [self._apply(change) for change in changes]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise DiskFull from error
            raise

    def _apply(self, change: Change) -> Event | Raced:
        for key, expected in ((change.key, change.expected), *((change.require,) if change.require else ())):
            current = self._current(key)
            if current != expected:
                return Raced(key, current)
        before = self._body(change.expected) if change.expected else None
        kind: EventType = "DELETED" if change.remove else "MODIFIED" if change.expected else "ADDED"
        # The revision is known before the row is written because there is one writer; AUTOINCREMENT never reuses one.
        revision = self.bounds()[1] + 1
        metadata = {**change.body["metadata"], "resourceVersion": str(revision)}
        body = self._encoder.encode({**change.body, "metadata": metadata})
        execute = self._connection.execute
        execute(
            "INSERT INTO log VALUES(?,?,?,?,?,?,?,?)",
            (revision, self._now(), kind, *change.key, change.expected, body),
        )
        if change.remove:
            execute("DELETE FROM object WHERE resource=? AND namespace=? AND name=?", change.key)
        else:
            execute("INSERT OR REPLACE INTO object VALUES(?,?,?,?)", (*change.key, revision))
        return Event(kind, change.key, revision, body, before)

    def get(self, key: Key) -> Stored | None:
        """The newest version, if it exists."""
        row = self._connection.execute(
            "SELECT l.revision, l.body FROM object o JOIN log l ON l.revision=o.revision"
            " WHERE o.resource=? AND o.namespace=? AND o.name=?",
            key,
        ).fetchone()
        return Stored(key, row[0], row[1]) if row else None

    def page(self, range_: Range) -> Page:
        """In order of namespace and name. Raises Compacted and Unreached for a revision that cannot be shown."""
        with self._transaction("DEFERRED"):
            revision = self._position(range_.at)
            past = range_.at is not None and range_.at != self.bounds()[1]
            text, values = _past(range_, revision) if past else _present(range_)
            wanted = -1 if range_.limit is None else range_.limit + 1
            rows = self._connection.execute(
                f"{text} ORDER BY l.namespace, l.name LIMIT ?", (*values, wanted)
            ).fetchall()
        more = range_.limit is not None and len(rows) > range_.limit
        items = tuple(Stored(Key(range_.resource, row[0], row[1]), row[2], row[3]) for row in rows[: range_.limit])
        return Page(revision, items, more)

    def replay(self, resource: str | None, namespace: str | None, after: int, upto: int, limit: int) -> list[Event]:
        """Changes with after < revision <= upto, oldest first. Raises Compacted when some of them are gone."""
        with self._transaction("DEFERRED"):
            self._position(after)
            text = (
                "SELECT l.type, l.resource, l.namespace, l.name, l.revision, l.body, b.body FROM log l"
                " LEFT JOIN log b ON b.revision=l.previous WHERE l.revision>? AND l.revision<=?"
            )
            values: list[str | int] = [after, upto]
            if resource is not None:
                text, values = text + " AND l.resource=?", [*values, resource]
            if namespace is not None:
                text, values = text + " AND l.namespace=?", [*values, namespace]
            rows = self._connection.execute(f"{text} ORDER BY l.revision LIMIT ?", (*values, limit)).fetchall()
        return [Event(row[0], Key(row[1], row[2], row[3]), row[4], row[5], row[6]) for row in rows]

    def compact(self, keep: int, before: float, step: int = 1000) -> bool:
        """Forget superseded versions: all but the newest `keep` revisions, of which none was written after `before`.

        One bounded transaction; True when there is more to do.
        """
        oldest, newest = self.bounds()
        row = self._connection.execute(
            "SELECT revision FROM log WHERE revision<=? AND at<? ORDER BY revision DESC LIMIT 1",
            (newest - keep, before),
        ).fetchone()
        if row is None or row[0] <= oldest:
            return False
        upto = min(row[0], oldest + step)
        with self._transaction("IMMEDIATE"):
            self._connection.execute(
                "DELETE FROM log WHERE revision IN"
                " (SELECT previous FROM log WHERE revision>? AND revision<=? AND previous>0)",
                (oldest, upto),
            )
            self._connection.execute(
                "DELETE FROM log WHERE revision>? AND revision<=? AND type='DELETED'", (oldest, upto)
            )
            self._connection.execute("UPDATE compacted SET revision=?", (upto,))
        return bool(upto < row[0])

    def older(self, resource: str, before: float, limit: int) -> list[Stored]:
        """Living objects of a resource that were last written before a time."""
        rows = self._connection.execute(
            "SELECT l.namespace, l.name, l.revision, l.body FROM object o JOIN log l ON l.revision=o.revision"
            " WHERE o.resource=? AND l.at<? LIMIT ?",
            (resource, before, limit),
        ).fetchall()
        return [Stored(Key(resource, row[0], row[1]), row[2], row[3]) for row in rows]

    def _current(self, key: Key) -> int:
        row = self._connection.execute(
            "SELECT revision FROM object WHERE resource=? AND namespace=? AND name=?", key
        ).fetchone()
        return int(row[0]) if row else 0

    def _body(self, revision: int) -> bytes:
        row = self._connection.execute("SELECT body FROM log WHERE revision=?", (revision,)).fetchone()
        return bytes(row[0])

    def _position(self, at: int | None) -> int:
        oldest, newest = self.bounds()
        if at is None:
            return newest
        if at < oldest:
            raise Compacted(oldest)
        if at > newest:
            raise Unreached(newest)
        return at

    @contextmanager
    def _transaction(self, mode: str) -> Iterator[None]:
        self._connection.execute(f"BEGIN {mode}")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def _present(range_: Range) -> tuple[str, list[str | int]]:
    text = (
        "SELECT l.namespace, l.name, l.revision, l.body FROM object o JOIN log l ON l.revision=o.revision"
        " WHERE o.resource=?"
    )
    more, values = _bounded(range_, "o")
    return text + more, [range_.resource, *values]


def _past(range_: Range, at: int) -> tuple[str, list[str | int]]:
    text = (
        "SELECT l.namespace, l.name, l.revision, l.body FROM log l WHERE l.resource=? AND l.type<>'DELETED'"
        " AND l.revision=(SELECT max(x.revision) FROM log x WHERE x.resource=l.resource AND x.namespace=l.namespace"
        " AND x.name=l.name AND x.revision<=?)"
    )
    more, values = _bounded(range_, "l")
    return text + more, [range_.resource, at, *values]


def _bounded(range_: Range, table: str) -> tuple[str, list[str | int]]:
    text, values = "", list[str | int]()
    if range_.namespace is not None:
        text, values = f" AND {table}.namespace=?", [range_.namespace]
    if range_.after is not None:
        text, values = f"{text} AND ({table}.namespace, {table}.name)>(?,?)", [*values, *range_.after]
    return text, values


def open_file(path: Path, now: Callable[[], float]) -> tuple[Database, Database]:
    """(writer, reader) of a file that is created (mode 0600) when absent. Raises UserError when it cannot be used."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        writer = _connect(path)
    except (OSError, sqlite3.DatabaseError) as error:
        raise _unusable(path, error) from error
    try:
        writer.execute("PRAGMA journal_mode=WAL")
        writer.execute("PRAGMA synchronous=FULL")
        _prepare(writer, path)
        problem = writer.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise UserError(f"{path} is damaged ({problem}); {_WAY_OUT}")
        return Database(writer, now), Database(_connect(path), now)
    except sqlite3.DatabaseError as error:
        writer.close()
        raise _unusable(path, error) from error
    except BaseException:
        writer.close()
        raise


def open_memory(now: Callable[[], float]) -> Database:
    """A database that ends with its connection."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _prepare(connection, Path(":memory:"))
    return Database(connection, now)


_WAY_OUT = "restore a copy of it, or move it away to start empty"


def _connect(path: Path) -> sqlite3.Connection:
    # Each connection is used by one thread at a time, though not by the one that opened it.
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if empty and not version:
        connection.executescript(
            f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id={_APPLICATION}; PRAGMA user_version={_VERSION}; COMMIT;"
        )
    elif application != _APPLICATION:
        raise UserError(f"{path} is a database of another program; move it away")
    elif version != _VERSION:
        raise UserError(
            f"{path} was written by a newer Modelyard (schema {version}, this release reads {_VERSION}); "
            f"install that release, or move the file away to start empty"
        )


def _unusable(path: Path, error: OSError | sqlite3.DatabaseError) -> UserError:
    if isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
        return UserError(f"{path} is damaged or not a database ({error}); {_WAY_OUT}")
    return UserError(f"{path} cannot be opened: {error}; check its permissions and the space left on the disk")
