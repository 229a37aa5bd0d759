"""How long to wait before a process that has ended is started again.

At once after a long life; after short ones twice as long each time, up to a minute: a service whose
processes cannot live must not spend the machine on starting them.
"""

from __future__ import annotations

from collections.abc import Callable

FIRST = 1.0
LONGEST = 60.0
LONG_LIFE = 60.0
"""Seconds after which a life counts as a good one."""


class Backoff:
    """The waits of one process.

    :param seconds: tells the time.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds
        self._began = seconds()
        self._failures = 0

    def started(self) -> None:
        """A life begins."""
        self._began = self._seconds()

    def ended(self) -> float:
        """A life has ended.

        :return: seconds until the next may begin.
        """
        if self._seconds() - self._began >= LONG_LIFE:
            self._failures = 0
            return 0.0
        self._failures += 1
        return float(min(LONGEST, FIRST * 2.0 ** (min(self._failures, 30) - 1)))
