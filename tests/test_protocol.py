"""The protocol: framing, holding back, writing, TLS, time."""

from __future__ import annotations

import gc
import socket
import weakref
from pathlib import Path
from typing import Any

import attrs
from twisted.internet import reactor as globalReactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from submitd import events
from submitd.connections import SWEEP, Connections
from submitd.dialogue import MAX_AUTH_LINE, MAX_COMMAND_LINE
from submitd.interfaces import (
    IConnectionPolicy,
    IDisconnectObserver,
    IHelloPolicy,
    ILoginPolicy,
    IMessagePolicy,
    IRecipientPolicy,
    ISecurePolicy,
    ISenderPolicy,
)
from submitd.protocol import LINGER, TURN, SubmissionFactory, hostAndPort
from submitd.states import CLOSED
from submitd.submission import Limits
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply
from tests.fixtures import (
    Conversation,
    FakeTransport,
    MemoryDelivery,
    NoTLS,
    makeSubmission,
    waitingFor,
)
from tests.test_transport import contexts, readToEnd, secure

reactor: Any = globalReactor

DATA = Path(__file__).parent / "data"

NO = Reply(554, "5.7.1", "Not you")


@implementer(
    IConnectionPolicy,
    ISecurePolicy,
    ILoginPolicy,
    ISenderPolicy,
    IRecipientPolicy,
    IMessagePolicy,
    IDisconnectObserver,
)
class Policy:
    """Answers at each stage with what a test has put there."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.closed: list[Any] = []

    def _answer(self, stage: str) -> Any:
        answer = self.answers.get(stage)
        return answer() if answer is not None else None

    def connectionMade(self, session: Any) -> Any:
        return self._answer("connection")

    def handshakeCompleted(self, session: Any) -> Any:
        return self._answer("secure")

    def loginRequested(self, session: Any, credentials: Any) -> Any:
        return self._answer("login")

    def loginSucceeded(self, session: Any, avatar: Any) -> None:
        pass

    def loginFailed(self, session: Any, credentials: Any, failure: Failure) -> None:
        pass

    def validateFrom(self, session: Any, envelope: Any) -> Any:
        return self._answer("sender")

    def validateTo(self, session: Any, envelope: Any, recipient: Any) -> Any:
        return self._answer("recipient")

    def messageReceived(self, session: Any, envelope: Any, message: Any) -> Any:
        return self._answer("message")

    def connectionLost(self, session: Any, reason: Any) -> None:
        self.closed.append(reason.type)


@implementer(IConnectionPolicy, IHelloPolicy)
class Noting:
    """Notes something of the connection, and something that the client says."""

    def connectionMade(self, session: Any) -> None:
        session.notes["network"] = "home"

    def helloReceived(self, session: Any, domain: str) -> None:
        session.notes["said"] = domain


def refuse() -> None:
    raise Refused(NO)


def openly(**changes: Any) -> Any:
    """A submission that wants neither TLS nor login."""
    return makeSubmission(loginRequired=False, requireTLS=False, **changes)


LOGIN = "AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ="


class OrderTests(SynchronousTestCase):
    """Rule 1: replies leave in the order of the commands, whatever has to be waited for."""

    def test_pipelinedBehindAWait(self) -> None:
        """A command behind one that waits is neither run nor answered before it."""
        waits: list[Deferred[None]] = []
        talk = Conversation(openly(policies=[Policy(sender=waitingFor(waits))]))
        talk.say("EHLO c")
        said = talk.say("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "NOOP")
        self.assertEqual(said, "")
        self.assertEqual(talk.transport.producerState, "paused")
        waits[0].callback(None)
        self.assertEqual(
            talk.say("RSET"),
            "250 2.1.0 Originator ok\n250 2.1.5 Recipient ok\n250 2.0.0 Ok\n250 2.0.0 Flushed",
        )
        self.assertEqual(talk.transport.producerState, "producing")

    def test_oneWrite(self) -> None:
        """The replies to one segment leave in one write."""
        talk = Conversation(openly())
        talk.say("EHLO c")
        talk.transport.writes = 0
        talk.say("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "NOOP")
        self.assertEqual(talk.transport.writes, 1)

    def test_saidBeforeTheWait(self) -> None:
        """Replies that are ready do not wait for the one that is not."""
        talk = Conversation(openly(policies=[Policy(recipient=Deferred)]))
        talk.say("EHLO c")
        said = talk.say("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>")
        self.assertEqual(said, "250 2.1.0 Originator ok")

    def test_earlyTalker(self) -> None:
        """What a client sends before the greeting is answered after it."""
        waits: list[Deferred[None]] = []
        talk = Conversation(openly(policies=[Policy(connection=waitingFor(waits))]))
        self.assertEqual(talk.say("NOOP"), "")
        waits[0].callback(None)
        said = talk.transport.taken()
        self.assertEqual(said, b"220 mail.example.com ESMTP\r\n250 2.0.0 Ok\r\n")

    def test_manyAtOnce(self) -> None:
        """Of ten thousand commands in one segment, others have their turn behind each hundred."""
        talk = Conversation(openly(limits=Limits(commandsBeforeLogin=0)))
        talk.transport.clear()
        self.assertEqual(talk.begin(b"NOOP\r\n" * 10000), b"250 2.0.0 Ok\r\n" * TURN)
        self.assertEqual(talk.transport.producerState, "paused")
        talk.transport.writes = 0
        self.assertEqual(talk.goOn(), b"250 2.0.0 Ok\r\n" * (10000 - TURN))
        self.assertEqual(talk.transport.writes, 10000 // TURN - 1)
        self.assertEqual(talk.transport.producerState, "producing")

    def test_manySegments(self) -> None:
        """So they have where the hundred came in several segments, as one event may bring them."""
        talk = Conversation(openly())
        talk.transport.clear()
        half = TURN // 2
        for count in (half, half, 0):
            self.assertEqual(talk.begin(b"NOOP\r\n" * half), b"250 2.0.0 Ok\r\n" * count)
        self.assertEqual(talk.goOn(), b"250 2.0.0 Ok\r\n" * half)

    def test_manyWaits(self) -> None:
        """A thousand commands that each wait for what is already there do not recurse either."""

        async def yes() -> None:
            return None

        talk = Conversation(openly(policies=[Policy(recipient=yes)]))
        talk.say("EHLO c", "MAIL FROM:<a@b.example>")
        said = talk.send(b"RCPT TO:<c@d.example>\r\n" * 1000)
        self.assertEqual(said.count(b"250 2.1.5"), 1000)

    def test_manyAndGone(self) -> None:
        """A client that goes before its next turn is not answered any more."""
        talk = Conversation(openly())
        talk.begin(b"NOOP\r\n" * (TURN + 1))
        talk.lose()
        self.assertEqual(talk.goOn(), b"")

    def test_manyAndLate(self) -> None:
        """Who is overdue before its next turn reads its replies, and is told so."""
        clock, limits = Clock(), Limits(login=60, commandsBeforeLogin=0)
        talk = Conversation(makeSubmission(clock=clock, limits=limits))
        talk.begin(b"NOOP\r\n" * (TURN + 1))
        talk.protocol.sweep(clock.seconds() + 61)
        self.assertEqual(talk.transport.taken(), b"421 4.4.2 Connection timed out\r\n")
        self.assertFalse(talk.transport.aborted)
        self.assertEqual(talk.goOn(), b"")

    def test_manyAndTLS(self) -> None:
        """STARTTLS as the last of a turn, or the first of the next, begins TLS and nothing more."""
        for before in (TURN - 2, TURN - 1):
            talk = Conversation(openly())
            talk.send(b"EHLO c\r\n" + b"NOOP\r\n" * before + b"STARTTLS\r\n" + b"NOOP\r\n" * 500)
            self.assertEqual(talk.transport.startedTLS, 1)
            talk.secure()
            self.assertEqual(talk.say("NOOP"), "250 2.0.0 Ok")

    def test_slowReader(self) -> None:
        """A client that does not read its replies is not read from: nothing piles up."""
        talk = Conversation(openly())
        talk.transport.clear()
        producer = talk.transport.producer
        producer.pauseProducing()
        self.assertEqual(talk.say("NOOP"), "")
        self.assertEqual(talk.transport.producerState, "paused")
        producer.resumeProducing()
        self.assertEqual(talk.transport.taken(), b"250 2.0.0 Ok\r\n")

    def test_bothReasons(self) -> None:
        """With two reasons to hold back, one gone is not enough to go on."""
        waits: list[Deferred[None]] = []
        talk = Conversation(openly(policies=[Policy(sender=waitingFor(waits))]))
        talk.say("EHLO c")
        talk.say("MAIL FROM:<a@b.example>", "NOOP")
        producer = talk.transport.producer
        producer.pauseProducing()
        waits[0].callback(None)
        self.assertEqual(talk.transport.producerState, "paused")
        producer.resumeProducing()
        self.assertIn(b"250 2.0.0 Ok", talk.transport.taken())


class LineTests(SynchronousTestCase):
    """Rule 4: lines are bounded, and the dialogue stays in step behind one that is not."""

    def test_longCommand(self) -> None:
        """A long command in one segment is one 500."""
        talk = Conversation(openly())
        talk.transport.clear()
        said = talk.say("NOOP " + "x" * MAX_COMMAND_LINE, "NOOP")
        self.assertEqual(said, "500 5.5.2 Line too long\n250 2.0.0 Ok")

    def test_endlessCommand(self) -> None:
        """A line without end takes no more memory than the limit, and has one 500 at its end."""
        talk = Conversation(openly())
        talk.transport.clear()
        for _ in range(100):
            self.assertEqual(talk.send(b"x" * 65536), b"")
            self.assertLess(len(talk.protocol._buffer), MAX_AUTH_LINE + 65536)
        self.assertEqual(talk.send(b"\r"), b"")
        self.assertEqual(talk.send(b"\nNOOP\r\n"), b"500 5.5.2 Line too long\r\n250 2.0.0 Ok\r\n")

    def test_longResponse(self) -> None:
        """A response of 12288 octets is taken (RFC 4954 4), a longer one ends the exchange."""
        talk = Conversation(makeSubmission())
        talk.transport.clear()
        talk.say("EHLO c", "STARTTLS")
        talk.secure()
        talk.say("EHLO c")
        talk.say("AUTH PLAIN")
        self.assertTrue(talk.say("QUFB" * 3072).startswith(("501", "535")))
        talk.say("AUTH PLAIN")
        refused = "500 5.5.6 Authentication exchange line is too long\r\n250 2.0.0 Ok\r\n"
        self.assertEqual(talk.send(b"QUFB" * 4000 + b"\r\nNOOP\r\n"), refused.encode())
        self.assertIsNone(talk.protocol.dialogue.continuation)
        talk.say("AUTH PLAIN")
        endless = talk.send(b"A" * 70000) + talk.send(b"\r\n") + talk.send(b"NOOP\r\n")
        self.assertEqual(endless, refused.encode())
        for length in (12400, 70000):
            line = b"AUTH PLAIN " + b"A" * length + b"\r\n"
            self.assertEqual(talk.send(line) + talk.send(b"NOOP\r\n"), refused.encode())

    def test_tooLongHoweverCut(self) -> None:
        """Where a line that is too long was cut makes no difference, nor does what it begins with.

        BDAT ends the connection: what is behind its line would be read as commands (RFC 3030).
        """
        for verb in (b"AUTH PLAIN ", b"NOOP ", b"BDAT ", b"bdat "):
            for length in (MAX_AUTH_LINE - 1, MAX_AUTH_LINE, MAX_AUTH_LINE + 1, 20000):
                line = verb.ljust(length, b"0") + b"\r\n"
                said = set()
                for cut in (0, 2, MAX_AUTH_LINE, MAX_AUTH_LINE + 1, length, length + 1):
                    talk = Conversation(openly())
                    talk.transport.clear()
                    talk.say("EHLO client.example")
                    heard = talk.send(line[:cut]) + talk.send(line[cut:] + b"NOOP\r\n")
                    said.add(heard)
                    self.assertIs(b"\r\n250" in heard, verb.upper() != b"BDAT ", heard)
                self.assertEqual(len(said), 1, (verb, length, said))

    def test_tooLongBehindRecipient(self) -> None:
        """A line without end is no recipient, whatever stood before it: a few, and that was all."""
        limits = Limits(unrecognized=2)
        talk = Conversation(makeSubmission(loginRequired=False, requireTLS=False, limits=limits))
        talk.say("EHLO client.example", "MAIL FROM:<a@b.example>", "RCPT TO:<@>", "RCPT TO:<@>")
        for code in (b"500", b"500", b"421"):
            self.assertEqual(talk.send(b"RCPT TO:<" + b"x" * 20000), b"")
            self.assertEqual(talk.send(b"\r\n")[:3], code)


class MessageTests(SynchronousTestCase):
    """The octets of a message go to the delivery as they come."""

    def begin(self, delivery: MemoryDelivery, **changes: Any) -> Conversation:
        talk = Conversation(openly(delivery=delivery, **changes))
        said = talk.say("EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA")
        self.assertIn("354", said)
        return talk

    def test_streamed(self) -> None:
        """A message is not gathered: the delivery has the first octets before the last come."""
        delivery = MemoryDelivery()
        talk = self.begin(delivery)
        talk.send(b"x" * 1000)
        self.assertGreater(len(delivery.begun[0].octets), 900)

    def test_backPressure(self) -> None:
        """While the delivery asks for time nothing more is read, and nothing is lost."""
        waits: list[Deferred[None]] = []
        delivery = MemoryDelivery()
        talk = self.begin(delivery)
        delivery.onChunk = waitingFor(waits)
        self.assertEqual(talk.send(b"one\r\n"), b"")
        self.assertEqual(talk.transport.producerState, "paused")
        self.assertEqual(talk.send(b"two\r\n.\r\nNOOP\r\n"), b"")
        waits[0].callback(None)
        self.assertEqual(talk.transport.taken(), b"")
        waits[1].callback(None)
        self.assertRegex(talk.transport.taken(), rb"250 2.0.0 Ok: queued as \S+\r\n250 2.0.0 Ok")
        self.assertEqual(delivery.messages[0].text, b"one\r\ntwo\r\n")

    def test_slowDelivery(self) -> None:
        """A delivery that never asks for more is 451 after the limit, at the end of the data."""
        clock = Clock()
        delivery = MemoryDelivery()
        talk = self.begin(delivery, clock=clock)
        delivery.onChunk = lambda message, chunk: Deferred()
        talk.send(b"one\r\n")
        clock.advance(60)
        self.assertEqual(talk.send(b"two\r\n.\r\n")[:9], b"451 4.3.0")
        self.assertEqual(delivery.begun[0].state, "aborted")

    def test_slowFromTheStart(self) -> None:
        """A delivery that never takes our own trace field does not keep DATA waiting for ever."""
        causes: list[Any] = []
        self.patch(events, "emit", lambda event, **fields: causes.append(fields.get("cause")))
        clock = Clock()
        delivery = MemoryDelivery(onChunk=lambda message, chunk: Deferred())
        talk = Conversation(openly(delivery=delivery, clock=clock))
        talk.say("EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA")
        clock.advance(60)
        self.assertEqual(talk.transport.taken()[:3], b"354")
        self.assertEqual(talk.send(b"one\r\n.\r\n")[:9], b"451 4.3.0")
        self.assertEqual(delivery.begun[0].state, "aborted")
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertEqual(causes, ["no answer within 60 s"])

    def test_saysSomething(self) -> None:
        """What a delivery's Deferred fires with between two chunks is nobody's answer."""
        waits: list[Deferred[Any]] = []
        delivery = MemoryDelivery()
        talk = self.begin(delivery)
        delivery.onChunk = waitingFor(waits)
        talk.send(b"one\r\n")
        waits[0].callback(5)
        self.assertEqual(talk.transport.taken(), b"")
        self.assertEqual(talk.send(b".\r\n")[:6], b"250 2.")

    def test_clientGoneInBetween(self) -> None:
        """What is waited for between two chunks is given up with its client."""
        clock = Clock()
        cancelled: list[object] = []
        delivery = MemoryDelivery()
        talk = self.begin(delivery, clock=clock)
        delivery.onChunk = lambda message, chunk: Deferred(cancelled.append)
        talk.send(b"one\r\n")
        talk.lose()
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(delivery.begun[0].state, "aborted")
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_clientGoneAndNobodyListens(self) -> None:
        """Who raises when the client has gone does not keep the others from hearing of it."""

        def broken(*arguments: Any) -> None:
            raise RuntimeError("broken")

        delivery = MemoryDelivery()
        talk = self.begin(delivery)
        delivery.onChunk = lambda message, chunk: Deferred(broken)
        talk.send(b"one\r\n")
        talk.protocol.dialogue.logout = broken
        talk.lose()
        self.assertEqual(delivery.begun[0].state, "aborted")
        self.assertEqual(len(talk.factory.connections), 0)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_clientGone(self) -> None:
        """A client that goes away in the middle leaves nothing behind."""
        delivery = MemoryDelivery()
        talk = self.begin(delivery)
        talk.send(b"half a mess")
        talk.lose()
        self.assertEqual(delivery.begun[0].state, "aborted")

    def test_clientGoneAtTheCommit(self) -> None:
        """A commit that is under way runs to its end although nobody waits for the reply."""
        end: Deferred[None] = Deferred()
        cancelled: list[object] = []
        end = Deferred(cancelled.append)
        delivery = MemoryDelivery(onEnd=lambda message: end)
        talk = self.begin(delivery)
        talk.send(b"x\r\n.\r\n")
        talk.lose()
        self.assertEqual(cancelled, [])
        self.assertEqual(delivery.begun[0].state, "committed")
        end.callback(None)


class TLSTests(SynchronousTestCase):
    """STARTTLS and implicit TLS."""

    def test_needsContext(self) -> None:
        """A factory that is to do TLS says at once when it has no context for it."""
        self.assertRaises(ValueError, SubmissionFactory, makeSubmission())
        plain = makeSubmission(startTLS=False)
        self.assertRaises(ValueError, SubmissionFactory, plain, None, True)

    def test_nothingInTheClear(self) -> None:
        """On an implicit TLS port nothing is said before the handshake, however long it takes."""
        talk = Conversation(openly(), implicitTLS=True)
        self.assertEqual(talk.transport.taken(), b"")
        talk.secure()
        self.assertEqual(talk.transport.taken(), b"220 mail.example.com ESMTP\r\n")

    def test_facts(self) -> None:
        """What the handshake agreed on stands in the session."""
        talk = Conversation(openly(), implicitTLS=True)
        talk.secure()
        session = talk.protocol.dialogue.session
        assert session.tls is not None
        self.assertTrue(session.secure)
        self.assertEqual(session.tls.version, "TLSv1.3")
        self.assertEqual(session.tls.cipher, "TLS_AES_256_GCM_SHA384")
        self.assertEqual(session.servername, "mail.example.com")

    def test_notes(self) -> None:
        """Forgotten is what the client said, not what was noted of it before it said anything."""
        talk = Conversation(openly(policies=[Noting()]))
        session = talk.protocol.dialogue.session
        talk.say("EHLO client.example")
        self.assertEqual(session.notes, {"network": "home", "said": "client.example"})
        talk.say("STARTTLS")
        talk.secure()
        self.assertEqual(session.notes, {"network": "home"})

    def test_secureWaits(self) -> None:
        """A policy that looks at the handshake is waited for, by greeting and by commands."""
        waits: list[Deferred[None]] = []
        submission = openly(policies=[Policy(secure=waitingFor(waits))])
        talk = Conversation(submission, implicitTLS=True)
        talk.secure()
        self.assertEqual(talk.say("NOOP"), "")
        waits[0].callback(None)
        said = talk.transport.taken()
        self.assertEqual(said, b"220 mail.example.com ESMTP\r\n250 2.0.0 Ok\r\n")

    def test_secureTooLate(self) -> None:
        """A client that has gone while a policy looked at the handshake is not greeted."""
        waits: list[Deferred[None]] = []
        asked: list[Any] = []
        submission = openly(
            policies=[Policy(secure=waitingFor(waits), connection=lambda: asked.append(1))]
        )
        talk = Conversation(submission, implicitTLS=True)
        talk.secure()
        talk.lose()
        waits[0].callback(None)
        self.assertEqual((asked, talk.protocol.dialogue.state), ([], CLOSED))

    def test_secureRefuses(self) -> None:
        """An objection to the handshake is the greeting of an implicit TLS port."""
        for answer in (refuse, waitingForRefusal):
            talk = Conversation(openly(policies=[Policy(secure=answer)]), implicitTLS=True)
            talk.secure()
            self.assertEqual(talk.transport.taken(), b"554 5.7.1 Not you\r\n")
            self.assertEqual(talk.say("EHLO c", "QUIT")[:4], "503 ")
            self.assertTrue(talk.transport.disconnecting)

    def test_refusedAndStays(self) -> None:
        """Who was refused and goes on ends as a client does that speaks no SMTP."""
        submission = openly(policies=[Policy(connection=refuse)], limits=Limits(unrecognized=3))
        for line in ("NOOP", "FOO", "MAIL FROM:<a@b.example>"):
            talk = Conversation(submission)
            self.assertEqual(talk.transport.taken()[:4], b"554 ")
            self.assertEqual({talk.say(line)[:4] for _ in range(3)}, {"503 "})
            self.assertEqual(talk.say(line)[:4], "421 ")
            self.assertTrue(talk.transport.disconnecting)

    def test_secureRefusesStartTLS(self) -> None:
        """After STARTTLS no reply is due: the objection answers every command but QUIT."""
        talk = Conversation(openly(policies=[Policy(secure=refuse)]))
        talk.say("EHLO c")
        talk.say("STARTTLS")
        talk.secure()
        self.assertEqual(talk.transport.taken(), b"")
        self.assertEqual(talk.say("EHLO c", "NOOP"), "554 5.7.1 Not you\n554 5.7.1 Not you")
        self.assertEqual(talk.say("QUIT"), "221 2.0.0 Bye")

    def test_loginForgotten(self) -> None:
        """A login before STARTTLS does not count behind it (RFC 3207 4.2), and is logged out."""
        talk = Conversation(openly(insecureLogin=True))
        talk.say("EHLO c")
        self.assertIn("235", talk.say("AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ="))
        talk.say("STARTTLS")
        talk.secure()
        self.assertIsNone(talk.protocol.dialogue.session.user)
        self.assertEqual(talk.protocol.dialogue.session.openingCommand, "")


async def waitingForRefusal() -> None:
    """A policy that refuses after a while."""
    refuse()


class EndpointTLSTests(TestCase):
    """Endpoints that begin with TLS themselves, by Twisted's own layer: ``ssl:``."""

    def under(self, implicitTLS: bool = False, **changes: Any) -> tuple[Any, FakeTransport]:
        """A connection under such a layer whose client has said nothing yet."""
        tls: Any = NoTLS()
        self.clock = Clock()
        submission = openly(clock=self.clock, **changes)
        self.factory = SubmissionFactory(submission, tls, implicitTLS)
        self.factory.doStart()
        self.addCleanup(self.factory.doStop)
        layer: Any = TLSMemoryBIOFactory(contexts(), False, self.factory, self.clock)
        return layer, self.connect(layer)

    def connect(self, layer: Any) -> FakeTransport:
        """One more."""
        transport = FakeTransport()
        layer.buildProtocol(None).makeConnection(transport)
        self.clock.advance(0)
        return transport

    async def test_endpoint(self) -> None:
        """It is a port with implicit TLS: first the handshake, then policies and the greeting."""
        stages: list[str] = []
        policy = Policy(
            secure=lambda: stages.append("secure"), connection=lambda: stages.append("connection")
        )
        submission = makeSubmission(reactor, policies=[policy])
        keys = f"certKey={DATA}/certificate.pem:privateKey={DATA}/private_key.pem"
        endpoint = serverFromString(reactor, f"ssl:0:interface=127.0.0.1:{keys}")
        tls: Any = NoTLS()
        port = await endpoint.listen(SubmissionFactory(submission, tls))
        self.addCleanup(port.stopListening)

        def talk() -> bytes:
            address = ("127.0.0.1", port.getHost().port)
            with secure(socket.create_connection(address, 10)) as client:
                client.sendall(f"EHLO c\r\nSTARTTLS\r\n{LOGIN}\r\nQUIT\r\n".encode())
                return readToEnd(client)

        said = await deferToThread(talk)
        self.assertTrue(said.startswith(b"220 mail.example.com ESMTP\r\n250-"), said)
        self.assertNotIn(b"-STARTTLS", said)
        codes = [line[:3] for line in said.splitlines() if line[3:4] == b" "]
        self.assertEqual(codes, [b"220", b"250", b"503", b"235", b"221"])
        self.assertEqual(stages, ["secure", "connection"])

    def test_silent(self) -> None:
        """Until the handshake nothing is said, and its octets are read; it has its time."""
        for implicitTLS in (False, True):
            _, transport = self.under(implicitTLS)
            self.assertEqual((transport.value(), transport.startedTLS), (b"", 0))
            self.assertEqual(transport.producerState, "producing")
            self.clock.pump([1.0] * 50)
            self.assertFalse(transport.aborted)
            self.clock.pump([1.0] * 20)
            self.assertTrue(transport.aborted)

    def test_tooMany(self) -> None:
        """One that is turned away is closed without a handshake, as on our own port."""
        layer, first = self.under()
        self.factory.connections = Connections(self.clock, 1)
        second, third = self.connect(layer), self.connect(layer)
        self.assertEqual((first.aborted, second.aborted, third.aborted), (False, False, True))
        self.assertEqual(third.value(), b"")

    def test_drain(self) -> None:
        """The end of the service closes it."""
        _, transport = self.under()
        self.factory.connections.drain(30)
        self.assertTrue(transport.aborted)


class TimeTests(SynchronousTestCase):
    """Silence, the end, and how many there may be."""

    def setUp(self) -> None:
        self.clock = Clock()

    def connect(self, implicitTLS: bool = False, **changes: Any) -> Conversation:
        talk = Conversation(openly(clock=self.clock, **changes), implicitTLS)
        talk.factory.doStart()
        self.addCleanup(talk.factory.doStop)
        talk.transport.clear()
        return talk

    def advance(self, seconds: float) -> None:
        self.clock.pump([SWEEP] * int(seconds / SWEEP))

    def test_idle(self) -> None:
        """A silent client is told so, and the connection ends."""
        talk = self.connect()
        self.advance(290)
        talk.say("NOOP")
        self.advance(290)
        self.assertEqual(talk.transport.taken(), b"")
        self.advance(20)
        self.assertEqual(talk.transport.taken(), b"421 4.4.2 Connection timed out\r\n")
        self.assertTrue(talk.transport.disconnecting)
        self.assertFalse(talk.transport.aborted)
        self.advance(LINGER + 2 * SWEEP)
        self.assertTrue(talk.transport.aborted)

    def test_idleCommand(self) -> None:
        """The log names no command that was over long ago, and the one that is not."""
        logged: list[Any] = []
        self.patch(events, "emit", lambda event, **of: logged.append(of.get("command")))
        for lines, command in (((), b""), (("MAIL FROM:<a@b.example>",), b"")):
            talk = self.connect()
            talk.say("EHLO c", *lines)
            logged.clear()
            self.advance(310)
            self.assertEqual(logged, [command])
        talk = self.connect()
        talk.say("EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", "x")
        logged.clear()
        self.advance(310)
        self.assertEqual(logged, [b"DATA"])

    def test_turnedAwayInLog(self) -> None:
        """Who is refused in place of the greeting has one line there, whatever else it says."""
        logged: list[str] = []
        self.patch(events, "emit", lambda event, **of: logged.append(event.name))
        for last in (lambda talk: talk.say("QUIT"), lambda talk: self.advance(LINGER + 2 * SWEEP)):
            logged.clear()
            talk = Conversation(openly(clock=self.clock, policies=[Policy(connection=refuse)]))
            self.assertEqual(talk.transport.taken()[:4], b"554 ")
            for line in ("EHLO bot", "AUTH LOGIN", "RSET", "HELO bot"):
                self.assertEqual(talk.say(line), "503 5.5.1 Bad sequence of commands")
            last(talk)
            self.assertEqual(logged, ["refused"])

    def test_turnedAway(self) -> None:
        """Who is refused in place of the greeting keeps no place, whatever else it says."""
        for octets in (b"", b"N", b"BDAT 0\r\n", b"BDAT 99999999\r\n"):
            for implicitTLS in (False, True):
                policies, limits = [Policy(connection=refuse)], Limits(idle=0)
                submission = openly(clock=self.clock, policies=policies, limits=limits)
                talk = Conversation(submission, implicitTLS)
                talk.factory.doStart()
                self.addCleanup(talk.factory.doStop)
                if implicitTLS:
                    talk.secure()
                self.assertEqual(talk.transport.taken()[:4], b"554 ")
                self.advance(LINGER)
                talk.send(octets)
                self.assertFalse(talk.transport.disconnecting)
                self.advance(2 * SWEEP)
                self.assertIn(b"421 4.4.2 Connection timed out\r\n", talk.transport.taken())
                self.assertTrue(talk.transport.disconnecting)

    def test_shortLimits(self) -> None:
        """A limit shorter than the time between two sweeps ends nobody who keeps to it."""
        limits = Limits(idle=2, handshake=2)
        talk = self.connect(limits=limits)
        self.clock.advance(SWEEP - 1)
        talk.say("NOOP")
        shaking = Conversation(openly(clock=self.clock, limits=limits), implicitTLS=True)
        shaking.factory.doStart()
        self.addCleanup(shaking.factory.doStop)
        self.clock.advance(1)
        self.assertEqual(talk.transport.taken(), b"")
        self.assertFalse(shaking.transport.aborted)
        self.advance(2 * SWEEP)
        self.assertEqual(talk.transport.taken(), b"421 4.4.2 Connection timed out\r\n")
        self.assertTrue(shaking.transport.aborted)

    def test_trickle(self) -> None:
        """An octet now and then is no command: a line has to be finished in time."""
        talk = self.connect()
        for _ in range(31):
            talk.send(b"x")
            self.advance(10)
        self.assertTrue(talk.transport.disconnecting)

    def test_noLimit(self) -> None:
        """With limits of 0 a client may be silent for ever."""
        talk = self.connect(limits=Limits(idle=0, handshake=0, login=0, message=0))
        self.advance(10000)
        self.assertEqual(talk.transport.taken(), b"")

    def test_noHandshake(self) -> None:
        """A connection that never finishes its handshake is cut: there is nobody to talk to."""
        for implicit in (True, False):
            talk = Conversation(openly(clock=self.clock), implicitTLS=implicit)
            talk.factory.doStart()
            self.addCleanup(talk.factory.doStop)
            if not implicit:
                talk.say("EHLO c", "STARTTLS")
            self.advance(50)
            self.assertFalse(talk.transport.aborted)
            self.advance(20)
            self.assertTrue(talk.transport.aborted)

    def shake(self, implicitTLS: bool, limits: Limits, waits: list[Deferred[None]]) -> None:
        policy = Policy(secure=lambda: waits[0] if waits else None)
        talk = self.connect(implicitTLS, limits=limits, policies=[policy])
        if not implicitTLS:
            talk.say("EHLO c", "STARTTLS")
        self.advance(30)
        talk.secure()
        for wait in waits:
            self.advance(50)
            self.assertFalse(talk.transport.aborted)
            wait.callback(None)
        self.advance(5)
        talk.transport.clear()
        self.assertEqual(talk.say("EHLO c")[:4], "250-")

    def test_slowHandshake(self) -> None:
        """Silence begins behind the handshake, and a policy that looks at it has its own time."""
        limits = Limits(idle=10, handshake=40)
        for implicitTLS in (True, False):
            self.shake(implicitTLS, limits, [])
            self.shake(implicitTLS, limits, [Deferred()])

    def test_noLogin(self) -> None:
        """Where a login is required, a client that talks without one has its time."""
        talk = Conversation(makeSubmission(clock=self.clock, requireTLS=False))
        talk.factory.doStart()
        self.addCleanup(talk.factory.doStop)
        self.advance(170)
        talk.say("NOOP")
        self.advance(20)
        self.assertEqual(talk.transport.taken(), b"421 4.4.2 Connection timed out\r\n")

    def test_noLoginYet(self) -> None:
        """A login that is being checked when its time is over is answered."""
        waits: list[Deferred[None]] = []
        policy = Policy(login=waitingFor(waits))
        submission = makeSubmission(
            clock=self.clock, requireTLS=False, insecureLogin=True, policies=[policy]
        )
        for answer, code in ((None, "235"), (Failure(Refused(NO)), "554")):
            talk = Conversation(submission)
            talk.factory.doStart()
            self.addCleanup(talk.factory.doStop)
            talk.say("EHLO c")
            self.advance(170)
            talk.say(LOGIN)
            self.advance(20)
            self.assertFalse(talk.transport.aborted)
            waits.pop().callback(answer)
            self.assertEqual(talk.transport.taken()[:3].decode(), code)
            self.advance(10)
            self.assertIs(talk.transport.disconnecting, code == "554")

    def test_noLoginButCommands(self) -> None:
        """Who has us wait for one command behind the other does not outlast its time to log in."""
        waits: list[Deferred[None]] = []
        limits = Limits(commandsBeforeLogin=0)
        submission = makeSubmission(
            clock=self.clock,
            requireTLS=False,
            insecureLogin=True,
            limits=limits,
            policies=[Policy(login=waitingFor(waits))],
        )
        talk = Conversation(submission)
        talk.factory.doStart()
        self.addCleanup(talk.factory.doStop)
        talk.say("EHLO c")
        talk.send(f"{LOGIN}\r\n".encode() * 20)
        for _ in range(3):
            self.advance(50)
            waits.pop().errback(Refused(Reply(454, "4.7.0", "Later")))
            self.assertEqual(talk.transport.taken(), b"454 4.7.0 Later\r\n")
        self.advance(50)
        waits.pop().errback(Refused(Reply(454, "4.7.0", "Later")))
        said = b"454 4.7.0 Later\r\n421 4.4.2 Connection timed out\r\n"
        self.assertEqual((talk.transport.taken(), waits), (said, []))
        self.assertTrue(talk.transport.disconnecting)

    def answeredLate(self, waits: list[Deferred[None]], **arguments: Any) -> None:
        """A message that came whole in time has its answer, which waits for so long."""
        talk = self.connect(limits=Limits(message=20), **arguments)
        talk.say("EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA")
        self.advance(15)
        talk.send(b"x\r\n.\r\n")
        self.advance(30)
        self.assertFalse(talk.transport.aborted)
        waits[0].callback(None)
        self.assertEqual(talk.transport.taken()[:3], b"250")

    def test_messageLooked(self) -> None:
        """A message that has come whole is answered, however long policies look at it."""
        waits: list[Deferred[None]] = []
        self.answeredLate(waits, policies=[Policy(message=waitingFor(waits))])

    def test_endlessMessage(self) -> None:
        """A message that drips in for ever ends with its time, and leaves nothing behind."""
        delivery = MemoryDelivery()
        talk = self.connect(limits=Limits(message=100), delivery=delivery)
        talk.say("EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA")
        for _ in range(11):
            self.assertEqual(talk.send(b"x\r\n"), b"")
            self.advance(10)
        self.assertEqual(talk.transport.taken(), b"421 4.4.2 Connection timed out\r\n")
        self.assertEqual(delivery.begun[0].state, "aborted")

    def test_waits(self) -> None:
        """A client that waits for our answer is not silent; its time begins behind that."""
        waits: list[Deferred[None]] = []
        delivery = MemoryDelivery(onEnd=lambda message: waitingFor(waits)())
        talk = self.connect(limits=Limits(idle=20), delivery=delivery)
        talk.say("EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA")
        talk.send(b"x\r\n.\r\n")
        self.advance(50)
        self.assertFalse(talk.transport.aborted)
        waits[0].callback(None)
        self.assertEqual(talk.transport.taken()[:3], b"250")
        self.advance(15)
        self.assertEqual(talk.transport.taken(), b"")
        self.advance(15)
        self.assertEqual(talk.transport.taken(), b"421 4.4.2 Connection timed out\r\n")

    def test_messageKept(self) -> None:
        """A message that has come whole is answered, also where it took nearly all its time."""
        waits: list[Deferred[None]] = []
        delivery = MemoryDelivery(onEnd=lambda message: waitingFor(waits)())
        self.answeredLate(waits, delivery=delivery)

    def test_waitsForMany(self) -> None:
        """Each policy has its own time, however many there are."""
        policies = [Policy(sender=lambda: deferLater(self.clock, 10)) for _ in range(10)]
        talk = self.connect(limits=Limits(idle=5, stage=15), policies=policies)
        talk.say("EHLO c", "MAIL FROM:<a@b.example>")
        self.advance(100)
        self.assertFalse(talk.transport.aborted)
        self.assertEqual(talk.transport.taken()[:3], b"250")

    def test_waitsForEver(self) -> None:
        """What never answers ends with the time of a stage, however short that of silence is."""
        policies = [Policy(sender=Deferred)]
        talk = self.connect(limits=Limits(idle=5, stage=40), policies=policies)
        talk.say("EHLO c", "MAIL FROM:<a@b.example>")
        self.advance(35)
        self.assertEqual(talk.transport.taken(), b"")
        self.advance(5)
        self.assertEqual(talk.transport.taken()[:9], b"451 4.3.0")

    def test_notGreeted(self) -> None:
        """A connection policy that fails or never answers has 421 sent, which closes."""
        for answer in (Deferred, lambda: 1 / 0):
            policy = Policy(connection=answer)
            talk = Conversation(openly(clock=self.clock, policies=[policy]))
            self.clock.advance(60)
            self.assertEqual(talk.transport.taken()[:9], b"421 4.3.0")
            self.assertTrue(talk.transport.disconnecting)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_waitsTwice(self) -> None:
        """Where the greeting waits behind the handshake, the time of the first wait ends nobody."""
        waits: list[Deferred[None]] = []
        wait = waitingFor(waits)
        limits, policy = Limits(idle=20), Policy(secure=wait, connection=wait)
        talk = self.connect(implicitTLS=True, limits=limits, policies=[policy])
        talk.secure()
        waits[0].callback(None)
        self.advance(50)
        self.assertFalse(talk.transport.aborted)
        waits[1].callback(None)
        self.assertEqual(talk.transport.taken()[:3], b"220")
        self.advance(30)
        self.assertEqual(talk.transport.taken(), b"421 4.4.2 Connection timed out\r\n")

    def test_neverReads(self) -> None:
        """A client that does not read its replies is cut after the same time."""
        talk = self.connect()
        talk.transport.producer.pauseProducing()
        self.advance(310)
        self.assertTrue(talk.transport.aborted)

    def test_tooMany(self) -> None:
        """The connection past the maximum is turned away with 421; the others stay."""
        for connections in (Connections(self.clock, 1), Connections(self.clock, 5, 1)):
            submission = openly(clock=self.clock)
            first, second = (Conversation(submission, connections=connections) for _ in "12")
            self.assertTrue(first.transport.taken().startswith(b"220 "))
            self.assertTrue(second.transport.taken().startswith(b"421 4.7.0 "))
            self.assertTrue(second.transport.disconnecting)
            self.assertEqual(second.send(b"NOOP\r\n"), b"")
            second.lose()
            self.assertEqual(len(connections), 1)
            first.lose()
            third = Conversation(submission, connections=connections)
            self.assertTrue(third.transport.taken().startswith(b"220 "))

    def test_tooManyOverTLS(self) -> None:
        """On an implicit TLS port there is no way to say so before a handshake: it closes."""
        connections = Connections(self.clock, 1)
        Conversation(openly(clock=self.clock), connections=connections)
        talk = Conversation(openly(clock=self.clock), implicitTLS=True, connections=connections)
        self.assertEqual(talk.transport.taken(), b"")
        self.assertTrue(talk.transport.disconnecting)

    def test_drainIdle(self) -> None:
        """When the service stops, an idle client is told 421 at once."""
        talk = self.connect()
        drained = talk.factory.connections.drain(30)
        self.assertTrue(talk.transport.taken().startswith(b"421 4.3.2 "))
        self.assertTrue(talk.transport.disconnecting)
        self.assertNoResult(drained)
        talk.lose()
        self.successResultOf(drained)

    def test_drainSilent(self) -> None:
        """A client that does not close its side does not hold up the end, with all ports closed."""
        connections = Connections(self.clock)
        connections.start()
        talk = Conversation(openly(clock=self.clock), connections=connections)
        connections.stop()
        connections.drain(3600)
        self.assertTrue(talk.transport.disconnecting)
        self.clock.pump([SWEEP] * (int(LINGER / SWEEP) + 2))
        self.assertTrue(talk.transport.aborted)
        talk.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_drainTransaction(self) -> None:
        """A transaction under way is finished and answered, and 421 comes behind its reply."""
        talk = self.connect()
        talk.say("EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>")
        drained = talk.factory.connections.drain(30)
        self.assertEqual(talk.transport.taken(), b"")
        self.assertEqual(talk.say("DATA")[:3], "354")
        self.assertRegex(talk.say("."), r"^250 2.0.0 [^\n]+\n421 4.3.2 ")
        self.assertTrue(talk.transport.disconnecting)
        talk.lose()
        self.successResultOf(drained)

    def test_drainTooSlow(self) -> None:
        """A transaction that is not finished in time is aborted, so that a stop ends."""
        delivery = MemoryDelivery()
        talk = self.connect(delivery=delivery)
        talk.say("EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA")
        talk.factory.connections.drain(30)
        self.clock.advance(30)
        self.assertTrue(talk.transport.aborted)

    def test_drainHandshake(self) -> None:
        """A connection that is not even greeted is closed without a word."""
        talk = Conversation(openly(clock=self.clock), implicitTLS=True)
        talk.factory.connections.drain(30)
        self.assertTrue(talk.transport.disconnecting)
        self.assertEqual(talk.transport.taken(), b"")

    def test_drainNobody(self) -> None:
        """Without connections there is nothing to wait for."""
        self.successResultOf(Connections(self.clock).drain(30))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelled(self) -> None:
        """A wait whose client goes away is cancelled, and its end says nothing to nobody."""
        cancelled: list[object] = []
        policy = Policy(sender=lambda: Deferred(cancelled.append))
        talk = self.connect(policies=[policy])
        talk.say("EHLO c", "MAIL FROM:<a@b.example>")
        talk.transport.clear()
        talk.lose()
        self.assertEqual(len(cancelled), 1)
        self.assertEqual(talk.transport.taken(), b"")
        self.assertEqual(policy.closed, [ConnectionDone])

    def test_sharedSweep(self) -> None:
        """Two listeners share one sweep, which ends with the second."""
        connections = Connections(self.clock)
        connections.start()
        connections.start()
        connections.stop()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        connections.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AddressTests(SynchronousTestCase):
    """Addresses as the session has them."""

    def test_addresses(self) -> None:
        """IPv4 on a socket of both families is IPv4; a unix socket has no address."""
        self.assertEqual(hostAndPort(IPv4Address("TCP", "192.0.2.1", 25)), ("192.0.2.1", 25))
        self.assertEqual(hostAndPort(IPv6Address("TCP", "::ffff:192.0.2.1", 1)), ("192.0.2.1", 1))
        self.assertEqual(hostAndPort(IPv6Address("TCP", "2001:db8::1", 1)), ("2001:db8::1", 1))
        self.assertEqual(hostAndPort(UNIXAddress(b"/run/x")), ("", 0))


class BrokenTests(SynchronousTestCase):
    """What must not happen, and what happens then."""

    def test_dialogueFails(self) -> None:
        """Should a Deferred of the dialogue fail after all, the connection ends: no hanging."""
        talk = Conversation(openly())
        waiting: Deferred[Any] = Deferred()
        talk.protocol._await(waiting)
        waiting.errback(Failure(ZeroDivisionError()))
        self.assertTrue(talk.transport.aborted)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_leavesNothing(self) -> None:
        """A connection that is gone leaves nothing to the garbage collector."""
        gc.disable()
        self.addCleanup(gc.enable)
        submission = makeSubmission(requireTLS=False, insecureLogin=True)
        transaction = ("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.org>", "DATA", "Subject: x")
        for lines in ((), ("AUTH PLAIN",), (LOGIN, *transaction[:1]), (LOGIN, *transaction)):
            talk = Conversation(submission)
            factory = talk.factory  # which stays, and is in circles of its own
            left = weakref.ref(talk.protocol.dialogue)
            for line in ("EHLO client.example", *lines):
                self.assertIn(talk.say(line)[:1], "23")
            talk.lose()
            talk.transport.unregisterProducer()  # as those on sockets do
            del talk
            self.assertIsNone(left(), lines)
            del factory

    def test_frozen(self) -> None:
        """What sessions share cannot be changed under them."""
        with self.assertRaises(attrs.exceptions.FrozenInstanceError):
            makeSubmission().hostname = "x"  # type: ignore[misc]
