"""Counts that the workers of one service share; gone when the service ends.

An SQLite file in a directory of their own, with the rules of :class:`submitd.counters.memory`: what
one worker has counted the next one sees, exactly, and a worker that is killed in the middle of it
leaves nothing half-done.  Nothing is synced to the disk.  A question takes a tenth of a
millisecond, and is answered at once, without a Deferred.

Processes take turns by a lock of the system, which ends with its process; SQLite's own way to wait
would sleep for milliseconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from submitd.counters.memory import MAX_KEYS
from submitd.counters.windows import Room, Taken, Want

FILE = "counts.db"
LOCK = "counts.lock"
KEY = "counts.key"

# Old logs that are dropped with each that is new: so they cannot pile up.
_TIDIED = 2
# New logs of one process behind which it is looked whether there are too many.
_LOOK = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
    key TEXT PRIMARY KEY, total INTEGER NOT NULL, last REAL NOT NULL, ends REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS log_ends ON log (ends);
CREATE TABLE IF NOT EXISTS entry (
    key TEXT NOT NULL, at REAL NOT NULL, amount INTEGER NOT NULL, PRIMARY KEY (key, at)
) WITHOUT ROWID;
"""


def prepare(directory: Path) -> None:
    """Make the files, before there are workers.

    :param directory: nobody else's.
    :raise OSError: when they cannot be made.
    """
    for name in (LOCK, KEY, FILE):
        (directory / name).touch(0o600)
    (directory / KEY).write_bytes(os.urandom(32))
    shared = SharedCounts(directory)
    try:
        with shared._turn():
            pass
    except sqlite3.Error as error:
        raise OSError(f"{directory / FILE}: {error}") from None
    shared.close()


class Place:
    """The directory of the workers' counts, among the system's temporary ones.

    Those are tidied on many machines, of what nobody has read or written for days.  One that is
    locked is left alone by systemd's tidying (tmpfiles.d(5)); for that of others it is made anew
    when it is gone, so that another worker can begin.

    :raise OSError: when it cannot be made.
    """

    def __init__(self) -> None:
        self._path, self._lock = _make()

    def path(self) -> Path:
        """Where it is now; workers that began before a new one was made go on with their own."""
        if not (self._path / KEY).exists():
            # When it cannot be made the worker ends, and is begun again later.
            with suppress(OSError):
                made = _make()
                self.close()
                self._path, self._lock = made
        return self._path

    def close(self) -> None:
        """Remove it."""
        os.close(self._lock)
        shutil.rmtree(self._path, ignore_errors=True)


def _make() -> tuple[Path, int]:
    path = Path(tempfile.mkdtemp(prefix="submitd-"))
    try:
        prepare(path)
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        shutil.rmtree(path, ignore_errors=True)
        raise
    fcntl.flock(lock, fcntl.LOCK_EX)
    return path, lock


class SharedCounts:
    """A storage that processes share.

    :param directory: where :func:`prepare` has made its files.
    :param prefix: whose counts; others' keys are others.
    :param size: how many keys are kept at most, or a few more.
    """

    def __init__(self, directory: Path, prefix: str = "", size: int = MAX_KEYS) -> None:
        self._directory = directory
        self._prefix = prefix
        self._size = size
        self._new = 0
        self._connection: sqlite3.Connection | None = None
        self._lock = -1
        self._own = threading.Lock()

    @property
    def secret(self) -> bytes:
        """The same for all of them: what digests are keyed with."""
        return (self._directory / KEY).read_bytes()

    def close(self) -> None:
        """Close the files."""
        if self._connection is not None:
            self._connection.close()
            os.close(self._lock)
            self._connection = None

    @contextmanager
    def _turn(self) -> Iterator[sqlite3.Connection]:
        with self._own:
            connection = self._connection or self._open()
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")
            finally:
                fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _open(self) -> sqlite3.Connection:
        # Each opens it for itself: an open file that was inherited would share its lock.
        # Where it cannot be, it is tried again each time, and nothing of that may stay open.
        with ExitStack() as opened:
            lock = os.open(self._directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            opened.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_EX)
            connection = sqlite3.connect(
                self._directory / FILE, isolation_level=None, check_same_thread=False, timeout=5.0
            )
            opened.callback(connection.close)
            connection.execute("PRAGMA journal_mode=WAL").close()
            connection.execute("PRAGMA synchronous=OFF").close()
            connection.executescript(_SCHEMA)
            fcntl.flock(lock, fcntl.LOCK_UN)
            opened.pop_all()
        self._lock, self._connection = lock, connection
        return connection

    def take(self, wants: Sequence[Want], now: float, together: bool) -> Taken:
        """See :class:`submitd.counters.windows.Storage`."""
        with self._turn() as connection:
            found = []
            shortage, until = None, 0.0
            for at, (name, window, cost, _) in enumerate(wants):
                key = self._prefix + name
                used = _total(connection, key, window.seconds, now)
                over = used + cost - window.amount
                if over > 0:
                    left = _whenLeft(connection, key, over) if used else None
                    free = now if left is None else left + window.seconds
                    if together:
                        return Taken(at, free)
                    if shortage is None:
                        shortage, until = at, free
                else:
                    found.append((at, key))
            marked = []
            for at, key in found:
                _, window, cost, mark = wants[at]
                total = _add(connection, key, window.seconds, now, cost)
                if total >= mark > total - cost:
                    marked.append(at)
                self._new += total == cost
            if self._new >= _LOOK:
                self._new = 0
                _bound(connection, self._size)
            return Taken(shortage, until, tuple(marked))

    def rooms(self, wants: Sequence[Want], now: float) -> list[Room]:
        """See :class:`submitd.counters.windows.Storage`."""
        rooms = []
        with self._turn() as connection:
            for name, window, _, _ in wants:
                key = self._prefix + name
                used = _total(connection, key, window.seconds, now)
                first = _whenLeft(connection, key, 1) if used else None
                until = now if first is None else first + window.seconds
                rooms.append(Room(window.amount - used, used, until))
        return rooms


def _total(connection: sqlite3.Connection, key: str, seconds: int, now: float) -> int:
    """What is in the window, after what has left it was dropped."""
    rows = connection.execute("SELECT total FROM log WHERE key = ?", (key,)).fetchall()
    if not rows:
        return 0
    gone = connection.execute(
        "DELETE FROM entry WHERE key = ? AND at <= ? RETURNING amount", (key, now - seconds)
    ).fetchall()
    [(total,)] = rows
    if gone:
        total -= sum(amount for (amount,) in gone)
        connection.execute("UPDATE log SET total = ? WHERE key = ?", (total, key))
    return int(total)


def _whenLeft(connection: sqlite3.Connection, key: str, amount: int) -> float | None:
    """The time of the entry with which so much, or all, will have left."""
    time = None
    entries = "SELECT at, amount FROM entry WHERE key = ? ORDER BY at"
    with contextlib.closing(connection.execute(entries, (key,))) as found:
        for at, counted in found:
            time = at
            amount -= counted
            if amount <= 0:
                break
    return time


def _add(connection: sqlite3.Connection, key: str, seconds: int, now: float, cost: int) -> int:
    """Count; a clock that was put back does not bring the entries out of order."""
    [(total, last)] = connection.execute(
        "INSERT INTO log VALUES (:key, :cost, :now, :now + :seconds) ON CONFLICT DO UPDATE"
        " SET total = total + :cost,"
        " last = CASE WHEN total THEN max(last, :now) ELSE :now END,"
        " ends = CASE WHEN total THEN max(last, :now) ELSE :now END + :seconds"
        " RETURNING total, last",
        {"key": key, "seconds": seconds, "cost": cost, "now": now},
    ).fetchall()
    connection.execute(
        "INSERT INTO entry VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET amount = amount + ?",
        (key, last, cost, cost),
    )
    if total == cost:
        over = "SELECT key FROM log WHERE ends <= ? ORDER BY ends LIMIT ?"
        _drop(connection, connection.execute(over, (now, _TIDIED)).fetchall())
    return int(total)


def _bound(connection: sqlite3.Connection, size: int) -> None:
    """Drop the logs that would end first when there are too many."""
    [(count,)] = connection.execute("SELECT count(*) FROM log").fetchall()
    if count > size:
        first = "SELECT key FROM log ORDER BY ends LIMIT ?"
        _drop(connection, connection.execute(first, (count - size,)).fetchall())


def _drop(connection: sqlite3.Connection, keys: Sequence[tuple[str]]) -> None:
    connection.executemany("DELETE FROM entry WHERE key = ?", keys)
    connection.executemany("DELETE FROM log WHERE key = ?", keys)
