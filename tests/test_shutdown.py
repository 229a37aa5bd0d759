"""Start and stop of a service within a program: what is seen of it, and that nothing is left."""

from __future__ import annotations

import os
import socket
import ssl
from pathlib import Path
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import TestCase

from submitd.service import CannotStart, submissionService
from submitd.settings import LimitSettings, ListenerSettings
from submitd.tls import ServerTLS, TLSSettings
from submitd.typed import Seconds
from tests.fixtures import MemoryDelivery
from tests.test_examples import example

DATA = Path(__file__).parent / "data"
FREE = "tcp:0:interface=127.0.0.1"


def sockets() -> set[str]:
    """The sockets that this process has open, where the system tells."""
    found = set()
    for name in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:
            continue  # the directory itself, while it was being read
    return {each for each in found if each.startswith("socket:")}


class Client:
    """A client that waits for what is said; its methods are for threads."""

    def __init__(self, address: Any) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(30)
        try:
            self.socket.connect(address)
        except OSError:
            self.socket.close()
            raise

    def startTLS(self) -> None:
        """Handshake."""
        context = ssl.create_default_context(cafile=str(DATA / "certificate.pem"))
        self.socket = context.wrap_socket(self.socket, server_hostname="localhost")

    def say(self, data: bytes = b"") -> bytes:
        """Send, and read what is there."""
        self.socket.sendall(data)
        return self.socket.recv(10_000)

    def rest(self) -> bytes:
        """All that is still said, until the end."""
        said = b""
        while True:
            try:
                chunk = self.socket.recv(10_000)
            except ConnectionResetError:
                chunk = b""
            if not chunk:
                self.socket.close()
                return said
            said += chunk


class ShutdownTests(TestCase):
    """trial itself fails these when a delayed call or a descriptor is left in the reactor."""

    def setUp(self) -> None:
        self.before = sockets()
        self.delivery = MemoryDelivery()
        self.watcher = example(self, "watcher").Watcher()
        self.path = os.path.relpath(self.mktemp())

    def make(self, drain: float = 30.0) -> Any:
        """A service with a listener of each kind, within a program."""
        service = submissionService(
            reactor,
            [
                ListenerSettings(endpoint=FREE),
                ListenerSettings(endpoint=FREE, tls="implicit"),
                ListenerSettings(
                    endpoint=f"unix:{self.path}", tls="off", require_tls=False, lmtp=True
                ),
            ],
            ServerTLS(
                TLSSettings(
                    certificate=DATA / "certificate.pem", private_key=DATA / "private_key.pem"
                )
            ),
            LimitSettings(drain=Seconds(drain)),
            loginRequired=False,
            policies=[self.watcher],
            delivery=self.delivery,
        )
        program = MultiService()
        service.setServiceParent(program)
        return program, service

    def connect(self, service: Any) -> list[Client]:
        """Clients at each point of a dialogue; the last two are within a message."""
        plain, implicit, _ = service.addresses
        silent = Client(("127.0.0.1", implicit.port))  # and no handshake
        greeted = Client(("127.0.0.1", plain.port))
        greeted.say()
        secure = Client(("127.0.0.1", implicit.port))
        secure.startTLS()
        secure.say()
        message = Client(self.path)
        begin = b"MAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n"
        message.say()
        message.say(b"LHLO c\r\n")
        secured = Client(("127.0.0.1", implicit.port))
        secured.startTLS()
        secured.say()
        secured.say(b"EHLO c\r\n")
        for client in (message, secured):
            said = client.say(begin)
            while b"354 " not in said:
                said += client.say()
        return [silent, greeted, secure, message, secured]

    async def test_complete(self) -> None:
        """Ports close, idle clients have 421, messages are finished, and no socket is left."""
        program, service = self.make()
        self.assertEqual(service.addresses, [])
        program.startService()
        self.assertEqual(len(service.addresses), 3)
        clients = await deferToThread(self.connect, service)
        self.assertEqual((len(service.connections), len(self.watcher.present)), (5, 4))
        port = service.addresses[0].port
        stopping = program.stopService()
        self.assertEqual(service.addresses, [])
        silent, greeted, secure, *messages = clients
        self.assertEqual(await deferToThread(silent.rest), b"")
        for client in (greeted, secure):
            self.assertTrue((await deferToThread(client.rest)).startswith(b"421 4.3.2 "))
        self.assertFalse(stopping.called)
        with self.assertRaises(ConnectionRefusedError):
            await deferToThread(Client, ("127.0.0.1", port))
        for client in messages:
            said = await deferToThread(client.say, b"hello\r\n.\r\n")
            self.assertTrue(said.startswith(b"250 2.0.0 Ok: queued as "), said)
            rest = said.partition(b"\r\n")[2] + await deferToThread(client.rest)
            self.assertTrue(rest.startswith(b"421 4.3.2 "), rest)
        await stopping
        self.assertEqual(len(self.delivery.messages), 2)
        self.assertEqual(len(service.connections), 0)
        self.assertFalse(os.path.exists(self.path))
        self.assertEqual(sockets() - self.before, set())

    async def test_late(self) -> None:
        """Who has not finished when the time to drain is over is cut off; nothing is kept."""
        program, service = self.make(0.01)
        program.startService()
        clients = await deferToThread(self.connect, service)
        await program.stopService()
        for client in clients:
            await deferToThread(client.rest)
        self.assertEqual([each.state for each in self.delivery.begun], ["aborted", "aborted"])
        self.assertEqual(self.delivery.messages, [])
        self.assertEqual(sockets() - self.before, set())

    async def test_besideDeliveries(self) -> None:
        """Clients are drained while deliveries end, not behind them: there is one time for both."""
        program, service = self.make(0.01)
        delivering: Deferred[None] = Deferred()
        slow = Service()
        self.patch(slow, "stopService", lambda: delivering)
        slow.setServiceParent(service)
        program.startService()
        clients = await deferToThread(self.connect, service)
        stopping = program.stopService()
        for client in clients:
            await deferToThread(client.rest)
        self.assertFalse(stopping.called)
        delivering.callback(None)
        await stopping
        self.assertEqual(sockets() - self.before, set())

    async def test_again(self) -> None:
        """A service that was stopped can be started again, as often as one likes."""
        program, service = self.make()
        for _ in range(3):
            program.startService()
            plain = service.addresses[0].port
            client = await deferToThread(Client, ("127.0.0.1", plain))
            self.assertTrue((await deferToThread(client.say)).startswith(b"220 "))
            stopping = program.stopService()
            self.assertTrue((await deferToThread(client.rest)).startswith(b"421 "))
            await stopping
        self.assertEqual(sockets() - self.before, set())

    async def test_seen(self) -> None:
        """A program sees connections come and go by a policy, and ports by the log's events."""
        logged: list[dict[str, Any]] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        program, service = self.make()
        program.startService()
        client = await deferToThread(Client, ("127.0.0.1", service.addresses[0].port))
        await deferToThread(client.say)
        [id] = self.watcher.present
        stopping: Deferred[None] = program.stopService()
        await deferToThread(client.rest)
        await stopping
        self.assertEqual(self.watcher.present, {})
        [(gone, _)] = self.watcher.gone
        self.assertEqual(gone, id)
        events = [event["event"] for event in logged if "log_fields" in event]
        self.assertEqual(
            events,
            [
                *["service-listening"] * 3,
                "service-started",
                "refused",
                "connection-closed",
                "service-stopped",
            ],
        )

    async def test_cannotStart(self) -> None:
        """A port that cannot be had is an exception of startService; the others close again."""
        taken = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(taken.close)
        port = taken.getsockname()[1]
        service = submissionService(
            reactor,
            [
                ListenerSettings(endpoint=FREE, tls="off", require_tls=False),
                ListenerSettings(
                    endpoint=f"tcp:{port}:interface=127.0.0.1", tls="off", require_tls=False
                ),
            ],
            loginRequired=False,
            delivery=self.delivery,
        )
        self.assertRaises(CannotStart, service.startService)
        await Deferred.fromCoroutine(self.turn())
        self.assertEqual(service.addresses, [])

    async def test_pathTaken(self) -> None:
        """A unix socket whose path is taken leaves nothing running, and can be tried again."""
        taken = socket.socket(socket.AF_UNIX)
        self.addCleanup(taken.close)
        taken.bind(self.path)
        listener = ListenerSettings(endpoint=f"unix:{self.path}", tls="off", require_tls=False)
        service = submissionService(
            reactor, [listener], loginRequired=False, delivery=self.delivery
        )
        for _ in range(2):
            error = self.assertRaises(CannotStart, service.startService)
            self.assertIn("Address already in use", str(error))
            self.assertFalse(os.path.lexists(f"{self.path}.lock"))
        os.unlink(self.path)
        service.startService()
        self.assertEqual(len(service.addresses), 1)
        await service.stopService()

    async def turn(self) -> None:
        """One turn of the reactor, in which a port that was closed goes."""
        turned: Deferred[None] = Deferred()
        reactor.callLater(0, turned.callback, None)  # type: ignore[attr-defined]
        await turned
