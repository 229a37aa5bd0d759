"""The dialogue where something has to be waited for, or goes wrong."""

from __future__ import annotations

import base64
import json
from typing import Any

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher
from twisted.mail.interfaces import IMessageDelivery
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface, implementer

from submitd import events
from submitd.checkers import LoginUnavailable
from submitd.interfaces import (
    IBearerToken,
    IDataPolicy,
    IDelivery,
    IExchange,
    IHelloPolicy,
    IIdentityPolicy,
    ILoginPolicy,
    IMechanism,
    IMessagePolicy,
    ISubmitter,
    ITLSMechanism,
    ITraceField,
)
from submitd.realm import SubmissionRealm, Submitter
from submitd.sasl import mechanism
from submitd.sasl.bearer import TokenRefused
from submitd.session import TLSInfo
from submitd.states import CLOSED
from submitd.submission import Limits
from submitd.wire.errors import Refused
from submitd.wire.reply import OK, STORAGE_FULL, Reply
from tests.fixtures import (
    Conversation,
    MemoryDelivery,
    makePortal,
    makeSubmission,
    waitingFor,
)

NO = Reply(550, "5.7.1", "Not that")
LOGIN = "AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ="
WRONG = "AUTH PLAIN AGFsaWNlAHdyb25n"


def openly(**changes: Any) -> Any:
    """A submission that wants neither TLS nor login."""
    return makeSubmission(loginRequired=False, requireTLS=False, **changes)


@implementer(IHelloPolicy, ILoginPolicy, IDataPolicy, IMessagePolicy)
class Policy:
    """Answers at each stage with what a test has put there."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.seen: list[Any] = []

    def _answer(self, stage: str, *arguments: Any) -> Any:
        self.seen.append((stage, *arguments))
        answer = self.answers.get(stage)
        return answer(*arguments) if answer is not None else None

    def helloReceived(self, session: Any, domain: str) -> Any:
        return self._answer("hello", domain)

    def loginRequested(self, session: Any, credentials: Any) -> Any:
        return self._answer("requested", credentials)

    def loginSucceeded(self, session: Any, avatar: Any) -> Any:
        return self._answer("succeeded", avatar)

    def loginFailed(self, session: Any, credentials: Any, failure: Any) -> Any:
        return self._answer("failed", credentials, failure)

    def dataRequested(self, session: Any, envelope: Any) -> Any:
        return self._answer("data", envelope)

    def messageReceived(self, session: Any, envelope: Any, message: Any) -> Any:
        return self._answer("message", message)


def refuse(*arguments: Any) -> None:
    raise Refused(NO, "because")


def breaks(*arguments: Any) -> None:
    raise ZeroDivisionError("a bug")


class MessageTests(SynchronousTestCase):
    """From DATA to the reply after the message."""

    def begin(self, delivery: MemoryDelivery | None = None, **changes: Any) -> Conversation:
        self.delivery = delivery or MemoryDelivery()
        talk = Conversation(openly(delivery=self.delivery, **changes))
        talk.say(
            "EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "RCPT TO:<e@f.example>"
        )
        return talk

    def outcome(self, delivery: MemoryDelivery, **changes: Any) -> str:
        """What is said to a message, and then to a NOOP: the dialogue must be in step."""
        talk = self.begin(delivery, **changes)
        talk.say("DATA")
        said = talk.send(b"Subject: x\r\n\r\nbody\r\n.\r\n").decode()
        self.assertEqual(talk.say("NOOP"), "250 2.0.0 Ok")
        self.assertIsNone(talk.protocol.dialogue.session.envelope)
        return said.removesuffix("\r\n")

    def test_queueId(self) -> None:
        """The delivery's own queue id is what the client reads."""
        self.assertEqual(
            self.outcome(MemoryDelivery(onEnd=lambda message: "Q42")),
            "250 2.0.0 Ok: queued as Q42",
        )

    def test_ownId(self) -> None:
        """Without one, the envelope's id is; a Deferred is waited for."""
        said = self.outcome(MemoryDelivery(onEnd=lambda message: succeed(None)))
        self.assertRegex(said, r"^250 2.0.0 Ok: queued as [0-9A-V]{14}-1$")

    def test_coroutines(self) -> None:
        """What a delivery is asked it may answer by coroutines, and is waited for."""
        waits: list[Deferred[None]] = []
        wait = waitingFor(waits)

        async def end(message: Any) -> str:
            await wait()
            return "Q42"

        async def take(message: Any, chunk: bytes) -> None:
            await wait()

        talk = self.begin(MemoryDelivery(onEnd=end))
        talk.say("DATA")
        self.delivery.onChunk = take
        self.assertEqual(talk.send(b"Subject: x\r\n\r\n.\r\n"), b"")
        waits.pop().callback(None)
        self.assertEqual(talk.transport.taken(), b"")
        waits.pop().callback(None)
        self.assertEqual(talk.transport.taken(), b"250 2.0.0 Ok: queued as Q42\r\n")

    def test_coroutineFails(self) -> None:
        """Rule 6 for a coroutine, too, and for one that hangs."""

        async def fails(message: Any) -> None:
            raise Refused(STORAGE_FULL)

        async def hangs(message: Any) -> None:
            await Deferred()

        self.assertEqual(self.outcome(MemoryDelivery(onEnd=fails))[:9], "452 4.3.1")
        clock = Clock()
        talk = self.begin(MemoryDelivery(onEnd=hangs), clock=clock)
        talk.say("DATA", ".")
        clock.advance(60)
        self.assertEqual(talk.transport.taken()[:9], b"451 4.3.0")

    def test_oneReply(self) -> None:
        """One reply is for all recipients, over LMTP as well, and a refusal keeps nobody's."""
        for reply in (Reply(250, "2.0.0", "Kept"), Reply(452, "4.3.1", "Full")):
            delivery = MemoryDelivery(onEnd=lambda message, reply=reply: reply)
            said = reply.wire.decode("ascii").strip()
            self.assertEqual(self.outcome(delivery), said)
            talk = Conversation(openly(delivery=delivery, lmtp=True))
            talk.say("LHLO c", "MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>")
            talk.say("RCPT TO:<c@example.org>", "DATA")
            self.assertEqual(talk.say("hello", ".").splitlines(), [said, said])

    def test_wrongOutcome(self) -> None:
        """What is no outcome is our mistake, and the log says whose."""
        for wrong in (b"Q42", b"Q4", True, [OK, "Q42"]):
            said = self.outcome(MemoryDelivery(onEnd=lambda message, wrong=wrong: wrong))
            self.assertEqual(said[:9], "451 4.3.0")
            [failure] = self.flushLoggedErrors(TypeError)
            self.assertIn(f"eomReceived gave {type(wrong).__name__}, neither", str(failure.value))

    def test_notKept(self) -> None:
        """Rule 6: whatever way a delivery fails, it is never 250."""
        for onEnd, code in (
            (lambda message: fail(Refused(STORAGE_FULL)), "452 4.3.1"),
            (refuse, "550 5.7.1"),
            (breaks, "451 4.3.0"),
            (lambda message: fail(OSError("disk")), "451 4.3.0"),
            (lambda message: [Reply(250, "2.0.0", "Ok")], "451 4.3.0"),
        ):
            self.assertEqual(self.outcome(MemoryDelivery(onEnd=onEnd))[:9], code)
        self.flushLoggedErrors()

    def test_chunkFails(self) -> None:
        """A delivery that fails in the middle is told to abort, and refused once, at the end."""
        for onChunk in (refuse, lambda message, chunk: fail(Refused(NO))):
            delivery = MemoryDelivery()
            talk = self.begin(delivery)
            talk.say("DATA")
            delivery.onChunk = onChunk
            self.assertEqual(talk.send(b"one\r\n"), b"")
            self.assertEqual(delivery.begun[0].state, "aborted")
            self.assertEqual(talk.send(b"QUIT\r\n"), b"")
            self.assertEqual(talk.send(b".\r\n")[:9], b"550 5.7.1")
            self.assertEqual(delivery.messages, [])

    def test_hangs(self) -> None:
        """A commit that hangs is 451 after the limit."""
        clock = Clock()
        talk = self.begin(MemoryDelivery(onEnd=lambda message: Deferred()), clock=clock)
        talk.say("DATA")
        self.assertEqual(talk.say("."), "")
        clock.advance(60)
        self.assertEqual(talk.transport.taken()[:9], b"451 4.3.0")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_failsLate(self) -> None:
        """An error of a delivery's own is logged as one, also where it is one of time."""
        fail: Deferred[None] = Deferred()
        talk = self.begin(MemoryDelivery(onEnd=lambda message: fail), clock=Clock())
        talk.say("DATA", ".")
        fail.errback(TimeoutError("its own"))
        self.assertEqual(talk.transport.taken()[:9], b"451 4.3.0")
        self.assertEqual(len(self.flushLoggedErrors(TimeoutError)), 1)

    def test_whoHangs(self) -> None:
        """The log names a policy that hangs; of a delivery it says at which command."""
        logged: list[tuple[str, str]] = []

        def emit(event: Any, **fields: Any) -> None:
            if fields.get("origin"):
                logged.append((event.name, fields["origin"]))

        self.patch(events, "emit", emit)
        for changes, expected in (
            (
                {"policies": [Policy(message=lambda message: Deferred())]},
                ("refused", "Policy at message"),
            ),
            (
                {"delivery": MemoryDelivery(onEnd=lambda message: Deferred())},
                ("refused", "DATA"),
            ),
        ):
            clock = Clock()
            talk = self.begin(clock=clock, **changes)
            talk.say("DATA")
            talk.say(".")
            clock.advance(60)
            self.assertEqual(logged.pop(), expected)
            self.assertEqual(logged, [])

    def test_beginWaits(self) -> None:
        """A delivery may take its time to begin, and may refuse then or at once."""
        waits: list[Deferred[Any]] = []
        talk = self.begin(MemoryDelivery(onBegin=waitingFor(waits)))
        self.assertEqual(talk.say("DATA"), "")
        waits[0].callback(self.delivery.begun[0])
        self.assertEqual(talk.transport.taken()[:3], b"354")
        for onBegin in (refuse, lambda message: fail(Refused(NO))):
            self.assertEqual(self.begin(MemoryDelivery(onBegin=onBegin)).say("DATA")[:3], "550")

    def test_wrongBegin(self) -> None:
        """A delivery that gives no IMessage is our mistake, not the client's."""
        for begun in (3, None):
            talk = self.begin(MemoryDelivery(onBegin=lambda message, begun=begun: begun))
            self.assertEqual(talk.say("DATA")[:9], "451 4.3.0")
            [failure] = self.flushLoggedErrors(TypeError)
            self.assertIn("which provides no IMessage", str(failure.value))

    def test_growing(self) -> None:
        """A delivery can see how large its message is while it grows, and that it is too large."""
        seen: list[tuple[int, bool]] = []

        def look(message: Any, chunk: bytes = b"") -> None:
            growing = message.envelope.message
            seen.append((growing.byteLength, growing.sizeExceeded))

        delivery = MemoryDelivery(onChunk=look)
        talk = self.begin(delivery, limits=Limits(messageSize=10))
        talk.say("DATA")
        talk.send(b"1234\r\n")
        talk.send(b"12\r\n")
        talk.send(b"12\r\n")
        [message] = delivery.begun
        self.assertEqual((message.state, seen), ("aborted", [(0, False), (6, False), (10, False)]))
        look(message)
        self.assertEqual(seen[-1], (14, True))
        self.assertEqual(talk.say(".")[:9], "552 5.3.4")
        self.assertIsNone(message.envelope.message)

    def test_outcomes(self) -> None:
        """SMTP has one reply: one failed recipient makes it a failure (nothing lost silently)."""
        yes, later = Reply(250, "2.1.5", "Yes"), Reply(450, "4.2.0", "Later")
        self.assertEqual(
            self.outcome(MemoryDelivery(onEnd=lambda message: [yes, yes])), "250 2.1.5 Yes"
        )
        self.assertEqual(
            self.outcome(MemoryDelivery(onEnd=lambda message: [yes, later])), "450 4.2.0 Later"
        )
        self.assertEqual(
            self.outcome(MemoryDelivery(onEnd=lambda message: [later, later])), "450 4.2.0 Later"
        )

    def lmtp(self, onEnd: Any) -> bytes:
        delivery = MemoryDelivery(onEnd=onEnd)
        talk = Conversation(openly(delivery=delivery, lmtp=True))
        self.assertEqual(talk.transport.taken(), b"220 mail.example.com LMTP\r\n")
        self.assertEqual(talk.say("EHLO c")[:3], "500")
        self.assertIn("250-PIPELINING", talk.say("LHLO c"))
        talk.say("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "RCPT TO:<e@f.example>")
        talk.say("DATA")
        return talk.send(b".\r\n")

    def test_lmtp(self) -> None:
        """LMTP has one reply per recipient (RFC 2033 4.2), from either kind of delivery."""
        yes, later = Reply(250, "2.1.5", "Yes"), Reply(450, "4.2.0", "Later")
        self.assertEqual(
            self.lmtp(lambda message: [yes, later]), b"250 2.1.5 Yes\r\n450 4.2.0 Later\r\n"
        )
        self.assertEqual(self.lmtp(lambda message: "Q").count(b"250 2.0.0 Ok: queued as Q\r\n"), 2)

    def test_received(self) -> None:
        """The Received field stands in front of what the client sent."""
        self.outcome(MemoryDelivery())
        octets = self.delivery.messages[0].octets
        self.assertTrue(octets.startswith(b"Received: from c ("), octets)
        self.assertTrue(octets.endswith(b"Subject: x\r\n\r\nbody\r\n"))

    def test_ownTrace(self) -> None:
        """A delivery that writes the trace field itself is believed, unless it gives none."""

        @implementer(ITraceField)
        class Tracing(MemoryDelivery):
            field: bytes | None = b"Received: by me\r\n"

            def receivedField(self, session: Any, envelope: Any) -> bytes | None:
                return self.field

        delivery = Tracing()
        self.outcome(delivery)
        delivery.field = None
        self.outcome(delivery)
        first, second = (message.octets for message in delivery.messages)
        self.assertTrue(first.startswith(b"Received: by me\r\nSubject"))
        self.assertTrue(second.startswith(b"Received: from c"))

    def test_brokenTrace(self) -> None:
        """Where the trace field cannot be had, the delivery is told to drop what it has begun."""

        @implementer(ITraceField)
        class Tracing(MemoryDelivery):
            def receivedField(self, session: Any, envelope: Any) -> bytes | None:
                raise RuntimeError("no field")

        delivery = Tracing()
        talk = Conversation(openly(delivery=delivery))
        said = talk.say("EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA")
        self.assertEqual(said.split("\n")[-1][:9], "451 4.3.0")
        self.assertEqual([message.state for message in delivery.begun], ["aborted"])
        self.flushLoggedErrors(RuntimeError)


class MessagePolicyTests(SynchronousTestCase):
    """The stages around the message."""

    def talk(self, **answers: Any) -> tuple[Conversation, Policy]:
        policy = Policy(**answers)
        self.delivery = MemoryDelivery()
        talk = Conversation(openly(policies=[policy], delivery=self.delivery))
        talk.say("EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>")
        return talk, policy

    def test_seen(self) -> None:
        """A message policy sees length and header, and what it prepends stands on top."""

        def look(message: Any) -> None:
            message.prepend(b"X-First: 1\r\n")
            message.prepend(b"X-Second: 2\r\n")

        talk, policy = self.talk(message=look)
        talk.say("DATA")
        talk.send(b"Subject: x\r\n\r\nbody\r\n.\r\n")
        message = policy.seen[-1][1]
        self.assertEqual(message.header, b"Subject: x\r\n")
        self.assertEqual(message.byteLength, 20)
        self.assertFalse(message.sizeExceeded)
        octets = self.delivery.messages[0].octets
        self.assertTrue(octets.startswith(b"X-Second: 2\r\nX-First: 1\r\nReceived: "), octets)

    def test_refused(self) -> None:
        """A message that a policy refuses is aborted, now or later."""

        async def later(message: Any) -> None:
            refuse()

        for answer in (refuse, later):
            talk, _ = self.talk(message=answer)
            talk.say("DATA")
            self.assertEqual(talk.send(b"x\r\n.\r\n")[:9], b"550 5.7.1")
            self.assertEqual(self.delivery.begun[0].state, "aborted")
            self.assertIsNone(talk.protocol.dialogue.session.envelope)

    def test_dataRefused(self) -> None:
        """Refused at DATA, the delivery is not even begun; the transaction stands."""
        talk, _ = self.talk(data=refuse)
        self.assertEqual(talk.say("DATA")[:9], "550 5.7.1")
        self.assertEqual(self.delivery.begun, [])

    def test_broken(self) -> None:
        """A policy with a bug fails closed, with the session's id in the log."""
        talk, _ = self.talk(data=breaks)
        self.assertEqual(talk.say("DATA")[:9], "451 4.3.0")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_hello(self) -> None:
        """A refused EHLO introduces nobody."""
        talk = Conversation(openly(policies=[Policy(hello=refuse)]))
        talk.transport.clear()
        self.assertEqual(talk.say("EHLO c"), "550 5.7.1 Not that")
        self.assertEqual(talk.say("MAIL FROM:<a@b.example>")[:3], "503")


@implementer(ISubmitter, IDelivery)
class Avatar:
    """An avatar that takes messages itself."""

    avatarId = "alice"
    attributes: dict[str, Any] = {}

    def __init__(self) -> None:
        self.inner = MemoryDelivery()

    def owns(self, mailbox: Any) -> bool:
        return True

    def begin(self, session: Any, envelope: Any) -> Any:
        return self.inner.begin(session, envelope)


class Checker:
    """A checker that answers with what a test has put there."""

    def __init__(self, answer: Any, *interfaces: Any) -> None:
        self.answer = answer
        self.credentialInterfaces = interfaces

    def requestAvatarId(self, credentials: Any) -> Any:
        return self.answer(credentials)


class ITicket(Interface):
    """Credentials of a mechanism of somebody's own: nothing in them is a name."""


@implementer(ITicket)
class Ticket:
    """One such."""

    def __init__(self, number: bytes) -> None:
        self.number = number


@implementer(IMechanism, IExchange)
class TicketMechanism:
    """Takes a ticket's number."""

    name = "X-TICKET"
    credentialsInterface = ITicket
    needsTLS = True

    def server(self, hostname: str) -> Any:
        return self

    def respond(self, response: bytes | None) -> Any:
        return b"" if response is None else Ticket(response)


@implementer(ITLSMechanism)
class CipherMechanism(TicketMechanism):
    """Takes a number where there is TLS, which is all it asks of it."""

    name = "X-CIPHER"
    needsTLS = False

    def __init__(self, tls: TLSInfo | None = None) -> None:
        self.tls = tls

    def over(self, tls: TLSInfo | None) -> Any:
        return CipherMechanism(tls) if tls is not None else None

    def respond(self, response: bytes | None) -> Any:
        assert self.tls is not None
        return Ticket(self.tls.cipher.encode("ascii"))


class HelpTests(SynchronousTestCase):
    """HELP."""

    def test_whatIsThere(self) -> None:
        """Of STARTTLS and AUTH nothing is said where nobody could use them."""
        for changes, there in (
            ({}, {"STARTTLS", "AUTH"}),
            ({"startTLS": False}, {"AUTH"}),
            ({"portal": None}, {"STARTTLS"}),
        ):
            talk = Conversation(openly(**changes))
            talk.say("EHLO c")
            verbs = set(talk.say("HELP").split())
            self.assertEqual(verbs & {"STARTTLS", "AUTH"}, there)
            for verb in {"STARTTLS", "AUTH"} - there:
                self.assertEqual(talk.say(f"HELP {verb}")[:3], "504")


class LoginTests(SynchronousTestCase):
    """AUTH with the Portal behind it."""

    def talk(self, portal: Portal | None = None, **changes: Any) -> Conversation:
        submission = makeSubmission(
            requireTLS=False, insecureLogin=True, portal=portal or makePortal(), **changes
        )
        talk = Conversation(submission)
        talk.say("EHLO c")
        return talk

    def checkedBy(self, answer: Any, name: str = "PLAIN", **changes: Any) -> Conversation:
        one = mechanism(name)
        portal = Portal(SubmissionRealm(), [Checker(answer, one.credentialsInterface)])
        return self.talk(portal, mechanisms=[one], **changes)

    def test_unavailable(self) -> None:
        """A checker that cannot tell is 454, not 535: no client throws its password away."""
        talk = self.checkedBy(lambda credentials: fail(OSError("data base gone")))
        self.assertEqual(talk.say(LOGIN)[:9], "454 4.7.0")
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)

    def test_partOfTLS(self) -> None:
        """A mechanism that takes part of TLS is offered where it says so, and is given the TLS."""
        seen: list[bytes] = []

        def answer(asked: Any) -> Any:
            seen.append(asked.number)
            return succeed(b"alice")

        portal = Portal(SubmissionRealm(), [Checker(answer, ITicket)])
        talk = self.talk(portal, mechanisms=[CipherMechanism()])
        self.assertNotIn("AUTH", talk.say("EHLO c"))
        self.assertEqual(
            talk.say("AUTH X-CIPHER"), "504 5.5.4 Unrecognized authentication mechanism"
        )
        talk.protocol.dialogue.session.tls = TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256")
        self.assertIn("AUTH X-CIPHER", talk.say("EHLO c"))
        self.assertEqual(talk.say("AUTH X-CIPHER")[:9], "235 2.7.0")
        self.assertEqual(seen, [b"TLS_AES_128_GCM_SHA256"])

    def test_hangs(self) -> None:
        """A checker that hangs is 454 after the limit."""
        clock = Clock()
        talk = self.checkedBy(lambda credentials: Deferred(), clock=clock)
        self.assertEqual(talk.say(LOGIN), "")
        clock.advance(60)
        self.assertEqual(talk.transport.taken()[:9], b"454 4.7.0")
        self.assertEqual(self.flushLoggedErrors(), [], "a traceback for each would fill the log")

    def test_realmHangs(self) -> None:
        """So is a realm that hangs behind a checker that has answered at once."""

        class Realm:
            def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
                return Deferred()

        clock, portal = Clock(), makePortal()
        portal.realm = Realm()
        talk = self.talk(portal, clock=clock)
        self.assertEqual(talk.say(LOGIN), "")
        clock.advance(60)
        self.assertEqual(talk.transport.taken()[:9], b"454 4.7.0")
        self.flushLoggedErrors()

    def test_realmAwaits(self) -> None:
        """A realm may be a coroutine, as a checker may."""
        asked: Deferred[None] = Deferred()

        class Realm:
            async def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
                await asked
                return ISubmitter, Submitter("alice", {"from": mind.remoteAddress}), lambda: None

        portal = makePortal()
        portal.realm = Realm()
        talk = self.talk(portal)
        self.assertEqual(talk.say(LOGIN), "")
        asked.callback(None)
        self.assertEqual(talk.transport.taken()[:9], b"235 2.7.0")
        user = talk.protocol.dialogue.session.user
        self.assertEqual(user.attributes, {"from": "192.0.2.7"})

    def test_noSubmitter(self) -> None:
        """What a realm gives must be an avatar; else nobody is in, and it is logged out again."""
        left: list[str] = []

        async def logout() -> None:
            left.append("out")

        class Realm:
            def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
                return ISubmitter, {"password": "wonderland"}, logout

        portal = makePortal()
        portal.realm = Realm()
        talk = self.talk(portal)
        self.assertEqual(talk.say(LOGIN)[:9], "454 4.7.0")
        self.assertEqual(left, ["out"])
        self.assertEqual(talk.say("MAIL FROM:<a@example.com>")[:9], "530 5.7.0")
        [failure] = self.flushLoggedErrors(TypeError)
        self.assertIn("a dict, has no avatarId", str(failure.value))
        self.assertNotIn("wonderland", str(failure.value))

    def test_undeclared(self) -> None:
        """Who has all of an avatar is one, as ever, where the class does not name the interface."""

        class Undeclared:
            avatarId = "alice"
            attributes: dict[str, Any] = {}

            def owns(self, mailbox: Any) -> bool:
                return True

        class Realm:
            def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
                return ISubmitter, Undeclared(), lambda: None

        portal = makePortal()
        portal.realm = Realm()
        talk = self.talk(portal)
        self.assertEqual(talk.say(LOGIN)[:9], "235 2.7.0")
        talk.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "DATA")
        self.assertEqual(talk.say("x", ".")[:9], "250 2.0.0")

    def test_ownReply(self) -> None:
        """A checker may answer with a reply of its own."""
        talk = self.checkedBy(refuse)
        self.assertEqual(talk.say(LOGIN), "550 5.7.1 Not that")

    def test_stages(self) -> None:
        """The stages around a login see credentials, avatar, failure, in this order."""
        policy = Policy()
        talk = self.talk(policies=[policy])
        talk.say(WRONG)
        talk.say(LOGIN)
        stages = [seen[0] for seen in policy.seen]
        self.assertEqual(stages, ["hello", "requested", "failed", "requested", "succeeded"])
        self.assertEqual(policy.seen[-1][1].avatarId, "alice")

    def test_mechanismTried(self) -> None:
        """They see by which mechanism it is tried, and nobody has logged in by it yet."""
        tried: list[tuple[str, str]] = []

        def note(*arguments: Any) -> None:
            session = talk.protocol.dialogue.session
            tried.append((session.mechanismTried, session.mechanism))

        talk = self.talk(policies=[Policy(requested=note, failed=note, succeeded=note)])
        session = talk.protocol.dialogue.session
        self.assertEqual(session.mechanismTried, "")
        talk.say(WRONG)
        self.assertEqual(session.mechanismTried, "PLAIN")
        talk.say("AUTH LOGIN", "YWxpY2U=")
        talk.say("d29uZGVybGFuZA==")
        self.assertEqual(tried, [("PLAIN", "")] * 2 + [("LOGIN", "")] * 2)
        self.assertEqual(session.mechanism, "LOGIN")

    def test_requestRefused(self) -> None:
        """Refused before the checker, the password is not even tried."""
        asked: list[Any] = []

        async def later(credentials: Any) -> None:
            refuse()

        for answer in (refuse, later):
            talk = self.checkedBy(asked.append, policies=[Policy(requested=answer)])
            self.assertEqual(talk.say(LOGIN), "550 5.7.1 Not that")
        self.assertEqual(asked, [])

    def test_successRefused(self) -> None:
        """Refused after the checker, nobody is logged in."""

        async def later(avatar: Any) -> None:
            refuse()

        for answer in (refuse, later):
            talk = self.talk(policies=[Policy(succeeded=answer)])
            self.assertEqual(talk.say(LOGIN), "550 5.7.1 Not that")
            self.assertIsNone(talk.protocol.dialogue.session.user)

    def test_failureReplaced(self) -> None:
        """A policy may put another reply in the place of 535, and may take its time."""

        async def later(credentials: Any, failure: Any) -> None:
            return None

        talk = self.talk(policies=[Policy(failed=refuse)])
        self.assertEqual(talk.say(WRONG), "550 5.7.1 Not that")
        talk = self.talk(policies=[Policy(failed=later)])
        self.assertEqual(talk.say(WRONG)[:9], "535 5.7.8")

    def test_xoauth2(self) -> None:
        """A refused token has one more challenge, JSON, before its 535."""

        def check(credentials: Any) -> Any:
            assert IBearerToken.providedBy(credentials)
            if credentials.token == b"good":
                return succeed(credentials.username)
            return fail(UnauthorizedLogin())

        talk = self.checkedBy(check, "XOAUTH2")
        bad = "dXNlcj1hbGljZQFhdXRoPUJlYXJlciBiYWQBAQ=="
        good = "dXNlcj1hbGljZQFhdXRoPUJlYXJlciBnb29kAQE="
        self.assertTrue(talk.say(f"AUTH XOAUTH2 {bad}").startswith("334 ey"))
        self.assertEqual(talk.say("")[:9], "535 5.7.8")
        self.assertEqual(talk.say(f"AUTH XOAUTH2 {good}")[:3], "235")

    def test_tokenWithoutName(self) -> None:
        """OAUTHBEARER needs no user name: the checker says whose the token is."""

        def check(credentials: Any) -> Any:
            self.assertEqual(credentials.username, b"")
            return succeed(b"alice") if credentials.token == b"good" else fail(UnauthorizedLogin())

        talk = self.checkedBy(check, "OAUTHBEARER")
        self.assertEqual(talk.say("AUTH OAUTHBEARER biwsAWF1dGg9QmVhcmVyIGJhZAEB")[:3], "334")
        self.assertEqual(talk.say("AQ==")[:9], "535 5.7.8")
        self.assertEqual(talk.say("AUTH OAUTHBEARER biwsAWF1dGg9QmVhcmVyIGdvb2QBAQ==")[:3], "235")
        self.assertEqual(talk.protocol.dialogue.session.user.avatarId, "alice")

    def test_noUsername(self) -> None:
        """Credentials need no user name: the checker says who it is."""

        def check(ticket: Any) -> Any:
            if ticket.number != b"7":
                raise UnauthorizedLogin("no such ticket")
            return b"alice"

        def login(number: str, realm: Any) -> tuple[str, Any]:
            portal = Portal(realm, [Checker(check, ITicket)])
            talk = self.talk(portal, mechanisms=[TicketMechanism()])
            return talk.say(f"AUTH X-TICKET {number}")[:3], talk.protocol.dialogue.session.user

        code, user = login("Nw==", SubmissionRealm())
        self.assertEqual((code, user.avatarId), ("235", "alice"))
        self.assertEqual(login("OA==", SubmissionRealm()), ("535", None))

        class Realm:
            def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
                return IMessageDelivery, object(), lambda: None

        code, user = login("Nw==", Realm())  # an avatar of Twisted's tells nobody who it is
        self.assertEqual((code, user.avatarId), ("235", ""))

    def test_tokenRefused(self) -> None:
        """A checker's own status, schemes and scope are what the client reads in the challenge."""
        refused = TokenRefused(status="400", scope="https://mail.example.com/")
        talk = self.checkedBy(lambda credentials: fail(refused), "XOAUTH2")
        said = talk.say("AUTH XOAUTH2 dXNlcj1hbGljZQFhdXRoPUJlYXJlciBiYWQBAQ==")
        self.assertEqual(
            json.loads(base64.b64decode(said.removeprefix("334 "))),
            {"status": "400", "schemes": "bearer", "scope": "https://mail.example.com/"},
        )

    def test_identity(self) -> None:
        """PLAIN's other identity needs a policy that says so; then the realm gives its avatar."""

        @implementer(IIdentityPolicy)
        class Delegation:
            def identityRequested(self, session: Any, avatar: Any, identity: str) -> Any:
                if (avatar.avatarId, identity) == ("alice", "office"):
                    return None
                if identity == "later":
                    return succeed(None)
                raise Refused(NO)

        asOffice = "AUTH PLAIN " + base64.b64encode(b"office\0alice\0wonderland").decode()
        asRoot = "AUTH PLAIN " + base64.b64encode(b"root\0alice\0wonderland").decode()
        asLater = "AUTH PLAIN " + base64.b64encode(b"later\0alice\0wonderland").decode()
        self.assertEqual(self.talk().say(asOffice)[:9], "535 5.7.8")
        for said, code, avatarId in (
            (asOffice, "235", "office"),
            (asLater, "235", "later"),
            (asRoot, "550", None),
        ):
            talk = self.talk(policies=[Delegation()])
            self.assertEqual(talk.say(said)[:3], code)
            user = talk.protocol.dialogue.session.user
            self.assertEqual(user.avatarId if user else None, avatarId)

    def test_again(self) -> None:
        """Behind a login EHLO says the same of AUTH, and AUTH itself is 503."""
        talk = self.talk()
        before = talk.say("EHLO c")
        self.assertIn("AUTH PLAIN LOGIN", before)
        talk.say(LOGIN)
        self.assertEqual(talk.say("EHLO c"), before)
        self.assertEqual(talk.say(LOGIN)[:9], "503 5.5.1")

    def test_avatarStages(self) -> None:
        """An avatar takes part in the stages behind its login, not in those of the login."""

        @implementer(ISubmitter)
        class Partaking(Policy):
            avatarId = "alice"
            attributes: dict[str, Any] = {}

            def owns(self, mailbox: Any) -> bool:
                return True

        class Realm:
            def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
                return ISubmitter, avatar, lambda: None

        avatar, portal = Partaking(), makePortal()
        portal.realm = Realm()
        talk = self.talk(portal)
        talk.say(LOGIN)
        talk.say("EHLO c", "MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA", "x", ".")
        self.assertEqual([seen[0] for seen in avatar.seen], ["hello", "data", "message"])

    def test_loginFailed(self) -> None:
        """Told of a failed login is who says no; a checker that cannot tell has none failed."""
        own = Refused(Reply(535, "5.7.8", "Own words"))
        for error, count in (
            (UnauthorizedLogin(), 1),
            (own, 1),
            (LoginUnavailable("away"), 0),
            (OSError("gone"), 0),
        ):
            policy = Policy()
            self.checkedBy(lambda _, error=error: fail(error), policies=[policy]).say(LOGIN)
            self.assertEqual([seen[0] for seen in policy.seen].count("failed"), count, error)
        self.flushLoggedErrors(OSError)

    def test_identityBreaks(self) -> None:
        """A policy that fails at another identity is 454, as a checker is: nobody is let in."""

        @implementer(IIdentityPolicy)
        class Breaks:
            def identityRequested(self, session: Any, avatar: Any, identity: str) -> Any:
                breaks()

        talk = self.talk(policies=[Breaks()])
        self.assertEqual(talk.say("AUTH PLAIN b2ZmaWNlAGFsaWNlAHdvbmRlcmxhbmQ=")[:9], "454 4.7.0")
        self.flushLoggedErrors(ZeroDivisionError)

    def test_avatarDelivers(self) -> None:
        """An avatar that is a delivery takes its messages itself."""
        avatar = Avatar()

        class Realm:
            def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
                return ISubmitter, avatar, lambda: None

        portal = makePortal()
        portal.realm = Realm()
        talk = self.talk(portal)
        talk.say(LOGIN)
        talk.say("MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "DATA")
        talk.send(b"x\r\n.\r\n")
        self.assertEqual(len(avatar.inner.messages), 1)

    def test_loggedOut(self) -> None:
        """Cred's logout is called once, when the connection is gone."""
        gone: list[str] = []

        class Realm:
            def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
                return ISubmitter, Avatar(), lambda: gone.append("out")

        portal = makePortal()
        portal.realm = Realm()
        talk = self.talk(portal)
        talk.say(LOGIN)
        self.assertEqual(gone, [])
        talk.lose()
        self.assertEqual(gone, ["out"])

    def test_loggedOutWhenRefused(self) -> None:
        """A login that a policy refuses behind the checker, or leaves waiting, is logged out."""
        gone: list[str] = []

        class Realm:
            def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
                return ISubmitter, Avatar(), lambda: gone.append("out")

        def refuse(avatar: Any) -> None:
            raise Refused(NO)

        portal = makePortal()
        portal.realm = Realm()
        talk = self.talk(portal, policies=[Policy(succeeded=refuse)])
        self.assertEqual(talk.say(LOGIN)[:9], "550 5.7.1")
        self.assertEqual(gone, ["out"])
        talk.lose()
        self.assertEqual(gone, ["out"])
        talk = self.talk(portal, policies=[Policy(succeeded=lambda avatar: Deferred())])
        talk.say(LOGIN)
        talk.lose()
        self.assertEqual(gone, ["out", "out"])

    def test_logoutFails(self) -> None:
        """A logout, at once or later, takes nothing from an answer: what fails is only logged."""

        @attrs.define
        class Realm:
            logout: Any

            def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
                return ISubmitter, Submitter(str(avatarId, "utf-8")), self.logout

        @implementer(IIdentityPolicy)
        class Anybody:
            def identityRequested(self, session: Any, avatar: Any, identity: str) -> None:
                pass

        async def breaksLater() -> None:
            breaks()

        asOffice = "AUTH PLAIN " + base64.b64encode(b"office\0alice\0wonderland").decode()
        portal = makePortal()
        for logout in (breaks, breaksLater):
            portal.realm = Realm(logout)
            talk = self.talk(portal, policies=[Policy(succeeded=refuse)])
            self.assertEqual(talk.say(LOGIN)[:9], "550 5.7.1")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            talk = self.talk(portal, policies=[Anybody()])
            self.assertEqual(talk.say(asOffice)[:9], "235 2.7.0")
            self.assertEqual(talk.protocol.dialogue.session.user.avatarId, "office")
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_loggedOutWhenGone(self) -> None:
        """Who has gone is logged out, also where what was waited for does not give up."""
        gone: list[str] = []

        class Realm:
            def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
                return ISubmitter, Avatar(), lambda: gone.append("out")

        def stubborn(*arguments: Any) -> Any:
            return Deferred(lambda deferred: deferred.callback(None))

        portal = makePortal()
        portal.realm = Realm()
        for stage in ("requested", "succeeded"):
            gone.clear()
            talk = self.talk(portal, policies=[Policy(**{stage: stubborn})])
            talk.say(LOGIN)
            talk.lose()
            self.assertEqual(gone, ["out"], stage)
            self.assertIsNone(talk.protocol.dialogue.session.user)

    def test_noChallengeWhenGone(self) -> None:
        """Nobody is there to be told more, where a checker says no in place of giving up."""

        def refuse(asked: Deferred[Any]) -> None:
            asked.errback(UnauthorizedLogin())

        talk = self.checkedBy(lambda credentials: Deferred(refuse), "XOAUTH2")
        self.assertEqual(talk.say("AUTH XOAUTH2 dXNlcj1hbGljZQFhdXRoPUJlYXJlciBiYWQBAQ=="), "")
        talk.lose()
        dialogue = talk.protocol.dialogue
        self.assertEqual((dialogue.state, dialogue.continuation), (CLOSED, None))

    def test_refusalNamesUser(self) -> None:
        """The log says whose command was refused."""
        from twisted.logger import globalLogPublisher

        seen: list[Any] = []
        globalLogPublisher.addObserver(seen.append)
        self.addCleanup(globalLogPublisher.removeObserver, seen.append)
        talk = self.talk()
        talk.say("MAIL FROM:<a@b.example>", LOGIN, "RCPT TO:<c@d.example>")
        users = [event["user"] for event in seen if event.get("event") == "refused"]
        self.assertEqual(users, [None, "alice"])

    def test_secretsStayHere(self) -> None:
        """Neither password nor response reaches an event, whatever way a login goes."""
        from twisted.logger import globalLogPublisher

        seen: list[Any] = []
        globalLogPublisher.addObserver(seen.append)
        self.addCleanup(globalLogPublisher.removeObserver, seen.append)
        talk = self.talk(limits=Limits(loginFailures=0))
        talk.say(WRONG, LOGIN + "x", "AUTH PLAIN", "AGFsaWNlAHdyb25n", LOGIN)
        text = repr([{k: v for k, v in event.items() if k != "log_logger"} for event in seen])
        for secret in ("wonderland", "wrong", "AGFsaWNl"):
            self.assertNotIn(secret, text)
        self.assertIn("alice", text)

    def test_clientGone(self) -> None:
        """A client that goes while its password is verified is no failure of the checker's."""

        @implementer(ICredentialsChecker)
        class Slow:
            credentialInterfaces = (IUsernamePassword,)

            def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:
                return Deferred()

        portal = Portal(SubmissionRealm(), [Slow()])
        talk = Conversation(makeSubmission(requireTLS=False, insecureLogin=True, portal=portal))
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        talk.say("EHLO client.example", "AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ=")
        talk.lose()
        named = [event.get("event") for event in logged]
        self.assertNotIn("policy-failed", named)
        self.assertIn("connection-closed", named)
