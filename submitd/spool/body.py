"""The octets of a message, read from the data base one chunk at a time.

A body with a hole in it, or longer than it was, is damaged: whoever reads it is told, and the
message is put on hold.  One that has gone meanwhile is not: a node that took it over has delivered
it.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd.interfaces import IBody
from submitd.spool.prepared import Prepared
from submitd.spool.records import Damaged
from submitd.spool.rows import octets
from submitd.spool.schema import message, part
from submitd.threads import Run

_FIRST = Prepared(
    sa.select(message.c.size, message.c.fields, part.c.data)
    .outerjoin_from(message, part, sa.and_(part.c.message == message.c.id, part.c.sequence == 0))
    .where(message.c.id == sa.bindparam("id"))
)
_PART = Prepared(
    sa.select(part.c.data).where(
        part.c.message == sa.bindparam("id"), part.c.sequence == sa.bindparam("at")
    )
)
# A finished message may have a record, but no body any more.
_HAS_BODY = Prepared(
    sa.select(message.c.id).where(message.c.id == sa.bindparam("id"), message.c.finished.is_(None))
)


def firstChunk(connection: sa.Connection, id: str) -> tuple[int, bytes, bytes] | None:
    """A message's size, its fields and its first chunk."""
    row = _FIRST.run(connection, {"id": id}).one_or_none()
    return None if row is None else (row.size, octets(row.fields), octets(row.data))


def chunk(connection: sa.Connection, id: str, sequence: int) -> bytes | None:
    """A chunk of its body.

    :raise LookupError: when the message is there no more, for somebody else has delivered it.
    """
    data = _PART.run(connection, {"id": id, "at": sequence}).scalar()
    if data is not None:
        return octets(data)
    if _HAS_BODY.run(connection, {"id": id}).scalar() is None:
        raise LookupError(f"there is no message {id} any more")
    return None


@implementer(IBody)
class Body:
    """The octets of a message, read one chunk at a time.

    :param messageId: which message.
    :param look: reads in a thread.
    :param quarantine: puts a damaged message on hold.
    """

    def __init__(
        self,
        messageId: str,
        look: Run,
        quarantine: Callable[[Damaged], Deferred[None]],
    ) -> None:
        self._id = messageId
        self._look = look
        self._quarantine = quarantine
        self._sequence = 0
        self._left = -1

    def next(self) -> Deferred[bytes]:
        """See :meth:`submitd.interfaces.IBody.next`."""
        if self._left == 0:
            return succeed(b"")
        if self._left < 0:
            return self._look(firstChunk, self._id).addCallback(self._first)
        return self._look(chunk, self._id, self._sequence).addCallback(self._next)

    def _first(self, found: tuple[int, bytes, bytes] | None) -> bytes | Deferred[bytes]:
        if found is None:
            raise LookupError(f"there is no message {self._id}")
        self._left, fields, data = found
        return self._count(fields + data)

    def _next(self, data: bytes | None) -> bytes | Deferred[bytes]:
        return self._count(data or b"")

    def _count(self, data: bytes) -> bytes | Deferred[bytes]:
        self._sequence += 1
        if (not data and self._left) or len(data) > self._left:
            damaged = Damaged(
                self._id, f"chunk {self._sequence - 1} of its body is missing or too long"
            )
            return self._quarantine(damaged).addCallback(lambda _: Failure(damaged))
        self._left -= len(data)
        return data
