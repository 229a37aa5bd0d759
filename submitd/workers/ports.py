"""Ports that several workers accept from: the next connection goes to the one with the fewest.

A worker takes one connection at a time, for others may have time, too.  One that has more
connections than another first steps back, until that one has taken enough, or for ``PATIENCE`` at
most: whoever is busy, or stopped, keeps no client waiting for longer.  When it has been waited for
in vain, nobody waits for it again soon.

A worker whose connections come and go, some hundred a second, takes all there are: who has less
work then has its turn sooner by itself, and to serve many at once costs less.

Without this one worker would have ten, another six of sixteen clients that stay, and the service
would be done with its work when the first of them is.
"""

from __future__ import annotations

import select
import socket
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IDelayedCall,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from zope.interface import implementer

from submitd.polling import pollingOf
from submitd.ports import Port, UNIXPort
from submitd.tally import Tally

LOOK = 0.001
"""Seconds between two looks whether the others have taken enough."""

PATIENCE = 0.005
"""Seconds that a connection waits for them, at most."""

UNASKED = 0.1
"""Seconds without stepping back, after one was waited for in vain or many connections ended."""

MANY = Port.accepts


class _Shared:
    """A port that steps back for other workers.

    :ivar tally: who has how many connections.
    """

    accepts: int
    tally: Tally

    reactor: Any
    _resting: IDelayedCall | None
    _isShort: bool
    _until = 0.0
    _unasked = 0.0

    def doRead(self) -> None:
        """Accept one if it is this one's turn, or many where they come and go."""
        now = self.reactor.seconds()
        # Where clients had to wait, all there are: who finds none left can say that it is over.
        takesAll = self._isShort or now < self.tally.ended[0] + UNASKED
        if takesAll or now < self._unasked or not self.tally.isAhead():
            self.accepts = MANY if takesAll else 1
            super().doRead()  # type: ignore[misc]
        else:
            self._until = now + PATIENCE
            self.stopReading()  # type: ignore[attr-defined]
            self._resting = self.reactor.callLater(LOOK, self._look)

    def _look(self) -> None:
        if self.tally.isAhead():
            now = self.reactor.seconds()
            if now < self._until:
                self._resting = self.reactor.callLater(LOOK, self._look)
                return
            if self._isWaitedFor():
                self._unasked = now + UNASKED
        self._goOn()  # type: ignore[attr-defined]

    def _isWaitedFor(self) -> bool:
        """Whether a connection has been left by all others."""
        ready = select.poll()
        ready.register(self.fileno(), select.POLLIN)  # type: ignore[attr-defined]
        return bool(ready.poll(0))


class SharedPort(_Shared, Port):
    """A TCP port of several workers."""


class SharedUNIXPort(_Shared, UNIXPort):
    """A unix socket of several workers."""


@implementer(IStreamServerEndpoint)
class SharedEndpoint:
    """A port that the parent has opened.

    :param reactor: listens.
    :param descriptor: of the port; it is closed when it is listened on.
    :param tally: who has how many connections.
    """

    def __init__(self, reactor: Any, descriptor: int, tally: Tally) -> None:
        self._reactor = pollingOf(reactor)
        self._descriptor = descriptor
        self._tally = tally

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """See ``IStreamServerEndpoint.listen``."""
        with socket.socket(fileno=self._descriptor) as opened:
            file, family = opened.fileno(), opened.family
            port: Any
            if family == socket.AF_UNIX:
                port = SharedUNIXPort._fromListeningDescriptor(self._reactor, file, factory)
            else:
                adopt: Any = SharedPort._fromListeningDescriptor
                port = adopt(self._reactor, file, family, factory)
        port.tally = self._tally
        port.startListening()
        return succeed(port)
