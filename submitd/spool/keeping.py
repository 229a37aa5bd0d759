"""What the log is told while messages cannot be kept: once, once more each hour, and when they can.

Each client that is turned away is an event ``refused``, as one that asks for what it may not have:
nobody is called out of bed by those.  This is what somebody has to mend.
"""

from __future__ import annotations

from collections.abc import Callable

from submitd import events

AGAIN = 3600.0
"""Seconds after which it is told once more."""


class Keeping:
    """Whether new messages can be kept.

    :param queue: what the data base is called.
    :param now: tells the time, in seconds.
    """

    def __init__(self, queue: str, now: Callable[[], float]) -> None:
        self._queue = queue
        self._now = now
        self._since: float | None = None
        self._told = 0.0

    def failed(self, cause: str) -> None:
        """One could not be kept, or a part of it."""
        now = self._now()
        if self._since is None or now < self._told:  # or the clock was set back
            self._since, self._told = now, now - AGAIN
        if now - self._told >= AGAIN:
            self._told = now
            seconds = round(now - self._since)
            events.emit(events.QUEUE_AWAY, queue=self._queue, cause=cause, seconds=seconds)

    def well(self) -> None:
        """One has been kept."""
        if self._since is not None:
            seconds = max(0, round(self._now() - self._since))
            self._since = None
            events.emit(events.QUEUE_BACK, queue=self._queue, seconds=seconds)
