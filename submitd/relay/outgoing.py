"""What is handed to a next hop, and what became of it: values that all of the relay share."""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from submitd.envelope import Recipient
from submitd.wire.address import ReversePath
from submitd.wire.reply import Reply


@attrs.frozen(kw_only=True, eq=False)
class Outgoing:
    """One message for some of its recipients, all at the same next hop.

    :param id: the queue id, for the log.
    :param reversePath: where reports go.
    :param recipients: at least one.
    :param size: octets of the message as it is kept, or ``None`` when that is not known.
    :param bodyType: ``"7BIT"``, ``"8BITMIME"`` or ``"BINARYMIME"``, as it was submitted.
    :param eightBit: whether there is an octet above 127 in it; ``None`` when nobody has looked.
    :param smtpUtf8: whether it was submitted with SMTPUTF8 (RFC 6531).
    :param requireTLS: whether it was submitted with REQUIRETLS (RFC 8689).
    :param ret: RFC 3461 4.3.
    :param envid: RFC 3461 4.4, decoded.
    :param parameters: of MAIL, for next hops that know them: ``BY`` and ``MT-PRIORITY``.
    """

    id: str
    reversePath: ReversePath
    recipients: tuple[Recipient, ...]
    size: int | None = None
    bodyType: str = "7BIT"
    eightBit: bool | None = None
    smtpUtf8: bool = False
    requireTLS: bool = False
    ret: str | None = None
    envid: str | None = None
    parameters: Mapping[str, str] = attrs.field(factory=dict)


class Result(enum.Enum):
    """What became of a recipient in one attempt."""

    DELIVERED = "delivered"  # the next hop has taken it over
    DELAYED = "delayed"  # it may be tried again
    FAILED = "failed"  # it never will


@attrs.frozen
class Outcome:
    """What became of a recipient, and why.

    :param result: the verdict.
    :param reply: what the next hop said, or what we say in its place.
    :param isRemote: whether the next hop said it.
    :param dsn: whether the next hop now owes the reports that the sender asked for.
    :param host: the next hop it was tried at; empty where none was reached.
    :param deliverBy: whether the next hop now keeps the deadline (RFC 2852), if there is one.
    :param isFinal: whether the recipient's mailbox has it, so that nobody relays it any further.
    :param saidLast: what the next hop said, where ``reply`` is not that, for its time is over.
    :param isExcess: whether it was only one recipient too many for the transaction.
    """

    result: Result
    reply: Reply
    isRemote: bool = True
    dsn: bool = False
    host: str = ""
    isFinal: bool = False
    deliverBy: bool = False
    saidLast: Reply | None = None
    isExcess: bool = False


def judge(reply: Reply) -> Result:
    """What a reply to a recipient or a message means.

    :param reply: of the classes 2yz, 4yz or 5yz.
    """
    if reply.code >= 500:
        return Result.FAILED
    return Result.DELAYED if reply.code >= 400 else Result.DELIVERED


def inOneLine(reply: Reply) -> str:
    """A reply as logs, records and other replies quote it."""
    return " ".join(filter(None, (str(reply.code), reply.status, " / ".join(reply.lines))))
