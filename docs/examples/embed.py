"""A submission port in a Twisted program, with its own Portal, policy and delivery."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import MultiService
from twisted.cred.portal import Portal
from zope.interface import implementer

from submitd.envelope import Envelope, Recipient
from submitd.interfaces import IDelivery, IMessage, IRecipientPolicy
from submitd.service import submissionService
from submitd.session import Session
from submitd.settings import ListenerSettings
from submitd.tls import ServerTLS, TLSSettings
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply


@implementer(IRecipientPolicy)
class TicketsOnly:
    """The policy: mail to tickets@ and to nobody else."""

    def validateTo(self, session: Session, envelope: Envelope, recipient: Recipient) -> None:
        """Refuse another recipient."""
        if recipient.mailbox.localPart != "tickets":
            raise Refused(Reply(550, "5.7.1", "This port takes mail for tickets@ only"))


@implementer(IDelivery)
@attrs.define(eq=False)
class TicketDelivery:
    """The delivery: each message becomes a ticket in a list, which a program would store."""

    tickets: list[tuple[str, bytes]] = attrs.field(factory=list)

    def begin(self, session: Session, envelope: Envelope) -> Ticket:
        """A message begins."""
        return Ticket(self, str(envelope.reversePath))


@implementer(IMessage)
@attrs.define(eq=False)
class Ticket:
    """A message on its way into the list."""

    delivery: TicketDelivery
    sender: str
    text: bytearray = attrs.field(factory=bytearray)

    def dataReceived(self, chunk: bytes) -> None:
        """Some octets of the message."""
        self.text += chunk

    def prepend(self, fields: bytes) -> None:
        """A policy's header fields."""
        self.text[:0] = fields

    def eomReceived(self) -> None:
        """Commit: what returns from here has been kept, and the client is told 250."""
        self.delivery.tickets.append((self.sender, bytes(self.text)))

    def connectionLost(self) -> None:
        """Abort: there is nothing to clean up."""


def addSubmission(
    parent: MultiService, reactor: Any, portal: Portal, delivery: IDelivery, directory: Path
) -> None:
    """Listen for submissions as long as ``parent`` runs."""
    # Ten lines.
    certificate, key = directory / "certificate.pem", directory / "private_key.pem"
    service = submissionService(
        reactor,
        [ListenerSettings(endpoint="tcp:587")],
        ServerTLS(TLSSettings(certificate=certificate, private_key=key)),
        portal=portal,
        policies=[TicketsOnly()],
        delivery=delivery,
    )
    service.setServiceParent(parent)
    # That is all.
