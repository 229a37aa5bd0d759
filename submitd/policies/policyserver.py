"""The connections to one policy server (policy delegation protocol of Postfix).

One question at a time goes over a connection, which is kept for the next.  There are so many
connections at most; who finds all of them busy waits.  A question has one time limit for all:
waiting, connecting and the answer.  Where a connection that was kept is gone before an octet of the
answer has come, the question is asked once more over a new one: servers end idle connections, and
nobody is told before.

After a failed attempt to connect nobody tries for :data:`PAUSE` seconds: everybody would wait for
nothing.  An answer that is none, or comes too late, ends its connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure

from submitd.connecting import connected
from submitd.turns import Turns
from submitd.waiting import overdue
from submitd.wire.policyrequest import Action, AnswerError, AnswerReader

# Seconds in which nobody connects after an attempt that has failed.
PAUSE = 5.0
# Seconds for which a connection is kept without a question; Postfix's own are kept for 300.
MAX_IDLE = 60.0


class Unavailable(Exception):
    """There is no connection to the server; the text says why."""


class Lost(Exception):
    """The connection ended without an answer.

    :ivar hasBegun: whether there was a part of one.
    """

    def __init__(self, hasBegun: bool) -> None:
        super().__init__("connection ended in place of an answer")
        self.hasBegun = hasBegun


class PolicyServer:
    """One server.

    :param endpoint: where it is.
    :param clock: for time limits.
    :param timeout: seconds for a question and its answer.
    :param connections: how many there may be.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        timeout: float,
        connections: int,
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._timeout = timeout
        self._turns = Turns(connections)
        self._idle: list[Line] = []
        self._notBefore = 0.0
        self._closed = False

    def ask(self, request: bytes) -> Deferred[Action]:
        """Ask.

        :return: fails with :class:`Unavailable`, :class:`submitd.waiting.Overdue`, :class:`Lost` or
            :class:`submitd.wire.policyrequest.AnswerError`.
        """
        asking: Deferred[Action] = Deferred.fromCoroutine(self._inTurn(request))
        return asking.addTimeout(self._timeout, self._clock, onTimeoutCancel=overdue)

    def close(self) -> None:
        """End all connections that nobody uses, and keep no more."""
        self._closed = True
        self._endIdle()

    async def _inTurn(self, request: bytes) -> Action:
        await self._turns.acquire()
        try:
            return await self._ask(request)
        finally:
            self._turns.release()

    async def _ask(self, request: bytes) -> Action:
        if self._idle:
            line = self._idle.pop()
            line.wake()
            try:
                return await self._over(line, request)
            except Lost as lost:
                if lost.hasBegun:
                    raise
                # The others were kept as long, and the server may have been started again.
                self._endIdle()
        return await self._over(await self._connect(), request)

    async def _connect(self) -> Line:
        if self._clock.seconds() < self._notBefore:
            raise Unavailable("not tried again yet")
        try:
            factory = _Lines(self._lost)
            line: Line = await connected(self._endpoint, factory, self._clock, self._timeout)
        except CancelledError:
            raise
        except Exception as error:
            self._notBefore = self._clock.seconds() + PAUSE
            raise Unavailable(f"cannot connect: {error}") from error
        return line

    async def _over(self, line: Line, request: bytes) -> Action:
        try:
            action = await line.ask(request)
        except BaseException:
            line.abort()
            raise
        if not line.isLost and not self._closed:
            line.sleep(self._clock.callLater(MAX_IDLE, line.abort))
            self._idle.append(line)
        else:
            line.abort()
        return action

    def _lost(self, line: Line) -> None:
        if line in self._idle:
            self._idle.remove(line)

    def _endIdle(self) -> None:
        idle, self._idle = self._idle, []
        for line in idle:
            line.abort()


class _Lines(Factory):
    """Makes one connection's protocol."""

    noisy = False

    def __init__(self, lost: Callable[[Line], None]) -> None:
        self._lostCall = lost

    def buildProtocol(self, addr: IAddress | None) -> Line:
        """See ``IProtocolFactory``."""
        return Line(self._lostCall)


class Line(Protocol):
    """One connection.

    :param lost: called when it has ended.
    :ivar isLost: whether it has.
    """

    def __init__(self, lost: Callable[[Line], None]) -> None:
        self._lostCall = lost
        self._answer: Deferred[Action] | None = None
        self._reader = AnswerReader()
        self._sleeping: IDelayedCall | None = None
        self.isLost = False

    def ask(self, request: bytes) -> Deferred[Action]:
        """Ask; nothing else may be asked before the answer."""
        answer: Deferred[Action] = Deferred(self._cancelled)
        self._answer = answer
        assert self.transport is not None
        self.transport.write(request)
        return answer

    def _cancelled(self, answer: Deferred[Action]) -> None:
        self._answer = None

    def sleep(self, until: IDelayedCall) -> None:
        """It is kept, until this call ends it."""
        self._sleeping = until

    def wake(self) -> None:
        """It is used again, or has ended."""
        sleeping, self._sleeping = self._sleeping, None
        if sleeping is not None and sleeping.active():
            sleeping.cancel()

    def dataReceived(self, data: bytes) -> None:
        """Octets of an answer; what nobody has asked for ends the connection."""
        answer = self._answer
        if answer is None:
            self.abort()
            return
        try:
            action = self._reader.feed(data)
        except AnswerError:
            self._answer = None
            answer.errback(Failure())
            return
        if action is not None:
            self._answer = None
            answer.callback(action)

    def connectionLost(self, reason: Failure | None = None) -> None:
        """It has ended."""
        self.isLost = True
        self.wake()
        self._lostCall(self)
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.errback(Lost(self._reader.hasBegun))

    def abort(self) -> None:
        """End it; who has asked is told nothing more."""
        self._answer = None
        self.wake()
        transport: Any = self.transport
        if transport is not None and not self.isLost:
            transport.abortConnection()
