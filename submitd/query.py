"""One SQL statement, asked again and again of the operator's data base.

Its parameters (``:login``) are bound, never text of the statement.  Each question runs in another
thread, on a connection of its own.  Only a few are asked at once, and the data base itself has a
limit for each: one that hangs leaves threads to others, and lets the service end.  Where it does
not keep its limit, the connection is cut.  What nobody waits for any more is not asked.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from submitd.databases import readUrl, shownUrl
from submitd.threads import Run, deferToThread
from submitd.turns import InTurn

MAX_ROWS = 10_000
"""Rows of one answer that are read."""

CONNECT_TIMEOUT = 10
"""Seconds to wait for PostgreSQL to take a connection."""

ANSWER_TIMEOUT = 10
"""Seconds for an answer: PostgreSQL ends the statement then, and SQLite waits so long for a lock.

PostgreSQL that does not even acknowledge what it is sent is given up after the same time.
"""

GRACE = 2
"""Seconds more for PostgreSQL to say that it has ended a statement; one that is frozen does not."""

MAX_THREADS = 4
"""Questions that may be in threads at one time: the reactor's are for other things too."""

# By the driver.  Without keepalives a host that dies while it has the question is waited for; it is
# given up by the first of them that goes out when nothing has been acknowledged for the time.
_LIMITS = {
    "postgresql+psycopg": {
        "connect_timeout": CONNECT_TIMEOUT,
        "keepalives_idle": ANSWER_TIMEOUT // 2,
        "keepalives_interval": ANSWER_TIMEOUT // 5,
        "tcp_user_timeout": ANSWER_TIMEOUT * 1000,
    },
    "sqlite": {"timeout": ANSWER_TIMEOUT},
}

Rows = Sequence[Sequence[Any]]


class NoAnswer(Exception):
    """The data base does not say; the text is one line for the log, without values."""


class Query:
    """A statement, and where it is asked.

    :param url: the data base, as SQLAlchemy writes it, such as ``"postgresql:///mail"``.
    :param statement: a SELECT.
    :param parameters: those that it may have; it must have ``:login``.
    :param run: runs a function in a thread and gives a Deferred.
    :ivar parameters: those that it has, in the order of the alphabet.
    :raise ValueError: for a URL or a statement that cannot be used; says why.
    """

    def __init__(
        self, url: str, statement: str, parameters: frozenset[str], run: Run = deferToThread
    ) -> None:
        self._engine = _engine(url)
        self._statement = sa.text(statement)
        self.parameters = sorted(self._statement.compile().params)
        unknown = set(self.parameters) - parameters
        if unknown:
            raise ValueError(f"query has the parameter :{min(unknown)}, which there is not")
        if "login" not in self.parameters:
            raise ValueError("query must have the parameter :login")
        self._inTurn = InTurn(run, MAX_THREADS)

    @property
    def name(self) -> str:
        """The data base as logs show it; a password is not shown."""
        return shownUrl(self._engine.url)

    def check(self) -> list[str]:
        """Ask once; what is wrong, in sentences; for ``IChecked``."""
        try:
            self._rows(dict.fromkeys(self.parameters, ""))
        except sa.exc.SQLAlchemyError as error:
            return [f"{self.name}: {_cause(error)}"]
        return []

    async def ask(self, values: Mapping[str, str]) -> Rows:
        """The rows.

        :param values: of the parameters that it has, by name.
        :raise NoAnswer: when the data base does not say.
        """
        try:
            rows: Rows = await self._inTurn.call(self._rows, values)
        except sa.exc.SQLAlchemyError as error:
            raise NoAnswer(f"{self.name}: {_cause(error)}") from None
        return rows

    def _rows(self, values: Mapping[str, str]) -> Rows:
        """In another thread."""
        asking = self._engine.connect()
        with _cutOff(asking), asking as connection:
            if connection.dialect.name == "postgresql":
                # In the transaction, and not by the options of the connection, which PgBouncer
                # would refuse.
                limit = f"SET LOCAL statement_timeout = {ANSWER_TIMEOUT * 1000:.0f}"
                connection.exec_driver_sql(limit)
            return connection.execute(self._statement, dict(values)).fetchmany(MAX_ROWS)


@contextlib.contextmanager
def _cutOff(connection: sa.Connection) -> Iterator[None]:
    """End a connection to a PostgreSQL that does not even keep its own limit, such as a frozen one.

    Its thread would be waited for at the end of the process, and its turn would be nobody's.
    """
    if connection.dialect.name != "postgresql":
        yield
        return
    driver: Any = connection.connection.driver_connection
    # A descriptor of our own: that of the driver may be somebody else's by then.
    with socket.socket(fileno=os.dup(driver.fileno())) as link:
        timer = threading.Timer(ANSWER_TIMEOUT + GRACE, _shut, (link,))
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()


def _shut(link: socket.socket) -> None:
    with contextlib.suppress(OSError):
        link.shutdown(socket.SHUT_RDWR)


def _engine(url: str) -> sa.Engine:
    parsed = readUrl(url, "postgresql://user@host/mail")
    try:
        if parsed.drivername in ("postgresql", "postgres"):
            parsed = parsed.set(drivername="postgresql+psycopg")
        limits = _LIMITS.get(parsed.drivername, {})
        # What stands in the URL is the operator's will.
        limits = {name: value for name, value in limits.items() if name not in parsed.query}
        return sa.create_engine(parsed, poolclass=NullPool, connect_args=limits)
    except sa.exc.ArgumentError:
        raise ValueError('url must be such as "postgresql://user@host/mail"') from None
    except ImportError as error:
        raise ValueError(f"url needs a package that is not there: {error.name}") from None


def _cause(error: sa.exc.SQLAlchemyError) -> str:
    """Why, in one line; without the statement and its values, which SQLAlchemy would add."""
    return " ".join(str(getattr(error, "orig", None) or error).split())
