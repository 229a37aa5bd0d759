"""Keeps every message in the durable queue, from which the relay delivers it.

A message is one transaction with its envelope; many that end at the same time share one sync of the
disk.  Only when that is done does :meth:`SpooledMessage.eomReceived` fire.  Up to
:data:`submitd.spool.accepting.CHUNK` octets wait in memory; from there on chunks go to the data
base while the client waits, where nobody sees them before the end, so a message of any size takes
the same memory.

The same submission (login, Message-ID, sender, recipients, what was asked for each of them, every
octet) within the window is answered with the first queue id, and kept once: a client whose 250 was
lost on the way sends again.
A message without a Message-ID is never taken for another.

A full disk is 452 4.3.1, any other failure 451 4.3.0.  After either, and after an abort, nothing of
the message is left; what a crash left is cleared away later.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd import events
from submitd.envelope import Envelope
from submitd.equality import sameAddress
from submitd.interfaces import (
    IBlindCopyDelivery,
    IChecked,
    IExtendedDelivery,
    IHoldingDelivery,
    IMessage,
    IRunning,
)
from submitd.session import Session
from submitd.spool.accepting import CHUNK, Acceptance, Accepted, Upload
from submitd.spool.database import Database
from submitd.spool.queue import Queue
from submitd.spool.rows import messageRow, recipientRows
from submitd.typed import Seconds
from submitd.waiting import allOf
from submitd.wire.reply import Reply

Outcome = str | Sequence[Reply] | None

MAX_HEADER = 256 * 1024
"""Octets in which a Message-ID is looked for."""

# RFC 5322 3.6.4, for a section in lower case, as names of fields have no case.  It begins with
# fixed octets, which re finds faster than the beginning of each line.
_MESSAGE_ID = re.compile(rb"\r\nmessage-id[ \t]*:(?:[ \t]|\r\n[ \t])*[^ \t\r\n]")
# A whole field, its further lines folded (RFC 5322 2.2.3).
_RECEIVED = re.compile(rb"Received:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*")


@implementer(IExtendedDelivery, IHoldingDelivery, IBlindCopyDelivery, IRunning, IChecked)
@attrs.define(eq=False)
class Spool:
    """Delivers into the queue.

    :param path: the directory of an SQLite data base; made, mode 0700, when the one above is there.
    :param url: or a PostgreSQL data base, which several nodes may share.
    :param window: seconds for which a submission is known again; 0 for never.
    :param keep: seconds for which the record of a finished message is kept, without its body.
    :raise ValueError: unless either path or url is given.
    :ivar queue: the queue, for the relay and for operators.
    :ivar extensions: what the queue acts on (``IExtendedDelivery``).
    """

    path: Path | None = attrs.field(
        default=None,
        metadata={"help": "The directory of the queue; made when the one above it is there."},
    )
    url: str = attrs.field(
        default="",
        repr=False,
        metadata={
            "help": 'In place of path, a PostgreSQL data base such as "postgresql:///submitd", '
            "which several nodes may share."
        },
    )
    window: Seconds = attrs.field(
        default=Seconds(3600.0),
        metadata={
            "help": "How long a submission is known again: the same message, sent again by the "
            "same login, is answered with the first queue id and kept once. 0 for never."
        },
    )
    keep: Seconds = attrs.field(
        default=Seconds(0.0),
        metadata={
            "help": "How long the record of a message is kept when it has been delivered or "
            "given up: its envelope and history, not its body."
        },
    )
    queue: Queue = attrs.field(init=False, repr=False)
    extensions: frozenset[str] = attrs.field(
        init=False, repr=False, default=frozenset({"FUTURERELEASE", "MT-PRIORITY", "DELIVERBY"})
    )

    def __attrs_post_init__(self) -> None:
        path = None if self.path is None else Path(self.path)
        self.queue = Queue(Database(path, self.url), keep=self.keep, window=self.window)

    def start(self, reactor: Any) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.start`."""
        return self.queue.start(reactor)

    def stop(self) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.stop`."""
        return self.queue.stop()

    def begin(self, session: Session, envelope: Envelope) -> SpooledMessage:
        """See :meth:`submitd.interfaces.IDelivery.begin`; nothing touches the disk yet."""
        return SpooledMessage(self.queue, session, envelope)

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        return self.queue.database.check()


@implementer(IMessage)
class SpooledMessage:
    """A message on its way into the queue.

    :param queue: where it goes.
    :param session: whom it comes from.
    :param envelope: the mail transaction.
    """

    def __init__(self, queue: Queue, session: Session, envelope: Envelope) -> None:
        self._queue = queue
        self._session = session
        self._envelope = envelope
        self._fields: bytes | None = None
        self._waiting: list[bytes] = []
        self._waitingSize = 0
        self._uploaded = 0
        self._size = 0
        self._eightBit = False
        self._digest = hashlib.sha256()
        self._hasMessageId = False

    def dataReceived(self, chunk: bytes) -> Deferred[None] | None:
        """See :meth:`submitd.interfaces.IMessage.dataReceived`."""
        if self._fields is None:
            # The first call is our own trace field: unlike the client's octets, it is another one
            # when the same message comes again.
            self._fields = b""
            if _RECEIVED.fullmatch(chunk):
                self._fields = chunk
                return None
        self._digest.update(chunk)
        self._size += len(chunk)
        self._eightBit = self._eightBit or not chunk.isascii()
        self._waiting.append(chunk)
        self._waitingSize += len(chunk)
        return self._upload() if self._waitingSize >= CHUNK else None

    def _upload(self) -> Deferred[None]:
        uploading = []
        for data in self._taken():
            upload = Upload(
                id=self._envelope.id, sequence=self._uploaded, data=data, now=self._queue.now()
            )
            self._uploaded += 1
            uploading.append(self._queue.add(upload))
        # Every one of them counts, or there would be a hole.
        return allOf(uploading)

    def _taken(self) -> list[bytes]:
        """All that waits, in rows."""
        data = b"".join(self._waiting)
        if self._uploaded == 0:
            self._hasMessageId = hasMessageId(data)
        self._waiting.clear()
        self._waitingSize = 0
        return [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]

    def prepend(self, fields: bytes) -> None:
        """See :meth:`submitd.interfaces.IMessage.prepend`."""
        self._fields = fields + (self._fields or b"")

    def eomReceived(self) -> Deferred[Outcome]:
        """See :meth:`submitd.interfaces.IMessage.eomReceived`."""
        accepting = self._queue.accept(self._acceptance())
        return accepting.addCallbacks(self._accepted, self._failed)

    def _acceptance(self) -> Acceptance:
        chunks, arrived, fields = self._taken(), self._queue.now(), self._fields or b""
        row = messageRow(
            self._envelope,
            arrived,
            fields,
            len(fields) + self._size,
            eightBit=self._eightBit or not fields.isascii(),
            login=self._login,
            client=self._session.remoteAddress,
            digest=self._submissionDigest() if self._hasMessageId and self._queue.window else None,
        )
        return Acceptance(
            message=row,
            recipients=recipientRows(self._envelope, arrived),
            chunks=chunks,
            uploaded=self._uploaded,
            window=self._queue.window,
        )

    @property
    def _login(self) -> str:
        user = self._session.user
        return "" if user is None else user.avatarId

    def _submissionDigest(self) -> bytes:
        """What is equal for the same submission alone; the content has its Message-ID in it."""
        envelope = self._envelope
        who = self._login or f"[{self._session.remoteAddress}]"
        sender = (str(envelope.reversePath), _asked(envelope.parameters))
        recipients = sorted(
            [(sameAddress(each.mailbox), _asked(each.parameters)) for each in envelope.recipients]
        )
        told = repr((who, sender, recipients, self._digest.digest()))
        return hashlib.blake2b(told.encode("utf-8", "surrogatepass"), digest_size=32).digest()

    def _accepted(self, accepted: Accepted) -> Outcome:
        if accepted.isRepeat:
            events.emit(
                events.SUBMISSION_REPEATED,
                session=self._session.id,
                id=self._envelope.id,
                first=accepted.id,
                user=self._login,
            )
        return accepted.id

    def _failed(self, failure: Failure) -> Failure:
        self.connectionLost()
        return failure

    def connectionLost(self) -> None:
        """See :meth:`submitd.interfaces.IMessage.connectionLost`."""
        self._waiting.clear()
        if self._uploaded:
            # When this fails as well, the chunks are cleared away later.
            self._queue.abandon(self._envelope.id).addErrback(lambda _: None)


def _asked(parameters: Mapping[str, str | None]) -> str:
    """What is the same where the same was asked for; the size says nothing of that."""
    if not parameters:
        return ""
    return repr(sorted([each for each in parameters.items() if each[0] != "SIZE"]))


def hasMessageId(head: bytes) -> bool:
    """Whether there is a Message-ID in the header section of a message.

    :param head: the message from its beginning.
    """
    end = 0 if head.startswith(b"\r\n") else head.find(b"\r\n\r\n", 0, MAX_HEADER)
    section = b"\r\n" + head[: MAX_HEADER if end < 0 else end]
    return _MESSAGE_ID.search(section.lower()) is not None
