"""Realms written for Twisted's own mail server."""

from __future__ import annotations

from typing import Any

from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.mail import smtp
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from submitd import events
from submitd.envelope import Envelope, Recipient
from submitd.interfaces import (
    IDelivery,
    IMessage,
    IRecipientPolicy,
    ISenderPolicy,
    ISubmitter,
    ITraceField,
)
from submitd.realm import Submitter
from submitd.session import Session
from submitd.twistedmail import MAX_LINE, adaptAvatar
from submitd.wire.address import NULL_PATH, Mailbox, ReversePath
from submitd.wire.errors import Refused
from tests.fixtures import Conversation, makePortal, makeSubmission

ALICE = ReversePath(Mailbox("alice", "example.com"))
BOB = Mailbox("bob", "example.org")
EVE = Mailbox("eve", "example.org")


@implementer(smtp.IMessage)
class Target:
    """One recipient's message, as Twisted's documentation has it."""

    def __init__(self, end: Any = None) -> None:
        self.lines: list[bytes] = []
        self.state = "open"
        self.end = end

    def lineReceived(self, line: bytes) -> None:
        if line == b"raise":
            raise smtp.SMTPServerError(554, b"No such lines here")
        self.lines.append(line)

    def eomReceived(self) -> Deferred[None]:
        self.state = "committed"
        if isinstance(self.end, Exception):
            raise self.end
        return succeed(None) if self.end is None else self.end

    def connectionLost(self) -> None:
        self.state = "lost"
        if self.end == "broken":
            raise RuntimeError("cannot even forget")


@implementer(smtp.IMessageDelivery)
class Delivery:
    """An avatar: what it says is set by the test, and what it was asked is kept."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.sender: Any = lambda origin: origin
        self.targets: list[Any] = []
        self.header: Any = None

    def validateFrom(self, helo: tuple[bytes, bytes], origin: smtp.Address) -> Any:
        self.asked.append(("from", helo, str(origin)))
        return self.sender(origin)

    def validateTo(self, user: smtp.User) -> Any:
        self.asked.append(("to", str(user), str(user.orig), user.helo))
        if user.dest.local == b"nobody":
            raise smtp.SMTPBadRcpt(user)
        if user.dest.local == b"later":
            return succeed(self.make)
        if user.dest.local == b"awaited":
            return self.awaited(user)
        if user.dest.local == b"none":
            return None
        return self.make

    async def awaited(self, user: smtp.User) -> Any:
        if user.dest.domain != b"example.org":
            raise smtp.SMTPBadRcpt(user)
        return self.make

    def make(self) -> Target:
        self.targets.append(Target())
        return self.targets[-1]

    def receivedHeader(self, helo: Any, origin: Any, recipients: list[smtp.User]) -> Any:
        if self.header is None:
            return None
        return self.header % (str(recipients[0]).encode(),)


@implementer(smtp.IMessageDeliveryFactory)
class Factory:
    """An avatar that makes a delivery for each message."""

    def __init__(self) -> None:
        self.made: list[Delivery] = []

    def getMessageDelivery(self) -> Delivery:
        self.made.append(Delivery())
        return self.made[-1]


class AdaptTestCase(SynchronousTestCase):
    """Has an avatar, and a session in which it is logged in."""

    def setUp(self) -> None:
        self.avatar = Delivery()
        self.submitter: Any = adaptAvatar(smtp.IMessageDelivery, self.avatar, "alice@example.com")
        self.session = Session(
            remoteAddress="192.0.2.1", heloName="client.example", user=self.submitter
        )
        self.envelope = Envelope("ID", ALICE)
        self.logged: list[dict[str, Any]] = []
        self.patch(events, "log", Logger(namespace="submitd", observer=self.logged.append))

    def mail(self) -> Any:
        """MAIL."""
        return self.submitter.validateFrom(self.session, self.envelope)

    def rcpt(self, *mailboxes: Mailbox) -> None:
        """RCPT, for each of these, as the dialogue does it."""
        for mailbox in mailboxes:
            recipient = Recipient(mailbox)
            waiting = self.submitter.validateTo(self.session, self.envelope, recipient)
            if waiting is not None:
                self.successResultOf(waiting)
            self.envelope.recipients.append(recipient)

    def begin(self, *mailboxes: Mailbox) -> Any:
        """A message on its way to these."""
        self.mail()
        self.rcpt(*mailboxes or (BOB,))
        return self.submitter.begin(self.session, self.envelope)

    def refusal(self, call: Any, *arguments: Any) -> str:
        """The code, status and text of what a call raises, or its Deferred fails with."""
        try:
            refused = self.failureResultOf(call(*arguments), Refused).value
        except Refused as error:
            refused = error
        reply = refused.reply
        return f"{reply.code} {reply.status} {reply.lines[0]}"


class AvatarTests(AdaptTestCase):
    """adaptAvatar."""

    def test_interfaces(self) -> None:
        """An adapted avatar is a submitter that is asked and takes the message."""
        for interface in (ISubmitter, ISenderPolicy, IRecipientPolicy, IDelivery, ITraceField):
            self.assertTrue(verifyObject(interface, self.submitter))
        self.assertTrue(verifyObject(IMessage, self.begin()))

    def test_submitter(self) -> None:
        """A submitter is what it is."""
        submitter = Submitter("alice")
        self.assertIs(adaptAvatar(ISubmitter, submitter, "alice"), submitter)

    def test_otherInterface(self) -> None:
        """Nothing can be made of an avatar of another kind."""
        with self.assertRaises(TypeError):
            adaptAvatar(IRealm, object(), "alice")

    def test_owns(self) -> None:
        """The name owns the address that it is; the avatar says more at MAIL."""
        self.assertEqual(self.submitter.avatarId, "alice@example.com")
        self.assertEqual(self.submitter.attributes, {})
        self.assertTrue(self.submitter.owns(Mailbox("Alice", "example.com")))
        self.assertFalse(self.submitter.owns(BOB))

    def test_factory(self) -> None:
        """A factory makes a new delivery for each message."""
        factory = Factory()
        self.submitter = adaptAvatar(smtp.IMessageDeliveryFactory, factory, "alice")
        for _ in range(2):
            self.envelope = Envelope("ID", ALICE)
            self.begin()
        self.assertEqual([len(each.targets) for each in factory.made], [1, 1])

    def test_everybody(self) -> None:
        """Given as a policy and as the delivery, an avatar takes the mail of everybody."""
        talk = Conversation(
            makeSubmission(
                policies=[self.submitter],
                delivery=self.submitter,
                loginRequired=False,
                requireTLS=False,
            )
        )
        said = talk.say(
            "EHLO client.example",
            "MAIL FROM:<alice@example.com>",
            "RCPT TO:<nobody@example.org>",
            "RCPT TO:<bob@example.org>",
            "DATA",
        )
        self.assertEqual([line[:3] for line in said.split("\n")[-3:]], ["550", "250", "354"])
        self.assertEqual(talk.send(b"Subject: hello\r\n\r\nhello\r\n.\r\n")[:3], b"250")
        [target] = self.avatar.targets
        self.assertEqual(target.lines[-3:], [b"Subject: hello", b"", b"hello"])
        self.assertEqual(target.state, "committed")


class SenderTests(AdaptTestCase):
    """validateFrom."""

    def test_asked(self) -> None:
        """The avatar is asked with what Twisted gives: two bytes and an Address."""
        self.assertIsNone(self.mail())
        helo = (b"client.example", b"192.0.2.1")
        self.assertEqual(self.avatar.asked, [("from", helo, "alice@example.com")])

    def test_null(self) -> None:
        """The null reverse-path is the empty Address, as in Twisted."""
        self.envelope = Envelope("ID", NULL_PATH)
        self.mail()
        self.assertEqual(self.avatar.asked[0][2], "")

    def waits(self, waiting: Deferred[Any], sender: Any) -> None:
        """The avatar's answer to MAIL is that of a Deferred, when it has fired."""
        self.avatar.sender = sender
        result = self.mail()
        self.assertNoResult(result)
        waiting.callback(smtp.Address(b"other@example.com"))
        self.assertIsNone(self.successResultOf(result))
        self.rcpt(BOB)
        self.assertEqual(self.avatar.asked[1][2], "other@example.com")

    def test_deferred(self) -> None:
        """The avatar may take its time."""
        waiting: Deferred[Any] = Deferred()
        self.waits(waiting, lambda origin: waiting)

    def test_coroutine(self) -> None:
        """So may one that is written with async."""
        waiting: Deferred[Any] = Deferred()

        async def sender(origin: smtp.Address) -> Any:
            return await waiting

        self.waits(waiting, sender)

    def test_refused(self) -> None:
        """SMTPBadSender is a refusal with its code and text, in whatever way it is said."""

        def raised(origin: smtp.Address) -> Any:
            raise smtp.SMTPBadSender(origin, 450, "Not \n today")

        async def coroutine(origin: smtp.Address) -> Any:
            raised(origin)

        def failed(origin: smtp.Address) -> Any:
            return maybeDeferred(raised, origin)

        def returned(origin: smtp.Address) -> Any:
            return Failure(smtp.SMTPBadSender(origin, 450, "Not \n today"))

        for refuse in (raised, coroutine, failed, returned):
            self.avatar.sender = refuse
            self.assertEqual(self.refusal(self.mail), "450 4.1.0 Not ")

    def test_factoryRefuses(self) -> None:
        """A factory that makes no delivery now refuses in its own words too."""

        def refuse() -> Any:
            raise smtp.SMTPServerError(452, "Too many")

        factory = Factory()
        self.submitter = adaptAvatar(smtp.IMessageDeliveryFactory, factory, "alice")
        self.submitter.newDelivery = refuse
        self.assertEqual(self.refusal(self.mail), "452 4.0.0 Too many")

    def test_refusedWithStatus(self) -> None:
        """An enhanced status in front of the text is taken for what it is, if it fits."""
        for text, reply in [
            (b"5.7.1 Go away", "550 5.7.1 Go away"),
            (b"4.7.1 Go away", "550 5.0.0 4.7.1 Go away"),
        ]:
            self.avatar.sender = lambda origin, text=text: fail(smtp.SMTPServerError(550, text))
            self.assertEqual(self.refusal(self.mail), reply)

    def test_oddCode(self) -> None:
        """A refusal with a code that is none never becomes consent."""
        self.avatar.sender = lambda origin: fail(smtp.SMTPServerError(250, "Fine"))
        self.assertTrue(self.refusal(self.mail).startswith("451 4.3.0"))

    def test_otherErrors(self) -> None:
        """What is no refusal stays what it is, for the dialogue to log."""
        self.avatar.sender = lambda origin: 1 / 0
        self.assertRaises(ZeroDivisionError, self.mail)
        self.avatar.sender = lambda origin: fail(KeyError("x"))
        self.failureResultOf(self.mail(), KeyError)

    def test_nothing(self) -> None:
        """An avatar that gives no address back has not consented."""
        self.avatar.sender = lambda origin: None
        self.assertRaises(TypeError, self.mail)
        self.avatar.sender = lambda origin: succeed(None)
        self.failureResultOf(self.mail(), TypeError)

    def test_utf8(self) -> None:
        """An address that Twisted's class can't hold is refused as such."""
        self.envelope = Envelope("ID", ReversePath(Mailbox("zoë", "example.com")))
        self.assertTrue(self.refusal(self.mail).startswith("553 5.1.3"))


class RecipientTests(AdaptTestCase):
    """validateTo."""

    def test_asked(self) -> None:
        """The avatar is asked with a User that has sender and client on it."""
        self.mail()
        self.rcpt(BOB)
        helo = (b"client.example", b"192.0.2.1")
        self.assertEqual(self.avatar.asked[1], ("to", "bob@example.org", "alice@example.com", helo))

    def test_refused(self) -> None:
        """SMTPBadRcpt is a refusal with its code and text."""
        self.mail()
        self.assertEqual(
            self.refusal(self.rcpt, Mailbox("nobody", "example.org")),
            "550 5.1.0 Cannot receive for specified address",
        )

    def test_deferred(self) -> None:
        """The avatar may take its time here too."""
        message = self.begin(Mailbox("later", "example.org"))
        self.assertEqual(len(message.targets), 1)

    def test_coroutine(self) -> None:
        """And may be written with async."""
        message = self.begin(Mailbox("awaited", "example.org"))
        self.assertEqual(len(message.targets), 1)
        recipient = Recipient(Mailbox("awaited", "example.com"))
        said = self.refusal(self.submitter.validateTo, self.session, self.envelope, recipient)
        self.assertEqual(said, "550 5.1.0 Cannot receive for specified address")

    def test_nothing(self) -> None:
        """An avatar that gives nothing to make a message with has not consented."""
        self.mail()
        self.assertRaises(TypeError, self.rcpt, Mailbox("none", "example.org"))


class MessageTests(AdaptTestCase):
    """begin and the message."""

    def test_lines(self) -> None:
        """Every recipient's message is given each line without its end."""
        message = self.begin(BOB, EVE)
        message.dataReceived(b"Subject: x\r\n\r\n.Hello\r\n")
        self.assertIsNone(self.successResultOf(message.eomReceived()))
        for target in self.avatar.targets:
            self.assertEqual(target.lines, [b"Subject: x", b"", b".Hello"])
            self.assertEqual(target.state, "committed")

    def test_anyChunks(self) -> None:
        """Lines are the same however the octets arrive."""
        data = b"a\r\n\r\nb\rc\r\n\r\r\nd\ne\r\n"
        message = self.begin()
        for at in range(len(data)):
            message.dataReceived(data[at : at + 1])
        self.assertEqual(self.avatar.targets[0].lines, [b"a", b"", b"b\rc", b"\r", b"d\ne"])

    def test_noLastEnd(self) -> None:
        """Octets behind the last CRLF are a line too."""
        message = self.begin()
        message.dataReceived(b"a\r\nb")
        self.successResultOf(message.eomReceived())
        self.assertEqual(self.avatar.targets[0].lines, [b"a", b"b"])

    def test_longLine(self) -> None:
        """A line without end is refused before it fills the memory, whatever the chunks."""
        message = self.begin()
        message.dataReceived(b"x" * MAX_LINE + b"\r")
        message.dataReceived(b"\n")
        self.assertEqual(len(self.avatar.targets[0].lines[0]), MAX_LINE)
        self.assertIn("554 5.6.0", self.refusal(message.dataReceived, b"x" * (MAX_LINE + 2)))
        message = self.begin()
        whole = b"x" * (MAX_LINE + 1) + b"\r\n"
        self.assertIn("554 5.6.0", self.refusal(message.dataReceived, whole))

    def test_notForRefused(self) -> None:
        """A recipient that another policy refused afterwards gets no message."""
        self.mail()
        self.rcpt(BOB, EVE)
        del self.envelope.recipients[0]
        message = self.submitter.begin(self.session, self.envelope)
        self.assertEqual(len(message.targets), 1)

    def test_lineRefused(self) -> None:
        """A target that refuses a line refuses the message."""
        message = self.begin()
        self.assertEqual(
            self.refusal(message.dataReceived, b"raise\r\n"), "554 5.0.0 No such lines here"
        )

    def test_cannotMake(self) -> None:
        """When one message can't be made, the others are told to forget theirs."""
        self.mail()
        self.rcpt(BOB, EVE)
        real = self.avatar.make

        def make() -> Target:
            if self.avatar.targets:
                raise smtp.SMTPServerError(452, "Too many")
            return real()

        accepted = self.envelope.extensions["twisted.mail"].accepted
        accepted[:] = [(recipient, user, make) for recipient, user, _ in accepted]
        refusal = self.refusal(self.submitter.begin, self.session, self.envelope)
        self.assertEqual(refusal, "452 4.0.0 Too many")
        self.assertEqual(self.avatar.targets[0].state, "lost")

    def test_aborted(self) -> None:
        """When the client goes each target is told, even if one of them fails at that."""
        message = self.begin(BOB, EVE)
        self.avatar.targets[0].end = "broken"
        message.connectionLost()
        self.assertEqual([each.state for each in self.avatar.targets], ["lost", "lost"])
        self.assertEqual([each["event"] for each in self.logged], ["policy-failed"])
        message.connectionLost()

    def test_abortAwaits(self) -> None:
        """A target may be told by a coroutine, which is run."""
        message = self.begin()
        told: list[str] = []

        async def connectionLost() -> None:
            told.append("lost")

        self.avatar.targets[0].connectionLost = connectionLost
        message.connectionLost()
        self.assertEqual(told, ["lost"])

    def test_prepend(self) -> None:
        """What has been handed on line by line can get nothing in front any more."""
        self.assertTrue(self.refusal(self.begin().prepend, b"X: y\r\n").startswith("451 4.3.0"))


class EndTests(AdaptTestCase):
    """eomReceived."""

    def end(self, *ends: Any) -> Any:
        """The end of a message whose targets end so."""
        message = self.begin(*[BOB, EVE][: len(ends)])
        for target, end in zip(self.avatar.targets, ends, strict=True):
            target.end = end
        return message.eomReceived()

    def test_waits(self) -> None:
        """The message is not taken before every target has it."""
        first: Deferred[None] = Deferred()
        second: Deferred[None] = Deferred()
        waiting = self.end(first, second)
        second.callback(None)
        self.assertNoResult(waiting)
        first.callback(None)
        self.assertIsNone(self.successResultOf(waiting))

    def test_coroutine(self) -> None:
        """A target may be written with async."""

        async def end(error: Exception | None) -> None:
            if error is not None:
                raise error

        ends = [end(None), end(smtp.SMTPServerError(552, "Full"))]
        replies = self.successResultOf(self.end(*ends))
        self.assertEqual([reply.code for reply in replies], [250, 552])

    def test_refused(self) -> None:
        """When all fail, the first one's refusal is the reply."""
        ends = [fail(smtp.SMTPServerError(552, "Full")), fail(smtp.SMTPServerError(450, "Busy"))]
        self.assertEqual(self.refusal(self.end, *ends), "552 5.0.0 Full")

    def test_failed(self) -> None:
        """What is no refusal is 451, and the log has the reason."""
        for end in (fail(KeyError("x")), KeyError("x")):
            self.envelope = Envelope("ID", ALICE)
            self.avatar.targets.clear()
            self.assertTrue(self.refusal(self.end, end).startswith("451 4.3.0"))
            self.assertIs(self.logged.pop()["log_failure"].type, KeyError)

    def test_some(self) -> None:
        """When some fail, each recipient has a reply of its own, in order."""
        replies = self.successResultOf(self.end(None, fail(smtp.SMTPServerError(552, "Full"))))
        self.assertEqual([reply.code for reply in replies], [250, 552])


class HeaderTests(AdaptTestCase):
    """receivedHeader."""

    def test_own(self) -> None:
        """Each message gets the avatar's header for its recipient alone; the service adds none."""
        self.avatar.header = b"Received: from x\n\tby y for %b"
        self.begin(BOB, EVE)
        self.assertEqual(self.submitter.receivedField(self.session, self.envelope), b"")
        bob, eve = self.avatar.targets
        self.assertEqual(bob.lines, [b"Received: from x", b"\tby y for bob@example.org"])
        self.assertEqual(eve.lines, [b"Received: from x", b"\tby y for eve@example.org"])

    def test_text(self) -> None:
        """A header may be text, as older realms give it."""
        self.avatar.receivedHeader = lambda *arguments: "Received: x"  # type: ignore
        self.begin()
        self.assertEqual(self.avatar.targets[0].lines, [b"Received: x"])

    def test_none(self) -> None:
        """Without one the service's own is used."""
        self.begin()
        self.assertIsNone(self.submitter.receivedField(self.session, self.envelope))


@implementer(IRealm)
class TwistedRealm:
    """A realm as written for Twisted's own server."""

    def __init__(self, interface: Any, avatar: Any) -> None:
        self.interface = interface
        self.avatar = avatar
        self.minds: list[Any] = []

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        self.minds.append(mind)
        if self.interface in interfaces:
            return self.interface, self.avatar, lambda: None
        raise NotImplementedError


class WholeTests(SynchronousTestCase):
    """In a conversation."""

    def conversation(self, interface: Any, avatar: Any) -> Conversation:
        """A client that has logged in."""
        checkers = list(makePortal().checkers.values())
        self.realm = TwistedRealm(interface, avatar)
        portal = Portal(self.realm, checkers[:1])
        conversation = Conversation(makeSubmission(portal=portal))
        conversation.login()
        return conversation

    def test_message(self) -> None:
        """A message goes from a client into an unchanged realm's objects."""
        avatar = Delivery()
        conversation = self.conversation(smtp.IMessageDelivery, avatar)
        conversation.say("MAIL FROM:<alice@example.com>", "RCPT TO:<bob@example.org>", "DATA")
        said = conversation.say("Subject: x", "", "..dot", ".")
        self.assertTrue(said.startswith("250 2.0.0"), said)
        [target] = avatar.targets
        self.assertEqual(target.lines[-3:], [b"Subject: x", b"", b".dot"])
        self.assertTrue(target.lines[0].startswith(b"Received: from client.example"))
        self.assertEqual(target.state, "committed")

    def test_mind(self) -> None:
        """The realm is told of the connection: there is no protocol that it could ask."""
        conversation = self.conversation(smtp.IMessageDelivery, Delivery())
        [mind] = self.realm.minds
        self.assertIs(mind, conversation.protocol.dialogue.session)

    def test_factory(self) -> None:
        """So it does with a realm that gives factories."""
        factory = Factory()
        conversation = self.conversation(smtp.IMessageDeliveryFactory, factory)
        for _ in range(2):
            conversation.say("MAIL FROM:<alice@example.com>", "RCPT TO:<bob@example.org>", "DATA")
            self.assertTrue(conversation.say("Subject: x", "", ".").startswith("250"))
        self.assertEqual(len(factory.made), 2)

    def test_refused(self) -> None:
        """A refusal of the avatar is what the client reads."""
        conversation = self.conversation(smtp.IMessageDelivery, Delivery())
        conversation.say("MAIL FROM:<alice@example.com>")
        self.assertEqual(
            conversation.say("RCPT TO:<nobody@example.org>"),
            "550 5.1.0 Cannot receive for specified address",
        )

    def test_lost(self) -> None:
        """A client that goes in the middle of a message leaves nothing."""
        avatar = Delivery()
        conversation = self.conversation(smtp.IMessageDelivery, avatar)
        conversation.say("MAIL FROM:<alice@example.com>", "RCPT TO:<bob@example.org>", "DATA")
        conversation.say("Subject: x")
        conversation.lose()
        self.assertEqual(avatar.targets[0].state, "lost")
