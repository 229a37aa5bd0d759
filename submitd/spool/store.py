"""Accepting and leasing, as statements for :mod:`submitd.spool.writer`; and the ends of messages.

Each function takes a connection within a transaction and a list of arguments, and gives a result
for each.  None of them reads more than what it is about: every condition is served by a key or an
index, however long the queue is.  Each may be run again after a rollback.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import sqlalchemy as sa

from submitd.spool.owners import Owners
from submitd.spool.prepared import Prepared
from submitd.spool.records import Damaged, LeaseLost, NewMessage, QueuedRecipient, State, Work
from submitd.spool.rows import (
    Row,
    cutReply,
    messageFrom,
    messageRow,
    recipientFrom,
    recipientRows,
)
from submitd.spool.schema import history, message, part, recipient, submission, upload
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR

CHUNK = 256 * 1024
"""Octets of a body in one row."""

STALE = 24 * 3600.0
"""Seconds without a new chunk after which a body without a message is a leftover of a crash."""

MAX_TIDIED = 500
"""Rows of one kind that are cleared away in one transaction, so that nobody waits long for it."""

FINAL = [state.value for state in State if state.isFinal]


# Accepting.


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
_ADD_HISTORY = Prepared(sa.insert(history))
_ADD_UPLOAD = Prepared(sa.insert(upload))
_TOUCH = Prepared(
    sa.update(upload)
    .where(upload.c.message == sa.bindparam("id"))
    .values(touched=sa.bindparam("now"))
)
_END_UPLOAD = Prepared(sa.delete(upload).where(upload.c.message == sa.bindparam("id")))
_DROP_PARTS = Prepared(sa.delete(part).where(part.c.message == sa.bindparam("id")))
_KNOWN = sa.select(submission).where(
    submission.c.digest.in_(sa.bindparam("digests", expanding=True))
)
_FORGET = Prepared(sa.delete(submission).where(submission.c.digest == sa.bindparam("one")))


def add(connection: sa.Connection, uploads: list[Upload]) -> list[None]:
    """Keep chunks of messages that nobody sees yet."""
    for each in uploads:
        if each.sequence == 0:
            _ADD_UPLOAD.run(connection, {"message": each.id, "touched": each.now})
        else:
            _expectOne(_TOUCH.run(connection, {"id": each.id, "now": each.now}))
    _ADD_PART.run(
        connection,
        [{"message": each.id, "sequence": each.sequence, "data": each.data} for each in uploads],
    )
    return [None] * len(uploads)


def _expectOne(result: sa.CursorResult[Any]) -> None:
    if result.rowcount != 1:
        raise Refused(LOCAL_ERROR, "the message's first part has been cleared away")


def abandon(connection: sa.Connection, ids: list[str]) -> list[None]:
    """Drop the chunks of messages that will not be complete; a message that is stays."""
    for each in ids:
        if _END_UPLOAD.run(connection, {"id": each}).rowcount:
            _DROP_PARTS.run(connection, {"id": each})
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
    known = {}
    for row in connection.execute(_KNOWN, {"digests": [row["digest"] for row in rows]}):
        if row.at >= oldest:
            known[bytes(row.digest)] = row.message
        else:
            # Too old, and not cleared away yet: the first of ours takes its place.
            _FORGET.run(connection, {"one": row.digest})
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
        yield {"message": acceptance.message["id"], "sequence": sequence, "data": data}


def ownMessage(made: NewMessage, now: float) -> Acceptance:
    """A message of our own making, ready to be kept."""
    content = made.content
    row = messageRow(made.envelope, now, b"", len(content), eightBit=not content.isascii())
    return Acceptance(
        message=row,
        recipients=recipientRows(made.envelope, now),
        chunks=[content[at : at + CHUNK] for at in range(0, len(content), CHUNK)],
    )


# Leases.


@attrs.frozen(kw_only=True)
class Claim:
    """The wish for work.

    :param unheard: earlier ones without an answer, which may have been granted all the same.
    """

    token: str
    limit: int
    now: float
    until: float
    unheard: tuple[Claim, ...] = ()


@attrs.frozen(kw_only=True, eq=False)
class Leased:
    """What was to be had.

    :param takenOver: recipients whose lease had ended: id -> positions.
    :param damaged: messages that have been put on hold.
    """

    works: list[Work]
    takenOver: dict[str, list[int]]
    damaged: list[Damaged]


_HIGHEST = sa.select(sa.func.max(recipient.c.priority)).where(recipient.c.due.is_not(None))
_HIGHEST_BELOW = Prepared(_HIGHEST.where(recipient.c.priority < sa.bindparam("below")))
_DUE = Prepared(
    sa.select(recipient.c.message)
    .where(recipient.c.priority == sa.bindparam("priority"), recipient.c.due <= sa.bindparam("now"))
    .order_by(recipient.c.due)
    .limit(sa.bindparam("limit"))
    .with_for_update(skip_locked=True)
)
_EARLIEST = Prepared(
    sa.select(sa.func.min(recipient.c.due)).where(
        recipient.c.priority == sa.bindparam("priority"), recipient.c.due.is_not(None)
    )
)
_OF_MESSAGES = (
    sa.select(recipient)
    .where(
        recipient.c.message.in_(sa.bindparam("ids", expanding=True)),
        recipient.c.due <= sa.bindparam("now"),
    )
    .with_for_update(skip_locked=True)
)
_MESSAGES = sa.select(message).where(message.c.id.in_(sa.bindparam("ids", expanding=True)))
THIS = (
    recipient.c.message == sa.bindparam("id"),
    recipient.c.position == sa.bindparam("at"),
)
_OURS = (*THIS, recipient.c.token == sa.bindparam("held"))
_TAKE = Prepared(
    sa.update(recipient)
    .where(*THIS)
    .values(state=State.LEASED.value, due=sa.bindparam("until"), token=sa.bindparam("held"))
)
_EXTEND = Prepared(sa.update(recipient).where(*_OURS).values(due=sa.bindparam("until")))
_GIVE_BACK = Prepared(
    sa.update(recipient)
    .where(*_OURS)
    .values(state=sa.bindparam("before"), due=sa.bindparam("was"), token=None)
)
# Priority and time are what the index is of.
_DISOWN = Prepared(
    sa.update(recipient)
    .where(
        recipient.c.priority == sa.bindparam("rank"),
        recipient.c.due == sa.bindparam("until"),
        recipient.c.token == sa.bindparam("held"),
    )
    .values(due=sa.bindparam("was"))
)
# "0" is what follows "/": all tokens of one owner.
_RECLAIM = Prepared(
    sa.update(recipient)
    .where(
        recipient.c.token > sa.bindparam("owner") + "/",
        recipient.c.token < sa.bindparam("owner") + "0",
    )
    .values(due=sa.bindparam("now"))
)
_POSITIONS = Prepared(
    sa.select(recipient.c.position)
    .where(recipient.c.message == sa.bindparam("id"), recipient.c.token == sa.bindparam("held"))
    .with_for_update()
)


def priorities(connection: sa.Connection) -> Iterator[int]:
    """The priorities of waiting recipients, the highest first; one look at the index for each."""
    priority = connection.execute(_HIGHEST).scalar()
    while priority is not None:
        yield priority
        priority = _HIGHEST_BELOW.run(connection, {"below": priority}).scalar()


def lease(connection: sa.Connection, claims: list[Claim]) -> list[Leased]:
    """Take what is due."""
    return [_lease(connection, claim) for claim in claims]


def _lease(connection: sa.Connection, claim: Claim) -> Leased:
    leased = Leased(works=[], takenOver={}, damaged=[])
    if claim.unheard:
        disown(connection, [claim.unheard])
    ids = _dueMessages(connection, claim)
    if not ids:
        return leased
    try:
        _leaseMessages(connection, claim, ids, leased)
    except (sa.exc.DatabaseError, Damaged):
        # Something in one of these rows cannot be read: so one by one, to find which.
        if connection.dialect.name != "sqlite":
            raise
        leased = Leased(works=[], takenOver={}, damaged=[])
        for id in ids:
            _leaseOrHold(connection, claim, id, leased)
    return leased


def _dueMessages(connection: sa.Connection, claim: Claim) -> list[str]:
    ids: dict[str, None] = {}
    left = claim.limit
    for priority in priorities(connection):
        bound = {"priority": priority, "now": claim.now, "limit": left}
        found = _DUE.run(connection, bound).scalars().all()
        ids.update(dict.fromkeys(found))
        left -= len(found)
        if left <= 0:
            break
    return list(ids)


def _leaseMessages(connection: sa.Connection, claim: Claim, ids: list[str], leased: Leased) -> None:
    bound = {"ids": ids, "now": claim.now}
    rows: dict[str, list[Any]] = {id: [] for id in ids}
    for row in connection.execute(_OF_MESSAGES, bound):
        rows[row.message].append(row)
    messages = {row.id: row for row in connection.execute(_MESSAGES, {"ids": ids})}
    taken: list[Row] = []
    for id in ids:
        try:
            if rows[id] and id not in messages:
                raise Damaged(id, "its message is missing")
            leased.works.extend(_works(claim, messages.get(id), rows[id]))
        except Damaged as damaged:
            _hold(connection, damaged, claim.now)
            leased.damaged.append(damaged)
            continue
        late = [row.position for row in rows[id] if row.state == State.LEASED.value]
        if late:
            leased.takenOver[id] = late
        taken += [
            {"id": id, "at": row.position, "until": claim.until, "held": claim.token}
            for row in rows[id]
        ]
    if taken:
        _TAKE.run(connection, taken)


def _works(claim: Claim, row: Any, recipients: list[Any]) -> list[Work]:
    if not recipients:
        return []
    queued = messageFrom(row)
    recipients.sort(key=lambda each: each.position)
    byDomain: dict[str, list[QueuedRecipient]] = {}
    for each in recipients:
        one = recipientFrom(each)
        if one.state is State.LEASED:
            one = attrs.evolve(one, state=before(one.attempts))
        byDomain.setdefault(one.domain, []).append(one)
    return [
        Work(
            token=claim.token,
            message=queued,
            domain=domain,
            recipients=tuple(those),
            until=claim.until,
        )
        for domain, those in byDomain.items()
    ]


def before(attempts: int) -> State:
    """Where a recipient stands that nobody is at."""
    return State.DELAYED if attempts else State.QUEUED


def _leaseOrHold(connection: sa.Connection, claim: Claim, id: str, leased: Leased) -> None:
    try:
        _leaseMessages(connection, claim, [id], leased)
    except sa.exc.DatabaseError as error:
        damaged = Damaged(id, f"cannot be read: {error.orig}")
        _hold(connection, damaged, claim.now)
        leased.damaged.append(damaged)


def extend(connection: sa.Connection, works: list[Work]) -> list[None]:
    """Have leases end at their ``until``; recipients that have been settled are left alone.

    :raise LeaseLost: when nothing of one is ours.
    """
    for work in works:
        bound = {"id": work.message.id, "held": work.token}
        positions = [each.position for each in work.recipients]
        if set(_POSITIONS.run(connection, bound).scalars()).isdisjoint(positions):
            raise LeaseLost(work.message.id, positions)
        _EXTEND.run(connection, [{**bound, "until": work.until} for bound in _bound(work)])
    return [None] * len(works)


def giveBack(connection: sa.Connection, works: list[Work]) -> list[None]:
    """Put recipients back to where they stood; those that are not ours are left alone."""
    for work in works:
        _GIVE_BACK.run(
            connection,
            [
                {**bound, "before": each.state.value, "was": each.due}
                for bound, each in zip(_bound(work), work.recipients, strict=True)
            ],
        )
    return [None] * len(works)


def disown(connection: sa.Connection, groups: Sequence[Sequence[Claim]]) -> list[None]:
    """Have the leases of these claims end, if there are any: nobody was told of them.

    Whoever takes them takes them over.  They had not begun; but what they had been taken over from
    may have, and that is no longer known.
    """
    for priority in list(priorities(connection)):
        rows = [
            {"rank": priority, "until": each.until, "held": each.token, "was": each.now}
            for group in groups
            for each in group
        ]
        _DISOWN.run(connection, rows)
    return [None] * len(groups)


def enter(connection: sa.Connection, comers: list[tuple[Owners, str, float]]) -> list[str]:
    """Be there under a name, and take back what dead ones have left.

    :return: what is wrong with the directory, or nothing.
    """
    return [_enter(connection, *comer) for comer in comers]


def _enter(connection: sa.Connection, owners: Owners, name: str, now: float) -> str:
    try:
        owners.enter(name)
        dead = owners.dead()
    except OSError as error:
        return error.strerror or str(error)
    reclaim(connection, [(each, now) for each in dead])
    return ""


def reclaim(connection: sa.Connection, gone: list[tuple[str, float]]) -> list[None]:
    """Have the leases of owners that are no more end now: whoever takes them takes them over."""
    for owner, now in gone:
        _RECLAIM.run(connection, {"owner": owner, "now": now})
    return [None] * len(gone)


def _bound(work: Work) -> list[Row]:
    return [
        {"id": work.message.id, "at": each.position, "held": work.token} for each in work.recipients
    ]


def nextDue(connection: sa.Connection) -> float | None:
    """When something is due next."""
    times = (
        _EARLIEST.run(connection, {"priority": priority}).scalar()
        for priority in priorities(connection)
    )
    return min((time for time in times if time is not None), default=None)


# The history of a message, and its end.


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
        _FORGET.run(connection, {"one": digest})


def finish(connection: sa.Connection, id: str, now: float) -> None:
    """Drop the body of a message for which nothing is left to do, and keep the record."""
    _DROP_PARTS.run(connection, {"id": id})
    _FINISHED.run(connection, {"one": id, "when": now})


def drop(connection: sa.Connection, id: str) -> None:
    """Drop all of a message."""
    for statement in (_DROP_PARTS, _DROP_RECIPIENTS, _DROP_HISTORY, _DROP_MESSAGE):
        statement.run(connection, {"id": id})


# Damage, and what is left behind.


@attrs.frozen
class Tidying:
    """What is old enough to go: of submissions, of uploads, of finished messages."""

    submitted: float
    touched: float
    finished: float


_HOLD = (
    sa.update(recipient)
    .where(recipient.c.message == sa.bindparam("id"), recipient.c.state.not_in(FINAL))
    .values(state=State.HELD.value, due=None, token=None, reply=sa.bindparam("reason"))
)
_OLD_SUBMISSIONS = Prepared(
    sa.select(submission.c.digest)
    .where(submission.c.at < sa.bindparam("before"))
    .order_by(submission.c.at)
    .limit(MAX_TIDIED)
)
_OLD_UPLOADS = Prepared(
    sa.select(upload.c.message).where(upload.c.touched < sa.bindparam("before"))
)
_OLD_MESSAGES = Prepared(
    sa.select(message.c.id)
    .where(message.c.finished < sa.bindparam("before"))
    .order_by(message.c.finished)
    .limit(MAX_TIDIED)
)


def quarantine(connection: sa.Connection, damages: list[tuple[Damaged, float]]) -> list[None]:
    """Put damaged messages on hold, with the reason and the time."""
    for each, now in damages:
        _hold(connection, each, now)
    return [None] * len(damages)


def _hold(connection: sa.Connection, damaged: Damaged, now: float) -> None:
    reason = f"damaged: {damaged.reason}"
    connection.execute(_HOLD, {"id": damaged.messageId, "reason": cutReply(reason)})
    note(
        connection,
        [historyRow(damaged.messageId, None, now, State.HELD.value, reason, "submitd")],
    )


def tidy(connection: sa.Connection, tidyings: list[Tidying]) -> list[bool]:
    """Clear away what is old.

    :return: whether there is more of it.
    """
    return [_tidy(connection, each) for each in tidyings]


def _tidy(connection: sa.Connection, tidying: Tidying) -> bool:
    bound = {"before": tidying.submitted}
    digests = _OLD_SUBMISSIONS.run(connection, bound).scalars().all()
    if digests:
        _FORGET.run(connection, [{"one": digest} for digest in digests])
    uploads = _OLD_UPLOADS.run(connection, {"before": tidying.touched}).scalars().all()
    abandon(connection, list(uploads))
    ids = _OLD_MESSAGES.run(connection, {"before": tidying.finished}).scalars().all()
    for id in ids:
        drop(connection, id)
    return len(digests) == MAX_TIDIED or len(ids) == MAX_TIDIED
