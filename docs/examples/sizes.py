"""A delivery in front of another one, which watches how large each message grows.

A message that passes the limit needs no care: the client is told 552 behind its end, and the
delivery is told to drop it as soon as the limit is passed.  Here the sizes go to a log.
"""

from __future__ import annotations

from typing import Any

import attrs
from twisted.logger import Logger
from zope.interface import implementer

from submitd.envelope import Envelope
from submitd.interfaces import IDelivery, IMessage
from submitd.session import Session


@implementer(IDelivery)
@attrs.define(eq=False)
class Sizes:
    """Hands messages on.

    :param delivery: where they go; its ``begin`` gives a message at once.
    """

    delivery: Any
    log = Logger()

    def begin(self, session: Session, envelope: Envelope) -> Watched:
        """Begin to take a message."""
        return Watched(self.delivery.begin(session, envelope), envelope, self.log)


@implementer(IMessage)
@attrs.define(eq=False)
class Watched:
    """A message on its way; ``envelope.message`` has its size so far."""

    sink: Any
    envelope: Envelope
    log: Logger

    def dataReceived(self, chunk: bytes) -> Any:
        """Hand on."""
        return self.sink.dataReceived(chunk)

    def prepend(self, fields: bytes) -> None:
        """Header fields of policies."""
        self.sink.prepend(fields)

    def eomReceived(self) -> Any:
        """Commit."""
        self.log.info("received {octets} octets", octets=self._message.byteLength)
        return self.sink.eomReceived()

    def connectionLost(self) -> None:
        """Abort."""
        if self._message.sizeExceeded:
            self.log.warn("too large: {octets} octets so far", octets=self._message.byteLength)
        self.sink.connectionLost()

    @property
    def _message(self) -> Any:
        return self.envelope.message
