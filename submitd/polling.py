"""The readiness of ports and connections: an epoll of their own, within the reactor's.

Twisted's reactor opens a log context around each event of each descriptor, which costs as much as
reading a command.  To the reactor a :class:`Polling` is one descriptor; when it is readable, those
in it that are ready are served one after another, again and again while they are several, within a
bound.  To them it is the reactor: it takes readers and writers, and is the one it was given in
everything else.  Only a hang-up is told in another way: the reactor takes one for a clean end, here
reading says whether it was.

A descriptor that raises is lost, and no other one is.  When the reactor stops, it loses all its
descriptors, and with this one all that are in it.
"""

# mypy: allow-untyped-calls
# Twisted's descriptors are not annotated throughout.

from __future__ import annotations

import select
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.logger import Logger
from twisted.python.failure import Failure

# Events that are served, and seconds after which no more are, before the reactor has its turn with
# all else: that costs as much as an event or two.
MOST = 256
LONGEST = 0.001

# As the reactor has them: one for all, since making a Failure costs as much as reading a command.
_FAILURES: dict[BaseException, Failure] = {
    CONNECTION_DONE: Failure(CONNECTION_DONE),
    CONNECTION_LOST: Failure(CONNECTION_LOST),
}


def pollingOf(reactor: Any) -> Any:
    """What ports and connections are to be given as their reactor.

    :param reactor: the true one.
    :return: a :class:`Polling`, or the reactor itself where it has no descriptors or there is no
        epoll.
    """
    if hasattr(select, "epoll") and IReactorFDSet.providedBy(reactor):
        return Polling(reactor)
    return reactor


class Polling(FileDescriptor):
    """Many descriptors as one.

    It is the reactor's only while there are any in it.  Once open it stays so until the reactor
    stops: ports rest when there are no descriptors left, and to go on must not need one.

    :param reactor: serves it.
    """

    reactor: Any
    _log = Logger()

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        super().__init__(reactor)
        self.callLater = reactor.callLater
        self._epoll: Any = None
        self._waited: dict[int, int] = {}
        self._descriptors: dict[int, Any] = {}

    # What it is to those in it.

    def __getattr__(self, name: str) -> Any:
        return getattr(self.reactor, name)

    def addReader(self, reader: Any) -> None:
        """See ``IReactorFDSet.addReader``."""
        self._add(reader, select.EPOLLIN)

    def addWriter(self, writer: Any) -> None:
        """See ``IReactorFDSet.addWriter``."""
        self._add(writer, select.EPOLLOUT)

    def removeReader(self, reader: Any) -> None:
        """See ``IReactorFDSet.removeReader``."""
        self._remove(reader, select.EPOLLIN)

    def removeWriter(self, writer: Any) -> None:
        """See ``IReactorFDSet.removeWriter``."""
        self._remove(writer, select.EPOLLOUT)

    def _add(self, descriptor: Any, event: int) -> None:
        number = descriptor.fileno()
        waited = self._waited.get(number, 0)
        if waited & event:
            return
        if waited:
            self._epoll.modify(number, waited | event)
        else:
            if not self._descriptors:
                self._begin()
            self._epoll.register(number, event)
            self._descriptors[number] = descriptor
        self._waited[number] = waited | event

    def _remove(self, descriptor: Any, event: int) -> None:
        number = descriptor.fileno()
        waited = self._waited.get(number, 0)
        if not waited & event:
            return
        if waited == event:
            self._epoll.unregister(number)
            del self._descriptors[number], self._waited[number]
            if not self._descriptors:
                self.stopReading()
        else:
            self._epoll.modify(number, waited & ~event)
            self._waited[number] = waited & ~event

    def _begin(self) -> None:
        if self._epoll is None:
            self._epoll = select.epoll()
        self.startReading()

    # What it is to the reactor.

    def fileno(self) -> int:
        """The epoll's number, or -1."""
        return -1 if self._epoll is None else self._epoll.fileno()

    def logPrefix(self) -> str:
        """What a line of log shows that is written by Twisted's older functions."""
        return "polling"

    def doRead(self) -> None:
        """Some are ready: serve them, and those who have become ready meanwhile."""
        seconds, left = self.reactor.seconds, MOST
        until = seconds() + LONGEST
        while left > 0 and self._epoll is not None:  # one that is served may end the reactor
            ready = self._epoll.poll(0, left)
            for number, event in ready:
                # Serving one may have ended another.
                descriptor = self._descriptors.get(number)
                if descriptor is not None:
                    self._serve(descriptor, number, event)
            # Behind a single one there seldom is another; and all else must not wait for long.
            if len(ready) < 2 or seconds() >= until:
                break
            left -= len(ready)

    def _serve(self, descriptor: Any, number: int, event: int) -> None:
        why: BaseException | None = None
        isRead = True
        try:
            if event & select.EPOLLIN:
                why = descriptor.doRead()
            elif event & (select.EPOLLHUP | select.EPOLLERR):
                # An end, or a reset that the kernel is still closing the socket for: there is
                # nothing to read yet.  Reading tells them apart.
                awaitsRead = self._waited[number] & select.EPOLLIN
                why = descriptor.doRead() if awaitsRead else CONNECTION_LOST
            if why is None and event & select.EPOLLOUT:
                isRead = False
                why = descriptor.doWrite()
        except BaseException as error:  # as the reactor: else it would lose all that are in it
            self._log.failure("while a descriptor was served")
            why = error
        if why is not None:
            self._lose(descriptor, why, isRead)

    def _lose(self, descriptor: Any, why: BaseException, isRead: bool) -> None:
        try:
            self.removeReader(descriptor)
            if isRead and why is CONNECTION_DONE:
                descriptor.readConnectionLost(_FAILURES[why])
            else:
                self.removeWriter(descriptor)
                descriptor.connectionLost(_FAILURES.get(why) or Failure(why))
        except BaseException:  # as while it is served
            self._log.failure("while a descriptor was lost")

    def connectionLost(self, reason: Failure) -> None:
        """The reactor stops, and loses what it has."""
        for descriptor in list(self._descriptors.values()):
            self.removeReader(descriptor)
            self.removeWriter(descriptor)
            try:
                descriptor.connectionLost(reason)
            except Exception:
                self._log.failure("while a descriptor was lost")
        if not self._descriptors:
            self._epoll.close()
            self._epoll = None
