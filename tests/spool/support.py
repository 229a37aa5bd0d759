"""What the tests of the spool share: envelopes, a queue without threads, a clock."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from submitd.deliveries.spool import Spool
from submitd.envelope import Envelope, Recipient
from submitd.session import Session
from submitd.spool.database import Database
from submitd.spool.queue import Queue
from submitd.spool.records import Settlement, State, Work
from submitd.wire.address import NULL_PATH, Mailbox, ReversePath
from tests.spool import postgres

NOW = 1_800_000_000.0


class Time:
    """A clock that stands."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def makeEnvelope(
    id: str, *recipients: str, sender: str = "alice@example.com", **extensions: Any
) -> Envelope:
    """An envelope for these recipients, bob@example.net where none is given."""
    path = ReversePath(Mailbox.parse(sender.encode())) if sender else NULL_PATH
    to = [Recipient(Mailbox.parse(each.encode())) for each in recipients or ("bob@example.net",)]
    return Envelope(id, path, recipients=to, extensions=extensions)


class User:
    """An avatar."""

    def __init__(self, avatarId: str) -> None:
        self.avatarId = avatarId


def makeSession(login: str = "alice") -> Session:
    """A session, logged in."""
    session = Session("192.0.2.7", 40000)
    user: Any = User(login) if login else None
    session.user = user
    return session


TRACE = b"Received: from client\r\n\tby mail.example.com; now\r\n"


class Gate:
    """Runs calls when it is told to, so that a test can look in between."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Deferred[Any], Callable[..., Any], Any]] = []

    def run(self, call: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        result: Deferred[Any] = Deferred()
        self.waiting.append((result, call, arguments))
        return result

    def open(self) -> None:
        """Run what waits, and what comes of it."""
        while self.waiting:
            result, call, arguments = self.waiting.pop(0)
            maybeDeferred(call, *arguments).chainDeferred(result)


class SpoolCase(SynchronousTestCase):
    """A test with a queue in an SQLite data base, whose calls run at once."""

    def setUp(self) -> None:
        self.time = Time()
        self.path = Path(self.mktemp())
        self.spool = self.makeSpool()
        self.queue = self.spool.queue

    def options(self) -> dict[str, Any]:
        """Where the data base is."""
        return {"path": self.path}

    def makeSpool(self, **changes: Any) -> Spool:
        """One more process's side of the same spool."""
        spool = Spool(**{**self.options(), **changes})
        spool.queue.now = self.time
        self.start(spool)
        return spool

    def start(self, spool: Spool) -> None:
        self.addCleanup(spool.stop)
        self.successResultOf(spool.queue.runIn(maybeDeferred, maybeDeferred))

    def begin(self, id: str, *recipients: str, session: Any = None, **changes: Any) -> Any:
        """A message on its way in, its trace field written."""
        spool = changes.pop("spool", self.spool)
        message = spool.begin(session or makeSession(), makeEnvelope(id, *recipients, **changes))
        self.assertIsNone(message.dataReceived(TRACE))
        return message

    def send(
        self, id: str, *recipients: str, text: bytes = b"Subject: x\r\n\r\nx\r\n", **changes: Any
    ) -> str:
        """Submit a message; its queue id."""
        message = self.begin(id, *recipients, **changes)
        message.dataReceived(text)
        kept: str = self.successResultOf(message.eomReceived())
        return kept

    def lease(
        self, limit: int = 100, seconds: float = 60.0, queue: Queue | None = None
    ) -> list[Work]:
        """Take what is due."""
        return self.successResultOf((queue or self.queue).lease(limit, seconds))

    def settle(self, work: Work, state: State, reply: str = "said", **changes: Any) -> None:
        """The same outcome for all recipients of a lease."""
        due = self.time.now + 300 if state is State.DELAYED else None
        settlements = [
            Settlement(position=each.position, state=state, reply=reply, due=due)
            for each in work.recipients
        ]
        self.successResultOf(self.queue.settle(work, settlements, **changes))

    def body(self, id: str) -> bytes:
        """All octets of a message."""
        body, read = b"", self.queue.read(id)
        while chunk := self.successResultOf(read.next()):
            body += chunk
        return body

    def sql(self, text: str) -> Any:
        """What a statement gives, for tests that look behind the curtain or damage something."""
        database = Database(**self.where())
        try:
            with database.connect() as connection:
                result = connection.exec_driver_sql(text)
                rows = result.all() if result.returns_rows else []
                connection.commit()
        finally:
            database.dispose()
        return rows

    def where(self) -> dict[str, Any]:
        """Of the options, those of the data base."""
        return self.options()


class PostgresCase(SpoolCase):
    """The same in PostgreSQL."""

    def setUp(self) -> None:
        postgres.require(self)
        super().setUp()

    def options(self) -> dict[str, Any]:
        return {"url": postgres.server().url}

    def sql(self, text: str) -> Any:
        return postgres.server().sql(text)
