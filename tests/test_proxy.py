"""Connections behind a proxy: what its PROXY header changes, and what a wrong one must not."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as globalReactor
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from submitd.connections import Connections
from submitd.interfaces import IConnectionPolicy, IDisconnectObserver
from submitd.ports import PortReactor
from submitd.protocol import SubmissionFactory, SubmissionProtocol
from submitd.proxy import HeaderReader
from submitd.submission import Limits
from submitd.transport import ILookAhead
from submitd.wire.network import Networks
from tests.fixtures import FakeTransport, NoTLS, makeSubmission
from tests.test_transport import clientContext, contexts, readToEnd, secure
from tests.wire.test_proxy import V1, v2

reactor: Any = globalReactor

PROXY = "192.0.2.7"  # the peer of a FakeTransport


@implementer(IConnectionPolicy, IDisconnectObserver)
class Witness:
    """Keeps the sessions of the first and the last stage."""

    def __init__(self) -> None:
        self.made: list[Any] = []
        self.lost: list[Any] = []

    def connectionMade(self, session: Any) -> None:
        self.made.append((session.remoteAddress, session.remotePort))
        self.session = session

    def connectionLost(self, session: Any, reason: Any) -> None:
        self.lost.append(session.remoteAddress)


@implementer(ILookAhead)
class AheadTransport(FakeTransport):
    """A transport that leaves unread what is not wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.wanted: Callable[[bytes], int] | None = None
        self.kept = b""

    def lookAhead(self, wanted: Callable[[bytes], int] | None) -> None:
        self.wanted = wanted

    def arrive(self, data: bytes) -> None:
        """Octets come in, and are read as the transport reads."""
        self.kept += data
        while self.kept and not self.disconnecting and not self.startedTLS:
            count = len(self.kept) if self.wanted is None else self.wanted(self.kept)
            data, self.kept = self.kept[:count], self.kept[count:]
            self.protocol.dataReceived(data)


class EagerTransport(FakeTransport):
    """A transport that has read everything already, as Twisted's have."""

    def arrive(self, data: bytes) -> None:
        """Octets come in."""
        self.protocol.dataReceived(data)


class HeaderReaderTests(SynchronousTestCase):
    """A trusted peer, its header whole, wrong, missing or late."""

    kinds = (AheadTransport, EagerTransport)

    def setUp(self) -> None:
        self.events: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def connect(
        self, kind: Any, implicit: bool = False, most: tuple[int, int] = (0, 0), **limits: Any
    ) -> Any:
        """A connection from a trusted proxy."""
        self.clock = Clock()
        self.witness = Witness()
        self.submission = makeSubmission(
            self.clock,
            policies=[self.witness],
            loginRequired=False,
            requireTLS=False,
            limits=Limits(**limits),
        )
        self.connections = Connections(self.clock, *most)
        self.factory = SubmissionFactory(
            self.submission,
            NoTLS(),  # type: ignore[arg-type]
            implicit,
            self.connections,
            Networks.parse(["192.0.2.0/24"]),
        )
        return self.another(kind)

    def another(self, kind: Any) -> Any:
        """One more connection from it."""
        transport = kind()
        transport.protocol = self.factory.buildProtocol(transport.getPeer())
        transport.protocol.makeConnection(transport)
        return transport

    def logged(self, name: str) -> list[str]:
        """The causes of the events of that name."""
        return [str(each["cause"]) for each in self.events if each.get("event") == name]

    def lose(self, transport: Any) -> None:
        transport.protocol.connectionLost(Failure(ConnectionDone()))

    def test_address(self) -> None:
        """The real ends are those of the session before any policy sees it, the proxy's kept."""
        for kind in self.kinds:
            for header in (V1, v2()):
                transport = self.connect(kind)
                self.assertEqual(transport.taken(), b"")
                transport.arrive(header)
                self.assertEqual(transport.taken(), b"220 mail.example.com ESMTP\r\n")
                self.assertEqual(self.witness.made, [("198.51.100.7", 40000)])
                session = self.witness.session
                self.assertEqual((session.localAddress, session.localPort), ("192.0.2.1", 587))
                self.assertEqual(session.proxyAddress, PROXY)
                self.assertEqual(session.clientHostname, "[198.51.100.7]")
                self.lose(transport)
                self.assertEqual(self.witness.lost, ["198.51.100.7"])
                self.assertEqual(len(self.connections), 0)

    def test_behindTheHeader(self) -> None:
        """What comes in the same segment behind the header is the client's, nothing of it lost."""
        for kind in self.kinds:
            transport = self.connect(kind)
            transport.arrive(V1 + b"EHLO c\r\nNOOP\r\nNO")
            transport.arrive(b"OP\r\n")
            self.assertEqual(transport.taken().count(b"250 2.0.0 Ok\r\n"), 2)

    def test_octets(self) -> None:
        """A header that comes octet by octet is the same header."""
        for kind in self.kinds:
            for header in (V1, v2()):
                transport = self.connect(kind)
                for at in range(len(header)):
                    transport.arrive(header[at : at + 1])
                self.assertTrue(transport.taken().startswith(b"220 "))

    def test_implicitTLS(self) -> None:
        """The handshake begins behind the header: its octets stay, or go to the TLS layer."""
        transport = self.connect(AheadTransport, implicit=True)
        transport.arrive(V1 + b"\x16\x03\x01")
        self.assertEqual((transport.startedTLS, transport.kept), (1, b"\x16\x03\x01"))
        self.assertEqual(transport.taken(), b"")

    def test_ownConnection(self) -> None:
        """A proxy that speaks for itself, to see whether we live, keeps its own address."""
        for header in (b"PROXY UNKNOWN\r\n", v2(None, command=0x20)):
            transport = self.connect(EagerTransport)
            transport.arrive(header + b"QUIT\r\n")
            self.assertEqual(self.witness.made, [(PROXY, 40000)])
            self.assertEqual(self.witness.session.proxyAddress, "")

    def test_missing(self) -> None:
        """A trusted peer without a header is closed without a word: nobody is its client."""
        for kind in self.kinds:
            transport = self.connect(kind)
            transport.arrive(b"EHLO c\r\nMAIL FROM:<a@example.com>\r\n")
            self.assertTrue(transport.disconnecting)
            self.assertEqual(transport.taken(), b"")
            self.lose(transport)
            self.assertEqual((self.witness.made, self.witness.lost), ([], []))
        self.assertEqual(self.logged("proxy-refused"), ["no header"] * 2)
        self.assertEqual(len([each for each in self.events if "event" in each]), 2)

    def test_garbage(self) -> None:
        """A malformed header is closed, once, with one log line and no rights."""
        for octets in (
            b"PROXY TCP4 198.51.100.7 192.0.2.1 70000 587\r\nEHLO c\r\n",
            v2(family=0x12) + b"EHLO c\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00",
        ):
            self.events.clear()
            transport = self.connect(EagerTransport)
            transport.arrive(octets)
            transport.arrive(b"EHLO c\r\n")
            self.assertTrue(transport.disconnecting)
            self.lose(transport)
            self.assertEqual(len(self.logged("proxy-refused")), 1)
            self.assertEqual((transport.taken(), self.witness.made), (b"", []))
            self.assertEqual(len(self.connections), 0)

    def test_truncated(self) -> None:
        """A connection that ends within its header, or before, is one log line."""
        for octets, cause in ((V1[:20], "cut off"), (v2()[:20], "cut off"), (b"", "no header")):
            self.events.clear()
            transport = self.connect(EagerTransport)
            if octets:
                transport.arrive(octets)
            self.lose(transport)
            self.assertEqual(self.logged("proxy-refused"), [cause])
            self.assertEqual(len(self.connections), 0)

    def test_twice(self) -> None:
        """A second header is the client's own, and gives it nothing but the end."""
        for kind in self.kinds:
            transport = self.connect(kind)
            transport.arrive(V1 + b"PROXY TCP4 10.0.0.1 192.0.2.1 40000 587\r\nNOOP\r\n")
            said = transport.taken().split(b"\r\n")
            self.assertEqual([line[:3] for line in said], [b"220", b"421", b""])
            self.assertEqual(self.witness.session.remoteAddress, "198.51.100.7")

    def test_longTLVs(self) -> None:
        """TLVs of 65535 octets are passed over, whatever is in them."""
        for kind in self.kinds:
            transport = self.connect(kind)
            octets = v2(tlvs=b"\xff" * (65535 - 12)) + b"NOOP\r\n"
            for at in range(0, len(octets), 4096):
                transport.arrive(octets[at : at + 4096])
            self.assertTrue(transport.taken().endswith(b"250 2.0.0 Ok\r\n"))
            self.assertEqual(self.witness.made, [("198.51.100.7", 40000)])

    def test_late(self) -> None:
        """A header that is not whole in time is cut, however busily its octets drip."""
        transport = self.connect(EagerTransport, handshake=60.0)
        self.factory.startFactory()
        self.addCleanup(self.factory.stopFactory)
        for at in range(13):
            transport.arrive(V1[at : at + 1])
            self.clock.pump([5.0])
        self.assertTrue(transport.aborted)
        self.lose(transport)
        self.assertEqual(self.logged("proxy-refused"), ["not whole in time"])

    def test_noTimeLimit(self) -> None:
        """0 is no limit, here as everywhere."""
        transport = self.connect(EagerTransport, handshake=0)
        transport.protocol.sweep(1e9)
        self.assertFalse(transport.aborted)

    def test_stop(self) -> None:
        """A service that stops waits for no header."""
        transport = self.connect(EagerTransport)
        self.connections.drain(30.0)
        self.assertTrue(transport.disconnecting)
        transport.protocol.abort()
        self.assertTrue(transport.aborted)
        self.lose(transport)

    def test_full(self) -> None:
        """A full service says so at once, and does not wait for a header."""
        self.connect(EagerTransport, most=(1, 0))
        second = self.another(EagerTransport)
        self.assertEqual(second.taken()[:4], b"421 ")
        second.arrive(V1)
        self.assertTrue(second.disconnecting)
        self.lose(second)
        self.assertEqual(len(self.connections), 1)

    def test_limitPerAddress(self) -> None:
        """The real addresses are counted; the proxy, from where all come, is not."""
        first = self.connect(EagerTransport, most=(0, 1))
        first.arrive(V1)
        other = self.another(EagerTransport)
        other.arrive(V1.replace(b"198.51.100.7", b"198.51.100.8"))
        self.assertEqual((first.taken()[:4], other.taken()[:4]), (b"220 ", b"220 "))
        again = self.another(EagerTransport)
        again.arrive(V1)
        self.assertEqual(again.taken()[:4], b"421 ")

    def test_fixedProtocol(self) -> None:
        """Where a transport cannot be given another protocol, the reader hands everything on."""
        transport = self.connect(EagerTransport)
        reader = transport.protocol
        reader.dataReceived(V1)
        reader.dataReceived(b"NOOP\r\n")
        self.assertTrue(transport.taken().endswith(b"250 2.0.0 Ok\r\n"))
        reader.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.witness.lost, ["198.51.100.7"])

    def test_notTrusted(self) -> None:
        """Only the peers that are named get to say a header; a unix socket's by "unix"."""
        self.connect(EagerTransport)
        stranger = IPv4Address("TCP", "203.0.113.1", 4000)
        for address in (stranger, UNIXAddress("/x"), None):
            self.assertIsInstance(self.factory.buildProtocol(address), SubmissionProtocol)
        self.factory.proxies = Networks.parse(["unix"])
        self.assertIsInstance(self.factory.buildProtocol(UNIXAddress(None)), HeaderReader)
        self.assertIsInstance(self.factory.buildProtocol(stranger), SubmissionProtocol)


class TLSListener:
    """Listens with TLS that comes first, as an ``ssl:`` endpoint does."""

    def listenTCP(self, port: int, factory: Any, interface: str) -> Any:
        return reactor.listenSSL(port, factory, contexts(), interface=interface)


class RealConnectionTests(TestCase):
    """Sockets and TLS, over our transport and over Twisted's own."""

    async def serve(self, listener: Any, implicit: bool) -> int:
        """Listen, and give the port."""
        self.witness = Witness()
        submission = makeSubmission(
            reactor, policies=[self.witness], loginRequired=False, requireTLS=False
        )
        trusted = Networks.parse(["127.0.0.1"])
        factory = SubmissionFactory(submission, contexts(), implicit, None, trusted)
        port = listener.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    @staticmethod
    def talk(port: int, chunks: list[bytes], tls: str) -> bytes:
        """Send the header in those chunks, the rest behind it in the last one, and talk."""
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
            *first, last = chunks
            for chunk in first:
                client.sendall(chunk)
            if tls == "implicit":
                return _overTLS(client, last, b"EHLO c\r\nQUIT\r\n")
            client.sendall(last + b"EHLO c\r\nSTARTTLS\r\n")
            said = b""
            while b"220 2.0.0" not in said:
                said += client.recv(65536)
            return said + _overTLS(client, b"", b"NOOP\r\nQUIT\r\n")

    async def check(self, listener: Any, tls: str) -> None:
        port = await self.serve(listener, tls == "implicit")
        octets = [V1[at : at + 1] for at in range(len(V1))]
        for chunks in ([V1], [v2()], octets, [v2(tlvs=bytes(65523))]):
            said = await deferToThread(self.talk, port, chunks, tls)
            self.assertIn(b"220 mail.example.com ESMTP\r\n", said)
            self.assertTrue(said.endswith(b"221 2.0.0 Bye\r\n"), said)
            self.assertEqual(self.witness.made.pop(), ("198.51.100.7", 40000))
            self.assertEqual(self.witness.session.tls.version, "TLSv1.3")

    async def test_ownStartTLS(self) -> None:
        """STARTTLS behind a header, over our transport."""
        await self.check(PortReactor(reactor), "starttls")

    async def test_ownImplicitTLS(self) -> None:
        """A handshake in the same segment as the header, over our transport."""
        await self.check(PortReactor(reactor), "implicit")

    async def test_twistedStartTLS(self) -> None:
        """STARTTLS behind a header, over Twisted's transport."""
        await self.check(reactor, "starttls")

    async def test_twistedImplicitTLS(self) -> None:
        """A handshake in the same segment as the header, over Twisted's transport."""
        await self.check(reactor, "implicit")

    async def test_underTLS(self) -> None:
        """A header under the TLS of an endpoint, the one place for it there."""

        def talk(port: int, header: bytes) -> bytes:
            with secure(socket.create_connection(("127.0.0.1", port), 10)) as client:
                client.sendall(header + b"EHLO c\r\nQUIT\r\n")
                return readToEnd(client)

        layers = TLSListener()
        for header, address in ((V1, "198.51.100.7"), (b"PROXY UNKNOWN\r\n", "127.0.0.1")):
            said = await deferToThread(talk, await self.serve(layers, False), header)
            self.assertTrue(said.endswith(b"221 2.0.0 Bye\r\n"), said)
            self.assertEqual(self.witness.made.pop()[0], address)
            self.assertEqual(self.witness.session.tls.version, "TLSv1.3")

    async def test_refused(self) -> None:
        """Garbage from a trusted peer ends in a clean close and no word, over both transports."""

        def talk(port: int) -> bytes:
            with socket.create_connection(("127.0.0.1", port), 10) as client:
                client.sendall(b"EHLO c\r\n" * 1000)
                return readToEnd(client)

        for listener in (PortReactor(reactor), reactor):
            port = await self.serve(listener, False)
            self.assertEqual(await deferToThread(talk, port), b"")
            self.assertEqual(self.witness.made, [])


def _overTLS(client: socket.socket, before: bytes, commands: bytes) -> bytes:
    """A handshake whose first octets leave in one segment with those before them."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = clientContext().wrap_bio(incoming, outgoing)
    said, sent = b"", False
    while True:
        try:
            if not sent:
                tls.do_handshake()
                tls.write(commands)
                sent = True
            data = tls.read(65536)
            if not data:
                return said
            said += data
        except ssl.SSLWantReadError:
            client.sendall(before + outgoing.read())
            before = b""
            data = client.recv(65536)
            if not data:
                return said
            incoming.write(data)
        except ssl.SSLZeroReturnError:
            return said
