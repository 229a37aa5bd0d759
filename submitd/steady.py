"""A reactor's clock that does not jump with the system's.

Twisted's reactors tell the time of day.  When somebody sets the clock forward, all limits on time
would be over at once and every client cut off; when it is set back by an hour, nothing that is to
happen later would happen for an hour.  :func:`steady` has a reactor begin with the time of day, and
go on from there by the clock that nobody can set.

What is written down or comes from outside (dates in messages, times in the spool) is in the time of
day: those who need it call ``time.time``.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.python.runtime import seconds as timeOfDay


def steady(reactor: Any) -> Any:
    """Have a reactor count seconds that nobody can set.

    :param reactor: before anything is called later on it; one with a clock of its own, such as a
        ``Clock``, is left as it is.
    :return: the same reactor.
    """
    if getattr(reactor, "seconds", None) is timeOfDay:
        start = timeOfDay() - time.monotonic()
        reactor.seconds = lambda: start + time.monotonic()
    return reactor
