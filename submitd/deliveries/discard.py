"""Takes every message and drops it: for trying policies, and for measuring.

A client is told 250 for a message that is gone, which is what the name says.  Nothing fails.
"""

from __future__ import annotations

import attrs
from zope.interface import implementer

from submitd.envelope import Envelope
from submitd.interfaces import IDelivery, IMessage
from submitd.session import Session


@implementer(IDelivery)
@attrs.define(eq=False)
class Discard:
    """Drops messages.

    :ivar messages: how many have been taken to their end.
    :ivar octets: how large these were together.
    """

    messages: int = attrs.field(default=0, init=False)
    octets: int = attrs.field(default=0, init=False)

    def begin(self, session: Session, envelope: Envelope) -> DiscardedMessage:
        """See :meth:`submitd.interfaces.IDelivery.begin`."""
        return DiscardedMessage(self)


@implementer(IMessage)
@attrs.define(eq=False)
class DiscardedMessage:
    """A message on its way to nowhere."""

    _delivery: Discard
    _octets: int = attrs.field(default=0, init=False)

    def dataReceived(self, chunk: bytes) -> None:
        """Count."""
        self._octets += len(chunk)

    def prepend(self, fields: bytes) -> None:
        """Count."""
        self._octets += len(fields)

    def eomReceived(self) -> None:
        """Count the message; the queue id is the envelope's."""
        self._delivery.messages += 1
        self._delivery.octets += self._octets

    def connectionLost(self) -> None:
        """Nothing was kept, so nothing is left."""
