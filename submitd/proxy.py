"""Connections behind a proxy: the PROXY header is read before anything else.

A :class:`HeaderReader` is what the factory gives to a connection from a peer whose header it
believes.  It reads the header, and then the connection goes on with a protocol that knows the real
address: no policy, limit or log ever sees the proxy's in its place.  From such a peer the header is
required.  What is no header, is cut off, or is not whole within the handshake limit closes the
connection without a word, for behind a proxy nobody would read it, and with one log line.

Octets behind the header belong to what follows, and for implicit TLS these are the client's
handshake.  Our own transport leaves them on the socket (``ILookAhead``), from where OpenSSL reads
them.  Twisted's transports have read them already: there they are given to whatever the transport's
``protocol`` is by then, which ``startTLS`` has set to its TLS layer.  Endpoints that bring a TLS
layer of their own begin with the handshake: there a header can come behind it alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from submitd import events
from submitd.transport import ILookAhead
from submitd.wire.proxy import HeaderError, HeaderParser

if TYPE_CHECKING:
    from submitd.protocol import SubmissionFactory


class HeaderReader(Protocol):
    """A connection from a trusted proxy, until its header is whole.

    :param factory: makes the protocol that follows.
    :param peer: the proxy's address, for the log.
    """

    def __init__(self, factory: SubmissionFactory, peer: str) -> None:
        self.factory = factory
        self._peer = peer
        self._parser = HeaderParser()
        self._began = 0.0
        self._cause = ""
        self._next: Any = None

    @property
    def remoteAddress(self) -> str:
        """Whose connection it is, is not known yet: it counts for no address."""
        return ""

    @property
    def _transport(self) -> Any:
        return self.transport

    def connectionMade(self) -> None:
        """Wait for the header; a full service says so at once."""
        connections = self.factory.connections
        if not connections.hasRoom(self.remoteAddress):
            self._goOn(self.factory.protocolFor(None))
            return
        self._began = self.factory.rules.submission.clock.seconds()
        connections.add(self)
        if ILookAhead.providedBy(self._transport):
            self._transport.lookAhead(self._parser.wanted)

    def dataReceived(self, data: bytes) -> None:
        """Take what belongs to the header, and hand on what does not."""
        if self._next is not None:  # a transport that cannot be given another protocol
            self._next.dataReceived(data)
            return
        if self._cause:
            return
        wanted = self._parser.wanted(data)
        try:
            header = self._parser.feed(data[:wanted])
        except HeaderError as error:
            self._refuse(str(error))
            return
        if header is not None:
            self.factory.connections.remove(self)
            self._goOn(self.factory.protocolFor(header.ends))
            if len(data) > wanted:
                self._transport.protocol.dataReceived(data[wanted:])

    def _goOn(self, protocol: Protocol) -> None:
        if ILookAhead.providedBy(self._transport):
            self._transport.lookAhead(None)
        self._next = self._transport.protocol = protocol
        protocol.makeConnection(self._transport)

    def _refuse(self, cause: str) -> None:
        self._cause = cause
        self._transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone before its header was whole."""
        if self._next is not None:
            self._next.connectionLost(reason)
            return
        self.factory.connections.remove(self)
        cause = self._cause or ("no header" if self._parser.isEmpty else "cut off")
        events.emit(events.PROXY_REFUSED, peer=self._peer, cause=cause)

    def sweep(self, now: float) -> None:
        """End a connection whose header is not whole in time, however busy it is."""
        limit = self.factory.rules.submission.limits.handshake
        if limit and now - self._began > limit:
            self._cause = self._cause or "not whole in time"
            self._transport.abortConnection()

    def drain(self) -> None:
        """The service stops."""
        self._refuse(self._cause or "the service stops")

    def abort(self) -> None:
        """End at once."""
        self._transport.abortConnection()
