"""One connection to a filter that speaks the milter protocol.

:class:`FilterConnection` asks and waits, with a time limit for each answer; a filter that says it
is still at work (SMFIR_PROGRESS) begins it anew.  Whatever goes wrong -- nobody listens, no answer,
the connection ends, nonsense, an answer that nobody asked for -- is :class:`FilterFailed`, and the
connection is of no more use then.  So it is when an answer is no longer waited for.

What a filter sends is read as it is wanted; what it does not read keeps the caller waiting, so both
directions take bounded memory.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import IPushProducer, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd.connecting import connected
from submitd.wire import milter
from submitd.wire.milter import (
    ALL_STEPS,
    Action,
    Answer,
    MilterError,
    Negotiated,
    Step,
    Verdict,
)


class FilterFailed(Exception):
    """A filter is away, hangs, or talks nonsense; the text says which."""


@implementer(IPushProducer)
class FilterConnection(Protocol):
    """One connection, which may serve several clients one after the other.

    :param clock: calls later.
    :ivar failed: why it is of no more use, or ``None``.
    :ivar negotiated: what the filter wants.
    """

    negotiated: Negotiated

    def __init__(self, clock: IReactorTime) -> None:
        self.failed: FilterFailed | None = None
        self._clock = clock
        self._reader = milter.PacketReader()
        self._packets: deque[tuple[bytes, bytes]] = deque()
        self._waiting: Deferred[Any] | None = None
        self._isAsked = False
        self._isPaused = False
        self._isFull: Deferred[None] | None = None

    def connectionMade(self) -> None:
        """Be told when the filter does not read what is sent."""
        transport: Any = self.transport
        setNoDelay = getattr(transport, "setTcpNoDelay", None)
        if setNoDelay is not None:
            # Behind what needs no answer, a small segment would wait for an acknowledgement.
            setNoDelay(True)
        transport.registerProducer(self, True)

    def dataReceived(self, data: bytes) -> None:
        """Something came."""
        if self.failed is not None:
            return
        try:
            self._packets += self._reader.feed(data)
        except MilterError as error:
            self.fail(str(error))
            return
        if self._packets and not self._isAsked:
            self.fail("it speaks without being asked")
        elif self._packets:
            self._wake()
            if self._packets and not self._isPaused and self.failed is None:
                self._isPaused = True
                transport: Any = self.transport
                transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is over."""
        self.fail(f"the connection ended: {reason.getErrorMessage()}")

    def fail(self, cause: str) -> None:
        """Be of no more use; the first cause counts."""
        if self.failed is not None:
            return
        self.failed = FilterFailed(cause)
        self._packets.clear()
        transport: Any = self.transport
        getattr(transport, "abortConnection", transport.loseConnection)()
        self._wake()
        self.resumeProducing()

    # As a producer.

    def pauseProducing(self) -> None:
        """The filter does not read."""
        if self._isFull is None:
            self._isFull = Deferred()

    def resumeProducing(self) -> None:
        """It does again."""
        full, self._isFull = self._isFull, None
        if full is not None and not full.called:
            full.callback(None)

    def stopProducing(self) -> None:
        """The connection has ended."""

    # Asking.

    async def say(self, octets: bytes, seconds: float) -> None:
        """Send something that is not answered.

        :raise FilterFailed: when it cannot be sent in time.
        """
        self._write(octets)
        if self._isFull is not None:
            await self._within(self._isFull, seconds, "reads nothing")
        self._raise()

    async def ask(self, octets: bytes, seconds: float) -> Answer:
        """Send something and wait for the answer.

        :param seconds: how long.
        :raise FilterFailed: when there is none in time, or it is nonsense.
        """
        self._isAsked = True
        self._write(octets)
        return await self.answer(seconds)

    async def answer(self, seconds: float) -> Answer:
        """The next answer, one that asks for time passed over; behind a verdict there is none.

        :raise FilterFailed: as :meth:`ask`.
        """
        while True:
            letter, contents = await self._next(seconds)
            try:
                answer = milter.parse(letter, contents)
            except MilterError as error:
                raise self._broken(str(error)) from None
            if answer is Verdict.PROGRESS:
                continue
            if isinstance(answer, Verdict | Negotiated | milter.ReplyCode):
                self._isAsked = False
                if self._packets:
                    raise self._broken("it speaks without being asked")
                self._read()
            return answer

    def end(self, octets: bytes) -> None:
        """Say the last word, and close."""
        transport: Any = self.transport
        if self.failed is None:
            self.failed = FilterFailed("it has been ended")
            transport.write(octets)
            transport.unregisterProducer()
            transport.loseConnection()

    def write(self, octets: bytes) -> None:
        """Send something small, without waiting."""
        if self.failed is None:
            self._write(octets)

    def _write(self, octets: bytes) -> None:
        self._raise()
        transport: Any = self.transport
        transport.write(octets)

    def _raise(self) -> None:
        if self.failed is not None:
            raise FilterFailed(str(self.failed))

    def _broken(self, cause: str) -> FilterFailed:
        self.fail(cause)
        return FilterFailed(cause)

    async def _next(self, seconds: float) -> tuple[bytes, bytes]:
        if not self._packets:
            self._raise()
            self._read()
            if not self._packets:
                self._waiting = Deferred()
                await self._within(self._waiting, seconds, "no answer")
            self._raise()
        return self._packets.popleft()

    async def _within(self, waiting: Deferred[Any], seconds: float, cause: str) -> None:
        waiting.addTimeout(seconds, self._clock)
        try:
            await waiting
        except TimeoutError:
            raise self._broken(f"{cause} within {seconds:g} s") from None
        except Exception:
            # Nobody waits any more: what comes now would be taken for the next answer.
            self.fail("it was given up")
            raise
        finally:
            self._waiting = None

    def _read(self) -> None:
        """Read on, where that has been put off."""
        if self._isPaused:
            self._isPaused = False
            transport: Any = self.transport
            transport.resumeProducing()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)


async def connectTo(
    endpoint: IStreamClientEndpoint,
    clock: IReactorTime,
    actions: Action,
    seconds: float,
) -> FilterConnection:
    """Connect to a filter and negotiate.

    :param actions: what it may do.
    :param seconds: how long each of the two may take.
    :raise FilterFailed: when it cannot be had.
    """
    factory = Factory.forProtocol(lambda: FilterConnection(clock))
    factory.noisy = False
    try:
        connecting = Deferred.fromCoroutine(connected(endpoint, factory, clock, seconds))
        connection: FilterConnection = await connecting.addTimeout(seconds, clock)
    except TimeoutError:
        raise FilterFailed(f"not connected within {seconds:g} s") from None
    except CancelledError:
        raise
    except Exception as error:
        raise FilterFailed(f"cannot be connected to: {error}") from None
    answer = await connection.ask(milter.negotiate(actions, ALL_STEPS), seconds)
    try:
        connection.negotiated = _accepted(answer, actions)
    except MilterError as error:
        connection.fail(str(error))
        raise FilterFailed(str(error)) from None
    return connection


def _accepted(answer: Answer, actions: Action) -> Negotiated:
    if not isinstance(answer, Negotiated):
        raise MilterError("it did not negotiate")
    # Some ask for all there is, whatever was offered; to use it is another matter.
    allowed, steps = answer.actions & actions, answer.steps
    if answer.version < 4:  # which brought DATA
        steps |= Step.NO_DATA
    return Negotiated(answer.version, allowed, steps, answer.macros)
