"""A next hop that dies in any state: the message waits with the reason on record, and arrives.

Only when it dies between the message's end and its reply to that may the message arrive twice; a
relay cannot know better (RFC 1047), and says so in the record.
"""

from __future__ import annotations

import os
import smtplib
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from submitd.deliveries.spool import Spool
from submitd.password import Password
from submitd.relay.destinations import Destinations, Means
from submitd.relay.mx import MailExchangers
from submitd.relay.routes import Route, Routes
from submitd.relay.runner import Runner
from submitd.relay.tls import ClientTLS
from submitd.spool.records import Shown
from submitd.typed import Count, Seconds
from tests.clients.running import HOST, RunningService
from tests.relay.programs import Sink, needs, until
from tests.relay.servers import HopCase, Scripted
from tests.spool import postgres
from tests.spool.support import TRACE, makeEnvelope, makeSession

clock: Any = reactor


class KilledTests(HopCase):
    """A scripted next hop with STARTTLS and AUTH, that hangs up once."""

    def setUp(self) -> Any:
        listening = super().setUp()
        self.server.context = self.context()
        self.server.extensions = ("AUTH PLAIN",)
        self.spool = Spool(self.directory / "spool", keep=Seconds(3600))
        secret = self.directory / "secret"
        secret.write_text("secret\n")
        secret.chmod(0o600)
        self.password = Password(secret)
        return listening

    async def shown(self, enough: Callable[[Shown], bool]) -> Shown:
        """The message's record, when it is as it should be."""
        while True:
            shown = await self.spool.queue.show("A-1")
            assert shown is not None
            if enough(shown):
                return shown
            await deferLater(clock, 0.02, lambda: None)

    def runner(self) -> Runner:
        """A runner that soon tries again."""
        route = Route(
            name="relay",
            kind="smarthost",
            host="localhost",
            port=self.server.port,
            tls="starttls",
            user="me",
            password=self.password,
            mechanisms=("PLAIN",),
        )
        settings = self.settings(retry=(Seconds(0.1),), jitter=0.0, deliveries=Count(5))
        means = Means(
            reactor=clock,
            hostname="relay.example",
            settings=settings,
            tls=ClientTLS(self.authority.file),
            exchangers=MailExchangers(lambda: None, "relay.example"),
        )
        destinations = Destinations(means)
        return Runner(
            self.spool.queue,
            Routes((route,)),
            destinations,
            settings,
            "relay.example",
            clock,
            time.time,
        )

    async def run_(self, text: bytes = b"Subject: x\r\n\r\nhello\r\n") -> list[tuple[str, str]]:
        """Deliver a message; what its history says."""
        await self.spool.start(clock)
        message = self.spool.begin(makeSession(), makeEnvelope("A-1"))
        message.dataReceived(TRACE)
        message.dataReceived(text)
        await message.eomReceived()
        runner = self.runner()
        runner.start()
        try:
            shown = await self.shown(lambda each: each.recipients[0].state.isFinal)
        finally:
            await runner.stop(1.0)
            await self.spool.stop()
        return [(entry.event, entry.text) for entry in shown.history]

    def hangUp(self, at: str, nth: int = 1) -> None:
        """Abort the connection at a command, once."""
        seen = 0

        def answer(protocol: Scripted, line: str) -> list[str] | None:
            nonlocal seen
            if line.startswith(at):
                seen += 1
                if seen == nth:
                    protocol.transport.abortConnection()
                    return []
            return ["235 2.7.0 ok"] if line.startswith("AUTH") else None

        self.server.answer = answer

    def assertDelayedThenDelivered(self, history: list[tuple[str, str]]) -> str:
        self.assertEqual([event for event, _ in history], ["delayed", "delivered"], history)
        self.assertRegex(history[0][1], r"^4\d\d 4\.\d\.\d .")
        return history[0][1]

    async def atCommand(self, at: str, nth: int = 1) -> None:
        """Die at a command: a delay with its reason, and one message in the end."""
        self.hangUp(at, nth)
        said = self.assertDelayedThenDelivered(await self.run_())
        self.assertIn("onnection", said)
        self.assertEqual(self.server.messages, 1)

    async def test_greeting(self) -> None:
        """Before its greeting."""
        greet, died = Scripted.greet, []

        def die(protocol: Scripted) -> None:
            if died:
                greet(protocol)
            else:
                died.append(protocol)
                protocol.transport.abortConnection()

        self.patch(Scripted, "greet", die)
        self.assertDelayedThenDelivered(await self.run_())
        self.assertEqual((len(died), self.server.messages), (1, 1))

    async def test_ehlo(self) -> None:
        """At EHLO, before TLS and behind it."""
        await self.atCommand("EHLO")

    async def test_ehloBehindTLS(self) -> None:
        """At the second EHLO."""
        await self.atCommand("EHLO", 2)

    async def test_startTLS(self) -> None:
        """At STARTTLS."""
        await self.atCommand("STARTTLS")

    async def test_handshake(self) -> None:
        """Within the handshake."""
        died: list[Scripted] = []

        def answer(protocol: Scripted, line: str) -> list[str] | None:
            if line == "STARTTLS" and not died:
                died.append(protocol)
                protocol.send("220 go")
                protocol.setRawMode()
                protocol.rawDataReceived = (  # type: ignore[method-assign]
                    lambda data: protocol.transport.abortConnection()
                )
                return []
            return ["235 2.7.0 ok"] if line.startswith("AUTH") else None

        self.server.answer = answer
        self.assertDelayedThenDelivered(await self.run_())
        self.assertEqual((len(died), self.server.messages), (1, 1))

    async def test_auth(self) -> None:
        """At AUTH."""
        await self.atCommand("AUTH")

    async def test_mail(self) -> None:
        """At MAIL."""
        await self.atCommand("MAIL")

    async def test_rcpt(self) -> None:
        """At RCPT."""
        await self.atCommand("RCPT")

    async def test_data(self) -> None:
        """At DATA, before its 354."""
        await self.atCommand("DATA")

    async def test_body(self) -> None:
        """Within the message."""
        received, died = Scripted.lineReceived, []

        def die(protocol: Scripted, line: bytes) -> None:
            if protocol.inData and len(died) == 0 and line.startswith(b"x"):
                died.append(protocol)
                protocol.transport.abortConnection()
            elif not (died and protocol is died[0]):
                received(protocol, line)

        self.patch(Scripted, "lineReceived", die)
        self.hangUp("never")
        self.assertDelayedThenDelivered(await self.run_(b"\r\n" + b"x" * 70 + b"\r\n"))
        self.assertEqual((len(died), self.server.messages), (1, 1))

    async def test_end(self) -> None:
        """Behind the message, before its reply: it has it, and gets it once more; that is said."""
        taken: list[str] = []

        def answer(protocol: Scripted, line: str) -> list[str] | None:
            if line == "(end)":
                taken.append(line)
                if len(taken) == 1:
                    protocol.transport.abortConnection()
                    return []
            return ["235 2.7.0 ok"] if line.startswith("AUTH") else None

        self.server.answer = answer
        said = self.assertDelayedThenDelivered(await self.run_())
        self.assertIn("may arrive twice", said)
        self.assertEqual(len(taken), 2)

    async def test_quit(self) -> None:
        """At QUIT: the message has arrived, once, and nobody waits."""
        self.hangUp("QUIT")
        history = await self.run_()
        self.assertEqual([event for event, _ in history], ["delivered"])
        self.assertEqual(self.server.messages, 1)


CONFIG = """
hostname = "mail.example.com"
[[listener]]
endpoint = "tcp:$submission:interface=127.0.0.1"
tls = "off"
require_tls = false
[auth]
required = false
[delivery]
use = "spool"
%s
[relay]
smarthost = "127.0.0.1:%d"
tls = "off"
retry = ["1 s"]
backoff = "1 s"
"""


class Submitter(threading.Thread):
    """A client that submits without pause, and notes what was answered."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port = port
        self.accepted: list[bytes] = []
        self.refused: list[int] = []
        self.over = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.over.is_set():
            with smtplib.SMTP(HOST, self.port, local_hostname="c.example", timeout=60) as client:
                client.ehlo()
                while not self.over.wait(0.01):
                    number += 1
                    mark = b"X-N: <%d>" % number
                    client.mail("a@example.com")
                    client.rcpt("b@example.net")
                    code, _ = client.data(mark + b"\r\n\r\n" + b"x" * 500 + b"\r\nthe end\r\n")
                    if code == 250:
                        self.accepted.append(mark)
                    else:
                        self.refused.append(code)
                        client.rset()


class ProgramTests(SynchronousTestCase):
    """What dies is a process."""

    def setUp(self) -> None:
        needs("smtp-sink")
        self.sink = Sink()
        self.addCleanup(lambda: self.sink.stop())

    def load(self, place: str) -> Submitter:
        """The service under load."""
        directory = Path(self.mktemp())
        config = CONFIG % (place, self.sink.port)
        self.running = RunningService(directory, config, ("submission",)).start()
        self.addCleanup(self.running.stop)
        submitter = Submitter(self.running.ports["submission"])
        submitter.start()
        return submitter

    def assertAllArrive(self, submitter: Submitter) -> None:
        """Everything that was answered with 250 is at the next hop, whole."""
        submitter.over.set()
        submitter.join(30)
        self.assertGreater(len(submitter.accepted), 10)
        wanted = set(submitter.accepted)

        def missing() -> set[bytes]:
            whole = [each for each in self.sink.messages if b"the end" in each]
            kept = b"\n".join(whole)
            return {mark for mark in wanted if mark not in kept}

        until(lambda: not missing(), lambda: f"{missing()}\n{self.running.log[-3000:]}")

    def test_nextHop(self) -> None:
        """smtp-sink is killed by SIGKILL under load, and started again: everything arrives."""
        submitter = self.load('path = "$directory/spool"')
        for _ in range(3):
            time.sleep(0.7)
            self.sink.kill()
            time.sleep(0.3)
            self.sink.start()
        time.sleep(0.3)
        self.assertAllArrive(submitter)
        self.assertEqual(submitter.refused, [], "a next hop that is away is no client's trouble")

    def test_postgres(self) -> None:
        """PostgreSQL is stopped and started under load, and killed: 451 meanwhile, all arrives."""
        postgres.require(self)
        server = postgres.server()
        submitter = self.load(f'url = "{server.url}"')
        for number in (2, 3):  # its fast shutdown, and its immediate one, which is a crash
            time.sleep(0.7)
            assert server.process is not None
            process, server.process = server.process, None
            os.kill(process.pid, number)
            process.wait(30)
            before = len(submitter.refused)
            until(lambda seen=before: len(submitter.refused) > seen, lambda: self.running.log)
            server.start()
            kept = len(submitter.accepted)
            until(lambda seen=kept: len(submitter.accepted) > seen, lambda: self.running.log)
        self.assertAllArrive(submitter)
        self.assertEqual(set(submitter.refused), {451})
