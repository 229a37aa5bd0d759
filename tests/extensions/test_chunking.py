"""Tests of :mod:`submitd.extensions.chunking`."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from submitd.connections import SWEEP
from submitd.interfaces import IDataPolicy, IMessagePolicy, ISecurePolicy
from submitd.states import State
from submitd.submission import Limits
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply
from tests.extensions.base import ExtensionTestCase
from tests.fixtures import Conversation, MemoryDelivery, makeSubmission, waitingFor

REFUSED = Refused(Reply(550, "5.7.1", "Not you"))
SYNTAX = b"501 5.5.4 Syntax: BDAT <size> [LAST]\r\n"
OUT_OF_STEP = b"421 4.5.0 Cannot tell text from commands, closing the connection\r\n"


@implementer(IDataPolicy)
class DataPolicy:
    """Does what it is told when a message is about to come."""

    def __init__(self, answer: Any) -> None:
        self.asked = 0
        self.answer = answer

    def dataRequested(self, session: Any, envelope: Any) -> Any:
        self.asked += 1
        return self.answer()


@implementer(IMessagePolicy)
class Prepends:
    """Puts a field in front."""

    def messageReceived(self, session: Any, envelope: Any, message: Any) -> None:
        message.prepend(b"X-Seen: %d %s\r\n" % (message.byteLength, message.header[:7]))


@implementer(IMessagePolicy)
class Stubborn:
    """Does what it is told when a message has come."""

    def __init__(self, answer: Any) -> None:
        self.messageReceived = answer


@implementer(ISecurePolicy)
class NoTLSIsGood:
    """Objects to every handshake."""

    def handshakeCompleted(self, session: Any) -> None:
        raise REFUSED


def refuse() -> None:
    raise REFUSED


def wrong() -> None:
    raise OSError("disk")


class MessageTests(ExtensionTestCase):
    """Messages by BDAT."""

    def test_sameAsData(self) -> None:
        """A message by BDAT is the same at the delivery as by DATA, policies' fields and all."""
        talk = self.talk(policies=[Prepends()])
        self.begin().send(b"DATA\r\n")
        talk.send(b"Subject: x\r\n\r\n..dot\r\nend\r\n.\r\n")
        chunks = (b"Subject: ", b"x\r\n\r\n.dot\r", b"\nend\r\n")
        sent = b"".join(b"BDAT %d\r\n%s" % (len(chunk), chunk) for chunk in chunks)
        self.begin().send(sent + b"BDAT 0 LAST\r\n")
        one, two = (message.octets for message in self.delivery.messages)
        field = b"X-Seen: 25 Subject\r\nReceived: "
        self.assertTrue(one.startswith(field) and two.startswith(field))
        text = b"Subject: x\r\n\r\n.dot\r\nend\r\n"
        self.assertTrue(one.endswith(b"\r\n" + text) and two.endswith(b"\r\n" + text))

    def test_empty(self) -> None:
        """BDAT 0 LAST ends a message, with or without chunks before it."""
        talk = self.talk()
        self.assertTrue(self.begin().send(b"BDAT 0 LAST\r\n").startswith(b"250 2.0.0 Ok: queued"))
        self.begin()
        self.assertEqual(talk.send(b"BDAT 2\r\n\r\n"), b"250 2.0.0 2 octets received\r\n")
        self.assertEqual(talk.send(b"BDAT 0\r\n"), b"250 2.0.0 0 octets received\r\n")
        self.assertTrue(talk.send(b"BDAT 0 LAST\r\n").startswith(b"250 2.0.0 Ok: queued"))
        self.assertEqual([message.text for message in self.delivery.messages], [b"", b"\r\n"])

    def test_nothingSaidBefore(self) -> None:
        """The reply comes behind the last octet of a chunk, not before."""
        talk = self.talk()
        self.assertEqual(self.begin().send(b"BDAT 3\r\n\r"), b"")
        self.assertEqual(talk.send(b"\n"), b"")
        self.assertEqual(talk.send(b"\r"), b"250 2.0.0 3 octets received\r\n")

    def test_waitingForPolicies(self) -> None:
        """While a policy waits nothing is read; then the chunks follow, and replies in order."""
        policy = DataPolicy(Deferred)
        waiting: list[Deferred[None]] = []
        policy.answer = waitingFor(waiting)
        talk = self.talk(policies=[policy])
        self.assertEqual(self.begin().send(b"BDAT 2\r\n\r\nBDAT 2 LAST\r\n\r\nNOOP\r\n"), b"")
        waiting[0].callback(None)
        said = talk.transport.taken().split(b"\r\n")
        self.assertEqual(
            [line[:12] for line in said], [b"250 2.0.0 2 ", b"250 2.0.0 Ok", b"250 2.0.0 Ok", b""]
        )
        self.assertEqual(policy.asked, 1)

    def test_waitingForDelivery(self) -> None:
        """A delivery that asks for time at each chunk gets it, and the replies stay in order."""
        waiting: list[Deferred[None]] = []
        wait = waitingFor(waiting)
        ends: list[Deferred[None]] = []
        delivery = MemoryDelivery(onChunk=wait, onEnd=waitingFor(ends))
        talk = self.talk(delivery=delivery)
        self.begin().send(b"BDAT 2\r\n\r\nBDAT 0\r\nBDAT 2 LAST\r\n\r\nNOOP\r\n")
        said = []
        for at in range(3):  # the Received field, and two chunks
            said.append(talk.transport.taken())
            waiting[at].callback(None)
        self.assertEqual(
            said, [b"", b"", b"250 2.0.0 2 octets received\r\n250 2.0.0 0 octets received\r\n"]
        )
        self.assertEqual(talk.transport.taken(), b"")
        ends[0].callback(None)
        self.assertEqual(talk.transport.taken().count(b"\r\n"), 2)
        self.assertEqual(delivery.begun[0].state, "committed")


class RefusedTests(ExtensionTestCase):
    """BDAT that is refused: the octets are read, the transaction is over."""

    def refused(self, expected: bytes, **settings: Any) -> None:
        """The first BDAT gets this reply, its octets are no commands, nothing is kept."""
        for size in (0, 6):
            talk = self.talk(**settings)
            octets = b"QUIT\r\n"[:size]
            said = self.begin().send(b"BDAT %d\r\n%sNOOP\r\n" % (size, octets))
            self.assertEqual(said, expected + b"\r\n250 2.0.0 Ok\r\n")
            self.assertIs(talk.protocol.dialogue.state, State.READY)
            self.assertEqual(self.delivery.messages, [])

    def test_policy(self) -> None:
        """A policy that refuses at the first chunk."""
        self.refused(b"550 5.7.1 Not you", policies=[DataPolicy(refuse)])

    def test_oneForMany(self) -> None:
        """One refusal that is raised again for another transaction tells of that one."""
        talk = self.talk(policies=[DataPolicy(refuse)])
        self.begin().send(b"BDAT 0\r\n")
        dialogue = talk.protocol.dialogue
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        talk.say("MAIL FROM:<other@example.com>", "RCPT TO:<b@example.org>", "DATA")
        [event] = [each for each in logged if each.get("event") == "refused"]
        self.assertEqual(event["sender"], "<other@example.com>")
        self.assertEqual(event["id"], f"{dialogue.session.id}-2")

    def test_policyLater(self) -> None:
        """A policy that refuses after a while."""
        self.refused(b"550 5.7.1 Not you", policies=[DataPolicy(lambda: fail(REFUSED))])

    def test_policyBroken(self) -> None:
        """A policy that raises anything is 451."""
        said = b"451 4.3.0 Temporary local problem, try again later"
        self.refused(said, policies=[DataPolicy(wrong)])
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 2)

    def test_begin(self) -> None:
        """A delivery that cannot begin, at once or later."""
        said = b"550 5.7.1 Not you"
        self.refused(said, delivery=MemoryDelivery(onBegin=lambda _: refuse()))
        self.refused(said, delivery=MemoryDelivery(onBegin=lambda _: fail(REFUSED)))

    def test_delivery(self) -> None:
        """A delivery that fails at a chunk: 451 behind its octets, once more for those behind."""

        def broken(message: Any, chunk: bytes) -> None:
            if chunk == b"x":
                raise OSError("disk")

        talk = self.talk(delivery=MemoryDelivery(onChunk=broken))
        said = self.begin().send(b"BDAT 1\r\nxBDAT 1 LAST\r\nyNOOP\r\n")
        self.assertEqual(said.count(b"451 4.3.0"), 2)
        self.assertTrue(said.endswith(b"250 2.0.0 Ok\r\n"))
        self.assertEqual(self.delivery.begun[0].state, "aborted")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)
        self.assertIs(talk.protocol.dialogue.refusedChunks, None)

    def test_closing(self) -> None:
        """A policy that ends the connection does so at once: nothing is read any more."""

        def close() -> None:
            raise Refused(Reply(421, "4.7.0", "Enough"))

        talk = self.talk(policies=[DataPolicy(close)])
        self.assertEqual(self.begin().send(b"BDAT 5\r\nNOOP\r\n"), b"421 4.7.0 Enough\r\n")
        self.assertTrue(talk.transport.disconnecting)

    def test_forgotten(self) -> None:
        """The refusal is repeated for the chunks of that message, and for none of the next."""
        talk = self.talk(limits=Limits(messageSize=3))
        large = b"BDAT 4\r\n1234"
        self.assertTrue(self.begin().send(large).startswith(b"552"))
        self.assertTrue(talk.send(large).startswith(b"552"))
        self.assertTrue(talk.send(b"RSET\r\n").startswith(b"250"))
        self.assertTrue(talk.send(large).startswith(b"503"))
        self.assertTrue(self.begin().send(large).startswith(b"552"))
        self.assertTrue(talk.send(b"MAIL FROM:<a@b.c>\r\n").startswith(b"250"))
        self.assertTrue(talk.send(large).startswith(b"503"))

    def test_late(self) -> None:
        """A policy that never answers is 451 behind the octets."""
        clock = Clock()
        talk = self.talk(clock=clock, policies=[DataPolicy(Deferred)])
        self.assertEqual(self.begin().send(b"BDAT 6\r\nQUIT\r\nNOOP\r\n"), b"")
        clock.advance(60)
        said = talk.transport.taken()
        self.assertEqual(said.split(b" ")[0], b"451")
        self.assertTrue(said.endswith(b"\r\n250 2.0.0 Ok\r\n"))

    def test_lost(self) -> None:
        """A client that goes in a chunk, between chunks or while a policy waits leaves nothing."""
        for sent in (b"BDAT 9\r\nabc", b"BDAT 3\r\nabc", b"BDAT 3\r\nabcBDAT 9 LAST\r\n"):
            talk = self.talk()
            self.begin().send(sent)
            talk.lose()
            self.assertEqual([each.state for each in self.delivery.begun], ["aborted"])
        talk = self.talk(policies=[DataPolicy(Deferred)])
        self.begin().send(b"BDAT 9\r\nabc")
        talk.lose()
        self.assertEqual(self.delivery.begun, [])
        self.assertIs(talk.protocol.dialogue.state, State.CLOSED)

    def test_lostWhileWaiting(self) -> None:
        """Whoever goes on although it was told to give up: nothing is begun, committed or kept."""

        def stubborn(*arguments: Any) -> Deferred[Any]:
            return Deferred(lambda deferred: deferred.callback(None))

        def begins(message: Any) -> Deferred[Any]:
            return Deferred(lambda deferred: deferred.callback(message))

        for changes, states in (
            ({"policies": [DataPolicy(stubborn)]}, []),
            ({"delivery": MemoryDelivery(onBegin=begins)}, ["aborted"]),
            ({"delivery": MemoryDelivery(onChunk=stubborn)}, ["aborted"]),
            ({"policies": [Stubborn(stubborn)]}, ["aborted"]),
        ):
            for command in (b"BDAT 2 LAST\r\n\r\n", b"DATA\r\n\r\n.\r\n"):
                delivery = changes.get("delivery") or MemoryDelivery()
                delivery.begun.clear()
                talk = self.talk(**{**changes, "delivery": delivery})
                self.begin().send(command)
                talk.lose()
                self.assertEqual([each.state for each in delivery.begun], states, command)

    def test_beforeLogin(self) -> None:
        """Commands before login are counted, and then end the connection without reading on."""
        talk = self.talk(loginRequired=True, limits=Limits(commandsBeforeLogin=2))
        self.assertTrue(talk.send(b"BDAT 6\r\nQUIT\r\n").startswith(b"503"))
        self.assertTrue(talk.send(b"BDAT 6\r\nQUIT\r\n").startswith(b"421"))

    def test_disabled(self) -> None:
        """A disabled BDAT is 502, and its octets are read all the same."""
        talk = self.talk(disabledVerbs=frozenset({"BDAT"}))
        self.assertEqual(talk.send(b"BDAT 6\r\nQUIT\r\n"), b"502 5.5.1 Command not implemented\r\n")


class OtherTests(ExtensionTestCase):
    """BDAT beside other parts of the dialogue."""

    def test_objection(self) -> None:
        """An objection to the handshake answers BDAT too, behind its octets."""
        talk = self.talk(policies=[NoTLSIsGood()])
        talk.say("STARTTLS")
        talk.secure()
        self.assertEqual(talk.send(b"BDAT 6\r\nNOOP\r\n"), b"550 5.7.1 Not you\r\n")

    def test_lmtp(self) -> None:
        """LMTP answers BDAT LAST for each recipient, from a delivery or a policy that waits too."""
        for answer, code in ((None, b"250"), (REFUSED, b"550")):
            ends: list[Deferred[Any]] = []
            talk = self.talk(lmtp=True, delivery=MemoryDelivery(onEnd=waitingFor(ends)))
            talk.say("LHLO c")
            self.begin().say("RCPT TO:<c@example.org>")
            self.assertEqual(talk.send(b"BDAT 0 LAST\r\n"), b"")
            if answer is None:
                ends[0].callback(None)
            else:
                ends[0].errback(answer)
            said = talk.transport.taken().split(b"\r\n")
            self.assertEqual([line[:3] for line in said], [code, code, b""])
            talk = self.talk(lmtp=True, policies=[DataPolicy(refuse)])
            talk.say("LHLO c")
            self.begin().say("RCPT TO:<c@example.org>")
            self.assertEqual(talk.send(b"BDAT 1 LAST\r\nx"), b"550 5.7.1 Not you\r\n" * 2)

    def test_timeout(self) -> None:
        """A client that is silent in a chunk is told 421, and nothing of it is kept."""
        clock = Clock()
        talk = self.talk(clock=clock)
        self.begin().send(b"BDAT 6\r\nabc")
        clock.advance(301 + SWEEP)
        talk.protocol.sweep(clock.seconds())
        self.assertTrue(talk.transport.taken().startswith(b"421 4.4.2"))
        self.assertEqual(self.delivery.begun[0].state, "aborted")


class SizeTests(ExtensionTestCase):
    """What stands behind BDAT."""

    def test_readable(self) -> None:
        """A size with something wrong behind it: so many octets are read, then 501."""
        for argument in (b"6 FIRST", b"6 LAST LAST", b"6 0", b"000006\tLAS"):
            talk = self.talk()
            said = self.begin().send(b"BDAT %s\r\nQUIT\r\nNOOP\r\n" % argument)
            self.assertEqual(said, SYNTAX + b"250 2.0.0 Ok\r\n", argument)
            self.assertTrue(talk.send(b"RCPT TO:<b@c.d>\r\n").startswith(b"503"))

    def test_unreadable(self) -> None:
        """No size: 501, and then the connection ends, for what follows may be text."""
        for argument in (
            b"",
            b" LAST",
            b" -1",
            b" 1e3",
            b" 6LAST",
            b" " + b"9" * 21,
            b" \xd9\xa1",
            b" 0x6",
        ):
            talk = self.talk()
            said = self.begin().send(b"BDAT%s\r\nQUIT\r\nNOOP\r\n" % argument)
            self.assertEqual(said, SYNTAX + OUT_OF_STEP, argument)
            self.assertTrue(talk.transport.disconnecting)
            self.assertEqual(self.delivery.begun, [])

    def test_line(self) -> None:
        """So does a line with a control character, and one that is too long."""
        for line in (b"BDAT 6\0", b"bdat=6", b"BDAT 6" + b" " * 3000):
            said = self.talk().send(line + b"\r\nRSET\r\n")
            self.assertTrue(said.startswith(b"500 5.5.2 "), line)
            self.assertTrue(said.endswith(OUT_OF_STEP), line)

    def test_huge(self) -> None:
        """A size of twenty digits is read, not kept: memory stays flat, the limit holds."""
        talk = self.talk(limits=Limits(messageSize=1000))
        self.begin().send(b"BDAT 99999999999999999999 LAST\r\n")
        for _ in range(100):
            self.assertEqual(talk.send(b"x" * 1000), b"")
        self.assertEqual(self.delivery.begun[0].state, "aborted")
        self.assertLessEqual(len(self.delivery.begun[0].octets), 1500)


class Model:
    """What the replies to a sequence of commands must be: the code of each, in order."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.state = "ready"
        self.octets = b""
        self.refused = False
        self.kept: list[bytes] = []
        self.codes: list[int] = []

    def run(self, step: tuple[str, bytes, bool]) -> bytes:
        """Take a step; give what the client sends."""
        kind, octets, last = step
        sent: bytes = getattr(self, kind)(octets, last)
        return sent

    def noop(self, octets: bytes, last: bool) -> bytes:
        self.codes.append(250)
        return b"NOOP\r\n"

    def rset(self, octets: bytes, last: bool) -> bytes:
        self.codes.append(250)
        self.state, self.refused = "ready", False
        return b"RSET\r\n"

    def mail(self, octets: bytes, last: bool) -> bytes:
        self.codes.append(250 if self.state == "ready" else 503)
        if self.state == "ready":
            self.state, self.octets = "mail", b""
        return b"MAIL FROM:<a@example.com>\r\n"

    def rcpt(self, octets: bytes, last: bool) -> bytes:
        allowed = self.state in ("mail", "rcpt")
        self.codes.append(250 if allowed else 503)
        if allowed:
            self.state = "rcpt"
        return b"RCPT TO:<b@example.org>\r\n"

    def data(self, octets: bytes, last: bool) -> bytes:
        if self.state != "rcpt":
            self.codes.append(503)
            return b"DATA\r\n"
        self.codes += [354, 250 if len(octets) + 2 <= self.limit else 552]
        if self.codes[-1] == 250:
            self.kept.append(octets + b"\r\n")
        self.state, self.refused = "ready", False
        return b"DATA\r\n" + octets + b"\r\n.\r\n"

    def bdat(self, octets: bytes, last: bool) -> bytes:
        self.codes.append(self.chunk(octets, last))
        return b"BDAT %d%s\r\n" % (len(octets), b" LAST" if last else b"") + octets

    def chunk(self, octets: bytes, last: bool) -> int:
        if self.state == "ready" and self.refused:
            self.refused = not last
            return 552
        if self.state not in ("rcpt", "chunked"):
            self.state, self.refused = "ready", False
            return 503
        self.octets += octets
        if len(self.octets) > self.limit:
            self.state, self.refused = "ready", not last
            return 552
        self.state = "chunked"
        if last:
            self.kept.append(self.octets)
            self.state, self.refused = "ready", False
        return 250


# Octets that look like commands and ends of data, without a bare CR or LF.
TEXT = st.lists(
    st.sampled_from([b"QUIT\r\n", b"BDAT 9 LAST\r\n", b"RSET\r\n", b"x", b"\r\n", b"NOOP\r\n"]),
    max_size=4,
).map(b"".join)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["bdat", "bdat", "bdat", "mail", "rcpt", "data", "noop", "rset"]),
        TEXT,
        st.booleans(),
    ),
    max_size=25,
)
# Sequences that get somewhere: a transaction in front of some chunks.
TRANSACTION = [("mail", b"", False), ("rcpt", b"", False)]


class PropertyTests(SynchronousTestCase):
    """Whatever comes in whatever pieces, the dialogue stays in step."""

    @settings(deadline=None, max_examples=150)
    @given(st.lists(st.tuples(st.booleans(), STEPS), max_size=4), st.lists(st.integers(1, 40)))
    def test_inStep(self, parts: list[tuple[bool, list[Any]]], cuts: list[int]) -> None:
        """One reply per command, in order, the same as a simple model's; the same messages kept."""
        model = Model(30)
        sent = b""
        for begins, steps in parts:
            for step in (TRANSACTION if begins else []) + steps:
                sent += model.run(step)
        submission = makeSubmission(
            loginRequired=False, requireTLS=False, limits=Limits(messageSize=30, unrecognized=0)
        )
        talk = Conversation(submission)
        talk.say("HELO c")
        talk.transport.clear()
        for cut in cuts:
            talk.protocol.dataReceived(sent[:cut])
            sent = sent[cut:]
        talk.protocol.dataReceived(sent)
        said = talk.transport.taken().split(b"\r\n")[:-1]
        self.assertEqual([int(line[:3]) for line in said], model.codes)
        delivery: Any = submission.delivery
        self.assertEqual([message.text for message in delivery.messages], model.kept)
        unfinished = [each for each in delivery.begun if each.state == "open"]
        self.assertEqual(len(unfinished), 1 if model.state == "chunked" else 0)
