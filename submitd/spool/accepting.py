"""Accepting: a message comes into the queue, at once or chunk by chunk, and is known again.

Statements for :mod:`submitd.spool.writer`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from zlib import crc32

import attrs
import sqlalchemy as sa

from submitd.spool.endings import DROP_PARTS, FORGET_DIGEST, historyRow, note
from submitd.spool.prepared import Prepared
from submitd.spool.records import NewMessage, State
from submitd.spool.rows import Row, messageRow, recipientRows
from submitd.spool.schema import message, part, recipient, submission, upload
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR

CHUNK = 256 * 1024
"""Octets of a body in one row."""


@attrs.frozen(kw_only=True, eq=False)
class Upload:
    """A chunk of a message that is not complete yet."""

    id: str
    sequence: int
    data: bytes
    now: float


@attrs.frozen(kw_only=True, eq=False)
class Acceptance:
    """A whole message.

    :param chunks: what of its body has not been uploaded.
    :param uploaded: how many chunks have.
    :param window: for how many seconds the same submission is known again.
    """

    message: Row
    recipients: list[Row]
    chunks: Sequence[bytes]
    uploaded: int = 0
    window: float = 0.0


@attrs.frozen
class Accepted:
    """The answer: under which id it is kept, and whether it had been there already."""

    id: str
    isRepeat: bool = False


_ADD_MESSAGE = Prepared(sa.insert(message))
_ADD_PART = Prepared(sa.insert(part))
_ADD_RECIPIENT = Prepared(sa.insert(recipient))
_ADD_SUBMISSION = Prepared(
    sa.text(
        "INSERT INTO submission (digest, message, at) VALUES (:digest, :message, :at)"
        " ON CONFLICT DO NOTHING"
    )
)
_ADD_UPLOAD = Prepared(sa.insert(upload))
_TOUCH = Prepared(
    sa.update(upload)
    .where(upload.c.message == sa.bindparam("id"))
    .values(touched=sa.bindparam("now"))
)
_END_UPLOAD = Prepared(sa.delete(upload).where(upload.c.message == sa.bindparam("id")))
_KNOWN = sa.select(submission).where(
    submission.c.digest.in_(sa.bindparam("digests", expanding=True))
)


def add(connection: sa.Connection, uploads: list[Upload]) -> list[None]:
    """Keep chunks of messages that nobody sees yet."""
    for each in uploads:
        if each.sequence == 0:
            _ADD_UPLOAD.run(connection, {"message": each.id, "touched": each.now})
        else:
            _expectOne(_TOUCH.run(connection, {"id": each.id, "now": each.now}))
    _ADD_PART.run(
        connection,
        [_partRow(each.id, each.sequence, each.data) for each in uploads],
    )
    return [None] * len(uploads)


def _expectOne(result: sa.CursorResult[Any]) -> None:
    if result.rowcount != 1:
        raise Refused(LOCAL_ERROR, "the message's first part has been cleared away")


def abandon(connection: sa.Connection, ids: list[str]) -> list[None]:
    """Drop the chunks of messages that will not be complete; a message that is stays."""
    for each in ids:
        if _END_UPLOAD.run(connection, {"id": each}).rowcount:
            DROP_PARTS.run(connection, {"id": each})
    return [None] * len(ids)


def accept(connection: sa.Connection, acceptances: list[Acceptance]) -> list[Accepted]:
    """Keep messages, each under its own id, or find that one has been kept before."""
    repeated = _repeated(connection, acceptances)
    fresh, results = [], []
    for each in acceptances:
        id: str = each.message["id"]
        results.append(Accepted(repeated.get(id) or id, id in repeated))
        if id not in repeated:
            fresh.append(each)
        elif each.uploaded:
            abandon(connection, [id])
    if fresh:
        _insert(connection, fresh)
    return results


def _repeated(connection: sa.Connection, acceptances: list[Acceptance]) -> dict[str, str]:
    """Those that have been submitted a short while ago: id -> first id.  The others now have."""
    rows = [
        {"digest": digest, "message": each.message["id"], "at": each.message["arrived"]}
        for each in acceptances
        if (digest := each.message["digest"]) is not None
    ]
    if not rows or _ADD_SUBMISSION.run(connection, rows).rowcount == len(rows):
        return {}
    oldest = min(each.message["arrived"] - each.window for each in acceptances)
    latest = max(each.message["arrived"] + each.window for each in acceptances)
    known = {}
    for row in connection.execute(_KNOWN, {"digests": [row["digest"] for row in rows]}):
        if oldest <= row.at <= latest:
            known[bytes(row.digest)] = row.message
        else:
            # Too old, or of a clock that was far ahead, and not cleared away yet: the first of ours
            # takes its place.
            FORGET_DIGEST.run(connection, {"one": row.digest})
    firsts = {}
    for own in rows:
        id, digest = own["message"], own["digest"]
        if digest not in known:
            known[digest] = id
            _ADD_SUBMISSION.run(connection, own)
        if known[digest] != id:
            firsts[id] = known[digest]
    return firsts


def _insert(connection: sa.Connection, acceptances: list[Acceptance]) -> None:
    messages = [each.message for each in acceptances]
    for each in acceptances:
        if each.uploaded:
            _expectOne(_END_UPLOAD.run(connection, {"id": each.message["id"]}))
    _ADD_MESSAGE.run(connection, messages)
    parts = [row for each in acceptances for row in _partRows(each)]
    if parts:
        _ADD_PART.run(connection, parts)
    recipients = [row for each in acceptances for row in each.recipients]
    _ADD_RECIPIENT.run(connection, recipients)
    held = {row["message"]: row["reply"] for row in recipients if row["state"] == State.HELD.value}
    if held:
        at = {row["id"]: row["arrived"] for row in messages}
        note(
            connection,
            [
                historyRow(id, None, at[id], State.HELD.value, reason, "submitd")
                for id, reason in held.items()
            ],
        )


def _partRows(acceptance: Acceptance) -> Iterator[Row]:
    for sequence, data in enumerate(acceptance.chunks, acceptance.uploaded):
        yield _partRow(acceptance.message["id"], sequence, data)


def _partRow(id: str, sequence: int, data: bytes) -> Row:
    # SQLite does not know whether a page is what it wrote, and a disk may give back another one.
    return {"message": id, "sequence": sequence, "data": data, "checksum": crc32(data)}


def ownMessage(made: NewMessage, now: float) -> Acceptance:
    """A message of our own making, ready to be kept."""
    content = made.content
    row = messageRow(made.envelope, now, b"", len(content), eightBit=not content.isascii())
    return Acceptance(
        message=row,
        recipients=recipientRows(made.envelope, now),
        chunks=[content[at : at + CHUNK] for at in range(0, len(content), CHUNK)],
    )
