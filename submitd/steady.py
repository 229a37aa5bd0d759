"""A reactor's clock that does not jump with the system's.

Twisted's reactors tell the time of day.  When somebody sets the clock forward, all limits on time
would be over at once and every client cut off; when it is set back by an hour, nothing that is to
happen later would happen for an hour.  :func:`steady` has a reactor begin with the time of day, and
go on from there by the clock that nobody can set.

What is written down, is shown to somebody or comes from outside (dates in messages, times in the
spool) is in the time of day: :func:`timeOfDay`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IReactorCore
from twisted.python.runtime import seconds as systemClock


def steady(reactor: Any) -> Any:
    """Have a reactor count seconds that nobody can set.

    :param reactor: before anything is called later on it; one with a clock of its own, such as a
        ``Clock``, is left as it is.
    :return: the same reactor.
    """
    if getattr(reactor, "seconds", None) is systemClock:
        start = systemClock() - time.monotonic()
        reactor.seconds = lambda: start + time.monotonic()
    return reactor


def timeOfDay(clock: Any) -> Callable[[], float]:
    """What tells the time of day to those who have a clock.

    :param clock: a reactor, whose time may be steady; one that is no reactor, such as a ``Clock``,
        tells the time of day itself.
    """
    return time.time if IReactorCore.providedBy(clock) else clock.seconds


def commonSeconds(clock: Any) -> Callable[[], float]:
    """What tells a time that nobody can set and that all processes of a machine have in common.

    :param clock: as for :func:`timeOfDay`; two reactors' own times differ when the system's clock
        has been set between their beginnings.
    """
    return time.monotonic if IReactorCore.providedBy(clock) else clock.seconds
