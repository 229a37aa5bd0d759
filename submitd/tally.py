"""Counts of live connections that the workers of one service see together.

A file in memory has a page of numbers for each worker that lives: one number for each of its
connections, a keyed digest of the address it comes from.  Each worker writes its own page alone and
looks at the others'; a lock of the system, held for some microseconds, keeps two of them from
taking the last place both.  A worker that is killed leaves its page to the parent, which wipes it,
so that its connections are counted no longer.
"""

from __future__ import annotations

import fcntl
import hashlib
import heapq
import mmap
import os
import struct
import tempfile
from collections import deque

from twisted.internet.interfaces import IReactorTime

from submitd.connections import Connections, Live

PAGES = 256
"""How many workers there may be at one time, those that are ending among them.  The first page is
the parent's, and says how many are to be looked at."""

MOST = 65535
"""Connections of one worker that can be told apart; more are counted in all alone."""

NOTED = 32
"""Ends of connections that are remembered."""

_NUMBER = 8
# Connections; numbers in use, those that are free between them too; whether more are accepted.
_HEADER = struct.Struct("=IHH")
_PAGE = (MOST + 1) * _NUMBER
NOBODY = bytes(_NUMBER)
"""The number of no address, and of a place that is free."""


def makeFile() -> int:
    """A new file; it takes no more memory than there are connections.

    :return: its descriptor.
    :raise OSError: when it cannot be made.
    """
    with tempfile.TemporaryFile() as file:
        file.truncate(PAGES * _PAGE)
        return os.dup(file.fileno())


class Tally:
    """The whole file.

    :param descriptor: of the file; it is not kept.
    :param own: the number of one's own page.
    :param key: what addresses are digested with.
    :ivar ended: when the last ``NOTED`` connections of one's own have ended, the earliest first, in
        the reactor's seconds.
    """

    def __init__(self, descriptor: int, own: int = 0, key: bytes = b"") -> None:
        self._file = os.dup(descriptor)
        self._map = mmap.mmap(self._file, PAGES * _PAGE)
        self._start = own * _PAGE
        self._key = key
        self._free: list[int] = []
        self._used = 0
        self._count = 0
        self._accepts = False
        self.ended = deque([0.0] * NOTED, NOTED)

    def close(self) -> None:
        """Let go of the file."""
        self._map.close()
        os.close(self._file)

    def look(self, pages: int) -> None:
        """Have all look at the pages below this one."""
        _HEADER.pack_into(self._map, 0, 0, pages, 0)

    def wipe(self, page: int) -> None:
        """Forget the connections of a worker that is gone."""
        _HEADER.pack_into(self._map, page * _PAGE, 0, 0, 0)

    def digest(self, address: str) -> bytes:
        """What stands for an address; eight zeros for none."""
        if not address:
            return NOBODY
        return hashlib.blake2b(address.encode(), key=self._key, digest_size=_NUMBER).digest()

    def lock(self) -> None:
        """Keep the others from changing anything until :meth:`unlock`."""
        # Not flock: it would belong to all processes that inherited the file together.
        fcntl.lockf(self._file, fcntl.LOCK_EX)

    def unlock(self) -> None:
        """Let the others go on."""
        fcntl.lockf(self._file, fcntl.LOCK_UN)

    def counted(self, number: bytes) -> tuple[int, int]:
        """How many connections the others have: in all, and from one address."""
        total = same = 0
        _, pages, _ = _HEADER.unpack_from(self._map, 0)
        for start in range(_PAGE, pages * _PAGE, _PAGE):
            count, used, _ = _HEADER.unpack_from(self._map, start)
            if count and start != self._start:
                total += count
                if number != NOBODY:
                    begin = start + _NUMBER
                    same += self._map[begin : begin + used * _NUMBER].count(number)
        return total, same

    def accept(self, accepts: bool) -> None:
        """Say whether one accepts connections."""
        self._accepts = accepts
        self._say()

    def isAhead(self) -> bool:
        """Whether somebody else who accepts has fewer connections, by more than a sixteenth."""
        _, pages, _ = _HEADER.unpack_from(self._map, 0)
        for start in range(_PAGE, pages * _PAGE, _PAGE):
            count, _, accepts = _HEADER.unpack_from(self._map, start)
            if accepts and self._count > count + count // 16 and start != self._start:
                return True
        return False

    def add(self, number: bytes) -> int:
        """Count a connection of one's own.

        :return: its place, for :meth:`put` and :meth:`remove`.
        """
        self._count += 1
        if self._free:
            place = heapq.heappop(self._free)
        else:
            place = self._used
            self._used = min(self._used + 1, MOST)
        self.put(place, number)
        return place

    def put(self, place: int, number: bytes) -> None:
        """Count it for this address."""
        if place < MOST:
            at = self._start + (place + 1) * _NUMBER
            self._map[at : at + _NUMBER] = number
        self._say()

    def _say(self) -> None:
        _HEADER.pack_into(self._map, self._start, self._count, self._used, self._accepts)

    def remove(self, place: int) -> None:
        """Count it no longer."""
        self._count -= 1
        self.put(place, NOBODY)
        if place < MOST:
            heapq.heappush(self._free, place)


class SharedConnections(Connections):
    """The live connections of one worker, with limits that hold for all workers together.

    :param tally: where they are counted.
    """

    def __init__(self, clock: IReactorTime, maximum: int, perAddress: int, tally: Tally) -> None:
        super().__init__(clock, maximum, perAddress)
        self._tally = tally
        self._places: dict[Live, int] = {}
        self._reserved: int | None = None

    def hasRoom(self, address: str) -> bool:
        """Whether there may be one more; if so, the place is kept for the next :meth:`add`."""
        tally, number = self._tally, self._tally.digest(address)
        tally.lock()
        try:
            if self._reserved is not None:  # for one that never came
                tally.remove(self._reserved)
                self._reserved = None
            total, same = tally.counted(number)
            hasRoom = self._fits(total + len(self._live), same + self._from[address], address)
            if hasRoom:
                self._reserved = tally.add(number)
            return hasRoom
        finally:
            tally.unlock()

    def _fits(self, total: int, same: int, address: str) -> bool:
        if 0 < self._maximum <= total:
            return False
        return not (address and 0 < self._perAddress <= same)

    def add(self, connection: Live) -> None:
        """See :meth:`Connections.add`."""
        super().add(connection)
        number = self._tally.digest(connection.remoteAddress)
        place, self._reserved = self._reserved, None
        if place is None:
            place = self._tally.add(number)
        else:
            self._tally.put(place, number)
        self._places[connection] = place

    def remove(self, connection: Live) -> None:
        """See :meth:`Connections.remove`."""
        self._tally.remove(self._places.pop(connection))
        self._tally.ended.append(self._clock.seconds())
        super().remove(connection)

    def move(self, connection: Live) -> bool:
        """See :meth:`Connections.move`."""
        before, address = self._live[connection], connection.remoteAddress
        tally, number = self._tally, self._tally.digest(address)
        tally.lock()
        try:
            _, same = tally.counted(number)
            hasRoom = before == address or self._fits(0, same + self._from[address], address)
            super().move(connection)
            tally.put(self._places[connection], number)
            return hasRoom
        finally:
            tally.unlock()
