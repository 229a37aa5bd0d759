"""What has files read again without a restart: the clock, and SIGHUP.

Both are services.  :class:`Renewal` is one of those within a service, and looks at the
certificates alone.  :class:`HangUp` is for whoever owns the process: a program that embeds submitd
keeps its signals, and asks for a reload by itself.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from submitd import events
from submitd.tls import ServerTLS

# Seconds after which is said again that a certificate expires.
DATES = 86400.0
# Seconds after which session tickets are made with other keys; RFC 9325 3.4 wants a week at most.
TICKET_KEYS = 86400.0


class Renewal(Service):
    """Takes changed certificates into use, and has new keys for session tickets every day.

    Once a day it has said, too, which certificates have expired or soon will.

    :param tls: the certificates; their settings say how often to look.
    :param clock: calls later.
    :param isAlone: whether no other process has the same certificates and keys.  Workers are
        replaced each day, with new keys, and the first of them says what is to be said of dates.
    """

    def __init__(self, tls: ServerTLS, clock: IReactorTime, isAlone: bool = True) -> None:
        self._calls = []
        for call, seconds in (
            (tls.refresh, tls.settings.reload_interval),
            (tls.lookAtDates, DATES if isAlone else 0.0),
            (tls.renewTickets, TICKET_KEYS if isAlone else 0.0),
        ):
            if seconds:
                looping = LoopingCall(call)
                looping.clock = clock
                self._calls.append((looping, seconds))

    def startService(self) -> None:
        """Begin to look, one interval from now."""
        super().startService()
        for looping, seconds in self._calls:
            looping.start(seconds, now=False).addErrback(self._broken)

    def _broken(self, failure: Failure) -> None:
        events.emit(
            events.SERVICE_PROBLEM, problem="certificates are no longer looked at", failure=failure
        )

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        for looping, _ in self._calls:
            if looping.running:
                looping.stop()


class HangUp(Service):
    """SIGHUP makes the service reload; without this it would end the process.

    :param reactor: where the reload runs, and not in the midst of whatever the signal interrupts.
    :param reload: what is to be done.
    """

    def __init__(self, reactor: IReactorFromThreads, reload: Callable[[], object]) -> None:
        self._reactor = reactor
        self._reload = reload
        self._before: Any = None

    def startService(self) -> None:
        """Take the signal, unless this is not the main thread, which alone may."""
        super().startService()
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGHUP, self._caught)

    def _caught(self, number: int, frame: object) -> None:
        self._reactor.callFromThread(self._reload)

    def stopService(self) -> None:
        """Let go of the signal, unless another has taken it since."""
        super().stopService()
        if self._before is not None and signal.getsignal(signal.SIGHUP) == self._caught:
            signal.signal(signal.SIGHUP, self._before)
        self._before = None
