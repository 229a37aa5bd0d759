"""The Twisted skin of the client: a transport, TLS, and time limits (RFC 5321 4.5.3.2).

A :class:`Connection` carries one :class:`submitd.relay.client.Client`.  The message is pulled from
its body chunk by chunk, as fast as the transport takes it.  Whatever goes wrong becomes a reply
that goes on record: 4.4.1 where nobody answers, 4.4.2 for a lost connection and for a time limit,
4.7.5 for TLS.  No method raises because of what a next hop does; :func:`connect` fails with
:class:`HopFailed`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import attrs
from OpenSSL import SSL
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionClosed, ConnectionDone
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd.connecting import connected
from submitd.interfaces import IBody
from submitd.relay.client import INJECTED, Client, Profile
from submitd.relay.outgoing import Outcome, Outgoing, Result, inOneLine
from submitd.relay.settings import TimeoutSettings
from submitd.relay.states import BodyWanted, Done, Ended, Event, Ready, StartTLS, State
from submitd.wire.reply import LOCAL_ERROR, Reply


class HopFailed(Exception):
    """No message can be sent over this connection.

    :param outcome: what comes of each recipient, and why, for the record.
    :param state: where it ended.
    """

    def __init__(self, outcome: Outcome, state: State = State.NEW) -> None:
        super().__init__(inOneLine(outcome.reply))
        self.outcome = outcome
        self.state = state

    @property
    def reply(self) -> Reply:
        """Why."""
        return self.outcome.reply


@attrs.frozen(kw_only=True, eq=False)
class Host:
    """One host of a next hop.

    :param endpoint: where it listens.
    :param where: the same as text, to tell it from others.
    :param name: what its certificate has to bear.
    :param profile: how to talk to it.
    :param tls: what makes TLS connections with it; ``None`` when there is to be none.
    :param implicit: whether TLS begins with the connection (RFC 8314).
    :param verified: whether ``tls`` verifies the certificate.
    :param problem: why there can be no connection with it; ``None`` when there may be one.
    """

    endpoint: IStreamClientEndpoint
    where: str
    name: str
    profile: Profile
    tls: Any = None
    implicit: bool = False
    verified: bool = False
    problem: Reply | None = None

    @property
    def called(self) -> str:
        """What it is called in replies of ours, which senders are told: no path of this machine."""
        return "the socket of the next hop" if "/" in self.name else self.name


async def connect(
    host: Host, clock: IReactorTime, timeouts: TimeoutSettings, opening: set[Connection]
) -> Connection:
    """A connection that is ready for its first message.

    Where TLS is a wish alone, a handshake that fails is followed by a connection without.

    :param opening: where it is until then, once it is made.
    :raise HopFailed: when there is none.
    """
    if host.problem is not None:
        raise HopFailed(Outcome(Result.DELAYED, host.problem, isRemote=False))
    try:
        return await _connect(host, clock, timeouts, opening)
    except HopFailed as failed:
        wish = host.profile.tls == "opportunistic" and failed.state is State.HANDSHAKE
        # Who meddles with STARTTLS is not to have his way.
        if not wish or failed.reply is INJECTED:
            raise
        bare = attrs.evolve(host, profile=attrs.evolve(host.profile, tls="off"))
        return await _connect(bare, clock, timeouts, opening)


async def _connect(
    host: Host, clock: IReactorTime, timeouts: TimeoutSettings, opening: set[Connection]
) -> Connection:
    connection = Connection(host, clock, timeouts)
    factory = Factory.forProtocol(lambda: connection)
    factory.noisy = False
    try:
        await connected(host.endpoint, factory, clock, timeouts.connect)
    except CancelledError:
        raise
    except Exception as error:
        # Endpoints fail with what sockets, resolvers and time limits happen to raise.
        said = f"Cannot connect to {host.called}: {_refused(error)}"
        reply = Reply(451, "4.4.1", said)
        raise HopFailed(Outcome(Result.DELAYED, reply, isRemote=False)) from None
    opening.add(connection)
    try:
        await connection.opened
    except CancelledError:
        connection.abort()
        raise
    finally:
        opening.discard(connection)
    return connection


@implementer(IHandshakeListener, IPushProducer)
class Connection(Protocol):
    """A connection to a host.

    :param host: which.
    :param clock: for the time limits.
    :param timeouts: by the names of the client's limits.
    :ivar opened: fires when the first message may be sent, or fails with :class:`HopFailed`.
    :ivar isReady: whether a message may be sent now.
    :ivar messages: how many have been sent.
    :ivar whenIdle: what is called when it has been kept long enough; it is to end it.
    """

    def __init__(self, host: Host, clock: IReactorTime, timeouts: TimeoutSettings) -> None:
        self.host = host
        self.opened: Deferred[None] = Deferred()
        self.messages = 0
        self.whenIdle: Callable[[Connection], object] = Connection.quit
        self.endedIn: State | None = None
        self._client = Client(host.profile)
        self._clock = clock
        self._timeouts = timeouts
        self._timer: IDelayedCall | None = None
        self._seen: tuple[int, State] = (0, State.NEW)
        self._body: IBody | None = None
        self._delivering: Deferred[tuple[Outcome, ...]] | None = None
        self._outcomes: tuple[Outcome, ...] | None = None
        self._producing = False
        self._paused = False
        self._wanted = False
        self._closed: list[Deferred[None]] = []
        self._lost = False

    @property
    def isReady(self) -> bool:
        """Whether a message may be sent."""
        return self._client.state is State.READY

    @property
    def isSpent(self) -> bool:
        """Whether it has refused a message that another connection may be good for."""
        return self._client.isSpent

    @property
    def isChunkingUnknown(self) -> bool:
        """Whether the next hop has offered BDAT, and does not know it."""
        return self._client.isChunkingUnknown

    @property
    def isMailRefused(self) -> bool:
        """Whether the next hop has refused the last message before it knew of a recipient."""
        return self._client.isMailRefused

    @property
    def isGreeted(self) -> bool:
        """Whether the next hop has said that it takes us, and is still there."""
        return self._client.state not in (State.NEW, State.GREETING, State.CLOSED)

    def deliver(self, message: Outgoing, body: IBody) -> Deferred[tuple[Outcome, ...]]:
        """Send a message.

        :param body: read from its beginning.
        :return: the outcomes, one for each recipient; it never fails.
        :raise ValueError: when the connection is not ready.
        """
        self._client.send(message)
        self.messages += 1
        self._body = body
        self._outcomes = None
        delivering: Deferred[tuple[Outcome, ...]] = Deferred(self._breakOff)
        self._delivering = delivering
        self._go()
        return delivering

    def _breakOff(self, delivering: Deferred[tuple[Outcome, ...]]) -> None:
        isOver = self._outcomes is not None
        if not isOver:
            self.abort()
        outcomes = self._outcomes or ()
        # What came of it must not get lost; an LMTP server may have taken it for some already.
        if isOver or any(each.result is Result.DELIVERED for each in outcomes):
            delivering.callback(outcomes)

    def abort(self) -> None:
        """End at once; a message on its way gets its outcomes all the same."""
        said = f"Broken off at the end of the service, waiting for {self._client.waitingFor}"
        self._client.connectionLost(Reply(451, "4.3.2", said))
        self._go()

    def quit(self) -> Deferred[None]:
        """End in order; fires when the connection is gone."""
        closed: Deferred[None] = Deferred()
        if self._lost:
            closed.callback(None)
            return closed
        self._closed.append(closed)
        self._client.quit()
        self._go()
        return closed

    # What the transport says.

    def connectionMade(self) -> None:
        """The connection is there."""
        assert self.transport is not None, "connected"
        setNoDelay = getattr(self.transport, "setTcpNoDelay", None)
        if setNoDelay is not None:
            # The end of a message is a small segment that would wait for an acknowledgement.
            setNoDelay(True)
        if self.host.implicit:
            self._limit("handshake")
            self._startTLS()
        else:
            self._client.connectionMade()
            self._go()

    def _startTLS(self) -> None:
        transport: Any = self.transport
        transport.startTLS(self.host.tls)

    def handshakeCompleted(self) -> None:
        """TLS is active; had the certificate not been good, the connection would be lost."""
        if self._client.state is State.NEW:
            self._client.connectionMade(secure=True, verified=self.host.verified)
        elif self._client.state is State.HANDSHAKE:
            self._client.handshakeCompleted(self.host.verified)
        self._go()

    def dataReceived(self, data: bytes) -> None:
        """Octets of the next hop."""
        self._client.dataReceived(data)
        self._go()

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        """The connection is gone."""
        self._lost = True
        self._client.connectionLost(self._lostReply(reason))
        self._go()
        self._stopTimer()
        closed, self._closed = self._closed, []
        for each in closed:
            each.callback(None)

    def _lostReply(self, reason: Failure) -> Reply:
        name, client = self.host.called, self._client
        why = _why(reason)
        if reason.check(SSL.Error, VerificationError) or client.state is State.HANDSHAKE:
            return Reply(451, "4.7.5", f"TLS with {name} failed: {why}")
        said = f"Connection to {name} lost, waiting for {client.waitingFor}: {why}"
        return Reply(451, "4.4.2", said)

    # What the client says.

    def _go(self) -> None:
        """Send what is to be sent, and do what is to be done."""
        while True:
            output = self._client.takeOutput()
            if output and self.transport is not None and not self._lost:
                self.transport.write(output)
            events = self._client.takeEvents()
            if not events:
                break
            for event in events:
                self._do(event)
        self._watch()

    def _do(self, event: Event) -> None:
        if isinstance(event, StartTLS):
            self._startTLS()
        elif isinstance(event, BodyWanted):
            self._wanted = True
            self._pull()
        elif isinstance(event, Done):
            self._done(event.outcomes)
        elif isinstance(event, Ended):
            self._ended(event)
        elif isinstance(event, Ready) and not self.opened.called and self.isReady:
            # It may have left us within the same segment; then what follows says so.
            self.opened.callback(None)

    def _done(self, outcomes: tuple[Outcome, ...]) -> None:
        self._body = None
        self._wanted = False
        self._stopProducing()
        delivering, self._delivering = self._delivering, None
        if delivering is not None:
            # Not from here: who waits may send the next message at once.
            self._outcomes = outcomes
            self._clock.callLater(0, self._tell, delivering, outcomes)

    def _tell(
        self, delivering: Deferred[tuple[Outcome, ...]], outcomes: tuple[Outcome, ...]
    ) -> None:
        if not delivering.called:  # it may have been broken off meanwhile
            delivering.callback(outcomes)

    def _ended(self, event: Ended) -> None:
        self.endedIn = event.state
        self._stopProducing()
        if not self.opened.called:
            reply = event.reply or Reply(451, "4.4.2", f"Connection to {self.host.called} closed")
            # Whatever is said before MAIL, it bounces nobody's mail.
            host = self.host.profile.host
            outcome = Outcome(Result.DELAYED, reply, event.isRemote, host=host)
            self.opened.errback(HopFailed(outcome, event.state))
        transport: Any = self.transport
        if not self._lost and transport is not None:
            # A message that was begun and not ended is not to be taken for one that was.
            if event.reply is None:
                transport.loseConnection()
            else:
                transport.abortConnection()

    # The message.

    def _pull(self) -> None:
        if self._paused or not self._wanted or self._body is None:
            return
        self._startProducing()
        self._wanted = False
        body = self._body
        body.next().addCallbacks(
            lambda chunk: self._pulled(chunk, body), lambda failure: self._broken(body)
        )

    def _pulled(self, chunk: bytes, body: IBody) -> None:
        if body is not self._body:
            return  # the message is over: it was refused on its way
        if chunk:
            self._client.body(chunk)
        else:
            self._client.bodyEnded()
        self._go()

    def _broken(self, body: IBody) -> None:
        """The message cannot be read: the next hop must not take half of it for the whole."""
        if body is self._body:
            self._client.connectionLost(LOCAL_ERROR)
            self._go()

    def _startProducing(self) -> None:
        transport: Any = self.transport
        if not self._producing and not self._lost:
            self._producing = True
            transport.registerProducer(self, True)

    def _stopProducing(self) -> None:
        transport: Any = self.transport
        if self._producing:
            self._producing = False
            self._paused = False
            if not self._lost:  # a TLS transport that is gone has nobody to tell
                transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """The transport has enough for now."""
        self._paused = True

    def resumeProducing(self) -> None:
        """The transport takes more; that is progress too."""
        self._paused = False
        if self._timer is not None:
            self._limit(self._client.limit)
        self._pull()

    def stopProducing(self) -> None:
        """The connection is going; :meth:`connectionLost` follows."""
        self._paused = True

    # Time.

    def _watch(self) -> None:
        """Begin the time limit anew when something has come of the last one."""
        state = self._client.state
        # Nothing comes of what is said when all is over.
        seen = (0 if state is State.CLOSED else self._client.progress, state)
        if seen != self._seen and not self._lost:
            self._seen = seen
            self._limit(self._client.limit)

    def _limit(self, name: str) -> None:
        self._stopTimer()
        seconds: float = getattr(self._timeouts, name)
        self._timer = self._clock.callLater(seconds, self._timedOut)

    def _stopTimer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _timedOut(self) -> None:
        self._timer = None
        client = self._client
        if client.state is State.READY:
            self.whenIdle(self)
        elif client.state in (State.QUIT, State.CLOSED):
            transport: Any = self.transport
            client.quit()
            transport.abortConnection()
        else:
            said = f"{self.host.called} timed out: waited too long for {client.waitingFor}"
            client.connectionLost(Reply(451, "4.4.2", said))
        self._go()


def _refused(error: Exception) -> str:
    """Why there is no connection, in words: for the log, the queue and who gets a report."""
    number = getattr(error, "osError", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return str(error) or type(error).__name__


def _why(reason: Failure) -> str:
    error = reason.value
    if isinstance(error, VerificationError):
        return "its certificate is not for that name"
    if isinstance(error, SSL.Error):
        try:
            return str(error.args[0][0][2]) or "no reason given"
        except (IndexError, TypeError):
            return "the connection was closed in the midst of it"
    if isinstance(error, ConnectionClosed):
        return str(error)
    return str(error) or type(error).__name__
