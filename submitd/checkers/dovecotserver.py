"""The connection to one authentication service of Dovecot, which all logins share.

It is made for the first login and kept for the next; questions go over it side by side, each with a
number of its own.  A process of Dovecot's that has a client outlives a reload, and may outlive the
whole Dovecot, with the configuration of then: so a connection takes new questions for
:data:`MAX_AGE` seconds alone, and ends with its last answer.

Where it is lost, whoever waits is asked about once more over a new one, for so it is when Dovecot
is started again; a second loss is the end.  A server that cannot be reached is tried again by the
next login, and those that come meanwhile wait for the same attempt.

A question has one time limit for all: connecting, the greeting and the answer.  When it is over and
the server has said nothing at all meanwhile, the connection is given up, too: a process that hangs
would otherwise cost each login that time.  A question that nobody waits for any more is cancelled.
What the server does not read stays with its question, so that it takes no memory once nobody waits.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import attrs
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd.connecting import connected
from submitd.wire import dovecotauth
from submitd.wire.dovecotauth import Answer, AnswerReader, TalkError

MAX_AGE = 60.0
"""Seconds for which a connection takes questions."""


class NoAnswer(Exception):
    """The server has not answered; the text says why, and quotes nothing of the question."""


class _Lost(NoAnswer):
    """The connection has ended in place of an answer."""


@attrs.frozen
class Way:
    """One way to ask about a login.

    :param mechanism: one of :data:`submitd.wire.dovecotauth.MECHANISMS`.
    :param response: the initial one.
    """

    mechanism: str
    response: bytes = attrs.field(repr=False)


def _stops() -> NoAnswer:
    return NoAnswer("the service stops")


class DovecotServer:
    """One server.

    :param endpoint: where it is.
    :param clock: for time limits.
    :param timeout: seconds for a question and its answer.
    """

    def __init__(
        self, endpoint: IStreamClientEndpoint, clock: IReactorTime, timeout: float
    ) -> None:
        self._endpoint = endpoint
        self._clock = clock
        self._timeout = timeout
        self._talk: Talk | None = None
        self._retiring: IDelayedCall | None = None
        self._connecting: Deferred[Talk] | None = None
        self._waiting: list[Deferred[Talk]] = []
        self._isMissing = "connection"
        self._closed = False

    def ask(self, ways: Sequence[Way]) -> Deferred[Answer]:
        """Ask about a login.

        :param ways: the best first; taken is the first that the server knows.
        :return: ``OK`` or ``FAIL``; fails with :class:`NoAnswer`.
        """
        return Deferred.fromCoroutine(self._ask(ways))

    def close(self) -> None:
        """End the connection, and make no more."""
        self._closed = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._talk is not None:
            self._talk.end(_stops())

    async def _ask(self, ways: Sequence[Way]) -> Answer:
        end = self._clock.seconds() + self._timeout
        try:
            return await self._askOver(await self._connection(end), ways, end)
        except _Lost:
            return await self._askOver(await self._connection(end), ways, end)

    async def _askOver(self, talk: Talk, ways: Sequence[Way], end: float) -> Answer:
        heard = talk.heard
        asking = talk.ask(ways)
        try:
            return await asking.addTimeout(self._until(end), self._clock)
        except TimeoutError:
            if talk.heard == heard:
                talk.end(_Lost("the connection says nothing any more"))
            raise self._late("answer") from None

    async def _connection(self, end: float) -> Talk:
        if self._closed:
            raise _stops()
        if self._talk is not None:
            return self._talk
        waiting: Deferred[Talk] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        if self._connecting is None:
            connecting = self._connecting = Deferred.fromCoroutine(self._connect())
            connecting.addTimeout(self._timeout, self._clock, onTimeoutCancel=self._overdue)
            connecting.addBoth(self._connected)
        try:
            return await waiting.addTimeout(self._until(end), self._clock)
        except TimeoutError:
            raise self._late(self._isMissing) from None

    async def _connect(self) -> Talk:
        self._isMissing, factory = "connection", _Talks(self._lost)
        try:
            talk: Talk = await connected(self._endpoint, factory, self._clock, self._timeout)
        except CancelledError:
            raise
        except Exception as error:
            raise NoAnswer(f"cannot connect: {error}") from error
        self._isMissing = "greeting"
        try:
            await talk.greeted
        except BaseException:
            talk.end(NoAnswer("it was given up"))
            raise
        return talk

    def _connected(self, found: Talk | Failure) -> None:
        """Tell all who wait what came of an attempt to connect."""
        self._connecting = None
        if isinstance(found, Talk):
            self._talk = found
            self._retiring = self._clock.callLater(MAX_AGE, found.retire)
        elif found.check(CancelledError):
            found = Failure(_stops())
        waiting, self._waiting = self._waiting, []
        while waiting:  # who is told may have another one leave
            waiting.pop(0).callback(found)

    def _overdue(self, result: object, seconds: float) -> NoReturn:
        raise self._late(self._isMissing)

    def _until(self, end: float) -> float:
        return max(0.0, end - self._clock.seconds())

    def _late(self, what: str) -> NoAnswer:
        return NoAnswer(f"no {what} within {self._timeout:g} s")

    def _lost(self, talk: Talk) -> None:
        if self._talk is talk:
            self._talk = None
            assert self._retiring is not None
            if self._retiring.active():
                self._retiring.cancel()


class _Talks(Factory):
    """Makes one connection's protocol."""

    noisy = False

    def __init__(self, lost: Callable[[Talk], None]) -> None:
        self._lostCall = lost

    def buildProtocol(self, addr: IAddress | None) -> Talk:
        """See ``IProtocolFactory``."""
        return Talk(self._lostCall)


@attrs.define(eq=False)
class _Asked:
    """A question that waits for its answer.

    :param mayContinue: whether the server may want to hear that a failure has been read.
    """

    answer: Deferred[Answer]
    mayContinue: bool


@implementer(IPushProducer)
class Talk(Protocol):
    """One connection.

    :param lost: called when it takes no more questions.
    :ivar greeted: fires when questions can be asked; fails with :class:`NoAnswer`.
    :ivar heard: how often something has come.
    """

    def __init__(self, lost: Callable[[Talk], None]) -> None:
        self.greeted: Deferred[None] = Deferred()
        self.heard = 0
        self._lostCall = lost
        self._reader = AnswerReader()
        self._asked: dict[int, _Asked] = {}
        self._unsent: dict[int, bytes] = {}
        self._isFull = False
        self._lastNumber = 0
        self._isRetired = False
        self._isOver = False

    def connectionMade(self) -> None:
        """Say who we are; newer servers wait for that."""
        transport: Any = self.transport
        transport.registerProducer(self, True)
        self._write(dovecotauth.greeting(os.getpid()))

    def ask(self, ways: Sequence[Way]) -> Deferred[Answer]:
        """Ask, behind the greeting; cancelled, the server is told.

        :raise NoAnswer: when it cannot be asked.
        """
        if self._isOver:  # somebody who was told before us has ended it
            raise _Lost("the connection has ended")
        way = self._chosen(ways)
        number = self._freeNumber()
        try:
            line = dovecotauth.question(number, way.mechanism, way.response)
        except ValueError as error:
            raise NoAnswer(str(error)) from None
        answer: Deferred[Answer] = Deferred(lambda _: self._cancel(number))
        self._asked[number] = _Asked(answer, way.mechanism != dovecotauth.PLAIN)
        self._unsent[number] = line
        self._send()
        return answer

    def _send(self) -> None:
        while self._unsent and not self._isFull:
            self._write(self._unsent.pop(next(iter(self._unsent))))

    def _chosen(self, ways: Sequence[Way]) -> Way:
        for way in ways:
            if way.mechanism in (self._reader.mechanisms or ()):
                return way
        # Dovecot cuts off who asks all the same.
        raise NoAnswer(f"it does not offer {' or '.join(way.mechanism for way in ways)}")

    def _freeNumber(self) -> int:
        number = self._lastNumber % dovecotauth.MAX_ID + 1
        while number in self._asked:
            number = number % dovecotauth.MAX_ID + 1
        self._lastNumber = number
        return number

    def _cancel(self, number: int) -> None:
        if self._asked.pop(number, None) is None:
            return
        if self._unsent.pop(number, None) is None:
            self._write(dovecotauth.cancellation(number))
        self._endIfRetired()

    # As a producer.

    def pauseProducing(self) -> None:
        """The server does not read."""
        self._isFull = True

    def resumeProducing(self) -> None:
        """It does again."""
        self._isFull = False
        self._send()

    def stopProducing(self) -> None:
        """The connection has ended."""

    # What comes.

    def dataReceived(self, data: bytes) -> None:
        """Something came; what is none of the protocol ends the connection."""
        if self._isOver:
            return
        self.heard += 1
        try:
            answers = self._reader.feed(data)
        except TalkError as error:
            self.end(NoAnswer(f"it cannot be understood: {error}"))
            return
        if self._reader.mechanisms is not None and not self.greeted.called:
            self.greeted.callback(None)
        for answer in answers:
            self._answered(answer)

    def _answered(self, answer: Answer) -> None:
        asked = self._asked.get(answer.number)
        if asked is None:  # it was cancelled
            return
        if answer.verdict == "CONT" and asked.mayContinue:
            asked.mayContinue = False
            self._write(dovecotauth.acknowledgement(answer.number))
        elif answer.verdict == "CONT":
            self._cancel(answer.number)
            asked.answer.errback(NoAnswer("it wants to know more than was asked for"))
        else:
            del self._asked[answer.number]
            asked.answer.callback(answer)
            self._endIfRetired()

    def retire(self) -> None:
        """Take no more questions, and end with the last answer."""
        self._isRetired = True
        self._lostCall(self)
        self._endIfRetired()

    def _endIfRetired(self) -> None:
        if self._isRetired and not self._asked:
            self.end(NoAnswer("it has retired"))

    def connectionLost(self, reason: Failure | None = None) -> None:
        """It has ended."""
        if self.greeted.called:
            self.end(_Lost("the connection has ended in place of an answer"))
        else:
            said = "the connection has ended before the greeting was over"
            self.end(NoAnswer(f"{said}: is it Dovecot's socket for clients?"))

    def end(self, why: NoAnswer) -> None:
        """Be of no more use, and tell all who wait."""
        if self._isOver:
            return
        self._isOver = True
        self._lostCall(self)
        transport: Any = self.transport
        transport.abortConnection()
        asked, self._asked = self._asked, {}
        self._unsent.clear()
        if not self.greeted.called:
            self.greeted.errback(why)
        for each in asked.values():
            if not each.answer.called:  # who is told may have another one leave
                each.answer.errback(type(why)(*why.args))

    def _write(self, octets: bytes) -> None:
        transport: Any = self.transport
        if not self._isOver:
            transport.write(octets)
