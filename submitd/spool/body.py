"""The octets of a message, read from the data base one chunk at a time.

A body with a hole in it, longer than it was, or with a chunk that cannot be read or whose checksum
is another one is damaged: whoever reads it is told, and the message is put on hold.  One that has
gone meanwhile is not: a node that took it over has delivered it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from zlib import crc32

import sqlalchemy as sa
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd.interfaces import IBody
from submitd.spool.database import isDamage
from submitd.spool.prepared import Prepared
from submitd.spool.records import Damaged
from submitd.spool.rows import octets
from submitd.spool.schema import message, part
from submitd.threads import Run

_FIRST = Prepared(
    sa.select(message.c.size, message.c.fields, part.c.data, part.c.checksum)
    .outerjoin_from(message, part, sa.and_(part.c.message == message.c.id, part.c.sequence == 0))
    .where(message.c.id == sa.bindparam("id"))
)
_PART = Prepared(
    sa.select(part.c.data, part.c.checksum).where(
        part.c.message == sa.bindparam("id"), part.c.sequence == sa.bindparam("at")
    )
)
# A finished message may have a record, but no body any more.
_HAS_BODY = Prepared(
    sa.select(message.c.id).where(message.c.id == sa.bindparam("id"), message.c.finished.is_(None))
)


def firstChunk(connection: sa.Connection, id: str) -> tuple[int, bytes, bytes] | None:
    """A message's size, its fields and its first chunk.

    :raise Damaged: when they cannot be read, or the chunk is not what it was.
    """
    row = _found(connection, _FIRST, id, 0)
    return None if row is None else (row.size, octets(row.fields), _dataOf(row, id, 0))


def chunk(connection: sa.Connection, id: str, sequence: int) -> bytes:
    """A chunk of its body; nothing for one that is missing.

    :raise LookupError: when the message is there no more, for somebody else has delivered it.
    :raise Damaged: when it cannot be read, or is not what it was.
    """
    row = _found(connection, _PART, id, sequence)
    if row is not None:
        return _dataOf(row, id, sequence)
    if _found(connection, _HAS_BODY, id, sequence) is None:
        raise LookupError(f"there is no message {id} any more")
    return b""


def _found(connection: sa.Connection, statement: Prepared, id: str, sequence: int) -> Any:
    try:
        return statement.run(connection, {"id": id, "at": sequence}).one_or_none()
    except sa.exc.DatabaseError as error:
        # What passes is no reason to hold a message for good.
        if not isDamage(error):
            raise
        raise Damaged(id, f"chunk {sequence} of its body cannot be read: {error.orig}") from error


def _dataOf(row: Any, id: str, sequence: int) -> bytes:
    data = octets(row.data)
    if row.checksum is not None and crc32(data) != row.checksum:
        raise Damaged(id, f"chunk {sequence} of its body is not what it was")
    return data


@implementer(IBody)
class Body:
    """The octets of a message, read one chunk at a time.

    :param messageId: which message.
    :param look: reads in a thread.
    :param quarantine: told of a damaged message, to put it on hold.
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
            found = self._look(firstChunk, self._id).addCallback(self._first)
        else:
            found = self._look(chunk, self._id, self._sequence).addCallback(self._count)
        return found.addErrback(self._failed)

    def _first(self, found: tuple[int, bytes, bytes] | None) -> bytes:
        if found is None:
            raise LookupError(f"there is no message {self._id}")
        self._left, fields, data = found
        return self._count(fields + data)

    def _count(self, data: bytes) -> bytes:
        if (not data and self._left) or len(data) > self._left:
            raise Damaged(self._id, f"chunk {self._sequence} of its body is missing or too long")
        self._sequence += 1
        self._left -= len(data)
        return data

    def _failed(self, failure: Failure) -> Any:
        if isinstance(failure.value, Damaged):
            return self._quarantine(failure.value).addCallback(lambda _: failure)
        return failure
