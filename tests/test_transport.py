"""Tests of :mod:`submitd.transport`: real sockets, real TLS, and fakes for what cannot be forced.

What a protocol may rely on is tested over Twisted's own transport and over both of ours alike, with
a client of Python's ``ssl`` module in a thread.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import functools
import gc
import os
import socket
import ssl
import struct
import threading
import weakref
from collections.abc import Callable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet import reactor as globalReactor
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import (
    CannotListenError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    UnsupportedAddressFamily,
)
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IOpenSSLContextFactory,
    IPullProducer,
    IPushProducer,
    IReactorSocket,
    IReactorTCP,
    IReactorUNIX,
    ISSLTransport,
    ITCPTransport,
    ITLSTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from submitd import openssl, transport
from submitd.ports import Port, PortReactor, UNIXPort
from submitd.transport import LINGER, Phase, Server, UNIXServer

reactor: Any = globalReactor

MEGABYTE = b"0123456789abcdef" * 65536
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)

# A ClientHello that offers TLS 1.0 at best.
TLS10_HELLO = bytes.fromhex("160301002d010000290301") + bytes(32) + bytes.fromhex("000002002f0100")


# Certificates and clients.


@functools.cache
def makePair() -> tuple[Any, Any]:
    """A key and a certificate for localhost, good for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return key, certificate


@implementer(IOpenSSLContextFactory)
class Contexts:
    """A context factory as ``startTLS`` takes it."""

    def __init__(self) -> None:
        key, certificate = makePair()
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.set_min_proto_version(SSL.TLS1_2_VERSION)
        self._context.set_session_id(b"tests")
        self._context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
        self._context.use_certificate(certificate)
        self._context.use_privatekey(key)

    def getContext(self) -> SSL.Context:
        """The one context."""
        return self._context


@functools.cache
def contexts() -> Contexts:
    """One context for all tests."""
    return Contexts()


def clientContext(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    """A client that asks for one version of TLS and looks at no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    return context


def secure(
    client: socket.socket, context: ssl.SSLContext | None = None, **keywords: Any
) -> ssl.SSLSocket:
    """Make a handshake; from then on an end without close_notify is an error."""
    context = context or clientContext()
    return context.wrap_socket(client, suppress_ragged_eofs=False, **keywords)


def readExactly(client: socket.socket, count: int) -> bytes:
    """Read so many octets, or fewer when the server ends before."""
    got = bytearray()
    while len(got) < count and (data := client.recv(min(65536, count - len(got)))):
        got += data
    return bytes(got)


def readToEnd(client: socket.socket) -> bytes:
    """Read until the server ends."""
    return readExactly(client, 1 << 30)


def readToClose(client: ssl.SSLSocket) -> bytes:
    """Read until the server's close_notify, and answer it."""
    got = readToEnd(client)
    client.unwrap()
    return got


def vanish(client: socket.socket) -> None:
    """Reset the connection, as a machine does that crashed and came back."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(client.detach())


class Trickle:
    """A TLS client whose octets arrive one by one, each in a segment of its own."""

    def __init__(self, client: socket.socket) -> None:
        if client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        self._client = client
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = clientContext().wrap_bio(self._incoming, self._outgoing)
        self._do(self._tls.do_handshake)

    def _do(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                self._flush()
                self._incoming.write(self._client.recv(65536))
            finally:
                self._flush()

    def _flush(self) -> None:
        for octet in self._outgoing.read():
            self._client.sendall(bytes([octet]))

    def send(self, data: bytes) -> None:
        """Send octets."""
        self._do(lambda: self._tls.write(data))

    def receive(self, count: int) -> bytes:
        """Read so many octets."""
        got = b""
        while len(got) < count:
            got += self._do(lambda: self._tls.read(65536))
        return got


# Servers.


@implementer(IHandshakeListener)
class Recorder(Protocol):
    """A server that remembers; tests override :meth:`begin` and :meth:`got`."""

    factory: Any
    transport: Any

    def __init__(self) -> None:
        self.received = bytearray()
        self.handshakes = 0
        self.version = ""
        self.calls: list[str] = []
        self.lost: Deferred[Failure] = Deferred()

    def connectionMade(self) -> None:
        self.factory.servers.append(self)
        if self.factory.implicitTLS:
            self.transport.startTLS(contexts())
        self.begin()

    def begin(self) -> None:
        """A connection is made."""

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.got()

    def got(self) -> None:
        """Something has arrived."""

    def handshakeCompleted(self) -> None:
        self.handshakes += 1
        self.version = self.transport.getHandle().get_protocol_version_name()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.calls.append("connectionLost")
        self.lost.callback(reason.value)  # type: ignore[arg-type]


@implementer(IHalfCloseableProtocol)
class HalfCloser(Recorder):
    """A server that can go on when one direction has ended."""

    def readConnectionLost(self) -> None:
        self.calls.append("readConnectionLost")
        self.transport.write(b"still here")
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        self.calls.append("writeConnectionLost")


@implementer(IPushProducer, IPullProducer)
class Source:
    """Produces pieces, as a push or as a pull producer, then closes the connection."""

    def __init__(
        self,
        server: Recorder,
        pieces: list[bytes],
        streaming: bool,
        paused: threading.Event | None = None,
    ) -> None:
        self._paused = paused or threading.Event()
        self.stopped = False
        self._going = True
        self._server = server
        self._pieces = pieces
        self._streaming = streaming
        server.transport.registerProducer(self, streaming)
        if streaming:
            self._run()

    def _run(self) -> None:
        while self._going and self._pieces:
            self._next()

    def _next(self) -> None:
        piece = self._pieces.pop(0)
        self._server.transport.write(piece)
        if not self._pieces:
            self._server.transport.unregisterProducer()
            self._server.transport.loseConnection()

    def pauseProducing(self) -> None:
        self._paused.set()
        self._going = False

    def resumeProducing(self) -> None:
        if self._streaming:
            self._going = True
            self._run()
        else:
            self._next()

    def stopProducing(self) -> None:
        self.stopped = True
        self._going = False


class Recorders(Factory):
    """Makes one kind of server, and keeps those it made."""

    noisy = False

    def __init__(self, protocol: type[Recorder], implicitTLS: bool) -> None:
        self.protocol = protocol
        self.implicitTLS = implicitTLS
        self.servers: list[Any] = []


async def _allGone(factory: Recorders) -> None:
    """Wait until the server's side of a test's connections is gone, as the clients' are.

    :raise TimeoutError: when one stays; it is ended then.
    """
    for server in factory.servers:
        if not server.lost.called:
            try:
                await server.lost.addTimeout(10, globalReactor)  # type: ignore[arg-type]
            except TimeoutError:
                server.transport.abortConnection()
                raise


class BehaviourMixin:
    """What a protocol may rely on, whichever transport it has."""

    timeout = 30
    aborted: Any = ConnectionAborted
    vanished: Any = ConnectionLost

    def description(self) -> str:
        """The endpoint to listen at."""
        return "tcp:0:interface=127.0.0.1"

    def listeningReactor(self) -> Any:
        """The reactor to listen with."""
        raise NotImplementedError

    def connect(self) -> socket.socket:
        """A client's socket."""
        address = self.port.getHost()
        client = socket.socket()
        client.settimeout(20)
        # As little room as a slow line has: or five megabytes are gone before they are read.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.connect(("127.0.0.1", address.port))
        return client

    async def serve(self: Any, protocol: type[Recorder], implicitTLS: bool = False) -> Recorders:
        """Listen, until the test is over."""
        factory = Recorders(protocol, implicitTLS)
        endpoint = serverFromString(self.listeningReactor(), self.description())
        self.port = await endpoint.listen(factory)
        self.addCleanup(_allGone, factory)
        self.addCleanup(self.port.stopListening)
        return factory

    async def talk(self: Any, script: Callable[[Any], Any]) -> Any:
        """Run a client in a thread, on a socket of its own."""

        def run() -> Any:
            with self.connect() as client:
                return script(client)

        return await deferToThread(run)

    async def knock(self: Any) -> None:
        """Connect, and be closed or reset, even before the connection is seen to be there."""
        with contextlib.suppress(ConnectionResetError):
            self.assertEqual(await self.talk(readToEnd), b"")

    # The beginning.

    async def test_greeting(self: Any) -> None:
        """What is written in connectionMade is the first thing that the client reads."""

        class Greeter(Recorder):
            def begin(self) -> None:
                self.transport.writeSequence([b"220 ", b"hello"])
                self.transport.loseConnection()

        factory = await self.serve(Greeter)
        self.assertEqual(await self.talk(readToEnd), b"220 hello")
        self.assertIsInstance(await factory.servers[0].lost, ConnectionDone)
        self.assertEqual(factory.servers[0].handshakes, 0)

    async def test_greetingBehindHandshake(self: Any) -> None:
        """A greeting written before the handshake is over is sent when it is, by TLS 1.2 too."""

        class Greeter(Recorder):
            def begin(self) -> None:
                self.transport.write(b"220 hello")

            def got(self) -> None:
                self.transport.loseConnection()

        factory = await self.serve(Greeter, implicitTLS=True)
        for version in VERSIONS:

            def script(client: socket.socket, version: ssl.TLSVersion = version) -> bytes:
                with secure(client, clientContext(version)) as client:
                    greeting = readExactly(client, 9)
                    client.sendall(b"QUIT")
                    return greeting + readToClose(client)

            self.assertEqual(await self.talk(script), b"220 hello")
            server = factory.servers.pop()
            self.assertIsInstance(await server.lost, ConnectionDone)
            self.assertEqual((server.handshakes, server.version[:3]), (1, "TLS"))
            self.assertEqual(server.version.replace(".", "_"), version.name)

    async def test_startTLSBehindUnsentReplies(self: Any) -> None:
        """Replies that the socket has not taken when TLS starts leave in the clear, before it."""
        clear = MEGABYTE * 5 + b"220 go"

        class Upgrader(Recorder):
            def got(self) -> None:
                if not self.handshakes:
                    self.transport.write(clear)
                    self.transport.startTLS(contexts())
                    self.transport.write(b"secret")
                else:
                    self.transport.write(b"!")

        factory = await self.serve(Upgrader)

        def script(client: socket.socket) -> bytes:
            client.sendall(b"STARTTLS")
            self.assertEqual(readExactly(client, len(clear)), clear)
            with secure(client) as client:
                client.sendall(b"EHLO")
                return readExactly(client, 7)

        self.assertEqual(sorted(await self.talk(script)), sorted(b"secret!"))
        self.assertEqual(factory.servers[0].handshakes, 1)

    async def test_startTLSProvides(self: Any) -> None:
        """The transport tells of TLS: its interface, its handle, the client's certificate."""
        facts: list[Any] = []

        class Upgrader(Recorder):
            def begin(self) -> None:
                facts.append(ISSLTransport.providedBy(self.transport))
                facts.append(isinstance(self.transport.getHandle(), socket.socket))
                self.transport.startTLS(contexts())
                self.transport.write(b"go")

            def handshakeCompleted(self) -> None:
                facts.append(ISSLTransport.providedBy(self.transport))
                handle = self.transport.getHandle()
                facts.append(handle.get_servername())
                facts.append(bool(handle.get_cipher_name()))
                facts.append(self.transport.getPeerCertificate().get_subject().CN)

        await self.serve(Upgrader)
        key, certificate = makePair()
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(
                key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            file.write(certificate.public_bytes(serialization.Encoding.PEM))
        context = clientContext()
        context.load_cert_chain(path)

        def script(client: socket.socket) -> bytes:
            with secure(client, context, server_hostname="mail.example.com") as client:
                return readExactly(client, 2)

        self.assertEqual(await self.talk(script), b"go")
        self.assertEqual(facts, [False, True, True, b"mail.example.com", True, "localhost"])

    async def test_handshakeByteByByte(self: Any) -> None:
        """A handshake, and records behind it, may come one octet to a segment."""

        class Echo(Recorder):
            def got(self) -> None:
                if len(self.received) == 300:
                    self.transport.write(bytes(self.received))

        factory = await self.serve(Echo, implicitTLS=True)

        def script(client: socket.socket) -> bytes:
            trickle = Trickle(client)
            trickle.send(b"a" * 200)
            trickle.send(b"b" * 100)
            return trickle.receive(300)

        self.assertEqual(await self.talk(script), b"a" * 200 + b"b" * 100)
        self.assertEqual(factory.servers[0].handshakes, 1)

    async def test_sessionResumed(self: Any) -> None:
        """A client that comes back with its session's ticket is spared the full handshake."""

        class Greeter(Recorder):
            def begin(self) -> None:
                self.transport.write(b"220")

            def got(self) -> None:
                self.transport.loseConnection()

        await self.serve(Greeter, implicitTLS=True)
        for version in VERSIONS:
            context = clientContext(version)

            def script(
                client: socket.socket,
                session: ssl.SSLSession | None = None,
                context: ssl.SSLContext = context,
            ) -> tuple[ssl.SSLSession | None, bool | None]:
                with secure(client, context, session=session) as client:
                    readExactly(client, 3)
                    client.sendall(b"QUIT")
                    readToEnd(client)
                    return client.session, client.session_reused

            session, reused = await self.talk(script)
            self.assertFalse(reused)
            _, reused = await self.talk(functools.partial(script, session=session))
            self.assertTrue(reused)

    async def test_garbageForHandshake(self: Any) -> None:
        """Plaintext on a TLS port, and TLS 1.0, end that connection alone, and log nothing."""

        class Echo(Recorder):
            def got(self) -> None:
                self.transport.write(bytes(self.received))

        factory = await self.serve(Echo, implicitTLS=True)

        def script(client: socket.socket) -> bytes:
            with secure(client) as client:
                for garbage in (b"EHLO client.example\r\n", TLS10_HELLO):
                    with self.connect() as other:
                        other.sendall(garbage)
                        # an alert, or a reset that overtook it
                        with contextlib.suppress(ConnectionResetError):
                            readToEnd(other)
                client.sendall(b"fine")
                return readExactly(client, 4)

        self.assertEqual(await self.talk(script), b"fine")
        for server in factory.servers[1:]:
            reason = await server.lost
            self.assertIsInstance(reason, SSL.Error)
            self.assertEqual((server.handshakes, bytes(server.received)), (0, b""))
        self.assertEqual(len(factory.servers), 3)

    async def test_vanishedInHandshake(self: Any) -> None:
        """A client that goes away in the middle of the handshake is a lost connection."""
        factory = await self.serve(Recorder, implicitTLS=True)
        await self.talk(lambda client: client.sendall(b"\x16\x03\x01\x02\x00\x01"))
        while not factory.servers:
            await deferLater(reactor, 0)
        self.assertIsInstance(await factory.servers[0].lost, (ConnectionLost, ConnectionDone))

    # Much data.

    async def _upload(self: Any, implicitTLS: bool) -> None:
        class Sink(Recorder):
            def got(self) -> None:
                if len(self.received) == 5 * len(MEGABYTE):
                    self.transport.write(b"250")

        factory = await self.serve(Sink, implicitTLS)

        def script(client: socket.socket) -> bytes:
            client = secure(client) if implicitTLS else client
            with client:
                client.sendall(MEGABYTE * 5)
                return readExactly(client, 3)

        self.assertEqual(await self.talk(script), b"250")
        self.assertEqual(factory.servers[0].received, MEGABYTE * 5)

    async def test_upload(self: Any) -> None:
        """5 MB arrive whole and in order in the clear."""
        await self._upload(False)

    async def test_uploadTLS(self: Any) -> None:
        """5 MB arrive whole and in order over TLS."""
        await self._upload(True)

    async def _download(self: Any, implicitTLS: bool, streaming: bool) -> None:
        """A slow reader gets all, while its producer is held back; then a clean end."""
        # more than a kernel keeps for one connection
        pieces = [MEGABYTE[: 150000 + number] for number in range(100)]
        paused = threading.Event()

        class Sender(Recorder):
            def begin(self) -> None:
                Source(self, list(pieces), streaming, paused)

        factory = await self.serve(Sender, implicitTLS)

        def script(client: socket.socket) -> bytes:
            client = secure(client) if implicitTLS else client
            with client:
                got = bytearray()
                if streaming:
                    self.assertTrue(paused.wait(20))
                while data := client.recv(20000):
                    got += data
                if implicitTLS:
                    client.unwrap()
                return bytes(got)

        # compared apart: trial would print megabytes
        self.assertTrue(await self.talk(script) == b"".join(pieces))
        self.assertIsInstance(await factory.servers[0].lost, ConnectionDone)

    async def test_pushProducer(self: Any) -> None:
        """A push producer is paused while the client does not read."""
        await self._download(False, True)

    async def test_pushProducerTLS(self: Any) -> None:
        """A push producer is paused while the client does not read, over TLS too."""
        await self._download(True, True)

    async def test_pullProducer(self: Any) -> None:
        """A pull producer is asked again and again until it is done."""
        await self._download(False, False)

    async def test_pullProducerTLS(self: Any) -> None:
        """A pull producer is asked again and again until it is done, over TLS too."""
        await self._download(True, False)

    async def _pause(self: Any, implicitTLS: bool) -> None:
        """What comes during a pause comes behind it, and all of it."""
        size = 40000
        seen = []

        class Pauser(Recorder):
            def got(self) -> None:
                if len(self.received) < 5:
                    self.transport.write(b"x")
                elif not seen:
                    self.transport.pauseProducing()
                    seen.append(len(self.received))
                else:
                    self.finish()

            def resume(self) -> None:
                seen.append(len(self.received))
                self.transport.resumeProducing()
                self.finish()

            def finish(self) -> None:
                if len(self.received) == size:
                    self.transport.write(b"y")

        factory = await self.serve(Pauser, implicitTLS)

        def script(client: socket.socket) -> bytes:
            client = secure(client) if implicitTLS else client
            with client:
                client.sendall(b"1")
                readExactly(client, 1)
                client.sendall(MEGABYTE[: size // 2])
                client.sendall(MEGABYTE[: size - 1 - size // 2])
                reactor.callFromThread(lambda: factory.servers[0].resume())
                return readExactly(client, 1)

        self.assertEqual(await self.talk(script), b"y")
        half = MEGABYTE[: size // 2]
        self.assertEqual(
            factory.servers[0].received, b"1" + half + MEGABYTE[: size - 1 - size // 2]
        )
        self.assertEqual(len(set(seen)), 1)

    async def test_pause(self: Any) -> None:
        """Nothing comes while the protocol pauses, and nothing is lost."""
        await self._pause(False)

    async def test_orderOfWrites(self: Any) -> None:
        """Writes of all sizes leave in their order, over TLS too."""
        pieces = [bytes([number % 251]) * (number * number % 70000) for number in range(200)]

        class Sender(Recorder):
            def got(self) -> None:
                for piece in pieces:
                    self.transport.write(piece)
                self.transport.loseConnection()
                self.transport.loseConnection()

        await self.serve(Sender, implicitTLS=True)

        def script(client: socket.socket) -> bytes:
            with secure(client) as client:
                client.sendall(b"go")
                return readToEnd(client)

        self.assertTrue(await self.talk(script) == b"".join(pieces))

    # The end.

    async def test_closeNotifyAnswered(self: Any) -> None:
        """loseConnection sends everything and close_notify; the client's answer is a clean end."""

        class Sender(Recorder):
            def got(self) -> None:
                self.transport.write(MEGABYTE)
                self.transport.loseConnection()
                self.transport.write(b"too late")

        factory = await self.serve(Sender, implicitTLS=True)

        def script(client: socket.socket) -> bytes:
            with secure(client) as client:
                client.sendall(b"go")
                return readToClose(client)

        self.assertTrue(await self.talk(script) == MEGABYTE)
        self.assertIsInstance(await factory.servers[0].lost, ConnectionDone)

    async def test_clientCloses(self: Any) -> None:
        """A client's close_notify is a clean end, and is answered."""
        factory = await self.serve(Recorder, implicitTLS=True)

        def script(client: socket.socket) -> bytes:
            client = secure(client)
            client.sendall(b"go")
            with client.unwrap() as bare:
                return readToEnd(bare)

        self.assertEqual(await self.talk(script), b"")
        self.assertIsInstance(await factory.servers[0].lost, ConnectionDone)
        self.assertEqual(factory.servers[0].received, b"go")

    async def test_truncation(self: Any) -> None:
        """An end without close_notify is a lost connection: somebody may have cut it."""
        factory = await self.serve(Recorder, implicitTLS=True)

        def script(client: socket.socket) -> None:
            os.close(secure(client).detach())

        await self.talk(script)
        self.assertIsInstance(await factory.servers[0].lost, ConnectionLost)

    async def test_abort(self: Any) -> None:
        """abortConnection drops what is queued, and no call of the protocol's is interrupted."""

        class Aborter(Recorder):
            def got(self) -> None:
                self.transport.write(MEGABYTE * 5)
                self.transport.abortConnection()
                self.transport.abortConnection()
                self.transport.loseConnection()
                self.transport.write(b"late")
                self.calls.append("got")

        def script(client: socket.socket) -> bytes:
            client = secure(client) if implicitTLS else client
            with client:
                client.sendall(b"go")
                try:
                    return readToEnd(client)
                except OSError:
                    return b""

        for implicitTLS in (False, True):
            factory = await self.serve(Aborter, implicitTLS)
            self.assertLess(len(await self.talk(script)), 5 * len(MEGABYTE))
            server = factory.servers[0]
            self.assertIsInstance(await server.lost, self.aborted)
            self.assertEqual(server.calls, ["got", "connectionLost"])

    async def test_vanishedInWrite(self: Any) -> None:
        """A client that vanishes while we send is a lost connection, and the producer stops."""
        sources = []

        class Sender(Recorder):
            def got(self) -> None:
                sources.append(Source(self, [MEGABYTE] * 50, True))

        def script(client: socket.socket) -> None:
            client = secure(client) if implicitTLS else client
            client.sendall(b"go")
            readExactly(client, 100000)
            vanish(client)

        for implicitTLS in (False, True):
            factory = await self.serve(Sender, implicitTLS)
            await self.talk(script)
            self.assertIsInstance(await factory.servers[0].lost, self.vanished)
            self.assertTrue(sources.pop().stopped)

    async def test_vanishedAlone(self: Any) -> None:
        """A TLS client that vanishes before a reply takes no other connection with it."""

        class Replier(Recorder):
            def got(self) -> None:
                if self.received == b"go":
                    self.transport.pauseProducing()
                    self.transport.write(b"gone")
                else:
                    self.transport.write(b"fine")

            def reply(self) -> None:
                self.transport.write(b"reply")
                self.transport.resumeProducing()

        factory = await self.serve(Replier, implicitTLS=True)

        def script(client: socket.socket) -> bytes:
            trickle = Trickle(client)
            for number in range(1, 4):
                other = secure(self.connect())
                other.sendall(b"go")
                readExactly(other, 4)
                vanish(other)
                reactor.callFromThread(factory.servers[number].reply)
                # each octet of this record but the last is a read that finds nothing
                trickle.send(b"still there?")
            return trickle.receive(4)

        self.assertEqual(await self.talk(script), b"fine")
        for server in factory.servers[1:]:
            await server.lost

    async def test_halfClosedByClient(self: Any) -> None:
        """A protocol that can half-close may answer behind the client's end."""
        factory = await self.serve(HalfCloser)

        def script(client: socket.socket) -> bytes:
            client.sendall(b"question")
            client.shutdown(socket.SHUT_WR)
            return readToEnd(client)

        self.assertEqual(await self.talk(script), b"still here")
        server = factory.servers[0]
        self.assertIsInstance(await server.lost, ConnectionDone)
        self.assertEqual(server.received, b"question")
        self.assertEqual(server.calls, ["readConnectionLost", "connectionLost"])

    async def test_halfClosedByServer(self: Any) -> None:
        """Behind loseWriteConnection nothing is sent, and what comes is still read."""

        class Ender(HalfCloser):
            def begin(self) -> None:
                self.transport.write(b"the end")
                self.transport.loseWriteConnection()

            def got(self) -> None:
                self.transport.write(b"ignored")

            def readConnectionLost(self) -> None:
                self.calls.append("readConnectionLost")
                self.transport.loseConnection()

        factory = await self.serve(Ender)

        def script(client: socket.socket) -> bytes:
            end = readToEnd(client)
            client.sendall(b"I see")
            return end

        self.assertEqual(await self.talk(script), b"the end")
        server = factory.servers[0]
        self.assertIsInstance(await server.lost, ConnectionDone)
        self.assertEqual(server.received, b"I see")
        self.assertEqual(
            server.calls, ["writeConnectionLost", "readConnectionLost", "connectionLost"]
        )

    async def test_loseConnectionInHandshake(self: Any) -> None:
        """Closed in the handshake with nothing to say, a connection is dropped at once."""

        class Loser(Recorder):
            def begin(self) -> None:
                self.transport.loseConnection()

        factory = await self.serve(Loser, implicitTLS=True)

        await self.knock()
        self.assertIsInstance(await factory.servers[0].lost, self.aborted)

    async def test_loseConnectionBehindHandshake(self: Any) -> None:
        """Closed in the handshake with something to say, a connection says it first."""

        class Loser(Recorder):
            def begin(self) -> None:
                self.transport.write(b"421 busy")
                self.transport.loseConnection()
                self.transport.write(b" ignored")

        factory = await self.serve(Loser, implicitTLS=True)

        def script(client: socket.socket) -> bytes:
            with secure(client) as client:
                return readToEnd(client)

        self.assertEqual(await self.talk(script), b"421 busy")
        self.assertIsInstance(await factory.servers[0].lost, (ConnectionDone, ConnectionLost))

    async def test_protocolRaises(self: Any) -> None:
        """A protocol that raises loses its connection, and the log has the reason."""

        class Raiser(Recorder):
            def got(self) -> None:
                raise ZeroDivisionError

        factory = await self.serve(Raiser)

        def script(client: socket.socket) -> bytes:
            client.sendall(b"go")
            return readToEnd(client)

        self.assertEqual(await self.talk(script), b"")
        self.assertIsInstance(await factory.servers[0].lost, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_writeTypes(self: Any) -> None:
        """Text is refused where it is written, not somewhere later."""
        raised = []

        class Writer(Recorder):
            def begin(self) -> None:
                for call in (
                    self.transport.write,
                    lambda text: self.transport.writeSequence([text]),
                ):
                    try:
                        call("text")
                    except TypeError as error:
                        raised.append(error)
                self.transport.write(b"")
                self.transport.loseConnection()

        await self.serve(Writer)
        self.assertEqual(await self.talk(readToEnd), b"")
        self.assertEqual(len(raised), 2)

    async def test_descriptors(self: Any) -> None:
        """However a connection ends, its descriptor is closed."""

        class Echo(Recorder):
            def got(self) -> None:
                self.transport.write(bytes(self.received))
                if b"QUIT" in self.received:
                    self.transport.loseConnection()
                if b"ABORT" in self.received:
                    self.transport.abortConnection()

        factory = await self.serve(Echo, implicitTLS=True)

        def script(client: socket.socket, word: bytes = b"QUIT") -> None:
            client = secure(client)
            client.sendall(word)
            if word == b"QUIT":
                readToEnd(client)
            if word == b"VANISH":
                vanish(client)
            client.close()

        async def settle(count: int) -> None:
            while len(factory.servers) < count:
                await deferLater(reactor, 0)
            for server in factory.servers:
                if not server.lost.called:
                    await server.lost

        await self.talk(script)
        await settle(1)
        gc.collect()  # the epoll of a port that an earlier test had would go in between
        before = len(os.listdir("/proc/self/fd"))
        for word in (b"QUIT", b"ABORT", b"VANISH", b"CLOSE"):
            await self.talk(functools.partial(script, word=word))
        await self.talk(lambda client: client.sendall(b"garbage"))
        await settle(6)
        self.assertEqual(len(os.listdir("/proc/self/fd")), before)


class TwistedTransportTests(BehaviourMixin, TestCase):
    """Twisted's own transport behaves as the tests say: they ask for nothing special."""

    # its TLS takes an abort for a truncation
    aborted = (ConnectionAborted, ConnectionLost)

    # its reactor takes a reset for an end when it looks between the two steps in which the kernel
    # closes a socket: there is a hang-up already, and nothing to read yet
    vanished = (ConnectionDone, ConnectionLost)

    def listeningReactor(self) -> Any:
        return reactor


class OwnTransportMixin(BehaviourMixin):
    """What only our transports do, besides what all do."""

    def listeningReactor(self) -> Any:
        return PortReactor(reactor)

    async def test_pauseTLS(self: Any) -> None:
        """Nothing comes while the protocol pauses over TLS, and nothing is lost."""
        await self._pause(True)

    async def test_writtenInHandshakeCompleted(self: Any) -> None:
        """What handshakeCompleted writes comes behind what was written before."""

        class Greeter(Recorder):
            def begin(self) -> None:
                self.transport.write(b"first ")

            def handshakeCompleted(self) -> None:
                self.transport.write(b"second")
                self.transport.loseConnection()

        await self.serve(Greeter, implicitTLS=True)

        def script(client: socket.socket) -> bytes:
            with secure(client) as client:
                return readToEnd(client)

        self.assertEqual(await self.talk(script), b"first second")

    async def test_alertIsRead(self: Any) -> None:
        """The alert that ends a handshake reaches a client that has sent more behind it."""
        factory = await self.serve(Recorder, implicitTLS=True)

        def script(client: socket.socket) -> bytes:
            client.sendall(TLS10_HELLO + b"\0" * 60000)
            return readToEnd(client)

        alert = await self.talk(script)
        self.assertEqual(alert[:1], b"\x15")
        self.assertIsInstance(await factory.servers[0].lost, SSL.Error)

    async def test_interfaces(self: Any) -> None:
        """The transport provides what it says, before and after startTLS."""
        checked = []

        class Checker(Recorder):
            def begin(self) -> None:
                for interface in (ITCPTransport, ITLSTransport):
                    checked.append(verifyObject(interface, self.transport))
                checked.append(self.transport.getPeerCertificate() is None)
                self.transport.startTLS(contexts())
                checked.append(verifyObject(ISSLTransport, self.transport))
                self.transport.abortConnection()

        factory = await self.serve(Checker)

        await self.knock()
        await factory.servers[0].lost
        self.assertEqual(checked, [True] * 4)

    async def test_lastReplyBehindPipelinedInput(self: Any) -> None:
        """A client that is still sending when we close gets our last reply, not a reset."""

        class Refuser(Recorder):
            def got(self) -> None:
                self.transport.write(b"421 too much")
                self.transport.loseConnection()

        def script(client: socket.socket) -> bytes:
            client = secure(client) if implicitTLS else client
            with client:
                for _ in range(20):
                    client.sendall(MEGABYTE[:50000])
                return readToEnd(client)

        for implicitTLS in (False, True):
            factory = await self.serve(Refuser, implicitTLS)
            self.assertEqual(await self.talk(script), b"421 too much")
            server = factory.servers[0]
            self.assertIsInstance(await server.lost, ConnectionDone)
            self.assertLess(len(server.received), 1000000)

    async def test_halfClosedByServerTLS(self: Any) -> None:
        """loseWriteConnection sends close_notify, and the client's octets are still read."""

        class Ender(HalfCloser):
            def begin(self) -> None:
                self.transport.write(b"the end")
                self.transport.loseWriteConnection()

            def readConnectionLost(self) -> None:
                self.calls.append("readConnectionLost")
                self.transport.loseConnection()

        factory = await self.serve(Ender, implicitTLS=True)

        def script(client: socket.socket) -> bytes:
            client = secure(client)
            end = readToEnd(client)
            client.sendall(b"I see")
            client.unwrap().close()
            return end

        self.assertEqual(await self.talk(script), b"the end")
        server = factory.servers[0]
        self.assertIsInstance(await server.lost, ConnectionDone)
        self.assertEqual(server.received, b"I see")
        self.assertEqual(
            server.calls, ["writeConnectionLost", "readConnectionLost", "connectionLost"]
        )

    async def test_halfClosedByClientTLS(self: Any) -> None:
        """Behind the client's close_notify a protocol that can half-close may still answer."""
        factory = await self.serve(HalfCloser, implicitTLS=True)

        def script(client: socket.socket) -> bytes:
            # Python's ssl can only close both ways: the other one is read by hand.
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = clientContext().wrap_bio(incoming, outgoing)

            def until(call: Callable[[], Any]) -> Any:
                while True:
                    try:
                        return call()
                    except ssl.SSLWantReadError:
                        client.sendall(outgoing.read())
                        incoming.write(client.recv(65536))

            until(tls.do_handshake)
            try:
                tls.unwrap()
            except ssl.SSLWantReadError:
                client.sendall(outgoing.read())
            return readToEnd(client)

        # two session tickets, the reply and close_notify, encrypted
        self.assertGreater(len(await self.talk(script)), len(b"still here"))
        server = factory.servers[0]
        self.assertIsInstance(await server.lost, ConnectionDone)
        self.assertEqual(server.calls, ["readConnectionLost", "connectionLost"])

    async def test_startTLSTwice(self: Any) -> None:
        """TLS within TLS is a mistake of the protocol's."""
        raised = []

        class Twice(Recorder):
            def begin(self) -> None:
                for context in (object(), contexts(), contexts()):
                    try:
                        self.transport.startTLS(context)
                    except (TypeError, RuntimeError) as error:
                        raised.append(type(error))
                self.transport.abortConnection()
                self.transport.startTLS(contexts())

        factory = await self.serve(Twice)
        await self.knock()
        await factory.servers[0].lost
        self.assertEqual(raised, [TypeError, RuntimeError])


class TCPTransportTests(OwnTransportMixin, TestCase):
    """Our transport over TCP."""

    async def test_addresses(self) -> None:
        """A connection knows both its ends, and sends replies without delay."""
        facts: list[Any] = []

        class Teller(Recorder):
            def begin(self) -> None:
                facts.extend([self.transport.getHost(), self.transport.getPeer()])
                facts.append(self.transport.getTcpNoDelay())
                self.transport.loseConnection()

        await self.serve(Teller)
        name = await self.talk(lambda client: (client.getsockname(), readToEnd(client))[0])
        self.assertEqual(facts[0], self.port.getHost())
        self.assertEqual((facts[1].host, facts[1].port), name)
        self.assertTrue(facts[2])


class UNIXTransportTests(OwnTransportMixin, TestCase):
    """Our transport over unix sockets."""

    def description(self) -> str:
        # as short as it can be: such a path has at most 107 octets
        self.path = os.path.relpath(self.mktemp())  # type: ignore[attr-defined]
        return f"unix:{self.path}"

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(20)
        client.connect(self.path)
        return client

    async def test_addresses(self) -> None:
        """A connection knows its path, and takes TCP's options without complaint."""
        facts: list[Any] = []

        class Teller(Recorder):
            def begin(self) -> None:
                facts.extend([self.transport.getHost(), self.transport.getPeer()])
                self.transport.setTcpNoDelay(True)
                facts.append(self.transport.getTcpNoDelay())
                self.transport.loseConnection()

        await self.serve(Teller)
        await self.talk(readToEnd)
        self.assertEqual(facts[0].name, self.path.encode())
        self.assertIsNone(facts[1].name)
        self.assertTrue(facts[2])


# What cannot be forced on real sockets.


class FakeTLS:
    """An SSL connection that answers as the test says: values are returned, exceptions raised."""

    def __init__(self, **answers: list[Any]) -> None:
        self.answers = answers
        self.calls: list[str] = []

    def _answer(self, call: str, default: Any) -> Any:
        self.calls.append(call)
        answers = self.answers.get(call)
        answer = answers.pop(0) if answers else default
        if isinstance(answer, Exception):
            raise answer
        return answer

    def do_handshake(self) -> None:
        self._answer("do_handshake", None)

    def send(self, data: Any) -> int:
        sent = self._answer("send", len(data))
        return int(sent)

    def recv(self, size: int) -> bytes:
        data: bytes = self._answer("recv", SSL.WantReadError())
        return data

    def pending(self) -> int:
        return int(self._answer("pending", 0))

    def shutdown(self) -> bool:
        return bool(self._answer("shutdown", False))


class FakeSocket:
    """A socket that answers as the test says."""

    def __init__(self, real: socket.socket, **answers: list[Any]) -> None:
        self._real = real
        self.answers = answers
        self.sent = b""
        self.reads = 0
        self.options: list[tuple[int, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def send(self, data: Any) -> int:
        answers = self.answers.get("send")
        answer = answers.pop(0) if answers else len(data)
        if isinstance(answer, Exception):
            raise answer
        self.sent += bytes(data[:answer])
        return int(answer)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.options.append((option, value))

    def recv(self, size: int, flags: int = 0) -> bytes:
        self.reads += 1
        answer = self.answers["recv"].pop(0)
        if isinstance(answer, Exception):
            raise answer
        return bytes(answer)


class Quiet(Protocol):
    """Remembers what arrives; ``onData`` is called with each piece."""

    transport: Any

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.reasons: list[type] = []
        self.onData: Callable[[], Any] = lambda: None

    def dataReceived(self, data: bytes) -> None:
        self.received.append(data)
        self.onData()

    def connectionLost(self, reason: Failure = None) -> None:  # type: ignore[assignment]
        self.reasons.append(reason.type)  # type: ignore[arg-type]


class EventTests(SynchronousTestCase):
    """What a connection makes of events, with OpenSSL, the socket and the reactor in our hands."""

    def setUp(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.theirs.settimeout(5)
        self.addCleanup(self.theirs.close)
        self.addCleanup(ours.close)
        self.reactor = MemoryReactorClock()
        self.protocol = Quiet()
        self.server = Server(ours, self.protocol, ("192.0.2.7", 1), None, 0, self.reactor)
        self.protocol.makeConnection(self.server)

    def startTLS(self, secured: bool = True, **answers: list[Any]) -> FakeTLS:
        """Have a fake for TLS, behind its handshake or before it."""
        self.server.startTLS(contexts())
        fake = FakeTLS()
        self.server._tls = fake  # type: ignore[assignment]
        if secured:
            self.assertIsNone(self.server.doRead())
            fake.calls.clear()
        fake.answers = answers
        return fake

    def fakeSocket(self, **answers: list[Any]) -> FakeSocket:
        """Have a fake for the socket."""
        fake = FakeSocket(self.server.socket, **answers)
        self.server.socket = fake  # type: ignore[assignment]
        return fake

    def interest(self) -> tuple[bool, bool]:
        """Whether the reactor watches for reads, and for writes."""
        return self.server in self.reactor.readers, self.server in self.reactor.writers

    # The handshake.

    def test_handshakeWantsRead(self) -> None:
        """A handshake that waits for the client is not woken by a socket that can be written."""
        self.startTLS(False, do_handshake=[SSL.WantWriteError(), SSL.WantReadError()])
        self.assertIsNone(self.server.doRead())
        self.assertEqual(self.interest(), (False, True))
        self.assertIsNone(self.server.doWrite())
        self.assertEqual(self.interest(), (True, False))

    def test_handshakeEndsInWrite(self) -> None:
        """A greeting is sent when the handshake ends in a write event: none other would come."""
        fake = self.startTLS(False, do_handshake=[SSL.WantWriteError()])
        self.server.write(b"220 hello")
        self.server.doRead()
        self.assertNotIn("send", fake.calls)
        self.server.doWrite()
        self.assertIn("send", fake.calls)
        self.assertEqual(self.interest(), (True, False))

    def test_handshakeEndsWithMoreToSend(self) -> None:
        """What the socket does not take at the end of the handshake waits for the next event."""
        fake = self.startTLS(False, send=[3, SSL.WantWriteError(), 6])
        self.server.write(b"220 hello")
        self.server.doRead()
        self.assertEqual(self.interest(), (True, True))
        self.server.doWrite()
        self.assertEqual(fake.calls.count("send"), 3)
        self.assertEqual(self.interest(), (True, False))

    def test_handshakePaused(self) -> None:
        """A protocol that pauses in the handshake holds back data, not the handshake."""
        fake = self.startTLS(False, do_handshake=[SSL.WantReadError()])
        self.server.pauseProducing()
        self.server.doRead()
        self.assertEqual(self.interest(), (True, False))
        self.server.doRead()
        self.assertEqual(self.server._phase, Phase.SECURE)
        self.server.doRead()
        self.assertNotIn("recv", fake.calls)
        self.assertEqual(self.interest(), (False, False))
        self.server.resumeProducing()
        self.assertEqual(self.interest(), (True, False))

    def test_handshakeAsClient(self) -> None:
        """The TLS client speaks first."""
        self.server.startTLS(contexts(), normal=False)
        self.assertEqual(self.interest(), (False, True))
        self.server.doWrite()
        self.assertEqual(self.theirs.recv(1), b"\x16")

    def test_handshakeFails(self) -> None:
        """Behind the alert a client has LINGER seconds; the reason is that of the handshake."""
        for ending in ("client", "reset", "time"):
            self.setUp()
            self.startTLS(False, do_handshake=[SSL.WantWriteError(), SSL.Error([])])
            self.assertIsNone(self.server.doRead())
            self.assertIsNone(self.server.doWrite())
            self.assertEqual(self.interest(), (True, False))
            self.assertEqual(self.theirs.recv(10), b"")
            self.theirs.sendall(b"not heard")
            self.assertIsNone(self.server.doRead())
            self.assertEqual(self.protocol.reasons, [])
            if ending == "time":
                self.reactor.advance(LINGER)
                self.assertEqual(self.protocol.reasons, [SSL.Error])
            else:
                self.fakeSocket(recv=[b"" if ending == "client" else ConnectionResetError()])
                self.assertIsInstance(self.server.doRead(), SSL.Error)
        self.assertEqual(self.protocol.received, [])

    def test_handshakeFailsProducing(self) -> None:
        """Behind a failed handshake a producer neither writes nor keeps the reactor turning."""
        source: Any = Source.__new__(Source)
        self.startTLS(False, do_handshake=[SSL.Error([])])
        self.server.registerProducer(source, True)
        self.assertIsNone(self.server.doRead())
        self.server.write(b"not sent")
        self.server.unregisterProducer()
        self.server.loseConnection()
        self.assertIsNone(self.server.doWrite())
        self.assertEqual(self.interest(), (True, False))

    def test_handshakeFailsLeavesNothing(self) -> None:
        """A failed handshake leaves nothing to the garbage collector."""
        gc.disable()
        self.addCleanup(gc.enable)
        fake = self.startTLS(False, do_handshake=[SSL.Error([])])
        self.assertIsNone(self.server.doRead())
        self.theirs.close()
        self.server.connectionLost(Failure(self.server.doRead()))
        left = weakref.ref(self.server)
        del self.server, self.protocol, self.reactor, fake
        self.assertIsNone(left())

    def test_handshakeBrokenOff(self) -> None:
        """Where the client is gone, nobody reads an alert: the connection is lost at once."""
        self.startTLS(False, do_handshake=[SSL.SysCallError(-1, "Unexpected EOF")])
        self.assertIsInstance(self.server.doRead(), ConnectionLost)

    def test_handshakeClosedUnderUs(self) -> None:
        """An end that the reactor reports in the handshake is no half-close."""
        protocol = HalfCloser()
        self.server.protocol = protocol
        self.startTLS(False)
        self.server.readConnectionLost(Failure(ConnectionDone()))
        self.assertEqual(protocol.calls, ["connectionLost"])

    def test_unsentBeforeHandshake(self) -> None:
        """While replies in the clear wait to be sent, what arrives does not turn the reactor."""
        fakeSocket = self.fakeSocket(send=[3, BlockingIOError(), 4, ConnectionResetError()])
        self.server.write(b"220 hello")
        fake = self.startTLS(False)
        self.assertEqual(self.interest(), (False, True))
        self.server.doWrite()
        self.assertEqual(self.interest(), (False, True))
        self.assertEqual(fake.calls, [])
        self.assertIsInstance(self.server.doWrite(), ConnectionLost)
        self.assertEqual(fakeSocket.sent, b"220 hel")

    # Reads that want writes, and writes that want reads.

    def test_readWantsWrite(self) -> None:
        """A key update is answered before anything more is read, and reading goes on by itself."""
        self.startTLS(recv=[SSL.WantWriteError(), b"data"])
        self.assertIsNone(self.server.doRead())
        self.assertEqual(self.interest(), (False, True))
        self.assertIsNone(self.server.doWrite())
        self.assertEqual(self.interest()[1], False)
        self.reactor.advance(0)
        self.assertEqual(self.protocol.received, [b"data"])
        self.assertEqual(self.interest(), (True, False))

    def test_writeWantsRead(self) -> None:
        """A write that waits for the client is tried again when something arrives, even paused."""
        fake = self.startTLS(send=[SSL.WantReadError(), 5])
        self.server.pauseProducing()
        self.server.doRead()
        self.assertEqual(self.interest(), (False, False))
        self.server.write(b"reply")
        self.assertEqual(self.interest(), (True, False))
        self.assertIsNone(self.server.doRead())
        self.assertEqual(fake.calls, ["send", "send"])
        self.assertEqual(self.interest(), (False, False))

    def test_writeWantsReadAgain(self) -> None:
        """A write that still waits for the client keeps waiting, and fails as writes fail."""
        self.startTLS(
            send=[SSL.WantReadError(), SSL.WantReadError(), SSL.SysCallError(104, "ECONNRESET")]
        )
        self.server.pauseProducing()
        self.server.write(b"reply")
        self.assertIsNone(self.server.doRead())
        self.assertEqual(self.interest(), (True, False))
        self.assertIsInstance(self.server.doRead(), ConnectionLost)

    def test_writeWantsReadThenClose(self) -> None:
        """The last reply may have to wait for the client; the end behind it comes all the same."""
        fake = self.startTLS(send=[SSL.WantReadError(), 5])
        self.server.write(b"reply")
        self.server.loseConnection()
        self.assertIsNone(self.server.doRead())
        self.assertEqual(fake.calls, ["send", "send", "shutdown"])
        self.assertEqual(self.interest(), (True, False))

    def test_shutdownWantsWrite(self) -> None:
        """close_notify is sent when the socket takes it, on a full and on a half close."""
        fake = self.startTLS(shutdown=[SSL.WantWriteError(), SSL.WantWriteError(), False])
        self.server.loseConnection()
        self.assertEqual(self.interest()[1], True)
        self.server.doWrite()
        self.assertEqual(self.interest()[1], True)
        self.server.doWrite()
        self.assertEqual(fake.calls, ["shutdown"] * 3)
        self.assertEqual(self.interest(), (True, False))
        self.assertEqual(self.theirs.recv(1), b"")

    def test_halfCloseWantsWrite(self) -> None:
        """close_notify of a half-close waits for the socket, and is sent once."""
        fake = self.startTLS(shutdown=[SSL.WantWriteError(), False])
        self.server.loseWriteConnection()
        self.server.doWrite()
        self.assertEqual(self.interest()[1], True)
        self.server.doWrite()
        self.assertEqual(self.theirs.recv(1), b"")
        self.server.write(b"ignored")
        self.server.loseConnection()
        self.assertEqual(fake.calls, ["shutdown"] * 2)

    # What OpenSSL holds and no event announces.

    def test_pendingBehindPause(self) -> None:
        """What OpenSSL held when the protocol paused comes after resumeProducing, with no event."""
        fake = self.startTLS(recv=[b"one", b"two"], pending=[1])
        self.protocol.onData = self.server.pauseProducing
        self.server.doRead()
        self.assertEqual(self.protocol.received, [b"one"])
        self.server.resumeProducing()
        self.assertEqual(self.protocol.received, [b"one"])
        self.reactor.advance(0)
        self.assertEqual(self.protocol.received, [b"one", b"two"])
        self.assertEqual(fake.answers["recv"], [])

    def test_pendingAndPausedAgain(self) -> None:
        """A protocol that pauses again before its data came is left alone."""
        self.startTLS(recv=[b"one"], pending=[1])
        self.server.pauseProducing()
        self.server.resumeProducing()
        self.server.pauseProducing()
        self.reactor.advance(0)
        self.assertEqual(self.protocol.received, [])

    def test_pendingReadAtOnce(self) -> None:
        """What OpenSSL holds behind a short record is read in the same event."""
        self.startTLS(recv=[b"one", b"two"], pending=[1])
        self.server.doRead()
        self.assertEqual(self.protocol.received, [b"one", b"two"])

    def test_pendingEnds(self) -> None:
        """An end found behind pending data is one like any other."""
        for answer, reason in (
            (SSL.ZeroReturnError(), ConnectionDone),
            (SSL.SysCallError(-1, "Unexpected EOF"), ConnectionLost),
            (SSL.Error([("lib", "", "bad record")]), SSL.Error),
        ):
            self.setUp()
            self.startTLS(recv=[answer], pending=[1])
            self.server.pauseProducing()
            self.server.resumeProducing()
            self.reactor.advance(0)
            self.assertEqual(self.protocol.reasons, [reason])

    def test_pendingRaises(self) -> None:
        """A protocol that raises outside an event loses its connection all the same."""
        self.startTLS(recv=[b"one"], pending=[1])
        self.protocol.onData = lambda: 1 // 0
        self.server.pauseProducing()
        self.server.resumeProducing()
        self.reactor.advance(0)
        self.assertEqual(self.protocol.reasons, [ZeroDivisionError])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    # One event's share.

    def test_fairInTheClear(self) -> None:
        """However much a client sends, one event reads a bounded amount."""
        fake = self.fakeSocket(recv=[bytes(transport.CHUNK)] * 100)
        self.assertIsNone(self.server.doRead())
        self.assertEqual(fake.reads, transport.READ_LIMIT // transport.CHUNK)

    def test_fairOverTLS(self) -> None:
        """However much a client sends over TLS, one event reads a bounded amount; none is lost."""
        fake = self.startTLS(recv=[bytes(openssl.RECORD)] * 17, pending=[1])
        self.assertIsNone(self.server.doRead())
        self.assertEqual(len(self.protocol.received), 16)
        self.reactor.advance(0)
        self.assertEqual(len(self.protocol.received), 17)
        self.assertEqual(fake.calls.count("recv"), 18)

    def test_fairWithoutPending(self) -> None:
        """At the bound, what is still in the socket is left to the next event."""
        self.startTLS(recv=[bytes(openssl.RECORD)] * 16)
        self.assertIsNone(self.server.doRead())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_fairWrites(self) -> None:
        """However much is queued, one event sends a bounded amount."""
        fake = self.startTLS(send=[SSL.WantWriteError()] + [openssl.RECORD] * 100)
        self.server.write(bytes(50 * openssl.RECORD))
        self.server.doWrite()
        self.assertEqual(fake.calls.count("send"), 1 + transport.SEND_LIMIT // openssl.RECORD)
        self.assertEqual(self.interest()[1], True)

    def test_lineByLine(self) -> None:
        """Records that had no answer are read on in one event, up to a bound."""
        fake = self.startTLS(recv=[b"a line\r\n"] * 20)
        self.assertIsNone(self.server.doRead())
        self.assertEqual(len(self.protocol.received), 16)
        self.assertIsNone(self.server.doRead())
        self.assertEqual(len(self.protocol.received), 20)
        self.assertEqual(fake.calls.count("recv"), 21)

    def test_answered(self) -> None:
        """Behind an answer nothing is looked for: the client waited for that."""
        fake = self.startTLS(recv=[b"RSET\r\n", b"NOOP\r\n"])
        self.protocol.onData = lambda: self.server.write(b"250 Ok\r\n")
        self.assertIsNone(self.server.doRead())
        self.assertEqual(self.protocol.received, [b"RSET\r\n"])
        self.assertEqual(fake.calls.count("recv"), 1)

    def _acknowledged(self, fake: FakeSocket) -> list[int]:
        self.server.doRead()
        return [value for option, value in fake.options if option == socket.TCP_QUICKACK]

    def test_acknowledged(self) -> None:
        """A piece of a message is acknowledged at once; a command is by its answer."""
        fake = self.fakeSocket(recv=[b"a li", b"ne\r\n", b"NOOP\r\n"])
        self.assertEqual(self._acknowledged(fake), [1])
        self.assertEqual(self._acknowledged(fake), [1, 1])
        self.protocol.onData = lambda: self.server.write(b"250 Ok\r\n")
        self.assertEqual(self._acknowledged(fake), [1, 1])

    def test_acknowledgedOverTLS(self) -> None:
        """The same over TLS, once for all that had come."""
        fake = self.fakeSocket()
        self.startTLS(recv=[b"a line\r\n"] * 3 + [SSL.WantReadError(), b"NOOP\r\n"])
        self.assertEqual(self._acknowledged(fake), [1])
        self.protocol.onData = lambda: self.server.write(b"250 Ok\r\n")
        self.assertEqual(self._acknowledged(fake), [1])

    def test_acknowledgedWhilePaused(self) -> None:
        """A protocol that pauses will answer: the acknowledgement goes with that."""
        fake = self.fakeSocket(recv=[b"the end"])
        self.protocol.onData = self.server.pauseProducing
        self.assertEqual(self._acknowledged(fake), [])

    def test_lookAhead(self) -> None:
        """What is not wanted stays on the socket, for TLS say, until all is wanted again."""
        shown = []

        def wanted(data: bytes) -> int:
            shown.append(data)
            return 6

        self.server.lookAhead(wanted)
        self.theirs.sendall(b"PROXY hello")
        self.assertIsNone(self.server.doRead())
        self.assertEqual((shown, self.protocol.received), ([b"PROXY hello"], [b"PROXY "]))
        self.server.lookAhead(None)
        self.assertIsNone(self.server.doRead())
        self.assertEqual(self.protocol.received, [b"PROXY ", b"hello"])

    def test_lookAheadAtNothing(self) -> None:
        """Looking ahead, an event for nothing, a reset and an end are what they always are."""
        self.server.lookAhead(len)
        self.assertIsNone(self.server.doRead())
        self.theirs.close()
        self.assertIsInstance(self.server.doRead(), ConnectionDone)
        self.fakeSocket(recv=[ConnectionResetError()])
        self.assertIsInstance(self.server.doRead(), ConnectionLost)

    def test_pauseWithinEvent(self) -> None:
        """A protocol that pauses in dataReceived gets no more in that event."""
        fake = self.fakeSocket(recv=[bytes(transport.CHUNK)] * 3)
        self.protocol.onData = self.server.pauseProducing
        self.server.doRead()
        self.assertEqual(fake.reads, 1)

    # Errors of the socket.

    def test_wouldBlock(self) -> None:
        """A full socket, and a kernel short of buffers, mean later."""
        fake = self.fakeSocket(
            send=[BlockingIOError(), OSError(errno.ENOBUFS, "no buffers")],
            recv=[BlockingIOError()],
        )
        self.server.write(b"reply")
        self.assertEqual(self.interest(), (True, True))
        self.assertIsNone(self.server.doWrite())
        self.assertIsNone(self.server.doRead())
        self.assertIsNone(self.server.doWrite())
        self.assertEqual(fake.sent, b"reply")
        self.assertEqual(self.interest(), (True, False))

    def test_readReset(self) -> None:
        """A reset found by a read loses the connection."""
        self.fakeSocket(recv=[ConnectionResetError()])
        self.assertIsInstance(self.server.doRead(), ConnectionLost)

    def test_writeFails(self) -> None:
        """A write that fails loses the connection on the next turn, never within the write."""
        self.fakeSocket(send=[BrokenPipeError(errno.EPIPE, "broken")])
        self.server.write(b"reply")
        self.assertEqual(self.protocol.reasons, [])
        self.assertEqual(self.interest(), (False, False))
        self.server.write(b"more")
        self.assertIsNone(self.server.doWrite())
        self.reactor.advance(0)
        self.assertEqual(self.protocol.reasons, [ConnectionLost])

    def test_writeFailsOverTLS(self) -> None:
        """A write that fails in OpenSSL gives OpenSSL's reason, on the next turn."""
        self.startTLS(send=[SSL.Error([("lib", "", "internal error")])])
        self.server.write(b"reply")
        self.assertEqual(self.protocol.reasons, [])
        self.reactor.advance(0)
        self.assertEqual(self.protocol.reasons, [SSL.Error])

    def test_noWordBehindCutReply(self) -> None:
        """A client that closes while a reply is cut off is not told that all was sent."""
        fake = self.startTLS(recv=[SSL.ZeroReturnError()], send=[SSL.WantWriteError()])
        self.server.write(b"reply")
        reason = self.server.doRead()
        self.assertIsInstance(reason, ConnectionDone)
        self.server.readConnectionLost(Failure(reason))
        self.assertNotIn("shutdown", fake.calls)

    # The end.

    def test_lingers(self) -> None:
        """A client that does not close gets LINGER seconds, and what it sends is thrown away."""
        self.server.write(b"bye")
        self.server.loseConnection()
        self.assertEqual(self.theirs.recv(10), b"bye")
        self.assertEqual(self.theirs.recv(10), b"")
        self.theirs.sendall(b"not heard")
        self.assertIsNone(self.server.doRead())
        self.assertIsNone(self.server.doRead())
        self.assertIsNone(self.server.doWrite())
        self.reactor.advance(LINGER - 1)
        self.assertEqual(self.protocol.reasons, [])
        self.reactor.advance(1)
        self.assertEqual(self.protocol.reasons, [ConnectionDone])
        self.assertEqual(self.protocol.received, [])

    def test_lingeringEnds(self) -> None:
        """A client that closes behind us, in whatever way, ends the wait."""
        for answer in (b"", ConnectionResetError()):
            self.setUp()
            self.fakeSocket(recv=[answer])
            self.server.loseConnection()
            reason = self.server.doRead()
            self.assertIsInstance(reason, ConnectionDone)
            self.server.readConnectionLost(Failure(reason))
            self.server.connectionLost(Failure(reason))
            self.assertEqual(self.protocol.reasons, [ConnectionDone])
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_goneBeforeTheEnd(self) -> None:
        """There is no wait for a client that is gone already, nor close_notify that fails."""
        self.startTLS(shutdown=[SSL.SysCallError(errno.EPIPE, "EPIPE")])
        self.theirs.close()
        self.server.socket.close()
        self.patch(self.server, "fileno", lambda: -1)
        self.server.loseConnection()
        self.assertEqual(self.protocol.reasons, [])
        self.reactor.advance(0)
        self.assertEqual(self.protocol.reasons, [ConnectionDone])

    def test_resumedBehindTheEnd(self) -> None:
        """resumeProducing behind the client's end, or behind our own, reads nothing."""
        self.server.protocol = HalfCloser()
        self.server.protocol.transport = self.server
        self.theirs.shutdown(socket.SHUT_WR)
        reason = self.server.doRead()
        self.server.stopReading()
        self.server.readConnectionLost(Failure(reason))
        self.assertEqual(self.theirs.recv(20), b"still here")
        self.server.resumeProducing()
        self.assertEqual(self.interest(), (False, False))
        self.reactor.advance(0)
        self.assertTrue(self.server.disconnected)
        self.server.abortConnection()
        self.server.loseConnection()
        self.server.resumeProducing()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_producerBeforeTheEnd(self) -> None:
        """loseConnection waits for a producer, whose last octets are still taken."""
        producer = Source.__new__(Source)
        self.server.registerProducer(producer, True)
        self.server.loseConnection()
        self.server.write(b"last words")
        self.assertEqual(self.theirs.recv(20), b"last words")
        self.server.unregisterProducer()
        self.server.write(b"ignored")
        self.assertEqual(self.interest()[1], True)
        self.server.doWrite()
        self.assertEqual(self.theirs.recv(20), b"")

    def test_startTLSBehindTheEnd(self) -> None:
        """startTLS on a connection that is being closed does nothing."""
        self.server.loseConnection()
        self.server.startTLS(contexts())
        self.assertIs(self.server.getHandle(), self.server.socket)

    def test_producerPausedOnce(self) -> None:
        """A producer that is paused is not told so again."""

        class Counter:
            pauses = 0
            resumes = 0

            def pauseProducing(self) -> None:
                self.pauses += 1

            def resumeProducing(self) -> None:
                self.resumes += 1

        counter = Counter()
        fake = self.fakeSocket(send=[BlockingIOError()])
        self.server.registerProducer(counter, True)
        for _ in range(3):
            self.server.write(bytes(60000))
        self.assertEqual((counter.pauses, counter.resumes), (1, 0))
        while self.server in self.reactor.writers:
            self.server.doWrite()
        self.assertEqual((counter.pauses, counter.resumes), (1, 1))
        self.assertEqual(len(fake.sent), 180000)


class PortTests(TestCase):
    """The ports, by the ways that lead to them."""

    def listen(self, description: str) -> Any:
        """Listen at an endpoint string."""
        factory = Recorders(Recorder, False)
        port = self.successResultOf(
            serverFromString(PortReactor(reactor), description).listen(factory)
        )
        self.addCleanup(port.stopListening)
        return port

    def test_waiting(self) -> None:
        """As many clients may wait as the system allows, unless the endpoint says how many."""
        path = self.mktemp()
        for description, backlog in (
            ("tcp:0:interface=127.0.0.1", socket.SOMAXCONN),
            ("tcp:0:interface=127.0.0.1:backlog=7", 7),
            (f"unix:{path}", socket.SOMAXCONN),
        ):
            self.assertEqual(self.listen(description).backlog, backlog)

    def test_brokenProtocol(self) -> None:
        """A factory that raises for one client costs that client its connection, and no other."""
        port = self.listen("tcp:0:interface=127.0.0.1")
        good, failing = port.factory.buildProtocol, [ZeroDivisionError("no")]

        def build(address: Any) -> Any:
            if failing:
                raise failing.pop()
            return good(address)

        self.patch(port.factory, "buildProtocol", build)
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        port._serve(theirs, ("127.0.0.1", 1))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(ours.recv(1), b"")
        self.assertTrue(port.connected)

    async def test_brokenConnection(self) -> None:
        """One whose protocol raises when it begins is lost, and the next of its number is heard."""
        port = self.listen("tcp:0:interface=127.0.0.1")
        pairs = [socket.socketpair() for _ in range(2)]
        for ours, _ in pairs:
            self.addCleanup(ours.close)
        (ours, theirs), (ourNext, theirNext) = pairs
        number = theirs.fileno()
        self.patch(Recorder, "begin", lambda recorder: 1 / 0)
        port._serve(theirs, ("127.0.0.1", 1))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        await port.factory.servers[0].lost
        self.assertEqual(ours.recv(1), b"")
        with theirNext:
            following = socket.socket(fileno=fcntl.fcntl(theirNext, fcntl.F_DUPFD, number))
        self.assertEqual(following.fileno(), number)
        self.patch(Recorder, "begin", lambda recorder: None)
        self.patch(Recorder, "got", lambda recorder: recorder.transport.loseConnection())
        port._serve(following, ("127.0.0.1", 1))
        ourNext.sendall(b"heard")
        ourNext.close()
        recorder = port.factory.servers[1]
        await recorder.lost
        self.assertEqual(recorder.received, b"heard")

    def test_endpointStrings(self) -> None:
        """Endpoint strings give our ports."""
        self.assertIsInstance(self.listen("tcp:0:interface=127.0.0.1"), Port)
        self.assertIsInstance(self.listen(f"unix:{os.path.relpath(self.mktemp())}"), UNIXPort)

    def test_reactor(self) -> None:
        """In everything but listening it is the reactor that it was given."""
        wrapped = PortReactor(reactor)
        for interface in (IReactorTCP, IReactorUNIX, IReactorSocket):
            self.assertTrue(verifyObject(interface, wrapped))
        self.assertEqual(wrapped.callLater, reactor.callLater)
        with self.assertRaises(AttributeError):
            wrapped.nothing  # noqa: B018

    def test_portInUse(self) -> None:
        """A port in use is said as Twisted says it."""
        port = self.listen("tcp:0:interface=127.0.0.1").getHost().port
        with self.assertRaises(CannotListenError):
            PortReactor(reactor).listenTCP(port, Factory(), interface="127.0.0.1")

    def test_inheritedTCP(self) -> None:
        """A TCP socket that another program opened is listened on by our port."""
        with socket.create_server(("127.0.0.1", 0)) as inherited:
            inherited.setblocking(False)
            port = PortReactor(reactor).adoptStreamPort(
                inherited.fileno(), socket.AF_INET, Recorders(Recorder, False)
            )
            self.addCleanup(port.stopListening)
            self.assertIsInstance(port, Port)
            self.assertEqual(port.getHost().port, inherited.getsockname()[1])

    async def test_inheritedUNIX(self) -> None:
        """An inherited unix socket is neither opened to all, nor shut, nor removed."""
        path = os.path.relpath(self.mktemp())
        with socket.socket(socket.AF_UNIX) as inherited:
            inherited.bind(path)
            os.chmod(path, 0o600)
            inherited.listen()
            inherited.setblocking(False)
            port = PortReactor(reactor).adoptStreamPort(
                inherited.fileno(), socket.AF_UNIX, Recorders(Recorder, False)
            )
            self.assertIsInstance(port, UNIXPort)
            self.assertEqual(port.getHost().name, path.encode())
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
            await port.stopListening()
            self.assertTrue(os.path.exists(path))
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(path)

    def test_unknownFamily(self) -> None:
        """Sockets of other families are refused as Twisted refuses them."""
        with self.assertRaises(UnsupportedAddressFamily):
            PortReactor(reactor).adoptStreamPort(0, socket.AF_PACKET, Factory())

    def test_unixServer(self) -> None:
        """A unix connection is one of ours."""
        self.assertTrue(issubclass(UNIXServer, Server))
