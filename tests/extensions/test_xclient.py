"""XCLIENT and XFORWARD: what they make of the session, beyond what the dialogues show."""

from __future__ import annotations

from typing import Any

from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from submitd.checkers.trusted import TrustedProxy
from submitd.connections import Connections
from submitd.interfaces import IConnectionPolicy, ILoginPolicy, IReverseResolver, ITrustedLogin
from submitd.protocol import SubmissionFactory
from submitd.sasl.credentials import TrustedLogin
from submitd.session import Session
from submitd.submission import Limits
from submitd.wire.errors import Refused
from submitd.wire.network import Networks
from submitd.wire.reply import Reply
from tests.fixtures import Conversation, FakeTransport, NoTLS, makePortal, makeSubmission

PROXY = "192.0.2.7"  # the peer of a Conversation
TRUSTED = Networks.parse([PROXY])


@implementer(IConnectionPolicy)
class Noting:
    """Notes whom it has seen."""

    def connectionMade(self, session: Any) -> None:
        session.notes["address"] = session.remoteAddress


@implementer(IConnectionPolicy, ILoginPolicy)
class Gate:
    """Refuses some addresses and logins, and keeps what it was asked about."""

    def __init__(self, *refused: str, wait: Deferred[None] | None = None) -> None:
        self.refused = refused
        self.wait = wait
        self.asked: list[str] = []
        self.logins: list[Any] = []

    def connectionMade(self, session: Session) -> Any:
        self.asked.append(session.remoteAddress)
        if session.remoteAddress in self.refused:
            raise Refused(Reply(554, "5.7.1", "Not you"))
        return self.wait if len(self.asked) > 1 else None

    def loginRequested(self, session: Session, credentials: Any) -> None:
        self.logins.append((session.remoteAddress, credentials.username))
        if credentials.username.decode() in self.refused:
            raise Refused(Reply(550, "5.7.1", "Not this one"))

    def loginSucceeded(self, session: Session, avatar: Any) -> None:
        self.logins.append(avatar.avatarId)

    def loginFailed(self, session: Session, credentials: Any, failure: Any) -> None:
        self.logins.append(failure.type)


def talkTo(**changes: Any) -> Conversation:
    """A conversation with a service that trusts its client."""
    settings: dict[str, Any] = {"requireTLS": False, "xclientFrom": TRUSTED}
    return Conversation(makeSubmission(**{**settings, **changes}))


def trusting() -> Any:
    """A portal that believes proxies."""
    portal = makePortal()
    portal.registerChecker(TrustedProxy())
    return portal


class XclientTests(SynchronousTestCase):
    """The session, the policies and the limits behind XCLIENT."""

    def test_session(self) -> None:
        """The client's ends and name take the place of the proxy's; all that was said is kept."""
        talk = talkTo()
        session = talk.protocol.dialogue.session
        talk.say(
            "EHLO proxy.example",
            "XCLIENT NAME=client.example.net ADDR=IPV6:2001:DB8::7 PORT=40001 PROTO=ESMTP "
            "HELO=me DESTADDR=203.0.113.9 DESTPORT=465",
        )
        self.assertEqual((session.remoteAddress, session.remotePort), ("2001:db8::7", 40001))
        self.assertEqual((session.localAddress, session.localPort), ("203.0.113.9", 465))
        self.assertEqual(session.clientHostname, "client.example.net")
        self.assertEqual((session.heloName, session.openingCommand), ("", ""))
        self.assertEqual(session.peerAddress, PROXY)
        self.assertEqual(session.xclient["HELO"], "me")

    def test_addsUp(self) -> None:
        """What several XCLIENT say adds up, but for what holds of one alone."""
        talk = talkTo()
        session = talk.protocol.dialogue.session
        talk.say("XCLIENT NAME=client.example.net HELO=me", "XCLIENT ADDR=198.51.100.7")
        self.assertEqual(session.xclient, {"NAME": "client.example.net", "ADDR": "198.51.100.7"})
        self.assertEqual((session.remoteAddress, session.remotePort), ("198.51.100.7", 40000))
        self.assertEqual(session.clientHostname, "client.example.net")

    def test_unavailable(self) -> None:
        """What the proxy does not know is nobody's, and not the proxy's own."""
        talk = talkTo()
        session = talk.protocol.dialogue.session
        talk.say("XCLIENT ADDR=[UNAVAILABLE] PORT=[UNAVAILABLE] NAME=[TEMPUNAVAIL]")
        self.assertEqual(
            (session.remoteAddress, session.remotePort, session.clientHostname), ("", 0, "")
        )

    def test_trustIsThePeers(self) -> None:
        """Who may say XCLIENT is decided by the connection's address, not by what it claims."""
        talk = talkTo()
        self.assertIn("220", talk.say("XCLIENT ADDR=198.51.100.7"))
        self.assertIn("220", talk.say("XCLIENT ADDR=198.51.100.8"))
        stranger = talkTo(xclientFrom=Networks.parse(["198.51.100.0/24"]))
        self.assertIn("550", stranger.say("XCLIENT ADDR=198.51.100.7"))
        self.assertEqual(stranger.protocol.dialogue.session.remoteAddress, PROXY)

    def test_connectionStage(self) -> None:
        """The connection stage runs again for the real address, and then one can only quit."""
        gate = Gate("198.51.100.7")
        talk = talkTo(policies=[gate])
        said = talk.say("XCLIENT ADDR=198.51.100.8", "XCLIENT ADDR=198.51.100.7", "NOOP")
        self.assertTrue(said.endswith("\n554 5.7.1 Not you\n503 5.5.1 Bad sequence of commands"))
        self.assertIn("503", talk.say("XCLIENT ADDR=198.51.100.9"))
        self.assertEqual(talk.say("QUIT"), "221 2.0.0 Bye")
        self.assertTrue(talk.transport.disconnecting)
        self.assertEqual(gate.asked, [PROXY, "198.51.100.8", "198.51.100.7"])

    def test_malformedChangesNothing(self) -> None:
        """A refused XCLIENT leaves the session as it was, login and EHLO too."""
        talk = talkTo()
        talk.login()
        session = talk.protocol.dialogue.session
        self.assertIn("501", talk.say("XCLIENT ADDR=198.51.100.7 NAME=a+0Ab"))
        self.assertIn("550", talk.say("XCLIENT ADDR=198.51.100.7 LOGIN=bob"))
        self.assertEqual(session.remoteAddress, PROXY)
        self.assertEqual((session.user.avatarId, session.heloName), ("alice", "client.example"))
        self.assertEqual(session.xclient, {})

    def test_countsAnew(self) -> None:
        """What one client did wrong is not held against the next one."""
        limits = Limits(loginFailures=2, commandsBeforeLogin=4, unrecognized=2)
        talk = talkTo(insecureLogin=True, limits=limits)
        for _ in range(5):
            said = talk.say("EHLO c", "AUTH PLAIN AGFsaWNlAHdyb25n").split("\n")
            self.assertEqual(said[-1][:3], "535")
            said = talk.say("NONSENSE", "XCLIENT ADDR=198.51.100.7").split("\n")
            self.assertEqual([each[:3] for each in said], ["500", "220"])

    def test_timeAnew(self) -> None:
        """Nor is the time that those before it took: each client has its own to log in."""
        clock = Clock()
        talk = talkTo(clock=clock, limits=Limits(login=60, idle=0))
        clock.advance(59)
        talk.say("XCLIENT ADDR=198.51.100.7")
        talk.transport.clear()
        clock.advance(59)
        talk.protocol.sweep(clock.seconds())
        self.assertEqual(talk.transport.taken(), b"")
        clock.advance(2)
        talk.protocol.sweep(clock.seconds())
        self.assertEqual(talk.transport.taken()[:9], b"421 4.4.2")

    def test_logsOut(self) -> None:
        """A login of before is over: it was the proxy's, or another client's."""
        talk = talkTo()
        talk.login()
        loggedOut = []
        talk.protocol.dialogue.logout = lambda: loggedOut.append(1)
        talk.say("XCLIENT ADDR=198.51.100.7")
        self.assertIsNone(talk.protocol.dialogue.session.user)
        self.assertEqual(loggedOut, [1])

    def test_login(self) -> None:
        """LOGIN= goes the way of any login, its policies asked about the real address."""
        gate = Gate()
        talk = talkTo(portal=trusting(), xclientLogin=True, policies=[gate])
        said = talk.say("XCLIENT ADDR=198.51.100.7 LOGIN=bob+40example.net")
        self.assertTrue(said.endswith("220 mail.example.com ESMTP"), said)
        session = talk.protocol.dialogue.session
        self.assertEqual((session.user.avatarId, session.mechanism), ("bob@example.net", "XCLIENT"))
        self.assertEqual(gate.logins, [("198.51.100.7", b"bob@example.net"), "bob@example.net"])

    def test_loginAfterAWait(self) -> None:
        """The login waits for the connection stage, and the greeting for both."""
        wait: Deferred[None] = Deferred()
        gate = Gate(wait=wait)
        talk = talkTo(portal=trusting(), xclientLogin=True, policies=[gate])
        talk.transport.clear()
        self.assertEqual(talk.say("XCLIENT ADDR=198.51.100.7 LOGIN=bob"), "")
        self.assertEqual(gate.logins, [])
        wait.callback(None)
        self.assertEqual(talk.transport.taken(), b"220 mail.example.com ESMTP\r\n")
        self.assertEqual(len(gate.logins), 2)

    def test_loginRefused(self) -> None:
        """A policy's or a checker's no is the answer, and nobody is logged in."""
        talk = talkTo(portal=trusting(), xclientLogin=True, policies=[Gate("bob")])
        talk.transport.clear()
        self.assertEqual(talk.say("XCLIENT LOGIN=bob"), "550 5.7.1 Not this one")
        portal = makePortal()
        portal.checkers[ITrustedLogin] = _Denying()
        talk = talkTo(portal=portal, xclientLogin=True)
        talk.transport.clear()
        self.assertEqual(
            talk.say("XCLIENT ADDR=198.51.100.7 LOGIN=bob"),
            "535 5.7.8 Authentication credentials invalid",
        )
        session = talk.protocol.dialogue.session
        self.assertEqual((session.user, session.loginFailures), (None, 1))
        self.assertIn("250", talk.say("EHLO client.example"))

    def test_noChecker(self) -> None:
        """A Portal that cannot take the proxy's word takes it not."""
        for portal in (makePortal(), None):
            talk = talkTo(portal=portal, xclientLogin=True)
            talk.transport.clear()
            self.assertEqual(talk.say("XCLIENT LOGIN=alice"), "550 5.7.0 LOGIN is not allowed here")
            self.assertIsNone(talk.protocol.dialogue.session.user)

    def test_startTLS(self) -> None:
        """STARTTLS gives back the connection's own address: anybody may have said the other."""
        talk = talkTo()
        talk.say("XCLIENT ADDR=198.51.100.7 NAME=client.example.net", "EHLO c", "STARTTLS")
        session = talk.protocol.dialogue.session
        talk.secure()
        self.assertEqual((session.remoteAddress, session.clientHostname), (PROXY, f"[{PROXY}]"))
        self.assertEqual((session.xclient, session.direct), ({}, None))

    def test_startTLSNotes(self) -> None:
        """What policies noted of an address that XCLIENT claimed in the clear is gone behind it."""
        talk = talkTo(policies=[Noting()])
        session = talk.protocol.dialogue.session
        for address in ("198.51.100.7", "198.51.100.8"):
            talk.say(f"XCLIENT ADDR={address}")
            self.assertEqual(session.notes, {"address": address})
        talk.say("HELO client.example", "STARTTLS")
        talk.secure()
        self.assertEqual(session.notes, {"address": PROXY})

    def test_limitPerAddress(self) -> None:
        """The client's address is counted and not the proxy's, from where all come."""
        connections = Connections(Clock(), perAddress=1)
        submission = makeSubmission(requireTLS=False, xclientFrom=TRUSTED)
        factory = SubmissionFactory(submission, NoTLS(), False, connections)  # type: ignore

        def connect(address: str) -> FakeTransport:
            transport = FakeTransport()
            transport.protocol = factory.buildProtocol(None)
            transport.protocol.makeConnection(transport)
            transport.protocol.dataReceived(b"XCLIENT ADDR=%b\r\n" % address.encode())
            transport.protocol.dataReceived(b"XCLIENT PORT=40001\r\n")
            return transport

        first = connect("198.51.100.7")
        self.assertEqual(first.taken().count(b"220 "), 3)
        self.assertEqual(connect("198.51.100.8").taken().count(b"220 "), 3)
        again = connect("198.51.100.7")
        self.assertIn(b"\r\n421 4.7.0 Too many connections", again.taken())
        self.assertTrue(again.disconnecting)
        first.protocol.connectionLost()
        again.protocol.connectionLost()
        self.assertEqual(connect("198.51.100.7").taken().count(b"220 "), 3)

    def test_lookup(self) -> None:
        """The name of the new address is looked up, unless the proxy has told it."""
        talk = talkTo(resolver=_Names())
        session = talk.protocol.dialogue.session
        self.assertEqual(session.clientHostname, "host-192-0-2-7.example.net")
        talk.say("XCLIENT ADDR=198.51.100.7")
        self.assertEqual(session.clientHostname, "host-198-51-100-7.example.net")
        talk.say("XCLIENT NAME=told.example.net")
        self.assertEqual(session.clientHostname, "told.example.net")

    def test_credentials(self) -> None:
        """The credentials are what the checker takes, and it gives their name."""
        credentials = TrustedLogin(b"bob")
        self.assertTrue(verifyObject(ITrustedLogin, credentials))
        self.assertEqual(self.successResultOf(TrustedProxy().requestAvatarId(credentials)), b"bob")


class XforwardTests(SynchronousTestCase):
    """The session behind XFORWARD."""

    def test_session(self) -> None:
        """It is kept until the end of the transaction, adds up, and changes no address."""
        talk = Conversation(
            makeSubmission(requireTLS=False, loginRequired=False, xforwardFrom=TRUSTED)
        )
        session = talk.protocol.dialogue.session
        talk.say("EHLO proxy.example", "XFORWARD ADDR=198.51.100.7 IDENT=4b+2BX", "XFORWARD PORT=1")
        kept = {"ADDR": "198.51.100.7", "IDENT": "4b+X", "PORT": "1"}
        self.assertEqual(session.xforward, kept)
        self.assertEqual(session.remoteAddress, PROXY)
        talk.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.com>", "DATA")
        self.assertEqual(session.xforward, kept)
        talk.say("Subject: x", "", ".")
        self.assertEqual(session.xforward, {})


class _Denying:
    """A checker that believes no proxy."""

    credentialInterfaces = (ITrustedLogin,)

    def requestAvatarId(self, credentials: Any) -> Deferred[Any]:
        return fail(UnauthorizedLogin())


@implementer(IReverseResolver)
class _Names:
    """Every address has a name, and every name its address."""

    def namesOf(self, address: str) -> Deferred[list[str]]:
        return succeed([f"host-{address.replace('.', '-')}.example.net."])

    def addressesOf(self, name: str, version: int) -> list[str]:
        return [name.removeprefix("host-").partition(".")[0].replace("-", ".")]
