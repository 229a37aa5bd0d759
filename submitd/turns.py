"""Turns: so many at once, and the others wait in their order.

``DeferredSemaphore`` does the same, but begins with the next one while the one before it gives its
turn back.  Where each ends at once, since a server is known to be away, a hundred that wait lie a
thousand frames deep in each other: more than Python allows, and whoever is left waits for ever.
Here the first one to give its turn back begins with all that follow, one after another.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred


class Turns:
    """A number of turns.

    :param count: how many may have one at once.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: deque[Deferred[None]] = deque()
        self._isGiving = False

    def acquire(self) -> Deferred[None]:
        """Wait for a turn.

        :return: fires when it has come, at once where there is a free one; then :meth:`release` is
            due.  Cancelled before, it leaves the queue.
        """
        turn: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(turn)
        self._give()
        return turn

    def release(self) -> None:
        """Give a turn back."""
        self._free += 1
        self._give()

    def _give(self) -> None:
        if self._isGiving:
            return
        self._isGiving = True
        while self._free and self._waiting:
            self._free -= 1
            self._waiting.popleft().callback(None)  # which raises nothing
        self._isGiving = False
