"""Next hops that listen on 127.0.0.1: in this reactor, scripted line by line, and an aiosmtpd."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Factory
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import deferLater
from twisted.protocols.basic import LineReceiver
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from submitd.relay.destinations import Destination, Means
from submitd.relay.mx import MailExchangers
from submitd.relay.outgoing import Outcome, Outgoing
from submitd.relay.routes import Route
from submitd.relay.settings import RelaySettings, TimeoutSettings
from submitd.relay.tls import ClientTLS
from submitd.typed import Count, Seconds
from tests.clients.authority import Authority
from tests.clients.running import freePorts
from tests.relay.hops import TEXT

clock: Any = reactor


@implementer(IHandshakeListener)
class Scripted(LineReceiver):
    """A next hop that does what a test says.

    ``answer(protocol, line)`` gives the lines to send back, or ``None`` for the ordinary ones.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.secure = False
        self.inData = False
        self.lost = False

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = True

    def connectionMade(self) -> None:
        self.server.connections.append(self)
        if self.server.implicit:
            self.secure = True
            self.transport.startTLS(self.server.context)
        else:
            self.greet()

    def greet(self) -> None:
        self.send(self.server.greeting)

    def handshakeCompleted(self) -> None:
        self.server.handshakes += 1
        if self.server.implicit:
            self.greet()

    def send(self, *lines: str) -> None:
        self.transport.write("".join(f"{line}\r\n" for line in lines).encode("utf-8"))

    def lineReceived(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace")
        if self.inData:
            self.server.text += line + b"\r\n"
            if line == b".":
                self.inData = False
                self.answer("(end)")
            return
        self.server.heard.append(text)
        self.answer(text)

    def answer(self, text: str) -> None:
        said = self.server.answer(self, text) if self.server.answer is not None else None
        self.send(*(self.ordinary(text) if said is None else said))

    def ordinary(self, text: str) -> Sequence[str]:
        """What an honest server says."""
        verb = text.partition(" ")[0].upper()
        if verb in ("EHLO", "LHLO"):
            extensions = list(self.server.extensions)
            if self.server.context is not None and not self.secure:
                extensions.append("STARTTLS")
            return [*(f"250-{each}" for each in ("hop", *extensions)), "250 HELP"]
        if verb == "STARTTLS":
            self.send("220 go")
            self.transport.startTLS(self.server.context)
            self.secure = True
            return []
        if verb == "DATA":
            self.inData = True
            return ["354 go"]
        if verb == "QUIT":
            self.send("221 bye")
            self.transport.loseConnection()
            return []
        if verb == "(END)":
            self.server.messages += 1
            return ["250 2.0.0 taken"]
        return ["250 2.0.0 ok"]


class Server(Factory):
    """A scripted next hop.

    :ivar heard: the commands.
    :ivar text: what came as message.
    """

    def __init__(self) -> None:
        self.greeting = "220 hop ESMTP"
        self.extensions: Sequence[str] = ("PIPELINING", "8BITMIME")
        self.context: Any = None
        self.implicit = False
        self.answer: Callable[[Scripted, str], Sequence[str] | None] | None = None
        self.heard: list[str] = []
        self.text = b""
        self.messages = 0
        self.handshakes = 0
        self.connections: list[Scripted] = []
        self.port = 0

    def buildProtocol(self, addr: Any) -> Scripted:
        protocol = Scripted(self)
        protocol.factory = self
        return protocol


class Body:
    """A message in chunks."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)
        self.pulled = 0

    def next(self) -> Deferred[bytes]:
        self.pulled += 1
        result: Deferred[bytes] = Deferred()
        clock.callLater(0, result.callback, self.chunks.pop(0) if self.chunks else b"")
        return result


class HopCase(TestCase):
    """A test with an authority, and a scripted next hop."""

    timeout = 30

    def setUp(self) -> Any:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.authority = Authority.make(self.directory, "authority")
        self.certificate, self.key = self.authority.issue(self.directory)
        self.server = Server()
        self.destinations: list[Destination] = []
        return self.listen(self.server)

    async def _close(self) -> None:
        for each in self.destinations:
            await each.close()

    async def until(self, happened: Callable[[], bool]) -> None:
        """Wait for something, for a long time at most."""
        for _ in range(600):
            if happened():
                return
            await deferLater(clock, 0.05, lambda: None)
        raise AssertionError("it did not happen")

    def listen(self, server: Server, interface: str = "127.0.0.1", port: int = 0) -> Deferred[Any]:
        """Have a server listen, on a port of its own unless one is given."""

        def listening(port: Any) -> None:
            server.port = port.getHost().port

            def stop() -> Any:
                for each in server.connections:
                    each.transport.abortConnection()
                return port.stopListening()

            self.addCleanup(stop)
            self.addCleanup(lambda: Deferred.fromCoroutine(self._close()))

        endpoint = TCP4ServerEndpoint(clock, port, interface=interface)
        return endpoint.listen(server).addCallback(listening)

    def context(self) -> Any:
        """TLS for localhost."""
        return DefaultOpenSSLContextFactory(
            str(self.key), str(self.certificate), sslmethod=SSL.TLS_SERVER_METHOD
        )

    def settings(self, **changes: Any) -> RelaySettings:
        """Settings with short times."""
        short = dict.fromkeys(
            ("connect", "greeting", "hello", "handshake", "login", "envelope"), Seconds(5.0)
        )
        limits: dict[str, Any] = {
            **short,
            **dict.fromkeys(("opening", "body", "end", "idle"), Seconds(5.0)),
            "quit": Seconds(1.0),
            **changes.pop("timeouts", {}),
        }
        given = {"backoff": Seconds(0.0), "connections": Count(5), **changes}
        return RelaySettings(timeouts=TimeoutSettings(**limits), **given)

    def destination(
        self,
        route: Route | None = None,
        trusted: bool = True,
        requireTLS: bool = False,
        exchangers: MailExchangers | None = None,
        domain: str = "example.net",
        **changes: Any,
    ) -> Destination:
        """A next hop at the scripted server; ``changes`` are of the route or of the settings."""
        keys = ("timeouts", "backoff", "connections", "messages_per_connection", "mx_port")
        settings = self.settings(**{key: changes.pop(key) for key in keys if key in changes})
        usual = {"name": "relay", "kind": "smarthost", "host": "localhost", "tls": "off"}
        route = route or Route(**{**usual, "port": self.server.port, **changes})
        means = Means(
            reactor=clock,
            hostname="relay.example",
            settings=settings,
            tls=ClientTLS(self.authority.file if trusted else None),
            exchangers=exchangers or MailExchangers(lambda: None, "relay.example"),
        )
        made = Destination(route, domain, requireTLS, means)
        self.destinations.append(made)
        return made


async def send(destination: Destination, message: Outgoing, *chunks: bytes) -> tuple[Outcome, ...]:
    """Deliver a message when its turn has come, as the runner does."""
    await destination.turns.acquire()
    try:
        return await destination.deliver(message, lambda: Body(*(chunks or (TEXT,))))
    finally:
        destination.turns.release()


class Misbehaving:
    """An aiosmtpd that does what a test says at each step, in a thread of its own.

    :param said: step -> a reply, ``"drop"`` or ``"slow"``; the steps are EHLO, MAIL, RCPT, DATA.
    :param context: for STARTTLS.
    """

    def __init__(self, said: dict[str, str], context: ssl.SSLContext | None = None) -> None:
        self.said = said
        self.contents: list[bytes] = []
        self.recipients: list[str] = []
        with freePorts(1) as [self.port]:
            self._controller = _Controller(
                self, hostname="127.0.0.1", port=self.port, tls_context=context
            )
            self._controller.start()

    def stop(self) -> None:
        """End it."""
        self._controller.stop()

    async def _step(self, server: SMTP, step: str) -> str | None:
        said = self.said.get(step)
        if said == "drop":
            assert server.transport is not None
            server.transport.abort()
        elif said == "slow":
            await asyncio.sleep(60)
        return said

    async def handle_EHLO(
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: Any
    ) -> Any:
        said = await self._step(server, "EHLO")
        session.host_name = hostname
        return [said] if said else responses

    async def handle_MAIL(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        said = await self._step(server, "MAIL")
        envelope.mail_from = address
        return said or "250 OK"

    async def handle_RCPT(
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: Any
    ) -> str:
        said = await self._step(server, "RCPT")
        if said is None:
            envelope.rcpt_tos.append(address)
            self.recipients.append(address)
        return said or "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        said = await self._step(server, "DATA")
        if said is None:
            assert isinstance(envelope.content, bytes)
            self.contents.append(envelope.content)
        return said or "250 OK"


class _Controller(Controller):
    """The greeting can be wrong too."""

    def factory(self) -> SMTP:
        made = SMTP(self.handler, **self.SMTP_kwargs)
        made.event_handler = self.handler
        return made
