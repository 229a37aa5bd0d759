"""The live connections of a service: counted, swept for the slow, drained at the end.

One coarse clock serves all of them: a sweep every few seconds, instead of a delayed call that each
command would have to put off again.  A connection notes ``now`` when it hears something: the time
of the next sweep, so that nobody is ended too early, however short his time is.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

# Seconds between two sweeps: how much longer than its limit a handshake may take.  A silent
# connection may stay for twice as much.
SWEEP = 5.0


class Live(Protocol):
    """What is asked of a connection."""

    @property
    def remoteAddress(self) -> str:
        """Where it comes from; empty for a unix socket."""

    def sweep(self, now: float) -> None:
        """Look at the time, and end when something takes too long."""

    def drain(self) -> None:
        """Take no further transaction: end now, or when the one under way has been answered."""

    def abort(self) -> None:
        """End at once, whatever is under way."""


class Connections:
    """All live connections of one service, over all its listeners.

    :param clock: the reactor, or a ``Clock``.
    :param maximum: how many there may be at once; 0 for no limit.
    :param perAddress: how many there may be from one address; 0 for no limit.
    :ivar now: the time of the next sweep, in the clock's seconds.
    """

    def __init__(self, clock: IReactorTime, maximum: int = 0, perAddress: int = 0) -> None:
        self._live: dict[Live, str] = {}
        self._from: Counter[str] = Counter()
        self._maximum = maximum
        self._perAddress = perAddress
        self._clock = clock
        self._listeners = 0
        self._drained: Deferred[None] | None = None
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = clock
        self.now = clock.seconds() + SWEEP

    def __len__(self) -> int:
        return len(self._live)

    def hasRoom(self, address: str) -> bool:
        """Whether there may be one more, from this address."""
        if 0 < self._maximum <= len(self._live):
            return False
        # A unix socket has no address to count: its clients are as many as the file mode lets in.
        return not (address and 0 < self._perAddress <= self._from[address])

    def add(self, connection: Live) -> None:
        """A connection has been made; its address is counted until it is gone."""
        self._live[connection] = address = connection.remoteAddress
        self._from[address] += 1

    def remove(self, connection: Live) -> None:
        """A connection is gone."""
        address = self._live.pop(connection)
        self._from[address] -= 1
        if not self._from[address]:
            del self._from[address]
        if not self._live:
            self._sweepNoMore()
        if not self._live and self._drained is not None:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def move(self, connection: Live) -> bool:
        """A connection turns out to be from another address, which a proxy has told.

        :return: whether that address had room for it.
        """
        before, address = self._live[connection], connection.remoteAddress
        if before == address:
            return True
        self._from[before] -= 1
        if not self._from[before]:
            del self._from[before]
        hasRoom = not (address and 0 < self._perAddress <= self._from[address])
        self._live[connection] = address
        self._from[address] += 1
        return hasRoom

    def start(self) -> None:
        """A listener opens: sweep from now on."""
        self._listeners += 1
        if not self._sweeping.running:
            self._sweeping.start(SWEEP)

    def stop(self) -> None:
        """A listener has closed: with the last one, and the last connection, the sweeping ends."""
        self._listeners -= 1
        self._sweepNoMore()

    def _sweepNoMore(self) -> None:
        if self._listeners == 0 and not self._live and self._sweeping.running:
            self._sweeping.stop()

    def drain(self, seconds: float) -> Deferred[None]:
        """End all connections: idle ones now, others when their transaction has been answered.

        :param seconds: what is still there then is aborted.
        :return: fires when none is left.
        """
        drained: Deferred[None] = Deferred()
        if not self._live:
            drained.callback(None)
            return drained
        self._drained = drained
        late = self._clock.callLater(seconds, self._abortAll)
        for connection in list(self._live):
            connection.drain()
        return drained.addCallback(lambda _: late.cancel() if late.active() else None)

    def _abortAll(self) -> None:
        for connection in list(self._live):
            connection.abort()

    def _sweep(self) -> None:
        now = self._clock.seconds()
        self.now = now + SWEEP
        for connection in list(self._live):
            connection.sweep(now)
