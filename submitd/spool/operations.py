"""What operators look at and change, as statements.

Whatever names ids, a domain or a recipient is found by a key or an index; a sender, a login or an
age is looked for from message to message, in order, until the page is full.  Counting reads all
recipients.  All of it runs beside the service, which does not wait for it.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import sqlalchemy as sa

from submitd.equality import sameDomain
from submitd.spool import endings, leases
from submitd.spool.body import firstChunk
from submitd.spool.database import readable
from submitd.spool.records import (
    Action,
    Count,
    Damaged,
    Entry,
    Filter,
    Listed,
    QueuedMessage,
    QueuedRecipient,
    Shown,
    State,
    Totals,
)
from submitd.spool.rows import messageFrom, octets, recipientFrom
from submitd.spool.schema import history, message, part, recipient

_WAITING = tuple(state for state in State if not state.isFinal)

# What each action is for; others are left as they are.
_FROM = {
    Action.RETRY: (State.QUEUED, State.DELAYED),
    Action.HOLD: (State.QUEUED, State.DELAYED),
    Action.RELEASE: (State.HELD,),
    Action.EXPIRE: (State.QUEUED, State.DELAYED, State.HELD),
    Action.DELETE: (State.QUEUED, State.DELAYED, State.HELD),
}

Condition = sa.ColumnElement[bool]


@attrs.frozen(kw_only=True)
class Page:
    """Which messages to list."""

    which: Filter
    now: float
    limit: int
    after: str = ""


@attrs.frozen(kw_only=True)
class Change:
    """What an operator wants."""

    action: Action
    which: Filter
    who: str
    now: float
    keep: float = 0.0


def _ofMessage(which: Filter, now: float) -> list[Condition]:
    found: list[Condition] = []
    if which.ids is not None:
        found.append(message.c.id.in_(which.ids))
    if which.sender is not None:
        found.append(_sameText(message.c.sender, which.sender))
    if which.login is not None:
        found.append(message.c.login == which.login)
    if which.olderThan is not None:
        found.append(message.c.arrived <= now - which.olderThan)
    if which.youngerThan is not None:
        found.append(message.c.arrived >= now - which.youngerThan)
    return found


def _sameText(column: sa.Column[str], text: str) -> Condition:
    # SQLite knows upper and lower case of ASCII alone.
    return sa.or_(sa.func.lower(column) == text.lower(), column == text)


def _ofRecipient(which: Filter) -> list[Condition]:
    found: list[Condition] = [
        recipient.c.state.in_([state.value for state in which.states or _WAITING])
    ]
    domain = which.domain
    if which.recipient is not None:
        found.append(_sameText(recipient.c.address, which.recipient))
        domain = domain or which.recipient.rpartition("@")[2]
    if domain:
        found.append(recipient.c.domain == sameDomain(domain))
    return found


def messages(connection: sa.Connection, page: Page) -> list[Listed]:
    """Messages with recipients that the filter means, the oldest first.

    Where a page of the data base is damaged they are read one by one, and what cannot be read is
    among them: nobody knows whether it is meant.
    """
    try:
        with readable(connection, page.after):
            return _messages(connection, page)
    except Damaged:
        pass
    found: list[Listed] = []
    try:
        found.extend(_oneByOne(connection, page))
    except Damaged:
        if not found:
            raise
    return found


def _oneByOne(connection: sa.Connection, page: Page) -> Iterator[Listed]:
    named = page.which.ids
    ids = (
        _idsAfter(connection, page.after)
        if named is None
        else iter(sorted(id for id in named if id > page.after))
    )
    left = page.limit
    while left > 0 and (id := next(ids, None)) is not None:
        alone = Page(which=attrs.evolve(page.which, ids=(id,)), now=page.now, limit=1)
        try:
            with readable(connection, id):
                found = _messages(connection, alone)
        except Damaged as damaged:
            found = [Listed(id=id, message=None, recipients=(), damage=damaged.reason)]
        yield from found
        left -= len(found)


def _idsAfter(connection: sa.Connection, after: str) -> Iterator[str]:
    """The ids that one of three tables has: where one is damaged, the others go on.

    :raise Damaged: when none of them does.
    """
    while True:
        columns = (recipient.c.message, message.c.id, part.c.message)
        found = [_lowestAfter(connection, column, after) for column in columns]
        ids = [each for each in found if isinstance(each, str)]
        if not ids:
            if isinstance(found[0], Damaged):
                raise found[0]
            return  # Each message has recipients.
        after = min(ids)
        yield after


def _lowestAfter(
    connection: sa.Connection, column: sa.Column[str], after: str
) -> str | Damaged | None:
    try:
        with readable(connection, after or "the queue", "what follows "):
            return connection.execute(sa.select(sa.func.min(column)).where(column > after)).scalar()
    except Damaged as damaged:
        return damaged


def _messages(connection: sa.Connection, page: Page) -> list[Listed]:
    rows = connection.execute(pageStatement(page)).all()
    if not rows:
        return []
    chosen = sa.select(recipient).where(
        recipient.c.message.in_([row.id for row in rows]), *_ofRecipient(page.which)
    )
    byMessage: dict[str, list[Any]] = {}
    for each in connection.execute(chosen):
        byMessage.setdefault(each.message, []).append(each)
    return [_listed(row, byMessage.get(row.id, [])) for row in rows]


def pageStatement(page: Page) -> sa.Select[Any]:
    """The statement that finds the messages of a page."""
    which = page.which
    ofRecipient = _ofRecipient(which)
    if which.domain or which.recipient:
        # From the index of domains; from message to message it could be a long way to the next.
        chosen = (
            sa.select(recipient.c.message)
            .distinct()
            .where(recipient.c.message > page.after, *ofRecipient)
            .order_by(recipient.c.message)
        )
        ofMessage = _ofMessage(which, page.now)
        if ofMessage:
            chosen = chosen.join(message, message.c.id == recipient.c.message).where(*ofMessage)
        within = chosen.limit(page.limit).scalar_subquery()
        return sa.select(message).where(message.c.id.in_(within)).order_by(message.c.id)
    exists = sa.exists().where(recipient.c.message == message.c.id, *ofRecipient)
    return (
        sa.select(message)
        .where(message.c.id > page.after, exists, *_ofMessage(which, page.now))
        .order_by(message.c.id)
        .limit(page.limit)
    )


def _listed(row: Any, recipients: Sequence[Any]) -> Listed:
    queued, those, damage = _readable(row, recipients)
    return Listed(id=row.id, message=queued, recipients=those, damage=damage)


def _readable(
    row: Any, rows: Sequence[Any]
) -> tuple[QueuedMessage | None, tuple[QueuedRecipient, ...], str]:
    """What can be read of a message and its recipients, and why the rest cannot."""
    damages: list[str] = []
    queued = None
    recipients = []
    try:
        queued = None if row is None else messageFrom(row)
    except Damaged as damaged:
        damages.append(damaged.reason)
    for each in sorted(rows, key=lambda one: one.position):
        try:
            recipients.append(recipientFrom(each))
        except Damaged as damaged:
            damages.append(damaged.reason)
    return queued, tuple(recipients), "; ".join(damages)


def show(connection: sa.Connection, id: str) -> Shown | None:
    """All about one message but its body; of a damaged one, what can be read."""
    damages: list[str] = []

    def read(what: str, statement: sa.Select[Any]) -> Sequence[Any]:
        try:
            with readable(connection, id, what):
                return connection.execute(statement).all()
        except Damaged as damaged:
            damages.append(damaged.reason)
            return ()

    rows = read("its envelope ", sa.select(message).where(message.c.id == id))
    if not rows and not damages:
        return None
    ofThis = read("its list of recipients ", sa.select(recipient).where(recipient.c.message == id))
    entries = sa.select(history).where(history.c.message == id).order_by(history.c.number)
    lines = read("its history ", entries)
    queued, recipients, damage = _readable(rows[0] if rows else None, ofThis)
    content = b""
    if rows:
        content = octets(rows[0].fields)
        try:
            found = firstChunk(connection, id)
            content += b"" if found is None else found[2]
        except Damaged as damaged:
            # All else is what an operator decides by.
            damages.append(damaged.reason)
    return Shown(
        id=id,
        message=queued,
        recipients=recipients,
        history=tuple(
            Entry(
                at=each.at, position=each.position, event=each.event, text=each.text, who=each.who
            )
            for each in lines
        ),
        header=headerOf(content),
        damage="; ".join(filter(None, (damage, *damages))),
    )


def headerOf(content: bytes) -> bytes:
    """The header section of a message, as far as it stands in these octets."""
    if content.startswith(b"\r\n"):
        return b""
    end = content.find(b"\r\n\r\n")
    return content if end < 0 else content[: end + 2]


def change(connection: sa.Connection, changes: list[Change]) -> list[dict[str, int]]:
    """Do something to recipients, and put it on record.

    :return: for each, how many recipients of which message were changed.
    """
    return [_change(connection, each) for each in changes]


def _change(connection: sa.Connection, wanted: Change) -> dict[str, int]:
    # A lease that has ended is nobody's: what its owner did is lost, so it stands where it stood.
    free = sa.or_(
        recipient.c.state.in_([state.value for state in _FROM[wanted.action]]),
        sa.and_(recipient.c.state == State.LEASED.value, recipient.c.due <= wanted.now),
    )
    chosen = (
        sa.select(recipient.c.message, recipient.c.position, recipient.c.attempts)
        .join(message, message.c.id == recipient.c.message)
        .where(free, *_ofRecipient(wanted.which), *_ofMessage(wanted.which, wanted.now))
        .with_for_update(of=recipient)
    )
    rows = connection.execute(chosen).all()
    if rows:
        endings.note(
            connection,
            [
                endings.historyRow(
                    row.message, row.position, wanted.now, wanted.action.value, "", wanted.who
                )
                for row in rows
            ],
        )
        _DO[wanted.action](connection, wanted, rows)
    return dict(Tally(row.message for row in rows))


_AGAIN = (
    sa.update(recipient)
    .where(*leases.THIS)
    .values(state=sa.bindparam("before"), due=sa.bindparam("when"), token=None)
)
_GIVE_UP = _AGAIN.values(expires=sa.bindparam("when"))
_HOLD = (
    sa.update(recipient).where(*leases.THIS).values(state=State.HELD.value, due=None, token=None)
)
_DELETE = sa.delete(recipient).where(*leases.THIS)
_LEFT = (
    sa.select(recipient.c.position)
    .where(
        recipient.c.message == sa.bindparam("id"),
        recipient.c.state.in_([state.value for state in _WAITING]),
    )
    .limit(1)
)


def _bound(rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"id": row.message, "at": row.position} for row in rows]


def _again(
    connection: sa.Connection, wanted: Change, rows: Sequence[Any], statement: sa.Update = _AGAIN
) -> None:
    connection.execute(
        statement,
        [
            {
                "id": row.message,
                "at": row.position,
                "before": leases.before(row.attempts).value,
                "when": wanted.now,
            }
            for row in rows
        ],
    )


def _giveUp(connection: sa.Connection, wanted: Change, rows: Sequence[Any]) -> None:
    _again(connection, wanted, rows, _GIVE_UP)


def _hold(connection: sa.Connection, wanted: Change, rows: Sequence[Any]) -> None:
    connection.execute(_HOLD, _bound(rows))


def _delete(connection: sa.Connection, wanted: Change, rows: Sequence[Any]) -> None:
    for id in sorted({row.message for row in rows}):
        endings.forget(connection, id)
    connection.execute(_DELETE, _bound(rows))
    for id in sorted({row.message for row in rows}):
        if connection.execute(_LEFT, {"id": id}).first() is None:
            if wanted.keep:
                endings.finish(connection, id, wanted.now)
            else:
                endings.drop(connection, id)


_DO = {
    Action.RETRY: _again,
    Action.RELEASE: _again,
    Action.HOLD: _hold,
    Action.EXPIRE: _giveUp,
    Action.DELETE: _delete,
}


def counts(connection: sa.Connection) -> list[Count]:
    """How many recipients each domain has in each state."""
    grouped = (
        sa.select(
            recipient.c.domain,
            recipient.c.state,
            sa.func.count().label("recipients"),
            sa.func.min(recipient.c.message).label("first"),
        )
        .group_by(recipient.c.domain, recipient.c.state)
        .subquery()
    )
    # Ids grow with time, so the smallest one is the oldest message.
    oldest = sa.select(grouped, message.c.arrived).outerjoin(
        message, message.c.id == grouped.c.first
    )
    return [
        Count(
            domain=row.domain,
            state=_stateOf(row.state),
            recipients=row.recipients,
            oldest=row.arrived or 0.0,
        )
        for row in connection.execute(oldest.order_by(grouped.c.domain, grouped.c.state))
    ]


_PLACE = sa.case(
    (recipient.c.due.is_(None), "held"),
    (recipient.c.due <= sa.bindparam("now"), "due"),
    (recipient.c.token.is_not(None), "underway"),
    else_="later",
)
_PLACES = (
    sa.select(
        _PLACE.label("place"),
        sa.func.count().label("recipients"),
        sa.func.min(recipient.c.message).label("first"),
    )
    .where(recipient.c.state.not_in(endings.FINAL))
    .group_by("place")
    .subquery()
)
_TOTALS = sa.select(_PLACES, message.c.arrived).outerjoin(message, message.c.id == _PLACES.c.first)
# Each of the two is counted in an index; the rows themselves are large.
_ALL = sa.select(sa.func.count()).select_from(message)
_FINISHED = _ALL.where(message.c.finished.is_not(None))


def totals(connection: sa.Connection, now: float) -> Totals:
    """How long the queue is."""
    rows = connection.execute(_TOTALS, {"now": now}).all()
    return Totals(
        messages=_number(connection, _ALL) - _number(connection, _FINISHED),
        recipients={row.place: row.recipients for row in rows},
        oldest={row.place: row.arrived for row in rows if row.arrived is not None},
    )


def _number(connection: sa.Connection, counting: sa.Select[Any]) -> int:
    number: int = connection.execute(counting).scalar_one()
    return number


def _stateOf(text: str) -> State:
    """A state; what is none is damaged, and waits for an operator."""
    try:
        return State(text)
    except ValueError:
        return State.HELD
