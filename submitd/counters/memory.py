"""Counts in the memory of this process; gone when it ends.

What was counted at one time is one entry, so a message to a hundred recipients costs no more than
one to a single one.  Keys are bounded: with too many the ones that nobody has asked for the longest
go first; and as new ones come, old ones that are empty are dropped.  No thread, no timer: the
storage of the package ``limits`` starts a thread while it is used, and keeps every key for ever.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from submitd.counters.windows import Room, Taken, Want

MAX_KEYS = 200_000

# Entries in front that have left their window may stay until there are so many.
_COMPACT = 64


class _Log:
    """What was counted under one key, oldest first.

    :param seconds: how long it counts.
    :ivar total: how much is in the window as it was last looked at.
    """

    __slots__ = ("amounts", "first", "seconds", "times", "total")

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self.times: list[float] = []
        self.amounts: list[int] = []
        self.first = 0
        self.total = 0

    def forget(self, now: float) -> None:
        """Drop what has left the window."""
        times, at = self.times, self.first
        end, before = len(times), now - self.seconds
        if at == end or times[at] > before:
            return
        while at < end and times[at] <= before:
            self.total -= self.amounts[at]
            at += 1
        self.first = at
        if at == end or (at >= _COMPACT and at * 2 > end):
            del times[:at], self.amounts[:at]
            self.first = 0

    def add(self, now: float, amount: int) -> None:
        """Count something now."""
        if self.times and self.times[-1] >= now:
            self.amounts[-1] += amount
        else:
            self.times.append(now)
            self.amounts.append(amount)
        self.total += amount

    def whenLeft(self, amount: int) -> float:
        """The time of the entry with which so much, or all, will have left."""
        at = self.first
        left = self.amounts[at]
        while left < amount and at < len(self.times) - 1:
            at += 1
            left += self.amounts[at]
        return self.times[at]


class Memory:
    """A storage in memory.

    :param size: how many keys are kept at most.
    """

    def __init__(self, size: int = MAX_KEYS) -> None:
        self._size = size
        self._logs: OrderedDict[str, _Log] = OrderedDict()

    def __len__(self) -> int:
        return len(self._logs)

    def take(self, wants: Sequence[Want], now: float, together: bool) -> Taken:
        """See :class:`submitd.counters.windows.Storage`."""
        free = []
        shortage, until = None, 0.0
        for at, (key, window, cost, _) in enumerate(wants):
            log = self._log(key, now)
            used = log.total if log is not None else 0
            over = used + cost - window.amount
            if over > 0:
                left = log.whenLeft(over) + window.seconds if log is not None and used else now
                if together:
                    return Taken(at, left)
                if shortage is None:
                    shortage, until = at, left
            else:
                free.append(at)
        marked = []
        for at in free:
            key, window, cost, mark = wants[at]
            # Looked up again: an empty one may have been dropped for one of the wants before it.
            log = self._logs.get(key) or self._new(key, window.seconds, now)
            log.add(now, cost)
            if log.total >= mark > log.total - cost:
                marked.append(at)
        return Taken(shortage, until, tuple(marked))

    def rooms(self, wants: Sequence[Want], now: float) -> list[Room]:
        """See :class:`submitd.counters.windows.Storage`."""
        rooms = []
        for key, window, _, _ in wants:
            log = self._log(key, now)
            if log is None or not log.total:
                rooms.append(Room(window.amount, 0, now))
            else:
                until = log.times[log.first] + window.seconds
                rooms.append(Room(window.amount - log.total, log.total, until))
        return rooms

    def _log(self, key: str, now: float) -> _Log | None:
        log = self._logs.get(key)
        if log is not None:
            self._logs.move_to_end(key)
            log.forget(now)
        return log

    def _new(self, key: str, seconds: int, now: float) -> _Log:
        # Two old ones are looked at for each new one, so empty ones cannot pile up.
        for _ in range(2):
            if self._logs:
                oldest, log = next(iter(self._logs.items()))
                log.forget(now)
                if not log.total or len(self._logs) >= self._size:
                    del self._logs[oldest]
        log = self._logs[key] = _Log(seconds)
        return log
