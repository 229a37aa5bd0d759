"""The listening ports, whose connections are those of transport.py.

A port takes the clients that there are at once, up to a bound.  While the process has no descriptor
for one more, clients wait to be accepted: a line of log says so once, and another when it is over.
One connection that cannot be made closes neither the port nor another.

:class:`PortReactor` gives these ports to whoever listens by Twisted's endpoint strings, also on
sockets that were opened by somebody else.
"""

# mypy: allow-untyped-calls
# Twisted's ports are not annotated throughout.

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet import tcp, unix
from twisted.internet.error import CannotListenError, UnsupportedAddressFamily
from twisted.internet.interfaces import IDelayedCall, IListeningPort, IProtocolFactory
from twisted.logger import Logger
from zope.interface import directlyProvides, providedBy

from submitd import events
from submitd.polling import pollingOf
from submitd.transport import Server, UNIXServer

# Seconds without accepting when there is no descriptor for a connection.
REST = 1.0
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# What Twisted's endpoints ask for when nothing is said.  With so short a queue the kernel drops the
# beginnings of connections under a rush, and clients try again only after 1, 3, 7, 15 seconds.
FEW_WAITING = 50


class _Accepting(tcp.Port):
    """A port that leaves clients waiting while there is no descriptor for them.

    Twisted's takes them all to close them at once, with a line of log for each, and they come back
    as fast as they can.

    :cvar accepts: connections accepted at once, at most.
    """

    accepts = 100

    reactor: Any
    factory: Any
    _log = Logger()
    _resting: IDelayedCall | None = None
    _isShort = False

    def doRead(self) -> None:
        """Take connections, as many as may be taken at once."""
        for _ in range(self.accepts):
            try:
                accepted, address = self.socket.accept()
            except BlockingIOError:
                self._allServed()
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self._rest(error)
                # Or one has gone again before it was accepted; the next has its turn soon.
                return
            self._serve(accepted, address)

    def _serve(self, accepted: socket.socket, address: Any) -> None:
        made = None
        try:
            if len(address) == 4:
                # With the scope of a link-local address, which is part of its name.
                numbers = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
                address = (socket.getnameinfo(address, numbers)[0], *address[1:])
            protocol = self.factory.buildProtocol(self._buildAddr(address))
            if protocol is None:
                accepted.close()
                return
            number, self.sessionno = self.sessionno, self.sessionno + 1
            made = self.transport(accepted, protocol, address, self, number, self.reactor)
            protocol.makeConnection(made)
        except Exception:
            # One connection's trouble is not to close the port to all others.
            self._log.failure("in connectionMade")
            if made is None:
                accepted.close()
            else:
                # Closed alone, it would still be waited for, and the next one of its number not.
                made.abortConnection()

    def _rest(self, error: OSError) -> None:
        """Accept nobody for a moment: a socket that stays readable would turn the reactor."""
        if not self._isShort:
            self._isShort = True
            said = f"clients have to wait: {error.strerror}; see LimitNOFILE and limits.connections"
            events.emit(events.SERVICE_PROBLEM, problem=said)
        self.stopReading()
        self._resting = self.reactor.callLater(REST, self._goOn)

    def _allServed(self) -> None:
        if self._isShort:
            self._isShort = False
            events.emit(events.SERVICE_PROBLEM, problem="no client has to wait any longer")

    def _goOn(self) -> None:
        self._resting = None
        if self.connected:
            self.startReading()

    def connectionLost(self, reason: Any) -> None:
        """The port is closed."""
        if self._resting is not None:
            self._resting.cancel()
            self._resting = None
        super().connectionLost(reason)


class Port(_Accepting):
    """A listening TCP port."""

    transport = Server

    def startListening(self) -> None:
        """Listen.

        :raise CannotListenError: when the address is in use or not ours.
        """
        super().startListening()
        # Connections inherit it, which saves a system call for each.  Without it a reply that is
        # sent at once would wait for the acknowledgement of the one before (Nagle).
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)


class UNIXPort(_Accepting, unix.Port):
    """A listening unix socket."""

    transport = UNIXServer  # type: ignore[assignment]

    def startListening(self) -> None:
        """Listen.

        :raise CannotListenError: when the path is in use or not ours.
        """
        before = self.factory.numPorts
        try:
            super().startListening()
        except CannotListenError:
            # Twisted's has the lock and has started the factory by then, and keeps both.
            if self.factory.numPorts > before:
                self.factory.doStop()
            if self.lockFile is not None and self.lockFile.locked:
                self.lockFile.unlock()
            raise

    @classmethod
    def _fromListeningDescriptor(  # type: ignore[override]
        cls, reactor: Any, fd: int, factory: Any
    ) -> Any:
        self = super()._fromListeningDescriptor(reactor, fd, factory)
        # An inherited socket is another's, systemd's say, and outlives us.  Twisted's port would
        # open its file to everybody, remove it at the end, and shut the socket down for all; a
        # name outside the file system keeps it from the first two.
        self._bindPath = b"\0" + self._bindPath
        self._shouldShutdown = False
        return self


def _waiting(backlog: int) -> int:
    """How many may wait to be accepted: what is asked for, or the most that the system has."""
    return backlog if backlog != FEW_WAITING else socket.SOMAXCONN


class PortReactor:
    """A reactor that listens with our ports, and is the one it was given in everything else.

    So ``serverFromString(PortReactor(reactor), "tcp:587")`` and the endpoint strings ``unix:`` and
    ``systemd:`` give our ports.

    :param reactor: the reactor that does the work.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._polling = pollingOf(reactor)
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """See ``IReactorTCP.listenTCP``."""
        return self._listen(Port(port, factory, _waiting(backlog), interface, self._polling))

    def listenUNIX(
        self,
        address: Any,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> IListeningPort:
        """See ``IReactorUNIX.listenUNIX``."""
        waiting = _waiting(backlog)
        return self._listen(UNIXPort(address, factory, waiting, mode, self._polling, wantPID))

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: IProtocolFactory
    ) -> IListeningPort:
        """See ``IReactorSocket.adoptStreamPort``."""
        adopted = (self._polling, fileDescriptor)
        if addressFamily == socket.AF_UNIX:
            return self._listen(UNIXPort._fromListeningDescriptor(*adopted, factory))
        if addressFamily in (socket.AF_INET, socket.AF_INET6):
            return self._listen(Port._fromListeningDescriptor(*adopted, addressFamily, factory))
        raise UnsupportedAddressFamily(addressFamily)

    def _listen(self, port: tcp.Port) -> IListeningPort:
        port.startListening()
        return port
