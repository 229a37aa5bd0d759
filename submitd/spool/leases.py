"""Leases: what is due is given to one who works at it, for a time.

Statements for :mod:`submitd.spool.writer`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import sqlalchemy as sa

from submitd.spool.database import cause, isDamage, readable
from submitd.spool.endings import hold
from submitd.spool.owners import Owners
from submitd.spool.prepared import Prepared
from submitd.spool.records import Damaged, LeaseLost, QueuedRecipient, State, Work
from submitd.spool.rows import Row, messageFrom, recipientFrom
from submitd.spool.schema import message, recipient


@attrs.frozen(kw_only=True)
class Claim:
    """The wish for work.

    :param unheard: earlier ones without an answer, which may have been granted all the same.
    :param isCareful: whether only one message is taken, whose id is told when it is damaged.
    :param without: ids of messages that are left alone.
    """

    token: str
    limit: int
    now: float
    until: float
    unheard: tuple[Claim, ...] = ()
    isCareful: bool = False
    without: Sequence[str] = ()


@attrs.frozen(kw_only=True, eq=False)
class Leased:
    """What was to be had.

    :param takenOver: recipients whose lease had ended: id -> positions.
    :param damaged: messages that have been put on hold.
    """

    works: list[Work]
    takenOver: dict[str, list[int]]
    damaged: list[Damaged]


class Untakable(Damaged):
    """What is due can be read, but no lease of it can be written, or there is nothing to lease."""


_HIGHEST = sa.select(sa.func.max(recipient.c.priority)).where(recipient.c.due.is_not(None))
_HIGHEST_BELOW = Prepared(_HIGHEST.where(recipient.c.priority < sa.bindparam("below")))
_DUE_ROWS = (
    sa.select(recipient.c.message)
    .where(recipient.c.priority == sa.bindparam("priority"), recipient.c.due <= sa.bindparam("now"))
    .order_by(recipient.c.due)
    .limit(sa.bindparam("limit"))
    .with_for_update(skip_locked=True)
)
_EARLIEST_ROW = sa.select(sa.func.min(recipient.c.due)).where(
    recipient.c.priority == sa.bindparam("priority"), recipient.c.due.is_not(None)
)
_WITHOUT = recipient.c.message.not_in(sa.bindparam("without", expanding=True))
_DUE = Prepared(_DUE_ROWS)
_DUE_WITHOUT = _DUE_ROWS.where(_WITHOUT)
_EARLIEST = Prepared(_EARLIEST_ROW)
_EARLIEST_WITHOUT = _EARLIEST_ROW.where(_WITHOUT)
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
_HASTEN = (
    sa.update(recipient)
    .where(
        recipient.c.priority == sa.bindparam("rank"),
        recipient.c.due > sa.bindparam("latest"),
        recipient.c.state == State.DELAYED.value,
    )
    .values(due=sa.bindparam("latest"))
)
# Who is to be sent later, by his own wish, has another time than that.
_ARRIVED = sa.select(message.c.arrived).where(message.c.id == recipient.c.message)
_HASTEN_NEW = (
    sa.update(recipient)
    .where(
        recipient.c.priority == sa.bindparam("rank"),
        recipient.c.due > sa.bindparam("now"),
        recipient.c.state == State.QUEUED.value,
        recipient.c.due == _ARRIVED.scalar_subquery(),
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
    """Take what is due.

    :raise Damaged: when the one message of a careful claim is damaged.
    :raise Untakable: when it cannot be taken, or when there is nothing of one that was due.
    """
    return [_lease(connection, claim) for claim in claims]


def _lease(connection: sa.Connection, claim: Claim) -> Leased:
    leased = Leased(works=[], takenOver={}, damaged=[])
    if claim.unheard:
        disown(connection, [claim.unheard])
    ids = _dueMessages(connection, claim)
    if claim.isCareful:
        # What is on hold then is so in another transaction: SQLite writes nothing more in one that
        # has met a damaged page.
        for id in ids:
            with readable(connection, id):
                connection.execute(_OF_MESSAGES, {"ids": [id], "now": claim.now}).all()
                connection.execute(_MESSAGES, {"ids": [id]}).all()
    if ids:
        _leaseMessages(connection, claim, ids, leased)
    return leased


def _dueMessages(connection: sa.Connection, claim: Claim) -> list[str]:
    ids: dict[str, None] = {}
    left = 1 if claim.isCareful else claim.limit
    for priority in priorities(connection):
        bound = {"priority": priority, "now": claim.now, "limit": left}
        if claim.without:
            due = connection.execute(_DUE_WITHOUT, {**bound, "without": claim.without})
        else:
            due = _DUE.run(connection, bound)
        found = due.scalars().all()
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
        if not rows[id]:
            # The index is as it was before: a disk has lost what was written to it.
            raise Untakable(id, "is due, but has no recipients who are")
        try:
            if id not in messages:
                raise Damaged(id, "its message is missing")
            leased.works.extend(_works(claim, messages.get(id), rows[id]))
        except Damaged as damaged:
            if claim.isCareful:
                raise  # its history may be damaged as well
            hold(connection, damaged, claim.now)
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
        _take(connection, claim, taken)


def _take(connection: sa.Connection, claim: Claim, taken: list[Row]) -> None:
    try:
        _TAKE.run(connection, taken)
    except sa.exc.DatabaseError as error:
        if not claim.isCareful or not isDamage(error):
            raise
        raise Untakable(taken[0]["id"], f"cannot be taken: {cause(error)}") from error


def _works(claim: Claim, row: Any, recipients: list[Any]) -> list[Work]:
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


def hasten(connection: sa.Connection, times: list[tuple[float, float]]) -> list[None]:
    """Bring forward what was to be due by a time of day that somebody has set back.

    :param times: now, and when what has been tried is to be due at the latest.
    """
    for priority in list(priorities(connection)):
        for now, latest in times:
            connection.execute(_HASTEN, {"rank": priority, "latest": latest})
            connection.execute(_HASTEN_NEW, {"rank": priority, "now": now})
    return [None] * len(times)


def _bound(work: Work) -> list[Row]:
    return [
        {"id": work.message.id, "at": each.position, "held": work.token} for each in work.recipients
    ]


def nextDue(connection: sa.Connection, without: Sequence[str] = ()) -> float | None:
    """When something is due next.

    :param without: ids of messages that are left alone.
    """
    times = (_earliest(connection, priority, without) for priority in priorities(connection))
    return min((time for time in times if time is not None), default=None)


def _earliest(connection: sa.Connection, priority: int, without: Sequence[str]) -> float | None:
    bound: dict[str, Any] = {"priority": priority}
    if without:
        found = connection.execute(_EARLIEST_WITHOUT, {**bound, "without": without})
    else:
        found = _EARLIEST.run(connection, bound)
    earliest: float | None = found.scalar()
    return earliest
