"""The live connections of a service: counted, swept for the silent, closed at the end.

One coarse clock serves all of them: a sweep every few seconds, instead of a delayed call that each
command would have to put off again.  A connection notes ``now`` when it hears something.
"""

from __future__ import annotations

from typing import Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

# Seconds between two sweeps: how much longer than its limit a silent connection may stay.
SWEEP = 5.0


class Sweepable(Protocol):
    """What the sweep calls."""

    def sweep(self, now: float) -> None:
        """Look at the time, and end when silent for too long."""

    def disconnect(self) -> None:
        """End now, with a word to the client."""


class Connections:
    """All live connections of one service, over all its listeners.

    :param clock: the reactor, or a ``Clock``.
    :param maximum: how many there may be at once; 0 for no limit.
    :ivar now: the time of the last sweep, in the clock's seconds.
    """

    def __init__(self, clock: IReactorTime, maximum: int = 0) -> None:
        self._live: set[Sweepable] = set()
        self._maximum = maximum
        self._clock = clock
        self._users = 0
        self._sweeping = LoopingCall(self._sweep)
        self._sweeping.clock = clock
        self.now = clock.seconds()

    def __len__(self) -> int:
        return len(self._live)

    @property
    def isFull(self) -> bool:
        """Whether one more would pass the maximum."""
        return 0 < self._maximum <= len(self._live)

    def add(self, connection: Sweepable) -> None:
        """A connection has been made."""
        self._live.add(connection)

    def remove(self, connection: Sweepable) -> None:
        """A connection is gone."""
        self._live.discard(connection)

    def start(self) -> None:
        """A listener opens: sweep from now on."""
        self._users += 1
        if self._users == 1:
            self._sweeping.start(SWEEP)

    def stop(self) -> None:
        """A listener has closed: with the last one, the sweeping ends."""
        self._users -= 1
        if self._users == 0:
            self._sweeping.stop()

    def disconnectAll(self) -> None:
        """End every connection, as at shutdown."""
        for connection in list(self._live):
            connection.disconnect()

    def _sweep(self) -> None:
        self.now = self._clock.seconds()
        for connection in list(self._live):
            connection.sweep(self.now)
