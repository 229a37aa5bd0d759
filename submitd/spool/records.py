"""What goes into the spool and comes out of it, as values.

A recipient is known by its message's id and its position in the envelope.  Times are seconds since
1970.  Nothing here touches a data base.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

import attrs

from submitd.envelope import Envelope, Recipient
from submitd.wire.address import Mailbox


class State(enum.Enum):
    """Where one recipient of one message stands."""

    QUEUED = "queued"  # not tried yet
    LEASED = "leased"  # somebody is at it, until the lease ends
    DELAYED = "delayed"  # tried, and to be tried again
    HELD = "held"  # waits for an operator: put on hold, or damaged
    DELIVERED = "delivered"
    FAILED = "failed"

    @property
    def isFinal(self) -> bool:
        """Whether nothing more will be done for it."""
        return self in (State.DELIVERED, State.FAILED)


class Damaged(Exception):
    """What the data base holds of a message cannot be used; it has been put on hold.

    :param messageId: which message.
    :param reason: what is wrong with it.
    """

    def __init__(self, messageId: str, reason: str) -> None:
        super().__init__(f"{messageId}: {reason}")
        self.messageId = messageId
        self.reason = reason


class LeaseLost(Exception):
    """The lease has ended, and others may be at it by now; nothing has been changed.

    :param messageId: which message.
    :param positions: the recipients that are ours no longer.
    """

    def __init__(self, messageId: str, positions: Sequence[int]) -> None:
        super().__init__(f"{messageId}: no lease of recipients {list(positions)}")
        self.messageId = messageId
        self.positions = tuple(positions)


@attrs.frozen(kw_only=True, eq=False)
class QueuedMessage:
    """One message of the spool, without its body.

    :param id: the queue id.
    :param envelope: as it was accepted, but without its recipients.
    :param login: who sent it, or ``""``.
    :param client: the address it came from, or ``""``.
    :param arrived: when it was accepted.
    :param size: octets, with the header fields that were put in front.
    :param eightBit: whether an octet of it is above 127.
    :param priority: of RFC 6710, -9 to 9; 0 when none was asked for.
    :param fields: the header fields in front of what the client sent: Received, and those of
        policies; whole lines.
    """

    id: str
    envelope: Envelope
    login: str
    client: str
    arrived: float
    size: int
    eightBit: bool
    priority: int
    fields: bytes = attrs.field(repr=False)


@attrs.frozen(kw_only=True, eq=False)
class QueuedRecipient:
    """One recipient of a message of the spool.

    :param position: its place in the envelope, from 0.
    :param recipient: as it was accepted: mailbox, parameters, notify, orcpt.
    :param domain: the domain in the form in which equal domains are equal strings.
    :param state: where it stands; in a :class:`Work` where it stood before the lease.
    :param attempts: how often it has been tried.
    :param due: when something is to be done for it next; the end of the lease while it is leased;
        ``None`` when nothing is.  In a :class:`Work` when it was due.
    :param expires: when it is to be given up whatever the schedule says (an operator's word, or
        DELIVERBY); ``None`` for the schedule's own rule.
    :param notified: when a delay report was sent about it, or ``None``.
    :param reply: the last reply of a next hop, or the reason of a hold; ``""`` before the first.
    """

    position: int
    recipient: Recipient
    domain: str
    state: State
    attempts: int
    due: float | None
    expires: float | None
    notified: float | None
    reply: str

    @property
    def mailbox(self) -> Mailbox:
        """The forward-path."""
        return self.recipient.mailbox


@attrs.frozen(kw_only=True, eq=False)
class Work:
    """A lease: some recipients of one message at one domain, ours until ``until``.

    Those of one message stand next to each other.  With the same token they are one lease, and come
    back as one work with all their recipients, so that domains with the same route go together.

    :param token: unlike any other lease's.
    :param domain: the first one's, where several are one.
    """

    token: str
    message: QueuedMessage
    domain: str
    recipients: tuple[QueuedRecipient, ...]
    until: float


@attrs.frozen(kw_only=True)
class Settlement:
    """What came of one recipient.

    :param position: which one.
    :param state: ``DELIVERED``, ``DELAYED``, ``FAILED`` or ``HELD``.
    :param reply: what the next hop said, or what went wrong.
    :param due: for ``DELAYED``, when to try again.
    :param notified: that a delay report is sent with this: now; ``None`` leaves it as it was.
    :param attempted: whether this was an attempt and counts as one; a wait without one is not put
        on record.
    :raise ValueError: for another state, and for ``DELAYED`` without a time.
    """

    position: int
    state: State
    reply: str
    due: float | None = None
    notified: float | None = None
    attempted: bool = True

    def __attrs_post_init__(self) -> None:
        if (self.state is State.DELAYED) is not (self.due is not None):
            # It would wait for ever, and nobody would be told.
            raise ValueError("what is delayed, and nothing else, has a time to be due")
        if self.state in (State.QUEUED, State.LEASED):
            raise ValueError(f"an attempt cannot end as {self.state.value}")


@attrs.frozen(kw_only=True, eq=False)
class NewMessage:
    """A message of our own making, such as a report (RFC 3464).

    :param envelope: id, reverse-path and recipients among them.
    :param content: the whole message, lines ended with CRLF.
    """

    envelope: Envelope
    content: bytes = attrs.field(repr=False)


# What operators see and say.


class Action(enum.Enum):
    """What an operator can have done."""

    RETRY = "retry"  # try now, whatever the schedule says
    HOLD = "hold"  # try no more until it is released
    RELEASE = "release"  # what is on hold is queued again
    EXPIRE = "expire"  # give up now, and report to the sender
    DELETE = "delete"  # drop, and report to nobody


@attrs.frozen(kw_only=True)
class Filter:
    """Which recipients are meant; all conditions must hold.  The default is all of them.

    :param ids: queue ids, or ``None`` for any.
    :param sender: the reverse-path's address; ``""`` for the null one; ``None`` for any.
    :param login: who sent it.
    :param recipient: an address.
    :param domain: a recipient's domain.
    :param states: any of these; empty for all that are not final.
    :param olderThan: seconds since the message was accepted, at least.
    :param youngerThan: seconds since then, at most.
    """

    ids: tuple[str, ...] | None = None
    sender: str | None = None
    login: str | None = None
    recipient: str | None = None
    domain: str | None = None
    states: tuple[State, ...] = ()
    olderThan: float | None = None
    youngerThan: float | None = None


@attrs.frozen(kw_only=True, eq=False)
class Listed:
    """One message of a list, with those of its recipients that the filter means.

    :param message: ``None`` when it cannot be read.
    :param damage: why not all of it can be; ``""`` for none.
    """

    id: str
    message: QueuedMessage | None
    recipients: tuple[QueuedRecipient, ...]
    damage: str = ""


@attrs.frozen(kw_only=True)
class Entry:
    """One line of a message's history.

    :param at: when.
    :param position: which recipient; ``None`` for the whole message.
    :param event: a :class:`State` that an attempt has led to, or an :class:`Action`; its value.
    :param text: the reply, or the reason.
    :param who: who did it: the relay's owner name, or an operator.
    """

    at: float
    position: int | None
    event: str
    text: str
    who: str


@attrs.frozen(kw_only=True, eq=False)
class Shown:
    """Everything about one message but its body.

    :param message: ``None`` when it cannot be read.
    :param header: the header section with the fields in front; at most its first chunk.
    :param damage: why not all of it can be read; ``""`` for none.
    """

    id: str
    message: QueuedMessage | None
    recipients: tuple[QueuedRecipient, ...]
    history: tuple[Entry, ...]
    header: bytes = b""
    damage: str = ""


@attrs.frozen(kw_only=True)
class Totals:
    """How long the queue is.  What is final is not in it.

    :param messages: those that are not finished.
    :param recipients: how many recipients are ``due``, to be tried ``later``, ``underway`` or
        ``held``; what there is none of is left out.
    :param oldest: of those, when the oldest message arrived.
    """

    messages: int
    recipients: Mapping[str, int]
    oldest: Mapping[str, float]


@attrs.frozen(kw_only=True)
class Count:
    """How many recipients of a domain are in a state, and since when the oldest waits."""

    domain: str
    state: State
    recipients: int
    oldest: float
