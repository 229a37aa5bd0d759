"""A worker: one process that serves the ports, or the one that delivers from the spool.

It ends when the parent says so, when it is sent SIGTERM, and when the parent is gone; in each case
as a service of its own ends: no new connections, and those there are within the time to drain.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, globalLogBeginner
from zope.interface import implementer

from submitd import events, service
from submitd.collector import leaveShared, spareCollector
from submitd.connections import Connections
from submitd.errors import CannotStart
from submitd.listener import ListenerService
from submitd.logwriter import LogWriter
from submitd.metrics import Counts
from submitd.relay.service import RelayService
from submitd.settings import Settings
from submitd.tally import Tally
from submitd.tls import ServerTLS
from submitd.workers import later
from submitd.workers.channel import Channel, Message
from submitd.workers.logs import LinesToParent, portable
from submitd.workers.ports import SharedEndpoint

T = TypeVar("T")

LOOK_EVERY = 0.1
"""Seconds between two looks whether the last connection is gone."""

REPORT_EVERY = 1.0
"""Seconds between two reports of what has been counted."""

TELL_EVERY = 0.05
"""Seconds in which the parent is told once of new work for the relay."""


@attrs.frozen
class Beginning:
    """What a worker begins with.

    :param settings: the configuration.
    :param tls: made before the workers parted.
    :param order: the parent's: ``number``, ``name``, ``counts``, ``key``, ``isRelay``, ``reactor``,
        ``logs``, ``hasLog``.
    :param files: the channel to the parent, the tally, the open ports, and the JSON log.
    """

    settings: Settings
    tls: ServerTLS | None
    order: Message
    files: list[int]


@implementer(ILogObserver)
class Worker:
    """The worker's side of the channel.

    :param beginning: what it begins with.
    :param reactor: of this process alone.
    """

    def __init__(self, beginning: Beginning, reactor: Any) -> None:
        self._beginning = beginning
        self._reactor = reactor
        self._told: Callable[[float], None] = lambda due: None
        self._due: float | None = None
        self._service: service.SubmissionService | None = None
        self._tally: Tally | None = None
        self._isEnding = False
        self._log: LogWriter | None = None
        self._counts = Counts() if beginning.settings.metrics.endpoint else None
        sock = socket.socket(fileno=beginning.files[0])
        self.channel = Channel(sock, reactor, self._received, self.end)

    def start(self) -> None:
        """Serve.

        :raise CannotStart: when it cannot.
        """
        beginning, reactor = self._beginning, self._reactor
        self._beginLogging()
        if self._counts is not None:
            self._counts.open()  # what is logged at the start is counted, too
        if beginning.tls is not None:
            beginning.tls.refresh()  # what the template has read may be old
        place = self._place()
        self._tally = place.tally
        self._service = made = service.makeWorker(beginning.settings, reactor, place)
        for each in made:
            if isinstance(each, RelayService):
                self._told = each.runner.told
        made.startService()
        if beginning.tls is not None and beginning.order["name"] == "1":
            beginning.tls.lookAtDates()  # for all; the one in its place begins within a day
        self._tally.accept(not place.isRelay)
        if self._counts is not None:
            reactor.callLater(REPORT_EVERY, self._reportAgain)
        reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        self.channel.send({"serving": os.getpid()})

    def _place(self) -> service.Place:
        order = self._beginning.order
        _, file, *ports = self._beginning.files
        log = ports.pop() if order["hasLog"] else None
        tally = Tally(file, order["number"], bytes.fromhex(order["key"]))
        os.close(file)
        return service.Place(
            number=order["number"],
            endpoints=[SharedEndpoint(self._reactor, port, tally) for port in ports],
            tls=self._beginning.tls,
            tally=tally,
            counts=Path(order["counts"]),
            isRelay=order["isRelay"],
            told=self._tell,
            looked=self._tellQueue if self._looks() else None,
            log=log,
        )

    def _looks(self) -> bool:
        """One for all looks how long the queue is: the relay, or the first where there is none."""
        order = self._beginning.order
        isTheOne = order["isRelay"] or not service.hasRelay(self._beginning.settings)
        return self._counts is not None and isTheOne and order["name"] in ("relay", "1")

    def _tellQueue(self, gauges: Mapping[str, float]) -> None:
        self.channel.send({"queue": dict(gauges)})

    def _beginLogging(self) -> None:
        logs = self._beginning.order["logs"]
        if logs != "events":
            output: Any = _Standard() if logs == "direct" else LinesToParent(self.channel)
            waits = self._reactor if self._beginning.settings.log.together else None
            self._log = events.textObserver(output, waits)
        globalLogBeginner.beginLoggingTo(
            [self if self._log is None else self._log],
            redirectStandardIO=False,
            discardBuffer=True,
        )

    def _stop(self) -> Deferred[None]:
        assert self._service is not None
        # Behind this the channel is closed.
        return self._service.stopService().addBoth(self._written)

    def _written(self, result: T) -> T:
        self.close()
        self._report()
        self.channel.sendRest()
        return result

    def _report(self) -> None:
        """Tell the parent what was counted since the last time."""
        counted = self._counts.taken() if self._counts is not None else {}
        if counted:
            self.channel.send({"counted": counted})

    def _reportAgain(self) -> None:
        self._report()
        self._reactor.callLater(REPORT_EVERY, self._reportAgain)

    def end(self) -> None:
        """Serve no more, and end when all is done."""
        if not self._isEnding:
            self._isEnding = True
            self._leave()
            self._reactor.callWhenRunning(self._reactor.stop)

    def _leave(self) -> None:
        """Nobody steps back for this worker any more."""
        if self._tally is not None:
            self._tally.accept(False)

    def _retire(self, seconds: float) -> None:
        """Take no new connections, and end with the last one of those there are."""
        assert self._service is not None
        self._leave()
        for each in self._service:
            if isinstance(each, ListenerService):
                each.stopService()
        self._reactor.callLater(seconds, self.end)
        self._endIfIdle(self._service.connections)

    def _endIfIdle(self, connections: Connections) -> None:
        if len(connections):
            self._reactor.callLater(LOOK_EVERY, self._endIfIdle, connections)
        else:
            self.end()

    def close(self) -> None:
        """Write what has waited to be logged."""
        if self._log is not None:
            self._log.end()

    def _received(self, message: Message) -> None:
        if "end" in message:
            self.end()
        elif "retire" in message:
            self._reactor.callWhenRunning(self._retire, message["retire"])
        elif "due" in message:
            self._told(message["due"])

    def _tell(self, due: float) -> None:
        """Have the parent tell the relay; the first of a burst says it for all of them."""
        if self._due is None:
            self._due = due
            self._reactor.callLater(TELL_EVERY, self._tellNow)
        else:
            self._due = min(self._due, due)

    def _tellNow(self) -> None:
        due, self._due = self._due, None
        self.channel.send({"due": due})

    def __call__(self, event: dict[str, Any]) -> None:
        """See ``ILogObserver``: have the parent log an event."""
        self.channel.send({"log": portable(event)})


class _Standard:
    """Standard output, a line in one call: several processes write to it."""

    def write(self, text: str) -> None:
        """Write."""
        os.write(1, text.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Nothing is kept back."""


def work(beginning: Beginning) -> int:
    """A worker's life.

    :return: the exit status.
    """
    leaveShared()
    imported = later.remove()
    reactor = service.freshReactor(beginning.order["reactor"])
    imported.become(reactor)
    worker = Worker(beginning, reactor)
    try:
        worker.start()
    except CannotStart as error:
        worker.channel.send({"problem": str(error)})
        worker.close()
        return 1
    spareCollector()
    reactor.run()
    worker.close()
    return 0
