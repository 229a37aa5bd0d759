"""When a recipient is tried again, told about, and given up.  Pure: no clock, no I/O."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs


@attrs.frozen(kw_only=True)
class Schedule:
    """The schedule of attempts; all times in seconds.

    :param intervals: from the first attempt to the second, and so on; the last one repeats.
    :param jitter: how much an interval may be longer or shorter, as a part of it (0.1: 10 %), so
        that what was delayed together does not come back together.
    :param expire: the age of a message at which its recipients are given up.
    :param notice: the age at which the sender is told of the delay; 0 for never.
    :param random: gives a number from 0 to 1.
    """

    intervals: tuple[float, ...]
    jitter: float = 0.1
    expire: float = 5 * 86400.0
    notice: float = 4 * 3600.0
    random: Callable[[], float] = attrs.field(default=random.random, eq=False, repr=False)

    def interval(self, attempts: int) -> float:
        """How long to wait after so many attempts.

        :param attempts: 1 after the first.
        """
        base = self.intervals[min(max(attempts, 1), len(self.intervals)) - 1]
        return base * (1 + self.jitter * (2 * self.random() - 1))

    @property
    def longest(self) -> float:
        """How long it waits at most."""
        return max(self.intervals) * (1 + self.jitter)

    def expiry(self, arrived: float, expires: float | None) -> float:
        """When a recipient is given up.

        :param arrived: when its message was accepted.
        :param expires: a time of its own, or ``None``.
        """
        end = arrived + self.expire
        return end if expires is None else min(end, expires)

    def next(self, now: float, attempts: int, expiry: float) -> float:
        """When to try again: never behind the expiry, so that it ends when it should."""
        return max(now, min(now + self.interval(attempts), expiry))

    def isNoticeDue(self, now: float, arrived: float, notified: float | None) -> bool:
        """Whether the sender is to be told of the delay now; it is once."""
        return self.notice > 0 and notified is None and now - arrived >= self.notice
