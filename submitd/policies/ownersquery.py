"""Who owns which addresses, asked of an SQL data base.

The query is the operator's; ``:login``, ``:address`` and ``:domain`` in it are bound parameters,
never text of the statement.  Each row is an address that the login may send from, or a pattern as
in addresses.py, and perhaps a second column: ``as`` (also NULL) or ``on-behalf``.  No rows mean no
right.  The address is asked as equality.py writes it, in lower case and with A-labels.

Each question runs in another thread, on a connection of its own, and its answer is remembered for a
short time.  A row that makes no sense gives no right, and the log says so.  When the data base does
not answer, that is 451 4.3.0, and the next message asks again.

Only a few are asked at once, and the data base itself has a limit for each: one that hangs leaves
threads to others, and lets the service end.  Where it does not keep its limit, the connection is
cut.  What nobody waits for any more is not asked.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.pool import NullPool
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from submitd import events
from submitd.databases import readUrl, shownUrl
from submitd.equality import sameAddress
from submitd.policies.addresses import Addresses, readPattern
from submitd.policies.rights import RIGHTS, Right, best, give
from submitd.threads import Run, deferToThread
from submitd.turns import Turns
from submitd.wire.address import Mailbox
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR

PARAMETERS = frozenset({"login", "address", "domain"})

MAX_ROWS = 10_000
"""Rows of one answer that are read."""

MAX_REMEMBERED = 10_000
"""Answers that are remembered at one time."""

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

Asked = tuple[tuple[str, str], ...]


class OwnersQuery:
    """The query, and its latest answers.

    :param url: the data base, as SQLAlchemy writes it, such as ``"postgresql:///mail"``.
    :param query: the statement.
    :param keep: seconds for which an answer is remembered.
    :param run: runs a function in a thread and gives a Deferred.
    :param seconds: tells the time.
    :raise ValueError: for a URL or a statement that cannot be used; says why.
    """

    def __init__(
        self,
        url: str,
        query: str,
        keep: float,
        run: Run = deferToThread,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = _engine(url)
        self._statement = sa.text(query)
        self._named = sorted(self._statement.compile().params)
        unknown = set(self._named) - PARAMETERS
        if unknown:
            raise ValueError(f"query has the parameter :{min(unknown)}, which there is not")
        if "login" not in self._named:
            raise ValueError("query must have the parameter :login")
        self._keep = keep
        self._run = run
        self._seconds = seconds
        self._turns = Turns(MAX_THREADS)
        self._known: OrderedDict[Asked, tuple[float, Addresses[Right]]] = OrderedDict()

    @property
    def name(self) -> str:
        """The data base as logs show it; a password is not shown."""
        return shownUrl(self._engine.url)

    def check(self) -> list[str]:
        """Ask once; what is wrong, in sentences; for ``IChecked``."""
        try:
            self._rows(dict.fromkeys(self._named, ""))
        except sa.exc.SQLAlchemyError as error:
            return [f"{self.name}: {_cause(error)}"]
        return []

    async def right(self, login: str, mailbox: Mailbox) -> Right:
        """What the login may do with an address.

        :raise Refused: 451 4.3.0 when the data base does not say.
        """
        localPart, domain = sameAddress(mailbox)
        values = {"login": login, "address": f"{localPart}@{domain}", "domain": domain}
        asked = tuple((name, values[name]) for name in self._named)
        until, answer = self._known.get(asked, (0.0, None))
        if answer is None or until < self._seconds():
            answer = await self._ask(asked)
        return best(answer.find(mailbox))

    async def _ask(self, asked: Asked) -> Addresses[Right]:
        # A Deferred of its own: cancelling it must not give the turn away while the thread of this
        # question is still busy.
        answer: Deferred[Sequence[Sequence[Any]]] = Deferred()
        Deferred.fromCoroutine(self._inTurn(asked, answer))
        try:
            rows = await answer
        except sa.exc.SQLAlchemyError as error:
            raise Refused(LOCAL_ERROR, f"{self.name}: {_cause(error)}") from None
        return self._remember(asked, self._read(rows))

    async def _inTurn(self, asked: Asked, answer: Deferred[Sequence[Sequence[Any]]]) -> None:
        await self._turns.acquire()
        try:
            # For an asker that has gone meanwhile there is no thread.
            rows: Any = None if answer.called else await self._run(self._rows, dict(asked))
        except Exception:
            rows = Failure()
        self._turns.release()
        if not answer.called:
            answer.callback(rows)

    def _remember(self, asked: Asked, answer: Addresses[Right]) -> Addresses[Right]:
        self._known[asked] = (self._seconds() + self._keep, answer)
        self._known.move_to_end(asked)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return answer

    def _rows(self, values: dict[str, str]) -> Sequence[Sequence[Any]]:
        """In another thread."""
        asking = self._engine.connect()
        with _cutOff(asking), asking as connection:
            if connection.dialect.name == "postgresql":
                # In the transaction, and not by the options of the connection, which PgBouncer
                # would refuse.
                limit = f"SET LOCAL statement_timeout = {ANSWER_TIMEOUT * 1000:.0f}"
                connection.exec_driver_sql(limit)
            return connection.execute(self._statement, values).fetchmany(MAX_ROWS)

    def _read(self, rows: Sequence[Sequence[Any]]) -> Addresses[Right]:
        answer: Addresses[Right] = Addresses()
        broken = 0
        for address, *kind in rows:
            try:
                right = RIGHTS[kind[0] if kind and kind[0] is not None else "as"]
                give(answer, readPattern(address.encode("utf-8")), right)
            except (ValueError, KeyError, AttributeError):
                broken += 1
        if broken:
            problem = f"{broken} rows of the query make no sense"
            events.emit(events.FILE_PROBLEM, file=self.name, problem=problem)
        return answer


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
