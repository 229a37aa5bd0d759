"""Postfix and Dovecot as next hops: what they say they can do is used, and what they take is whole.

One instance of each serves all tests of a class.
"""

from __future__ import annotations

import atexit
import shutil
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.threads import deferToThread

from submitd.password import Password
from submitd.typed import Count
from tests.clients.authority import Authority
from tests.relay.hops import TEXT, outgoing, recipient
from tests.relay.programs import PASSWORD, USER, Dovecot, Sink, Smarthost, needs, place, until
from tests.relay.servers import HopCase, send

# With all that Postfix would put into the header of a message without it.
FULL = (
    "From: me@example.org\r\nDate: Sat, 21 Nov 2026 04:00:00 +0000\r\n"
    "Message-Id: <1@example.org>\r\nSubject: jörg\r\n"
    "\r\n.\r\n..\r\nFrom me\r\n.dot\r\njörg\r\n"
).encode()


class Programs:
    """What is started once, and ended with the tests."""

    _made: ClassVar[Programs | None] = None

    def __init__(self) -> None:
        self.directory = place("programs")
        atexit.register(shutil.rmtree, self.directory, ignore_errors=True)
        self.authority = Authority.make(self.directory, "authority")
        self.dovecot = Dovecot()
        atexit.register(self.dovecot.stop)
        self.postfix = Smarthost(*self.authority.issue(self.directory), self.dovecot.auth)
        atexit.register(self.postfix.stop)

    @classmethod
    def shared(cls) -> Programs:
        """The ones that run."""
        if cls._made is None:
            cls._made = cls()
        return cls._made


class SmarthostTests(HopCase):
    """A whole Postfix smtpd, with SASL and TLS."""

    timeout = 60

    def setUp(self) -> Any:
        needs("postfix", "dovecot")
        self.programs = Programs.shared()
        listening = super().setUp()
        self.authority = self.programs.authority
        return listening

    def smarthost(self, mechanism: str = "PLAIN", secret: str = PASSWORD, **changes: Any) -> Any:
        """The Postfix as a destination."""
        file = Path(self.mktemp())
        file.write_text(f"{secret}\n")
        given: dict[str, Any] = {
            "port": self.programs.postfix.port,
            "tls": "starttls",
            "user": USER,
            "password": Password(file),
            "mechanisms": (mechanism,),
        }
        return self.destination(**{**given, **changes})

    async def arrived(self, part: bytes) -> bytes:
        """The message with this in it, when it is in its mailbox."""

        def find() -> list[bytes]:
            return [each for each in self.programs.postfix.messages if part in each]

        await deferToThread(until, find, lambda: self.programs.postfix.log)
        [found] = find()
        return found

    async def test_everyLogin(self) -> None:
        """Each mechanism that both know, over STARTTLS and over implicit TLS, verified."""
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5"):
            for port, tls in (
                (self.programs.postfix.port, "starttls"),
                (self.programs.postfix.implicit, "implicit"),
            ):
                hop = self.smarthost(mechanism, port=port, tls=tls)
                [outcome] = await send(hop, outgoing(size=len(TEXT)))
                self.assertEqual(outcome.reply.code, 250, (mechanism, tls, outcome))
                self.assertIn("queued as", outcome.reply.lines[0])

    async def test_wrongPassword(self) -> None:
        """A wrong password delays: it is the operator's mistake, not the sender's."""
        [outcome] = await send(self.smarthost(secret="wrong"), outgoing())
        self.assertEqual((outcome.result.value, outcome.reply.code), ("delayed", 535))

    async def test_whole(self) -> None:
        """Dots, 8-bit text and an address in UTF-8 arrive as they were, by BDAT and by DATA."""
        for chunking in (True, False):
            mark = f"X-Mark: {chunking}\r\n".encode()
            message = outgoing(
                recipient("jörg@example.net", notify=("NEVER",), orcpt=("utf-8", "jörg@x.example")),
                smtpUtf8=True,
                bodyType="8BITMIME",
                eightBit=True,
                envid="a+b",
                ret="HDRS",
                size=len(FULL),
            )
            [outcome] = await send(self.smarthost(chunking=chunking), message, mark, FULL)
            self.assertEqual(outcome.reply.code, 250, outcome)
            self.assertTrue(outcome.dsn)
            kept = await self.arrived(mark.replace(b"\r\n", b"\n"))
            self.assertTrue(kept.endswith((mark + FULL).replace(b"\r\n", b"\n")), kept)

    async def test_recipients(self) -> None:
        """Each recipient has its own outcome."""
        outcomes = await send(
            self.smarthost(), outgoing("no@example.net", "you@example.net", "later@example.net")
        )
        self.assertEqual([each.reply.code for each in outcomes], [550, 250, 450])
        self.assertEqual([each.reply.status for each in outcomes], ["5.1.1", "2.0.0", "4.2.1"])

    async def test_tooLarge(self) -> None:
        """Its SIZE is known before anything is sent; when it is not, its refusal counts."""
        [outcome] = await send(self.smarthost(), outgoing(size=600_000))
        self.assertEqual((outcome.reply.status, outcome.isRemote), ("5.3.4", False))
        for chunking in (True, False):
            chunks = [b"x" * 998 + b"\r\n"] * 600
            [outcome] = await send(self.smarthost(chunking=chunking), outgoing(), *chunks)
            self.assertEqual((outcome.result.value, outcome.isRemote), ("failed", True), outcome)

    async def test_several(self) -> None:
        """Many messages over few connections, after refused ones too."""
        hop = self.smarthost(connections=Count(1))
        for n in range(5):
            to = "no@example.net" if n % 2 else "you@example.net"
            [outcome] = await send(hop, outgoing(to))
            self.assertEqual(outcome.reply.code, 550 if n % 2 else 250)


class DovecotTests(HopCase):
    """Dovecot's LMTP."""

    timeout = 60

    def setUp(self) -> Any:
        needs("postfix", "dovecot")
        self.programs = Programs.shared()
        return super().setUp()

    async def test_lmtp(self) -> None:
        """Over TCP and over a unix socket, one outcome for each recipient, whole messages."""
        dovecot = self.programs.dovecot
        for host, port in (("127.0.0.1", dovecot.port), (str(dovecot.lmtp), 0)):
            mark = f"X-Mark: {port}\r\n".encode()
            hop = self.destination(kind="lmtp", host=host, port=port)
            message = outgoing(
                "you@example.net", "no@example.net", "her@example.net", bodyType="8BITMIME"
            )
            outcomes = await send(hop, message, mark, FULL)
            self.assertEqual([each.reply.code for each in outcomes], [250, 550, 250], outcomes)
            self.assertTrue(outcomes[0].isFinal)
            for user in ("you", "her"):
                [kept] = [each for each in dovecot.messages(user) if mark[:-2] in each]
                self.assertTrue(
                    kept.replace(b"\r\n", b"\n").endswith((mark + FULL).replace(b"\r\n", b"\n"))
                )


class SinkTests(HopCase):
    """smtp-sink, which can be told to be old or broken."""

    timeout = 60

    def setUp(self) -> Any:
        needs("smtp-sink")
        return super().setUp()

    async def sink(self, *options: str) -> Sink:
        """Start one."""
        made: Sink = await deferToThread(Sink, *options)
        self.addCleanup(made.stop)
        return made

    async def test_takes(self) -> None:
        """A message arrives with its dots as they were, many over one connection."""
        sink = await self.sink()
        hop = self.destination(host="127.0.0.1", port=sink.port)
        for n in range(3):
            [outcome] = await send(hop, outgoing(), f"X-N: {n}\r\n".encode(), TEXT)
            self.assertEqual(outcome.result.value, "delivered")
        self.assertEqual(len(sink.messages), 3)
        self.assertIn(TEXT.replace(b"\r\n", b"\n"), sink.messages[0].replace(b"\r\n", b"\n"))

    async def test_old(self) -> None:
        """A server without extensions: no 8-bit text is sent to it, and what is ASCII arrives."""
        sink = await self.sink("-8", "-E", "-p")
        hop = self.destination(host="127.0.0.1", port=sink.port)
        [outcome] = await send(hop, outgoing(bodyType="8BITMIME"), FULL)
        self.assertEqual((outcome.result.value, outcome.reply.status), ("failed", "5.6.3"))
        [outcome] = await send(hop, outgoing())
        self.assertEqual(outcome.result.value, "delivered")

    async def test_noEhlo(self) -> None:
        """A server that does not know EHLO."""
        sink = await self.sink("-e")
        hop = self.destination(host="127.0.0.1", port=sink.port)
        [outcome] = await send(hop, outgoing())
        self.assertEqual(outcome.result.value, "delivered")

    async def test_refuses(self) -> None:
        """Hard and soft errors, and dropped connections, at each command."""
        for option, verdict in (("-f", "delayed"), ("-r", "delayed"), ("-q", "delayed")):
            for command in ("mail", "rcpt", "data", "."):
                sink = await self.sink(option, command)
                hop = self.destination(host="127.0.0.1", port=sink.port)
                [outcome] = await send(hop, outgoing())
                expected = "failed" if outcome.reply.code >= 500 else verdict
                self.assertEqual(outcome.result.value, expected, (option, command))
                self.assertNotEqual(outcome.result.value, "delivered")
                if option == "-q":
                    self.assertFalse(outcome.isRemote)
                else:
                    self.assertTrue(outcome.isRemote, (option, command, outcome))

    async def test_lmtp(self) -> None:
        """LMTP, many recipients."""
        sink = await self.sink("-L")
        hop = self.destination(kind="lmtp", host="127.0.0.1", port=sink.port)
        outcomes = await send(hop, outgoing(*(f"{n}@b.example" for n in range(50))))
        self.assertEqual([each.result.value for each in outcomes], ["delivered"] * 50)
