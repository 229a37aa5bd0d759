"""The dialogue on a transport: framing, holding back, TLS, time.

This is the one module of the service that holds a connection's transport.  It cuts what arrives
into lines or hands it on as octets, as the dialogue's state says, and writes what the dialogue
answers; all replies to one segment, up to :data:`TURN`, leave in one write.

It is a plain Protocol with its own small reader.  LineReceiver copies what is left of its buffer
for each line, knows one reason to pause where we have two (the dialogue waits; the client does not
read), and cannot go on behind a line that was too long.

Nothing is read while an answer is outstanding or while the client does not take its replies, so
what is buffered stays below one line and one segment.  Nor is more done at once than :data:`TURN`
commands: a segment can hold ten thousand, for which all others would have to wait.
"""

from __future__ import annotations

import sys
from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IOpenSSLContextFactory,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd import events, openssl
from submitd.channelbinding import bindingOf
from submitd.connections import SWEEP, Connections
from submitd.dialogue import MAX_AUTH_LINE, Answer, Dialogue, Outcome, Rules
from submitd.proxy import HeaderReader
from submitd.session import Session, TLSInfo
from submitd.states import CLOSED, FRAMING, NOTHING, OCTETS, TLS
from submitd.submission import Submission
from submitd.tls import isVerified
from submitd.wire.errors import Refused
from submitd.wire.network import NONE as NO_NETWORKS
from submitd.wire.network import Networks
from submitd.wire.proxy import Ends
from submitd.wire.reply import TOO_MANY_CONNECTIONS, Reply

# Seconds that a client gets to read our last reply before the connection is cut, and to QUIT behind
# the one that is all it will hear of us.
LINGER = 10.0

# Commands of one client that are answered before others have their turn.
TURN = 100


def describeTLS(connection: SSL.Connection) -> TLSInfo:
    """What a finished handshake agreed on."""
    serverName = connection.get_servername()
    peerCertificate = connection.get_peer_certificate()
    return TLSInfo(
        # One text for all connections that have the same.
        version=sys.intern(connection.get_protocol_version_name()),
        cipher=sys.intern(connection.get_cipher_name() or ""),
        bits=connection.get_cipher_bits() or 0,
        serverName=serverName.decode("ascii", "replace") if serverName else None,
        peerCertificate=peerCertificate,
        verified=peerCertificate is not None and isVerified(connection),
        resumed=openssl.wasResumed(connection),
        channelBinding=bindingOf(connection),
    )


def hostAndPort(address: object) -> tuple[str, int]:
    """An address as text: ``("192.0.2.1", 25)``; ``("", 0)`` for a unix socket."""
    if isinstance(address, (IPv4Address, IPv6Address)):
        # A socket of both families shows IPv4 clients as ::ffff:192.0.2.1.
        return address.host.removeprefix("::ffff:"), address.port
    return "", 0


@implementer(IPushProducer)
class _Replies:
    """Our replies as a producer: the transport says when the client does not read them."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: SubmissionProtocol) -> None:
        self._protocol = protocol

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._protocol.hold()

    def resumeProducing(self) -> None:
        """There is room again."""
        self._protocol.release()

    def stopProducing(self) -> None:
        """The connection is gone; connectionLost says so too."""


@implementer(IHandshakeListener)
class SubmissionProtocol(Protocol):
    """One connection.

    :param ends: its true ends, where a PROXY header has told them.
    """

    factory: SubmissionFactory
    dialogue: Dialogue

    def __init__(self, ends: Ends | None = None) -> None:
        self._ends = ends
        self._buffer = b""
        self._at = 0
        self._holds = 0
        self._awaited = 0
        self._resting = 0
        self._left = TURN
        self._reading = False
        self._skipped = b""  # the verb and a space of a line that is too long, and thrown away
        self._replies: list[bytes] = []
        self._greeted = False
        self._closing = False
        self._draining = False
        self._heard = 0.0
        self._began = 0.0
        self._securing = False
        self._transport: Any = None

    # The connection.

    def connectionMade(self) -> None:
        """Greet, or greet behind the handshake where that comes first."""
        self._transport = transport = cast(Any, self.transport)
        session = self._session()
        self.dialogue = Dialogue(self.factory.rules, session, self._moved)
        self._connections = connections = self.factory.connections
        self._heard = self._began = self._clock.seconds()
        hasRoom = connections.hasRoom(self.remoteAddress)
        connections.add(self)
        transport.registerProducer(_Replies(self), True)
        if not hasRoom:
            self._turnAway()
        elif self._tlsComesFirst:
            self._awaitTLS()
        else:
            self._greet()

    @property
    def _tlsComesFirst(self) -> bool:
        """Whether a connection begins with the handshake: ours, or that of an ``ssl:`` endpoint."""
        return self.factory.implicitTLS or ISSLTransport.providedBy(self._transport)

    def _awaitTLS(self) -> None:
        # What is written before the handshake ends has Twisted's TLS pause us, and paused we would
        # not read the client's part of it.
        self._securing = True
        transport = self._transport
        if not ISSLTransport.providedBy(transport):
            transport.startTLS(self.factory.contextFactory)
        elif cast(Any, transport).getHandle().get_peer_finished() is not None:
            self.handshakeCompleted()  # before us: a PROXY header has come under TLS

    def _session(self) -> Session:
        transport: Any = self.transport
        remote, remotePort = hostAndPort(transport.getPeer())
        if self._ends is not None:
            ends = self._ends
            return Session(
                ends.remoteAddress,
                ends.remotePort,
                ends.localAddress,
                ends.localPort,
                proxyAddress=remote,
            )
        return Session(remote, remotePort, *hostAndPort(transport.getHost()))

    def _moved(self) -> bool:
        return self.factory.connections.move(self)

    def handshakeCompleted(self) -> None:
        """TLS is on, by either way."""
        transport: Any = self.transport
        tls = describeTLS(transport.getHandle())
        waiting = self.dialogue.handshakeCompleted(tls)
        self._heard = self._connections.now
        if waiting is None:
            self._secured()
        else:
            self._await(waiting.addCallback(lambda _: self._secured()))

    def _secured(self) -> None:
        if not self._greeted and not self._closing:  # a policy may answer when the client is gone
            self._greet()

    def _greet(self) -> None:
        self._greeted = True
        self._give(self.dialogue.connectionMade())
        self._flush()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self._closing = True
        self._buffer = b""
        try:
            self.dialogue.connectionLost(reason)
            self._logClosed(reason)
        finally:
            # The last one to go lets the service end: by then observers and the log know of it.
            self.factory.connections.remove(self)

    def _logClosed(self, reason: Failure) -> None:
        session = self.dialogue.session
        if self._securing and not session.secure:
            events.emit(
                events.TLS_FAILED,
                session=session.id,
                peer=session.remoteAddress,
                cause=repr(reason.value),
            )
        events.emit(
            events.CONNECTION_CLOSED,
            session=session.id,
            peer=session.remoteAddress,
            user=session.user.avatarId if session.user is not None else None,
            secure=session.tls.version if session.tls is not None else None,
            seconds=round(self._clock.seconds() - self._began, 3),
            commands=session.commands,
            messages=session.transactions,
            reason=type(reason.value).__name__,
        )

    # What arrives.

    def dataReceived(self, data: bytes) -> None:
        """Take what arrived, answer what is complete, and write all answers at once."""
        self._buffer = self._buffer[self._at :] + data if self._buffer else data
        self._at = 0
        self._read()

    def _read(self) -> None:
        if self._reading:
            return
        self._reading = True
        try:
            while self._at < len(self._buffer) and not self._holds and not self._closing:
                framing = FRAMING[self.dialogue.state]
                if framing is OCTETS:
                    self._takeOctets()
                elif framing is NOTHING:
                    # RFC 3207 4.2: what was sent in the clear behind STARTTLS must not count as
                    # sent under TLS.
                    self._buffer, self._at = b"", 0
                elif not self._left:
                    self._rest()
                elif self._takeLine():
                    self._left -= 1
                else:
                    break
        finally:
            self._reading = False
        self._flush()

    def _takeLine(self) -> bool:
        """Take one line; false when there is none that is whole."""
        end = self._buffer.find(b"\r\n", self._at)
        if end < 0:
            self._keepPartialLine()
            return False
        line = self._buffer[self._at : end]
        self._at = end + 2
        self._heard = self._connections.now
        if self._skipped:
            beginning, self._skipped = self._skipped, b""
            self._give(self.dialogue.lineTooLong(beginning))
        else:
            outcome = self.dialogue.lineReceived(line)
            if type(outcome) is Reply:  # most are
                self._replies.append(outcome.wire)
            else:
                self._give(outcome)
        return True

    def _keepPartialLine(self) -> None:
        self._buffer, self._at = self._buffer[self._at :], 0
        if len(self._buffer) > MAX_AUTH_LINE + 1:
            # One reply, after the line's true end; the last octet may be the CR of that end.
            self._skipped = self._skipped or self._buffer[:5]
            self._buffer = self._buffer[-1:]

    def _takeOctets(self) -> None:
        data = self._buffer[self._at :] if self._at else self._buffer
        self._buffer, self._at = b"", 0
        self._heard = self._connections.now
        outcome, rest = self.dialogue.dataReceived(data)
        if rest is not None:
            self._buffer = rest
        if outcome is not None:
            self._give(outcome)

    # What leaves.

    def _give(self, outcome: Outcome | Deferred[None]) -> None:
        if type(outcome) is Reply:  # isinstance of Deferred, an abstract class, costs five times it
            self._replies.append(outcome.wire)
        elif isinstance(outcome, Deferred):
            self._await(outcome)
        elif outcome is not None:
            self._say(outcome)

    def _await(self, outcome: Deferred[Any]) -> None:
        """Read nothing until this has fired: rule 1, replies leave in the order of the commands."""
        settled = False

        def settle(answer: Answer | None) -> None:
            nonlocal settled
            settled = True
            if answer is not None:
                self._say(answer)
            if held:
                self._awaited -= 1
                self._heard = self._connections.now  # only now is it the client's turn
                self._endIfLate()
                self.release()

        held = False
        outcome.addCallback(settle)
        outcome.addErrback(self._broken)
        if not settled:
            held = True
            self._awaited += 1  # behind a handshake, the greeting within that
            self._flush()
            self.hold()

    def _broken(self, failure: Failure) -> None:
        # The dialogue's Deferreds do not fail; if one does, silence would hang the client.
        events.emit(
            events.POLICY_FAILED,
            session=self.dialogue.session.id,
            origin="protocol",
            failure=failure,
        )
        self._transport.abortConnection()

    @property
    def _clock(self) -> IReactorTime:
        return self.factory.rules.submission.clock

    def _say(self, answer: Answer) -> None:
        self._replies.append(answer.wire)

    def _flush(self) -> None:
        """Write the replies there are, and do what the dialogue's state asks for behind them."""
        if self._replies and not self._closing:
            octets = b"".join(self._replies)  # no copy of a single one
            self._replies.clear()
            self._transport.write(octets)
        state = self.dialogue.state
        if state is TLS and not self._securing:
            self._securing = True
            self._heard = self._clock.seconds()
            self._buffer, self._at = b"", 0
            self._transport.startTLS(self.factory.contextFactory)
        elif state is CLOSED and not self._closing:
            self._close()
        elif self._draining:
            self._endIfIdle()

    def _close(self) -> None:
        self._closing = True
        self._heard = self._connections.now
        # A registered producer would keep loseConnection waiting for ever.
        self._transport.unregisterProducer()
        self._transport.loseConnection()

    # Holding back, for any reason: an answer is outstanding, replies are not being read, or there
    # are so many commands that others come first.

    def hold(self) -> None:
        """Read no more until released as often."""
        self._holds += 1
        if self._holds == 1:
            self._transport.pauseProducing()

    def release(self) -> None:
        """Take one reason to hold back; with the last one, go on."""
        self._holds -= 1
        if self._holds or self._closing:
            return
        self._transport.resumeProducing()
        self._read()

    def _rest(self) -> None:
        """Go on when the others have had their turn.

        Commands are counted on from segment to segment: one event may bring several.
        """
        self._left = TURN
        self._resting = 1
        self.hold()
        self._clock.callLater(0, self._rested)

    def _rested(self) -> None:
        self._resting = 0
        self.release()

    # Time and the end.

    @property
    def remoteAddress(self) -> str:
        """Where the client is, to be counted by.

        Empty for a unix socket, and for a proxy that has not yet said by XCLIENT whom it speaks
        for: all its clients would count as one.
        """
        session, proxies = self.dialogue.session, self.factory.rules.submission.xclientFrom
        isProxy = session.direct is None and session.remoteAddress in proxies
        return "" if isProxy else session.remoteAddress

    def sweep(self, now: float) -> None:
        """End a connection in which something takes too long."""
        if self._closing:
            if now - self._heard > LINGER:
                self._transport.abortConnection()
            return
        overdue = self._overdue(now)
        if overdue is None:
            return
        if self._handshaking or self._holds > self._resting:
            # Nobody would read it: no TLS yet, or replies that are not being read already.
            self._transport.abortConnection()
        else:
            self._say(self.dialogue.timedOut(overdue))
            self._flush()

    @property
    def _handshaking(self) -> bool:
        return self._securing and not self.dialogue.session.secure

    def _overdue(self, now: float) -> str | None:
        """What has taken too long, for the log; ``None`` when nothing has."""
        submission, dialogue = self.factory.rules.submission, self.dialogue
        limits, incoming = submission.limits, dialogue.incoming
        if self._awaited:
            return None  # the client waits for us, and limits.stage ends what we wait for
        passed = [("idle", now - self._heard, limits.idle)]
        if self._handshaking:
            passed = [("no handshake", now - self._heard, limits.handshake)]
        elif submission.loginRequired and dialogue.session.user is None:
            passed.append(("no login", now - dialogue.begun, limits.login))
        if incoming is not None:
            passed.append(("message not finished", now - incoming.began, limits.message))
        if dialogue.turnedAway is not None:
            # Whom a policy keeps out must not keep a place for long.
            passed.append(("no QUIT", now - dialogue.turnedAway, LINGER))
        for what, seconds, limit in passed:
            if limit and seconds > limit:
                return f"{what} within {limit:g} s" if what != "idle" else f"idle for {limit:g} s"
        return None

    def _endIfLate(self) -> None:
        """Behind an answer: of one whose next command waits at once, no sweep would see the end."""
        if self._closing or self.dialogue.state is CLOSED:
            return
        # By the time of the last sweep, as all limits: no clock is read for each answer.
        overdue = self._overdue(self._connections.now - SWEEP)
        if overdue is not None:
            self._say(self.dialogue.timedOut(overdue))

    def _turnAway(self) -> None:
        """Too many connections: say so where the client can read it, and close."""
        refused = Refused(TOO_MANY_CONNECTIONS, "connections, in all or from this address")
        reply = self.dialogue.told(refused, refused.reply)
        if not self._tlsComesFirst:
            self._transport.write(reply.wire)
        self._close()

    def drain(self) -> None:
        """The service stops: end now, or when the transaction under way has been answered."""
        self._draining = True
        if not self._closing:
            self._endIfIdle()

    def _endIfIdle(self) -> None:
        if not self._greeted or self._handshaking:
            self._close()
        elif self.dialogue.isBetween:
            self._say(self.dialogue.shutDown())
            self._flush()

    def abort(self) -> None:
        """End at once, whatever is under way."""
        self._transport.abortConnection()


class SubmissionFactory(Factory):
    """Makes the connections of one listener.

    :param submission: what they have in common.
    :param contextFactory: TLS; needed for ``submission.startTLS`` and for implicit TLS.
    :param implicitTLS: whether a connection begins with the handshake (RFC 8314 3.3).  On an
        endpoint whose transports begin so by themselves (``ssl:``) it does in any case, and TLS is
        the endpoint's.
    :param connections: where live connections are kept; shared by the listeners of a service.
    :param proxies: the peers that begin with a PROXY header, and whose header is believed.
    :raise ValueError: when TLS is asked for and there is no context factory.
    """

    noisy = False

    def __init__(
        self,
        submission: Submission,
        contextFactory: IOpenSSLContextFactory | None = None,
        implicitTLS: bool = False,
        connections: Connections | None = None,
        proxies: Networks = NO_NETWORKS,
    ) -> None:
        if (implicitTLS or submission.startTLS) and contextFactory is None:
            raise ValueError("TLS needs a context factory")
        self.rules = Rules(submission)
        self.contextFactory = contextFactory
        self.implicitTLS = implicitTLS
        self.connections = connections if connections is not None else Connections(submission.clock)
        self.proxies = proxies

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> SubmissionProtocol | HeaderReader:
        """A connection comes in."""
        if self.proxies:
            peer, _ = hostAndPort(addr)
            if peer in self.proxies:
                return HeaderReader(self, peer)
        return self.protocolFor(None)

    def protocolFor(self, ends: Ends | None) -> SubmissionProtocol:
        """A connection's protocol.

        :param ends: its true ends behind a proxy; ``None`` for those of the transport.
        """
        protocol = SubmissionProtocol(ends)
        protocol.factory = self
        return protocol

    def startFactory(self) -> None:
        """A port opens."""
        self.connections.start()

    def stopFactory(self) -> None:
        """The port has closed."""
        self.connections.stop()
