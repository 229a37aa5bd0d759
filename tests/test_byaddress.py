"""Logins by address: whose, when, and what stays as it is; the dialogues show what is said."""

from __future__ import annotations

from typing import Any

from twisted.cred.error import UnauthorizedLogin, UnhandledCredentials
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from submitd.byaddress import loginOf
from submitd.checkers.trusted import TrustedProxy
from submitd.interfaces import (
    IDelivery,
    IDisconnectObserver,
    ILoginPolicy,
    ISubmitter,
    ITrustedLogin,
)
from submitd.realm import SubmissionRealm, Submitter
from submitd.session import Session
from submitd.submission import Limits
from submitd.wire.errors import Refused
from submitd.wire.network import NetworkLogins, Networks
from submitd.wire.proxy import Ends
from submitd.wire.reply import Reply
from tests.fixtures import Conversation, MemoryDelivery, makePortal, makeSubmission

CLIENT = "192.0.2.7"  # the peer of a Conversation
LOGINS = NetworkLogins.parse({"192.0.2.0/24": "printers@example.com"})
PLAIN = "AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ="
MAIL = "MAIL FROM:<printers@example.com>"


@implementer(ILoginPolicy)
class Asked:
    """Keeps what it is asked and told; ``no`` is its answer to a login."""

    def __init__(self, no: Refused | None = None) -> None:
        self.no = no
        self.logins: list[Any] = []

    def loginRequested(self, session: Session, credentials: Any) -> None:
        self.logins.append(credentials.username)
        if self.no is not None and ITrustedLogin.providedBy(credentials):
            raise self.no

    def loginSucceeded(self, session: Session, avatar: Any) -> None:
        self.logins.append(avatar.avatarId)

    def loginFailed(self, session: Session, credentials: Any, failure: Any) -> None:
        self.logins.append(failure.type)


@implementer(IDelivery, ISubmitter, IDisconnectObserver)
class Box(MemoryDelivery):
    """An avatar that takes its messages itself, and is an observer."""

    attributes: dict[str, Any] = {}

    def __init__(self, avatarId: str) -> None:
        super().__init__()
        self.avatarId = avatarId
        self.lost = 0

    def owns(self, mailbox: Any) -> bool:
        return True

    def connectionLost(self, session: Any, reason: Any) -> None:
        self.lost += 1


class Realm:
    """Counts who is in; ``answer`` is given in place of an avatar."""

    def __init__(self, *boxes: str, answer: Any = None) -> None:
        self.boxes = {name: Box(name) for name in boxes}
        self.answer = answer
        self.events: list[str] = []

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        name = avatarId.decode()
        self.events.append(f"+{name}")
        if self.answer is not None:
            return self.answer
        avatar = self.boxes.get(name) or Submitter(name)
        return ISubmitter, avatar, lambda: self.events.append(f"-{name}")


def trusting(realm: Any = None) -> Portal:
    """A portal that takes the word of the configuration."""
    portal = makePortal()
    portal.registerChecker(TrustedProxy())
    portal.realm = realm or SubmissionRealm()
    return portal


def talkTo(**changes: Any) -> Conversation:
    """A client whose network has a login."""
    settings: dict[str, Any] = {
        "requireTLS": False,
        "insecureLogin": True,
        "loginByAddress": LOGINS,
        "portal": trusting(),
    }
    talk = Conversation(makeSubmission(**{**settings, **changes}))
    talk.transport.clear()
    return talk


def last(said: str) -> str:
    """The last reply."""
    return said.split("\n")[-1]


class NetworkLoginsTests(SynchronousTestCase):
    """Whose login comes from where."""

    def test_longest(self) -> None:
        """The longest prefix wins, in whatever order they are named."""
        logins = NetworkLogins.parse(
            {"10.0.0.0/8": "a", "10.1.2.3": "c", "10.1.0.0/16": "b", "2001:db8::/32": "d"}
        )
        found = [logins.of(each) for each in ("10.9.9.9", "10.1.9.9", "10.1.2.3", "11.0.0.1")]
        self.assertEqual(found, ["a", "b", "c", ""])
        self.assertEqual(logins.of("::ffff:10.1.2.3"), "c")
        self.assertEqual(logins.of("2001:db8::1%eth0"), "d")
        self.assertEqual((logins.of(""), logins.of("nonsense")), ("", ""))

    def test_unix(self) -> None:
        """Who has no address has a login where it says so."""
        logins = NetworkLogins.parse({"unix": "local"})
        self.assertEqual((logins.of(""), logins.of("10.1.2.3")), ("local", ""))
        self.assertTrue(logins)
        self.assertFalse(NetworkLogins())

    def test_wrong(self) -> None:
        """What is no network is no network."""
        for name in ("10.1.2.3/8", "everybody", "10.0.0.0/33"):
            self.assertRaises(ValueError, NetworkLogins.parse, {name: "a"})


class LoginOfTests(SynchronousTestCase):
    """Behind proxies it is the client's address that counts, or none."""

    def of(self, session: Session, **changes: Any) -> str:
        logins = NetworkLogins.parse(
            {"192.0.2.0/24": "near", "198.51.100.0/24": "far", "unix": "u"}
        )
        return loginOf(session, makeSubmission(loginByAddress=logins, **changes))

    def test_proxyHeader(self) -> None:
        """A PROXY header's client has its own login; a proxy that names none has none."""
        proxies = Networks.parse([CLIENT])
        told = Session("198.51.100.7", proxyAddress=CLIENT)
        self.assertEqual(self.of(told, proxyFrom=proxies), "far")
        self.assertEqual(self.of(Session(CLIENT)), "near")
        self.assertEqual(self.of(Session(CLIENT), proxyFrom=proxies), "")
        unix = Networks.parse(["unix"])
        self.assertEqual(self.of(Session(), proxyFrom=unix), "")
        self.assertEqual(self.of(Session()), "u")

    def test_xclient(self) -> None:
        """Nor has one that says XCLIENT without an address, or with an unknown one."""
        proxies = Networks.parse([CLIENT, "unix"])
        self.assertEqual(self.of(Session(CLIENT), xclientFrom=proxies), "")
        self.assertEqual(self.of(Session(), xclientFrom=proxies), "")
        nameless = Session(CLIENT, direct=Ends(CLIENT, 1, "", 0), xclient={"NAME": "a.example"})
        self.assertEqual(self.of(nameless, xclientFrom=proxies), "")
        unknown = Session("", direct=Ends(CLIENT, 1, "", 0), xclient={"ADDR": ""})
        self.assertEqual(self.of(unknown, xclientFrom=proxies), "")
        told = Session(
            "198.51.100.7", direct=Ends(CLIENT, 1, "", 0), xclient={"ADDR": "198.51.100.7"}
        )
        self.assertEqual(self.of(told, xclientFrom=proxies), "far")

    def test_none(self) -> None:
        """Without the key nobody has one."""
        self.assertEqual(loginOf(Session(CLIENT), makeSubmission()), "")


class LoginTests(SynchronousTestCase):
    """The login itself."""

    def test_atMail(self) -> None:
        """It comes with MAIL, through the Portal, and the policies are asked; not before."""
        asked = Asked()
        talk = talkTo(policies=[asked])
        session = talk.protocol.dialogue.session
        talk.say("EHLO printer.example", "NOOP", "RSET")
        self.assertEqual((asked.logins, session.user), ([], None))
        self.assertEqual(talk.say(MAIL), "250 2.1.0 Originator ok")
        self.assertEqual(session.user.avatarId, "printers@example.com")
        self.assertEqual(session.mechanism, "ADDRESS")
        self.assertEqual(asked.logins, [b"printers@example.com", "printers@example.com"])
        talk.say("RSET", "EHLO printer.example", MAIL)
        self.assertEqual(len(asked.logins), 2)

    def test_pipelined(self) -> None:
        """What is pipelined behind MAIL waits for the login."""
        answer: Deferred[Any] = Deferred()
        talk = talkTo(portal=trusting(Realm(answer=answer)))
        talk.say("EHLO printer.example")
        lines = (MAIL, "RCPT TO:<bob@example.net>", "DATA")
        self.assertEqual(talk.say(*lines), "")
        answer.callback((ISubmitter, Submitter("printers"), lambda: None))
        said = talk.transport.taken().decode().splitlines()
        self.assertEqual([each[:3] for each in said], ["250", "250", "354"])

    def test_strangers(self) -> None:
        """Other networks are told what they always were."""
        talk = talkTo(loginByAddress=NetworkLogins.parse({"10.0.0.0/8": "a"}))
        self.assertEqual(
            last(talk.say("EHLO client.example", MAIL)), "530 5.7.0 Authentication required"
        )

    def test_received(self) -> None:
        """The A of RFC 3848 is for AUTH; the log has the login, and the field has not."""
        talk = talkTo()
        delivery: Any = talk.submission.delivery
        message = ("RCPT TO:<bob@example.net>", "DATA", "Subject: x", "", ".")
        talk.say("EHLO printer.example", MAIL, *message)
        talk.say(PLAIN, "MAIL FROM:<alice@example.com>", *message)
        words = [each.octets.split(b" with ")[1].split()[0] for each in delivery.messages]
        self.assertEqual(words, [b"ESMTP", b"ESMTPA"])
        self.assertNotIn(b"printers", delivery.messages[0].octets.partition(b"Subject")[0])

    def test_ownLogin(self) -> None:
        """AUTH takes its place: that one is logged out, and takes part in nothing any more."""
        realm = Realm("printers@example.com")
        talk = talkTo(portal=trusting(realm))
        dialogue = talk.protocol.dialogue
        talk.say("EHLO printer.example", MAIL, "RSET")
        box = realm.boxes["printers@example.com"]
        self.assertIs(dialogue.delivery, box)
        self.assertIn("235", talk.say(PLAIN))
        self.assertEqual(dialogue.session.mechanism, "PLAIN")
        self.assertIs(dialogue.delivery, talk.submission.delivery)
        self.assertEqual(realm.events, ["+printers@example.com", "-printers@example.com", "+alice"])
        self.assertIn("503", talk.say(PLAIN))
        talk.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual((box.lost, realm.events[-1]), (0, "-alice"))

    def test_ownLoginFirst(self) -> None:
        """Who logs in before the first MAIL is never logged in by address."""
        realm = Realm()
        talk = talkTo(portal=trusting(realm))
        talk.say("EHLO printer.example", PLAIN, MAIL)
        self.assertEqual(realm.events, ["+alice"])

    def test_wrongPassword(self) -> None:
        """Behind a login that fails it comes back, however long the session has been."""
        clock = Clock()
        talk = talkTo(clock=clock, limits=Limits(commandsBeforeLogin=4, login=60))
        talk.say("EHLO printer.example", MAIL, "RSET", "NOOP", "NOOP", "NOOP")
        clock.advance(61)
        self.assertIn("535", talk.say("AUTH PLAIN AGFsaWNlAHdyb25n"))
        self.assertIsNone(talk.protocol.dialogue.session.user)
        talk.protocol.sweep(61.0)
        self.assertEqual(talk.say(MAIL), "250 2.1.0 Originator ok")
        session = talk.protocol.dialogue.session
        self.assertEqual(session.user.avatarId, "printers@example.com")
        self.assertEqual(session.commands, 8)

    def test_brokenOff(self) -> None:
        """An AUTH that is broken off has logged out once, and nobody is in until the next MAIL."""
        for line in ("*", "A" * 20000):
            realm = Realm()
            talk = talkTo(portal=trusting(realm))
            talk.say("EHLO printer.example", MAIL, "RSET", "AUTH LOGIN", line)
            login = "printers@example.com"
            self.assertEqual(realm.events, [f"+{login}", f"-{login}"])
            self.assertIsNone(talk.protocol.dialogue.session.user)
            self.assertIn("250", talk.say(MAIL))
            talk.protocol.connectionLost(Failure(ConnectionDone()))
            self.assertEqual(realm.events, [f"+{login}", f"-{login}"] * 2)

    def test_startTLS(self) -> None:
        """STARTTLS logs out; the login comes back with the next MAIL, as it is under TLS."""
        realm = Realm()
        talk = talkTo(portal=trusting(realm))
        session = talk.protocol.dialogue.session
        talk.say("EHLO printer.example", MAIL, "RSET", "STARTTLS")
        talk.secure()
        self.assertEqual((session.user, session.mechanism), (None, ""))
        talk.say("EHLO printer.example", MAIL)
        self.assertEqual(session.transmissionType, "ESMTPS")
        login = "printers@example.com"
        self.assertEqual(realm.events, [f"+{login}", f"-{login}", f"+{login}"])

    def test_limits(self) -> None:
        """Until then, the limits of those without a login hold."""
        clock = Clock()
        talk = talkTo(clock=clock, limits=Limits(commandsBeforeLogin=3, login=60))
        self.assertEqual(
            last(talk.say("EHLO printer.example", "NOOP", "NOOP", MAIL)),
            "421 4.7.0 Too many commands before login",
        )
        talk = talkTo(clock=clock, limits=Limits(commandsBeforeLogin=3, login=60))
        talk.say("EHLO printer.example")
        clock.advance(61)
        talk.protocol.sweep(61.0)
        self.assertEqual(talk.transport.taken()[:9], b"421 4.4.2")

    def test_malformed(self) -> None:
        """A command that is none logs nobody in."""
        asked = Asked()
        talk = talkTo(policies=[asked])
        self.assertEqual(last(talk.say("EHLO printer.example", "MAIL"))[:3], "501")
        self.assertEqual(last(talk.say("RCPT TO:<bob@example.net>"))[:3], "503")
        self.assertEqual(asked.logins, [])


class RefusedTests(SynchronousTestCase):
    """What is in the way of it."""

    def test_policy(self) -> None:
        """A policy's refusal is the answer, and does not keep anybody from logging in."""
        asked = Asked(Refused(Reply(450, "4.7.1", "Not now")))
        talk = talkTo(policies=[asked])
        self.assertEqual(last(talk.say("EHLO printer.example", MAIL)), "450 4.7.1 Not now")
        self.assertIsNone(talk.protocol.dialogue.session.user)
        self.assertIn("235", talk.say(PLAIN))

    def test_checker(self) -> None:
        """Where the login is not taken it is 530, and counted as a login that failed."""
        asked, portal = Asked(), trusting()
        portal.checkers[ITrustedLogin] = _Denying()
        talk = talkTo(portal=portal, policies=[asked], limits=Limits(loginFailures=2))
        self.assertEqual(
            last(talk.say("EHLO printer.example", MAIL)), "530 5.7.0 Authentication required"
        )
        self.assertEqual(asked.logins, [b"printers@example.com", UnauthorizedLogin])
        self.assertEqual(talk.say(MAIL)[:9], "421 4.7.0")
        self.assertTrue(talk.transport.disconnecting)

    def test_noChecker(self) -> None:
        """A Portal that takes no such word lets nobody in by it; the log says what it lacks."""
        talk = talkTo(portal=makePortal())
        self.assertEqual(last(talk.say("EHLO printer.example", MAIL))[:3], "454")
        self.assertEqual(len(self.flushLoggedErrors(UnhandledCredentials)), 1)

    def test_broken(self) -> None:
        """A realm that fails is a matter of later, and in the log."""
        talk = talkTo(portal=trusting(Realm(answer=fail(RuntimeError("no data base")))))
        self.assertEqual(
            last(talk.say("EHLO printer.example", MAIL)),
            "454 4.7.0 Temporary authentication failure",
        )
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_late(self) -> None:
        """So is one that does not answer."""
        clock = Clock()
        talk = talkTo(
            clock=clock, portal=trusting(Realm(answer=Deferred())), limits=Limits(stage=10)
        )
        talk.say("EHLO printer.example")
        self.assertEqual(talk.say(MAIL), "")
        clock.advance(10)
        self.assertEqual(talk.transport.taken()[:3], b"454")

    def test_gone(self) -> None:
        """A client that goes while it is waited for is logged in nowhere."""
        cancelled: list[Any] = []
        realm = Realm(answer=Deferred(cancelled.append))
        talk = talkTo(portal=trusting(realm))
        talk.say("EHLO printer.example", MAIL)
        talk.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(cancelled), 1)
        self.assertIsNone(talk.protocol.dialogue.session.user)


class _Denying:
    """A checker that believes nobody."""

    credentialInterfaces = (ITrustedLogin,)

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        return fail(UnauthorizedLogin())
