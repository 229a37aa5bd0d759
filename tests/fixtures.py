"""What many tests need: a delivery in memory, a transport without a socket, a portal."""

from __future__ import annotations

from typing import Any

import attrs
from OpenSSL import SSL
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import Portal
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd.connections import Connections
from submitd.extensions import extensions
from submitd.interfaces import IExtendedDelivery, IMessage
from submitd.protocol import SubmissionFactory, SubmissionProtocol
from submitd.realm import SubmissionRealm
from submitd.sasl import mechanism
from submitd.submission import Submission


@implementer(IMessage)
@attrs.define(eq=False)
class MemoryMessage:
    """One message of a :class:`MemoryDelivery`."""

    delivery: MemoryDelivery
    session: Any
    envelope: Any
    octets: bytes = b""
    state: str = "open"

    def dataReceived(self, chunk: bytes) -> Any:
        self.octets += chunk
        return self.delivery.onChunk(self, chunk) if self.delivery.onChunk else None

    def prepend(self, fields: bytes) -> None:
        self.octets = fields + self.octets

    def eomReceived(self) -> Any:
        self.state = "committed"
        if self.delivery.onEnd is not None:
            return self.delivery.onEnd(self)
        self.delivery.messages.append(self)
        return None

    def connectionLost(self) -> None:
        self.state = "aborted"

    @property
    def text(self) -> bytes:
        """What the client sent: everything behind the Received field."""
        assert self.octets.startswith(b"Received: "), self.octets
        at = self.octets.index(b"\r\n") + 2
        while self.octets[at : at + 1] in (b" ", b"\t"):
            at = self.octets.index(b"\r\n", at) + 2
        return self.octets[at:]


@implementer(IExtendedDelivery)
class MemoryDelivery:
    """Keeps messages in a list; ``onChunk`` and ``onEnd`` let a test have it wait or fail."""

    extensions: frozenset[str] = frozenset({"FUTURERELEASE", "MT-PRIORITY", "DELIVERBY"})

    def __init__(self, onBegin: Any = None, onChunk: Any = None, onEnd: Any = None) -> None:
        self.begun: list[MemoryMessage] = []
        self.messages: list[MemoryMessage] = []
        self.onBegin = onBegin
        self.onChunk = onChunk
        self.onEnd = onEnd

    def begin(self, session: Any, envelope: Any) -> Any:
        message = MemoryMessage(self, session, envelope)
        self.begun.append(message)
        return self.onBegin(message) if self.onBegin is not None else message


class FakeTLS:
    """The facts that a finished handshake gives."""

    def get_servername(self) -> bytes | None:
        return b"mail.example.com"

    def get_protocol_version_name(self) -> str:
        return "TLSv1.3"

    def get_cipher_name(self) -> str:
        return "TLS_AES_256_GCM_SHA384"

    def get_cipher_bits(self) -> int:
        return 256

    def get_peer_certificate(self) -> None:
        return None

    def session_reused(self) -> bool:
        return False


class FakeTransport(StringTransport):
    """A StringTransport on which TLS can be started; the test says when the handshake is over."""

    def __init__(self) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "192.0.2.7", 40000))
        self.hostAddr = IPv4Address("TCP", "192.0.2.1", 587)
        self.startedTLS = 0
        self.aborted = False
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        super().write(data)

    def startTLS(self, contextFactory: Any, normal: bool = True) -> None:
        self.startedTLS += 1

    def getHandle(self) -> Any:
        return FakeTLS()

    def abortConnection(self) -> None:
        self.aborted = True
        super().abortConnection()

    def taken(self) -> bytes:
        """What has been written since the last time."""
        written: bytes = self.value()
        self.clear()
        return written


class ThreadClock(Clock):
    """A clock that is a reactor with threads, too: what is to run in one runs at once."""

    def getThreadPool(self) -> ThreadClock:
        return self

    def callInThreadWithCallback(self, onResult: Any, call: Any, *arguments: Any) -> None:
        try:
            result = call(*arguments)
        except Exception:
            onResult(False, Failure())
        else:
            onResult(True, result)

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        call(*arguments)


class NoTLS:
    """A context factory that nobody asks anything."""

    def getContext(self) -> SSL.Context:
        raise AssertionError("a fake transport needs no context")


def makePortal(**users: str) -> Portal:
    """A portal that knows these users and passwords."""
    checker = InMemoryUsernamePasswordDatabaseDontUse()
    for name, password in (users or {"alice": "wonderland"}).items():
        checker.addUser(name.encode(), password.encode())
    return Portal(SubmissionRealm(), [checker])


def makeSubmission(clock: Clock | None = None, **changes: Any) -> Submission:
    """A submission with a delivery in memory, STARTTLS, and the user alice."""
    settings: dict[str, Any] = {
        "hostname": "mail.example.com",
        "delivery": MemoryDelivery(),
        "clock": clock or Clock(),
        "portal": makePortal(),
        "mechanisms": [mechanism("PLAIN"), mechanism("LOGIN")],
        "extensions": extensions(),
        "startTLS": True,
    }
    return Submission(**{**settings, **changes})


class Conversation:
    """A connection on a fake transport.

    :ivar said: what the server has said so far and nobody has looked at.
    """

    def __init__(
        self,
        submission: Submission,
        implicitTLS: bool = False,
        connections: Connections | None = None,
    ) -> None:
        self.submission = submission
        tls: Any = NoTLS()
        self.factory = SubmissionFactory(submission, tls, implicitTLS, connections)
        self.transport = FakeTransport()
        self.protocol: SubmissionProtocol = self.factory.buildProtocol(None)  # type: ignore
        self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> bytes:
        """Send octets, and give what the server says to them."""
        return self.begin(data) + self.goOn()

    def begin(self, data: bytes) -> bytes:
        """Send octets, and give what the server says before others have their turn."""
        self.protocol.dataReceived(data)
        return self.transport.taken()

    def goOn(self) -> bytes:
        """What the server says when they have had it."""
        if isinstance(self.submission.clock, Clock):
            self.submission.clock.advance(0)
        return self.transport.taken()

    def say(self, *lines: str) -> str:
        """Send lines, and give the reply without its last CRLF."""
        sent = self.send(b"".join(line.encode() + b"\r\n" for line in lines))
        return sent.decode("ascii").removesuffix("\r\n").replace("\r\n", "\n")

    def secure(self) -> None:
        """Finish the TLS handshake that has been started."""
        assert self.transport.startedTLS
        self.protocol.handshakeCompleted()

    def login(self) -> None:
        """STARTTLS, and log alice in."""
        self.transport.clear()
        self.say("EHLO client.example", "STARTTLS")
        self.secure()
        self.say("EHLO client.example")
        assert self.say("AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ=").startswith("235")

    def lose(self) -> None:
        """The client goes away."""
        self.protocol.connectionLost(Failure(ConnectionDone()))


def waitingFor(results: list[Deferred[Any]]) -> Any:
    """A function that makes a new Deferred at each call, kept in ``results``."""

    def wait(*arguments: Any) -> Deferred[Any]:
        results.append(Deferred())
        return results[-1]

    return wait
