"""One mail transaction: who it is from, who it is for, and how it is to be sent (RFC 5321 3.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from submitd.wire.address import Mailbox, ReversePath

if TYPE_CHECKING:
    from submitd.interfaces import IReceivedMessage
    from submitd.message.copied import Copy


@attrs.define(eq=False)
class Recipient:
    """One accepted or proposed RCPT.

    :param mailbox: the forward-path.
    :param parameters: the ESMTP parameters as the client gave them, by upper-case keyword; the
        value is ``None`` for a keyword without one.
    :ivar notify: RFC 3461 4.1, such as ``("FAILURE", "DELAY")``; empty when not given.
    :ivar orcpt: RFC 3461 4.2, ``(address type, decoded address)``, or ``None``.
    :ivar others: further recipients that a policy puts beside this one, at its RCPT; all of them
        are taken, or none.
    :ivar placedBy: which policy has put it there; those behind that are asked about it.
    """

    mailbox: Mailbox
    parameters: dict[str, str | None] = attrs.field(factory=dict)
    notify: tuple[str, ...] = ()
    orcpt: tuple[str, str] | None = None
    others: tuple[Recipient, ...] = ()
    placedBy: Any = attrs.field(default=None, repr=False)


@attrs.define(eq=False)
class Envelope:
    """One mail transaction.

    :param id: unique; the queue id of the message unless the delivery gives another.
    :param reversePath: where reports go; null for none.
    :param parameters: the ESMTP parameters of MAIL, as in :class:`Recipient`.
    :ivar size: the size the client announced (RFC 1870), in octets, or ``None``.
    :ivar bodyType: ``"7BIT"``, ``"8BITMIME"`` (RFC 6152) or ``"BINARYMIME"`` (RFC 3030).
    :ivar smtpUtf8: whether SMTPUTF8 was asked for (RFC 6531).
    :ivar requireTLS: whether REQUIRETLS was asked for (RFC 8689).
    :ivar auth: the AUTH= parameter, decoded (RFC 4954 5); ``"<>"`` or an address, or ``None``.
    :ivar ret: RFC 3461 4.3, ``"FULL"``, ``"HDRS"`` or ``None``.
    :ivar envid: RFC 3461 4.4, decoded, or ``None``.
    :ivar hold: why the message is to be kept until an operator lets it go, or ``None``; a policy
        sets it before the commit, and only a delivery that is an ``IHoldingDelivery`` obeys.
    :ivar blind: further recipients, of whom no client, report or header field tells; only a
        delivery that is an ``IBlindCopyDelivery`` obeys.
    :ivar copies: deliveries that take the message too, and have committed it before the 250; a
        policy adds to them before 354.
    :ivar asked: the recipients that the client knows to be accepted, where policies have put
        another list in the place of ``recipients``; else ``None``.
    :ivar extensions: what further extensions have parsed, by their keyword: ``"FUTURERELEASE"`` the
        time before which the message is not to be sent, in seconds since 1970 (RFC 4865);
        ``"MT-PRIORITY"`` an int from -9 to 9 (RFC 6710); ``"DELIVERBY"`` a
        :class:`submitd.extensions.deliverby.DeliverBy` (RFC 2852).
    :ivar private: whether our Received field is to hide the client: its address and names.
    :ivar message: the message as far as it has been received: its size so far, and whether it has
        passed the limit; ``None`` before the first octet and behind the end of the transaction.
    """

    id: str
    reversePath: ReversePath
    parameters: dict[str, str | None] = attrs.field(factory=dict)
    recipients: list[Recipient] = attrs.field(factory=list)
    size: int | None = None
    bodyType: str = "7BIT"
    smtpUtf8: bool = False
    requireTLS: bool = False
    auth: str | None = None
    ret: str | None = None
    envid: str | None = None
    hold: str | None = None
    blind: tuple[Recipient, ...] = ()
    copies: tuple[Copy, ...] = ()
    asked: list[Recipient] | None = None
    extensions: dict[str, Any] = attrs.field(factory=dict)
    private: bool = False
    message: IReceivedMessage | None = attrs.field(default=None, repr=False)

    @property
    def known(self) -> list[Recipient]:
        """The recipients that the client knows to be accepted."""
        return self.recipients if self.asked is None else self.asked
