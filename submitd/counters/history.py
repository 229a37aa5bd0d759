"""What each login usually does: whom it writes to, and how much in a day.

One SQLite file, one row per login, bounded: the last :data:`MAX_RECIPIENTS` recipients, as digests
of 8 octets, and the last :data:`MAX_DAYS` days.  The rows of the logins at work are in memory; what
changed is written every few seconds, so a crash forgets little, and nobody waits for the disk.  A
brake and its release are written at once.

The functions of :class:`HistoryFile` block and may raise ``sqlalchemy.exc.SQLAlchemyError`` or
``OSError``; they are called in a thread, and any number of processes may call them on one file.
Who waits for another thread that then fails has failed with it, and does not wait once more.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import attrs
import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from submitd.databases import alone

T = TypeVar("T")

MAX_RECIPIENTS = 5000
MAX_DAYS = 29
DAY = 86400

_DIGEST = 8

_tables = sa.MetaData()
_usual = sa.Table(
    "usual",
    _tables,
    sa.Column("login", sa.Text, primary_key=True),
    sa.Column("recipients", sa.LargeBinary, nullable=False, server_default=sa.text("x''")),
    sa.Column("days", sa.Text, nullable=False, server_default="{}"),
    sa.Column("braked", sa.Float, nullable=False, server_default="0"),
    sa.Column("trusted", sa.Float, nullable=False, server_default="0"),
    sa.Column("reason", sa.Text, nullable=False, server_default=""),
)


@attrs.define(eq=False)
class Usual:
    """What one login usually does.

    :param recipients: digests of those it has written to, the latest last.
    :param days: day since 1970 -> recipients on that day.
    :param braked: until when it is braked, in seconds since 1970; 0 for not.
    :param trusted: until when it is not to be braked, by an operator's word.
    :param reason: why it was braked.
    :ivar changed: whether there is something to be written.
    """

    recipients: dict[bytes, None] = attrs.field(factory=dict)
    days: dict[int, int] = attrs.field(factory=dict)
    braked: float = 0.0
    trusted: float = 0.0
    reason: str = ""
    changed: bool = False

    def learn(self, recipients: Sequence[bytes], day: int) -> None:
        """Take these as usual."""
        for each in recipients:
            self.recipients.pop(each, None)
            self.recipients[each] = None
        while len(self.recipients) > MAX_RECIPIENTS:
            del self.recipients[next(iter(self.recipients))]
        self.days[day] = self.days.get(day, 0) + len(recipients)
        while len(self.days) > MAX_DAYS:
            # The one farthest away: days that are to come, of a clock that was ahead, are never the
            # oldest, and would leave no room for today.
            del self.days[max(self.days, key=lambda each: abs(each - day))]
        self.changed = True

    def perDay(self, day: int) -> tuple[int, float]:
        """The days before this one on which it sent, and how much on each of them."""
        before = [count for each, count in self.days.items() if day - MAX_DAYS < each < day]
        return len(before), sum(before) / max(len(before), 1)


class HistoryFile:
    """The file.

    :param path: made when it is not there and its directory is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._engine = sa.create_engine(
            sa.URL.create("sqlite", database=str(path)),
            poolclass=sa.pool.StaticPool,
            connect_args={"check_same_thread": False, "timeout": 5.0},
        )
        self._isReady = False
        self._lock = threading.Lock()
        self._failures = 0

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        before = self._failures
        with self._lock:
            if self._failures != before:
                raise OSError("cannot be used, as another thread has just found")
            try:
                with self._begin() as connection:
                    yield connection
            except (sa.exc.SQLAlchemyError, OSError):
                self._failures += 1
                raise

    def _begin(self) -> Any:
        if not self._isReady:
            with alone(self._path.parent):
                self._make()
            self._isReady = True
        return self._engine.begin()

    def _make(self) -> None:
        # It says who writes to whom.  One that is there is not opened: closing it again would drop
        # the locks that SQLite holds for this process.
        with contextlib.suppress(FileExistsError):
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC
            os.close(os.open(self._path, flags, 0o600))
        with self._engine.connect() as connection:
            # Readers and the one writer do not wait for each other, in any process.
            connection.execute(sa.text("PRAGMA journal_mode=WAL")).close()
            connection.execute(sa.text("PRAGMA synchronous=NORMAL")).close()
        with self._engine.begin() as connection:
            # Workers that start together do not make the table both.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            _tables.create_all(connection)

    def read(self, login: str) -> Usual:
        """What is known of a login; what cannot be read in its row is as if it was not there."""
        with self._transaction() as connection:
            return self._find(connection, login)

    def change(self, login: str, change: Callable[[Usual], T]) -> T:
        """Look at a login and change what is known of it, with no other process in between.

        :param change: is given what is known, changes it, and says what came of it.
        :return: that.
        """
        with self._transaction() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            usual = self._find(connection, login)
            braked = usual.braked
            result = change(usual)
            values: dict[str, Any] = {}
            if usual.changed:
                values["recipients"], values["days"] = packed(usual)
            if usual.braked != braked:
                values.update(braked=usual.braked, reason=usual.reason)
            if values:
                self._put(connection, login, **values)
            return result

    def _find(self, connection: sa.Connection, login: str) -> Usual:
        row = connection.execute(sa.select(_usual).where(_usual.c.login == login)).one_or_none()
        if row is None:
            return Usual()
        digests = bytes(row.recipients)
        recipients = [digests[at : at + _DIGEST] for at in range(0, len(digests), _DIGEST)]
        return Usual(
            dict.fromkeys(recipients[-MAX_RECIPIENTS:]),
            _days(row.days),
            row.braked,
            row.trusted,
            row.reason,
        )

    def write(self, rows: Sequence[tuple[str, bytes, str]]) -> None:
        """Keep what logins usually do.

        :param rows: login, and what :func:`packed` makes of it.
        """
        with self._transaction() as connection:
            for login, recipients, days in rows:
                self._put(connection, login, recipients=recipients, days=days)

    def brake(self, login: str, until: float, reason: str) -> None:
        """Brake a login."""
        with self._transaction() as connection:
            self._put(connection, login, braked=until, reason=reason)

    def letGo(self, login: str, until: float) -> bool:
        """Let a login go, and do not brake it before that time.

        :return: whether it was braked.
        """
        with self._transaction() as connection:
            found = connection.execute(
                sa.update(_usual)
                .where(_usual.c.login == login, _usual.c.braked > 0)
                .values(braked=0.0, trusted=until)
            )
            return bool(found.rowcount)

    def _put(self, connection: sa.Connection, login: str, **values: Any) -> None:
        statement = insert(_usual).values(login=login, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["login"], set_=values))

    def close(self) -> None:
        """Close it, when whoever is at it in another thread is done: SQLite would crash."""
        with self._lock:
            self._engine.dispose()


def copied(path: Path, directory: Path) -> Path:
    """Copy a file as it is now, with what has been written to it of late.

    :return: the copy, in the directory; not there where the file is not.
    """
    for name in (path.name, f"{path.name}-wal"):
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(path.with_name(name), directory / name)
    return directory / path.name


def packed(usual: Usual) -> tuple[bytes, str]:
    """The recipients and the days, as they are kept."""
    return b"".join(usual.recipients), json.dumps(usual.days)


def _days(text: str) -> dict[int, int]:
    try:
        return {int(day): int(count) for day, count in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError):
        return {}
