"""The stage header in a dialogue: it waits, refuses and fails as every stage does."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from submitd.interfaces import IHeaderPolicy, IMessagePolicy, ISubmitter
from submitd.message.header import Header
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply
from tests.fixtures import Conversation, MemoryDelivery, makeSubmission, waitingFor

NO = Reply(550, "5.6.0", "No")


@implementer(IHeaderPolicy)
class Reviewer:
    """Answers as it is told, and keeps what it saw."""

    def __init__(self, answer: Any = lambda header: None) -> None:
        self.answer = answer
        self.seen: list[Header] = []

    def headerReceived(self, session: Any, envelope: Any, header: Header) -> Any:
        self.seen.append(header)
        return self.answer(header)


@implementer(IMessagePolicy)
class Reader:
    """Keeps the header that a message policy is shown."""

    header = b""

    def messageReceived(self, session: Any, envelope: Any, message: Any) -> None:
        self.header = message.header


class Submitter:
    """An avatar that is a header policy itself."""

    avatarId = "alice"
    attributes: dict[str, Any] = {}

    def owns(self, mailbox: Any) -> bool:
        return True

    def headerReceived(self, session: Any, envelope: Any, header: Header) -> None:
        header.append(b"X-Avatar: 1\r\n")


def refuse(header: Header) -> None:
    raise Refused(NO)


class ReviewTests(SynchronousTestCase):
    """One message with a header policy."""

    def talk(self, *policies: Any, **changes: Any) -> Conversation:
        """A dialogue with a recipient."""
        self.clock = Clock()
        self.delivery = MemoryDelivery()
        talk = Conversation(
            makeSubmission(
                self.clock,
                delivery=self.delivery,
                policies=policies,
                **{"loginRequired": False, "requireTLS": False, **changes},
            )
        )
        hello = "LHLO" if changes.get("lmtp") else "EHLO"
        talk.say(f"{hello} client.example", "MAIL FROM:<a@b.example>", "RCPT TO:<x@y.example>")
        talk.transport.clear()
        return talk

    def test_changed(self) -> None:
        """What a policy makes of the header is what is kept, and what message policies see."""
        reader = Reader()
        policy = Reviewer(lambda header: header.prepend(b"X-New: 1\r\n"))
        talk = self.talk(policy, reader)
        self.assertEqual(talk.say("DATA")[:3], "354")
        self.assertEqual(talk.say("Subject: x", "", "body", ".")[:3], "250")
        [message] = self.delivery.messages
        self.assertEqual(message.text, b"X-New: 1\r\nSubject: x\r\n\r\nbody\r\n")
        self.assertEqual(reader.header, b"X-New: 1\r\nSubject: x\r\n")
        self.assertEqual(len(policy.seen), 1)

    def test_noEnd(self) -> None:
        """A message that is all header is shown at its end, and so is an empty one."""
        for lines, octets in ((["Subject: x"], b"Subject: x\r\n"), ([], b"")):
            policy = Reviewer()
            talk = self.talk(policy)
            talk.say("DATA")
            self.assertEqual(talk.say(*lines, ".")[:3], "250")
            self.assertEqual([header.octets for header in policy.seen], [octets])
            self.assertEqual(self.delivery.messages[0].text, octets)

    def test_eachTakesItsTime(self) -> None:
        """The limit is one policy's, and not that of all together; a client that goes ends it."""
        waits: list[Deferred[None]] = []
        talk = self.talk(*(Reviewer(waitingFor(waits)) for _ in range(2)))
        talk.say("DATA", "Subject: x", "", "body")
        for waited in range(2):
            self.clock.advance(40)
            waits[waited].callback(None)
        self.assertEqual(talk.say(".")[:3], "250")
        talk.say("MAIL FROM:<a@b.example>", "RCPT TO:<x@y.example>", "DATA", "", "body")
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        talk.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waiting(self) -> None:
        """While a policy waits the client is not read; then the message goes on."""
        for lines in (["Subject: x", "", "body"], ["Subject: x"]):
            verdict: Deferred[None] = Deferred()
            talk = self.talk(Reviewer(lambda header, verdict=verdict: verdict))
            talk.say("DATA")
            self.assertEqual(talk.say(*lines, ".", "NOOP"), "")
            self.assertEqual(talk.transport.producerState, "paused")
            verdict.callback(None)
            said = talk.transport.taken().decode().splitlines()
            self.assertEqual([line[:3] for line in said], ["250", "250"])
            self.assertEqual(talk.transport.producerState, "producing")

    def test_refused(self) -> None:
        """A refusal is said once, behind the true end, at once or later; nothing is kept."""
        later: Deferred[None] = Deferred()
        for answer in (refuse, lambda header: later):
            talk = self.talk(Reviewer(answer))
            talk.say("DATA")
            self.assertEqual(talk.say("Subject: x", "", "QUIT"), "")
            if answer is not refuse:
                later.errback(Refused(NO))
            self.assertEqual(talk.say("more", "."), "550 5.6.0 No")
            self.assertEqual(self.delivery.begun[0].state, "aborted")
            self.assertEqual(talk.say("NOOP"), "250 2.0.0 Ok")

    def test_lmtp(self) -> None:
        """LMTP has the refusal once for each recipient."""
        talk = self.talk(Reviewer(refuse), lmtp=True)
        talk.say("RCPT TO:<z@y.example>", "DATA")
        self.assertEqual(talk.say("", "."), "550 5.6.0 No\n550 5.6.0 No")

    def test_chunks(self) -> None:
        """With BDAT the chunk that ends the header is the one that is refused."""
        talk = self.talk(Reviewer(refuse))
        self.assertEqual(talk.send(b"BDAT 9\r\nHead: 1\r\n")[:3], b"250")
        self.assertEqual(talk.send(b"BDAT 6\r\n\r\nbody"), b"550 5.6.0 No\r\n")
        self.assertEqual(talk.send(b"BDAT 0 LAST\r\n"), b"550 5.6.0 No\r\n")

    def test_chunkAtEnd(self) -> None:
        """A header whose last line has no end is shown whole."""
        policy = Reviewer(lambda header: header.append(b"X-New: 1\r\n"))
        talk = self.talk(policy)
        self.assertEqual(talk.send(b"BDAT 7 LAST\r\nHead: 1")[:3], b"250")
        self.assertEqual(self.delivery.messages[0].text, b"Head: 1\r\nX-New: 1\r\n")

    def test_late(self) -> None:
        """A policy that takes too long is 451, and nothing is kept."""
        talk = self.talk(Reviewer(lambda header: Deferred()))
        talk.say("DATA")
        self.assertEqual(talk.say("Subject: x", "", "body", "."), "")
        self.clock.advance(60)
        self.assertTrue(talk.transport.taken().startswith(b"451 4.3.0"))
        self.assertEqual(self.delivery.begun[0].state, "aborted")
        self.flushLoggedErrors()

    def test_broken(self) -> None:
        """A policy that fails is 451: it fails closed."""
        talk = self.talk(Reviewer(lambda header: 1 / 0))
        talk.say("DATA")
        self.assertTrue(talk.say("Subject: x", "", "body", ".").startswith("451 4.3.0"))
        self.assertEqual(self.delivery.messages, [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_clientGone(self) -> None:
        """When the client goes while a policy waits, the delivery is told to abort, once."""
        verdict: Deferred[None] = Deferred()
        talk = self.talk(Reviewer(lambda header: verdict))
        talk.say("DATA")
        talk.say("Subject: x", "", "body")
        talk.lose()
        self.assertEqual(self.delivery.begun[0].state, "aborted")
        if not verdict.called:
            verdict.callback(None)
        self.assertEqual(self.delivery.begun[0].state, "aborted")

    def test_bareLineEnding(self) -> None:
        """A bare LF is refused behind the true end, whatever policies think of the header."""
        talk = self.talk(Reviewer())
        talk.say("DATA")
        self.assertEqual(talk.send(b"Subject: x\n\r\n")[:3], b"")
        self.assertEqual(talk.send(b"\r\nbody\r\n.\r\n")[:9], b"554 5.6.0")

    def test_avatar(self) -> None:
        """The avatar takes part when it provides the stage, also where no policy does."""
        talk = self.talk()
        avatar = implementer(ISubmitter, IHeaderPolicy)(Submitter)()
        talk.protocol.dialogue.join(avatar)
        talk.say("DATA")
        self.assertEqual(talk.say("Subject: x", "", ".")[:3], "250")
        self.assertEqual(self.delivery.messages[0].text, b"Subject: x\r\nX-Avatar: 1\r\n\r\n")
