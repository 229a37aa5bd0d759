"""The ends of messages: their history, damage, and what goes when nothing is left to do.

Those functions that take a list of arguments are statements for :mod:`submitd.spool.writer`; the
others are parts of such statements.
"""

from __future__ import annotations

import sqlalchemy as sa

from submitd.spool.prepared import Prepared
from submitd.spool.records import Damaged, State
from submitd.spool.rows import Row, cutReply
from submitd.spool.schema import history, message, part, recipient, submission

FINAL = [state.value for state in State if state.isFinal]

_ADD_HISTORY = Prepared(sa.insert(history))
FORGET_DIGEST = Prepared(sa.delete(submission).where(submission.c.digest == sa.bindparam("one")))
DROP_PARTS = Prepared(sa.delete(part).where(part.c.message == sa.bindparam("id")))
# The message's row is the lock: of two nodes that settle its last two recipients one must see the
# other's, or the message would stay for ever.
_LOCKED = Prepared(
    sa.select(message.c.digest).where(message.c.id == sa.bindparam("id")).with_for_update()
)
_FINISHED = Prepared(
    sa.update(message)
    .where(message.c.id == sa.bindparam("one"))
    .values(finished=sa.bindparam("when"), digest=None)
)
_DROP_MESSAGE = Prepared(sa.delete(message).where(message.c.id == sa.bindparam("id")))
_DROP_RECIPIENTS = Prepared(sa.delete(recipient).where(recipient.c.message == sa.bindparam("id")))
_DROP_HISTORY = Prepared(sa.delete(history).where(history.c.message == sa.bindparam("id")))
_HOLD = (
    sa.update(recipient)
    .where(recipient.c.message == sa.bindparam("id"), recipient.c.state.not_in(FINAL))
    .values(state=State.HELD.value, due=None, token=None, reply=sa.bindparam("reason"))
)


def historyRow(id: str, position: int | None, at: float, event: str, text: str, who: str) -> Row:
    """A line of a message's history."""
    return {
        "message": id,
        "position": position,
        "at": at,
        "event": event,
        "text": cutReply(text),
        "who": who,
    }


def note(connection: sa.Connection, rows: list[Row]) -> None:
    """Put lines on record."""
    if rows:
        _ADD_HISTORY.run(connection, rows)


def lock(connection: sa.Connection, id: str) -> bytes | None:
    """Have a message for this transaction alone.

    :return: its digest.
    """
    digest: bytes | None = _LOCKED.run(connection, {"id": id}).scalar()
    return digest


def forget(connection: sa.Connection, id: str) -> None:
    """Have a message for this transaction alone; submitted again, it is not a repetition."""
    digest = lock(connection, id)
    if digest is not None:
        FORGET_DIGEST.run(connection, {"one": digest})


def forgetAll(connection: sa.Connection, ids: list[str]) -> list[None]:
    """The same of several, whose ends were written in brief.

    In order, as they are settled, so that no two transactions wait for each other.
    """
    for id in sorted(ids):
        forget(connection, id)
    return [None] * len(ids)


def finish(connection: sa.Connection, id: str, now: float) -> None:
    """Drop the body of a message for which nothing is left to do, and keep the record."""
    DROP_PARTS.run(connection, {"id": id})
    _FINISHED.run(connection, {"one": id, "when": now})


def drop(connection: sa.Connection, id: str) -> None:
    """Drop all of a message."""
    for statement in (DROP_PARTS, _DROP_RECIPIENTS, _DROP_HISTORY, _DROP_MESSAGE):
        statement.run(connection, {"id": id})


def quarantine(
    connection: sa.Connection, damages: list[tuple[Damaged, float | None]]
) -> list[None]:
    """Put damaged messages on hold, with the reason and the time."""
    for each, now in damages:
        hold(connection, each, now)
    return [None] * len(damages)


def hold(connection: sa.Connection, damaged: Damaged, now: float | None) -> None:
    """Put a damaged message on hold: whoever looks at it decides.

    :param now: for its history; ``None`` where that cannot be written.
    """
    id, reason = damaged.messageId, f"damaged: {damaged.reason}"
    connection.execute(_HOLD, {"id": id, "reason": cutReply(reason)})
    if now is not None:
        note(connection, [historyRow(id, None, now, State.HELD.value, reason, "submitd")])
