"""Values become rows, and rows values again.

An envelope's own columns are those that the queue is searched by; all else of it is one JSON text,
made of what differs from the defaults, so that a new attribute of the envelope needs no migration.
What cannot be read back is :class:`submitd.spool.records.Damaged`, with the message's id.
"""

from __future__ import annotations

import json
import operator
from typing import Any

import attrs

from submitd.envelope import Envelope, Recipient
from submitd.equality import sameDomain
from submitd.extensions.deliverby import DeliverBy
from submitd.spool.records import Damaged, QueuedMessage, QueuedRecipient, State
from submitd.wire.address import NULL_PATH, Mailbox, ReversePath
from submitd.wire.errors import Refused

Row = dict[str, Any]

# Longest reply that is kept, in characters; one of many lines says nothing more in its hundredth.
MAX_REPLY = 2000

# ``message`` is there while the message comes in, and is what the spool is given; blind recipients
# have rows of their own, as have those that were put beside another; copies, and what a client
# knows, are no business of a queue.
_OWN_COLUMNS = frozenset(
    {
        *("id", "reversePath", "recipients", "asked", "blind", "message", "copies"),
        *("mailbox", "others", "placedBy"),
    }
)


def _defaults(kind: type) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """The attributes that go into the JSON text, and their defaults."""
    defaults = {
        field.name: field.default.factory()
        if isinstance(field.default, attrs.Factory)  # type: ignore[arg-type]
        else field.default
        for field in attrs.fields(kind)
        if field.name not in _OWN_COLUMNS
    }
    return tuple(defaults), tuple(defaults.values())


class _Packing:
    """Writes what of a value differs from the defaults of its class.

    :param kind: the class.
    """

    def __init__(self, kind: type) -> None:
        self._names, self._defaults = _defaults(kind)
        self._own = operator.attrgetter(*self._names)

    def __call__(self, value: Any) -> str:
        """What differs, as JSON; ``""`` for nothing, which it mostly is."""
        own = self._own(value)
        if own == self._defaults:
            return ""
        each = zip(self._names, own, self._defaults, strict=True)
        differing = {name: mine for name, mine, default in each if mine != default}
        return json.dumps(differing, default=attrs.asdict)


_packedEnvelope = _Packing(Envelope)
_packedRecipient = _Packing(Recipient)


def _unpacked(text: str) -> dict[str, Any]:
    values = json.loads(text) if text else {}
    if not isinstance(values, dict):
        raise ValueError("no object")
    return values


def priorityOf(envelope: Envelope) -> int:
    """MT-PRIORITY (RFC 6710)."""
    return int(envelope.extensions.get("MT-PRIORITY", 0))


def dueAt(envelope: Envelope, arrived: float) -> float:
    """When a message may be sent: now, or at its FUTURERELEASE (RFC 4865)."""
    return max(arrived, float(envelope.extensions.get("FUTURERELEASE", arrived)))


def expiryOf(envelope: Envelope) -> float | None:
    """When DELIVERBY wants the message back (RFC 2852 4.1); its mode N only wants to be told."""
    by = envelope.extensions.get("DELIVERBY")
    return by.deadline if isinstance(by, DeliverBy) and by.mode == "R" else None


def messageRow(
    envelope: Envelope,
    arrived: float,
    fields: bytes,
    size: int,
    *,
    eightBit: bool = False,
    login: str = "",
    client: str = "",
    digest: bytes | None = None,
) -> Row:
    """The row of a message."""
    mailbox = envelope.reversePath.mailbox
    return {
        "id": envelope.id,
        "sender": "" if mailbox is None else str(mailbox),
        "login": login,
        "client": client,
        "arrived": arrived,
        "size": size,
        "eight_bit": eightBit,
        "priority": priorityOf(envelope),
        "envelope": _packedEnvelope(envelope),
        "fields": fields,
        "digest": digest,
    }


def recipientRows(envelope: Envelope, arrived: float) -> list[Row]:
    """The rows of its recipients; they are held where the envelope says so."""
    common = {
        "message": envelope.id,
        "state": (State.QUEUED if envelope.hold is None else State.HELD).value,
        "priority": priorityOf(envelope),
        "due": dueAt(envelope, arrived) if envelope.hold is None else None,
        "attempts": 0,
        "expires": expiryOf(envelope),
        "reply": cutReply(envelope.hold or ""),
    }
    return [
        {
            **common,
            "position": position,
            "address": str(recipient.mailbox),
            "domain": sameDomain(recipient.mailbox.domain),
            "parameters": _packedRecipient(recipient),
        }
        for position, recipient in enumerate((*envelope.recipients, *envelope.blind))
    ]


def messageFrom(row: Any) -> QueuedMessage:
    """The value of a message's row.

    :raise Damaged: when it cannot be read.
    """
    try:
        path = NULL_PATH if row.sender == "" else ReversePath.parse(f"<{row.sender}>".encode())
        return QueuedMessage(
            id=row.id,
            envelope=Envelope(row.id, path, **_envelopeValues(row.envelope)),
            login=row.login,
            client=row.client,
            arrived=float(row.arrived),
            size=int(row.size),
            eightBit=bool(row.eight_bit),
            priority=int(row.priority),
            fields=octets(row.fields),
        )
    except (ValueError, TypeError, AttributeError, Refused) as error:
        raise Damaged(row.id, f"its envelope cannot be read: {_said(error)}") from error


def _envelopeValues(text: str) -> dict[str, Any]:
    values = _unpacked(text)
    extensions = values.get("extensions", {})
    if "DELIVERBY" in extensions:
        extensions["DELIVERBY"] = DeliverBy(**extensions["DELIVERBY"])
    return values


def recipientFrom(row: Any) -> QueuedRecipient:
    """The value of a recipient's row.

    :raise Damaged: when it cannot be read.
    """
    try:
        values = _unpacked(row.parameters)
        for name in ("notify", "orcpt"):  # JSON knows no tuples
            if values.get(name) is not None:
                values[name] = tuple(values[name])
        return QueuedRecipient(
            position=row.position,
            recipient=Recipient(Mailbox.parse(row.address.encode()), **values),
            domain=row.domain,
            state=State(row.state),
            attempts=int(row.attempts),
            due=row.due,
            expires=row.expires,
            notified=row.notified,
            reply=row.reply,
        )
    except (ValueError, TypeError, AttributeError, Refused) as error:
        reason = f"its recipient {row.position} cannot be read: {_said(error)}"
        raise Damaged(row.message, reason) from error


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__


def octets(value: Any) -> bytes:
    """What a column of octets holds, whatever it is."""
    return value.encode("utf-8") if isinstance(value, str) else bytes(value or b"")


def cutReply(reply: str) -> str:
    """A reply as it is kept: bounded, and without NUL, which PostgreSQL has no text for."""
    return reply[:MAX_REPLY].replace("\0", "?")
