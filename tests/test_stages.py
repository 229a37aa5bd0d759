"""Every stage of the dialogue from outside: it can refuse in its own words, wait, or be left out.

Also what a listener says and offers by its settings, and what a session tells at each stage.
"""

from __future__ import annotations

import base64
from typing import Any

import attrs
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from submitd import interfaces
from submitd.envelope import Envelope, Recipient
from submitd.realm import SubmissionRealm
from submitd.sasl import mechanism
from submitd.session import Session
from submitd.submission import Limits
from submitd.wire.address import NULL_PATH, Mailbox
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply
from tests.fixtures import Conversation, makePortal, makeSubmission

NO = Reply(450, "4.7.9", "Words of its own")
RIGHT = "AUTH PLAIN " + base64.b64encode(b"\0alice\0wonderland").decode()
WRONG = "AUTH PLAIN " + base64.b64encode(b"\0alice\0wrong").decode()
OTHER = "AUTH PLAIN " + base64.b64encode(b"office\0alice\0wonderland").decode()

# Stage, what the client says, and what it is told when nobody objects.  TLS stands for a handshake.
STEPS = (
    ("connection", "", "220"),
    ("hello", "EHLO client.example", "250"),
    ("", "STARTTLS", "220"),
    ("secure", "TLS EHLO client.example", "250"),
    ("failed", WRONG, "535"),
    ("succeeded", RIGHT, "235"),
    ("sender", "MAIL FROM:<a@example.com> BODY=8BITMIME", "250"),
    ("recipient", "RCPT TO:<b@example.org>", "250"),
    ("data", "DATA", "354"),
    ("message", "Subject: x\r\n\r\nhello\r\n.", "250"),
    ("", "QUIT", "221"),
)
STAGES = ["requested", *(stage for stage, _, _ in STEPS if stage)]


@implementer(
    interfaces.IConnectionPolicy,
    interfaces.IHelloPolicy,
    interfaces.ISecurePolicy,
    interfaces.ILoginPolicy,
    interfaces.IIdentityPolicy,
    interfaces.ISenderPolicy,
    interfaces.IRecipientPolicy,
    interfaces.IDataPolicy,
    interfaces.IMessagePolicy,
    interfaces.IDisconnectObserver,
)
@attrs.define(eq=False)
class Everywhere:
    """Takes part in all stages, and answers once at one of them.

    :ivar facts: what the session tells at each, the latest one.
    """

    stage: str = ""
    answer: Any = None
    facts: dict[str, tuple[Any, ...]] = attrs.field(factory=dict)

    def _asked(self, stage: str, session: Session) -> Any:
        envelope = session.envelope
        self.facts[stage] = (
            session.secure,
            session.servername,
            session.heloName,
            session.openingCommand,
            session.transmissionType,
            session.user.avatarId if session.user is not None else None,
            session.transactions,
            len(envelope.recipients) if envelope is not None else None,
        )
        if stage != self.stage:
            return None
        self.stage = ""
        return self.answer()

    def connectionMade(self, session: Session) -> Any:
        return self._asked("connection", session)

    def helloReceived(self, session: Session, domain: str) -> Any:
        return self._asked("hello", session)

    def handshakeCompleted(self, session: Session) -> Any:
        return self._asked("secure", session)

    def loginRequested(self, session: Session, credentials: Any) -> Any:
        return self._asked("requested", session)

    def loginSucceeded(self, session: Session, avatar: Any) -> Any:
        return self._asked("succeeded", session)

    def loginFailed(self, session: Session, credentials: Any, failure: Failure) -> Any:
        return self._asked("failed", session)

    def identityRequested(self, session: Session, avatar: Any, identity: str) -> Any:
        return self._asked("identity", session)

    def validateFrom(self, session: Session, envelope: Envelope) -> Any:
        return self._asked("sender", session)

    def validateTo(self, session: Session, envelope: Envelope, recipient: Recipient) -> Any:
        return self._asked("recipient", session)

    def dataRequested(self, session: Session, envelope: Envelope) -> Any:
        return self._asked("data", session)

    def messageReceived(self, session: Session, envelope: Envelope, message: Any) -> Any:
        return self._asked("message", session)

    def connectionLost(self, session: Session, reason: Failure) -> None:
        self._asked("close", session)


def refuse() -> None:
    raise Refused(NO, "because")


def refusalAt(stage: str) -> str:
    """What it says; RFC 5321 4.3.2 knows of no 450 in place of the greeting."""
    return f"{421 if stage == 'connection' else 450} 4.7.9 Words of its own"


class StageTests(SynchronousTestCase):
    """One connection through all stages."""

    def walk(self, policies: list[Any], last: str = "quit") -> tuple[Conversation, str, str]:
        """Go as far as a stage; the connection, what is said there, and what is due there."""
        talk = Conversation(makeSubmission(policies=policies))
        for stage, line, due in STEPS:
            if line.startswith("TLS "):
                talk.secure()
                line = line.removeprefix("TLS ")
            said = talk.say(line) if line else talk.transport.taken().decode("ascii")
            if stage == ("failed" if last == "requested" else last):
                return talk, said, due
            self.assertEqual(said[:3], due, line)
        return talk, said, due

    def test_refuse(self) -> None:
        """Each stage refuses with code and text of its own; in place of the greeting it is 421."""
        for stage in STAGES:
            _, said, _ = self.walk([Everywhere(stage, refuse)], stage)
            self.assertEqual(said.strip(), refusalAt(stage), stage)

    def test_wait(self) -> None:
        """Each stage waits for a Deferred: nothing is said before, and then what is due."""
        for stage in STAGES:
            waiting: Deferred[None] = Deferred()
            policy = Everywhere(stage, lambda waiting=waiting: waiting)
            talk, said, due = self.walk([policy], stage)
            self.assertEqual(said, "", stage)
            waiting.callback(None)
            self.assertEqual(talk.transport.taken()[:3].decode(), due, stage)

    def test_refuseLater(self) -> None:
        """A Deferred that fails with a refusal is one."""
        for stage in STAGES:
            waiting: Deferred[None] = Deferred()
            policy = Everywhere(stage, lambda waiting=waiting: waiting)
            talk, _, _ = self.walk([policy], stage)
            waiting.errback(Refused(NO))
            said = talk.transport.taken().decode("ascii")
            self.assertEqual(said.strip(), refusalAt(stage), stage)

    def test_leftOut(self) -> None:
        """Without a policy all goes its way."""
        talk, said, _ = self.walk([])
        self.assertEqual(said, "221 2.0.0 Bye")
        self.assertTrue(talk.transport.disconnecting)

    def test_session(self) -> None:
        """What is known grows from stage to stage, and the end is told once with all of it."""
        policy = Everywhere()
        talk, _, _ = self.walk([policy])
        self.assertNotIn("close", policy.facts)
        talk.lose()
        hello, name, sni = "client.example", "alice", "mail.example.com"
        for stage, facts in (
            ("connection", (False, None, "", "", "ESMTP", None, 0, None)),
            ("secure", (True, sni, "", "", "ESMTPS", None, 0, None)),
            ("requested", (True, sni, hello, "EHLO", "ESMTPS", None, 0, None)),
            ("sender", (True, sni, hello, "EHLO", "ESMTPSA", name, 0, None)),
            ("recipient", (True, sni, hello, "EHLO", "ESMTPSA", name, 1, 0)),
            ("data", (True, sni, hello, "EHLO", "ESMTPSA", name, 1, 1)),
            ("message", (True, sni, hello, "EHLO", "ESMTPSA", name, 1, 1)),
            ("close", (True, sni, hello, "EHLO", "ESMTPSA", name, 1, None)),
        ):
            self.assertEqual(policy.facts[stage], facts, stage)

    def test_addresses(self) -> None:
        """Both ends, the id, and the address in brackets where there is no name for it."""
        talk, _, _ = self.walk([])
        session = talk.protocol.dialogue.session
        self.assertEqual(
            (session.remoteAddress, session.remotePort, session.localAddress, session.localPort),
            ("192.0.2.7", 40000, "192.0.2.1", 587),
        )
        self.assertEqual(session.clientHostname, "[192.0.2.7]")
        self.assertNotEqual(session.id, self.walk([])[0].protocol.dialogue.session.id)

    def test_identity(self) -> None:
        """The stage of PLAIN's other identity refuses in its own words, too."""
        for answer, said in ((refuse, "450 4.7.9 Words of its own"), (lambda: None, "235 2.7.0")):
            policy = Everywhere("identity", answer)
            talk = Conversation(
                makeSubmission(policies=[policy], requireTLS=False, insecureLogin=True)
            )
            talk.transport.clear()
            talk.say("EHLO c")
            self.assertTrue(talk.say(OTHER).startswith(said))

    def test_envelope(self) -> None:
        """What MAIL and RCPT say is on the envelope, as parameters and as facts."""
        talk = Conversation(makeSubmission(loginRequired=False))
        talk.say("EHLO c", "STARTTLS")
        talk.secure()
        talk.say(
            "EHLO c",
            "MAIL FROM:<a@example.com> BODY=8BITMIME SMTPUTF8 REQUIRETLS RET=HDRS ENVID=q1 SIZE=9",
            "RCPT TO:<b@example.org> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c@example.org",
        )
        envelope = talk.protocol.dialogue.session.envelope
        assert envelope is not None
        self.assertEqual(str(envelope.reversePath), "<a@example.com>")
        self.assertEqual(envelope.parameters["BODY"], "8BITMIME")
        self.assertEqual(
            (envelope.bodyType, envelope.smtpUtf8, envelope.requireTLS, envelope.size),
            ("8BITMIME", True, True, 9),
        )
        self.assertEqual((envelope.ret, envelope.envid), ("HDRS", "q1"))
        [recipient] = envelope.recipients
        self.assertEqual(str(recipient.mailbox), "b@example.org")
        self.assertEqual(
            (recipient.notify, recipient.orcpt), (("SUCCESS", "DELAY"), ("rfc822", "c@example.org"))
        )
        talk.say("RSET", "MAIL FROM:<>")
        envelope = talk.protocol.dialogue.session.envelope
        assert envelope is not None
        self.assertEqual((envelope.reversePath, envelope.bodyType), (NULL_PATH, "7BIT"))

    def test_attributes(self) -> None:
        """What the realm knows of somebody is there for the stages behind the login."""
        seen: list[Any] = []

        @implementer(interfaces.ISenderPolicy, interfaces.IMessagePolicy)
        class Reader:
            def validateFrom(self, session: Any, envelope: Any) -> None:
                seen.append(session.user.attributes)

            def messageReceived(self, session: Any, envelope: Any, message: Any) -> None:
                seen.append((session.user.attributes["quota"], session.user.owns(BOB)))

        portal = Portal(
            SubmissionRealm(lambda name: {"id": 123, "quota": 1000000}),
            list(makePortal().checkers.values())[:1],
        )
        talk = Conversation(makeSubmission(policies=[Reader()], portal=portal))
        talk.login()
        talk.say("MAIL FROM:<a@example.com>", "RCPT TO:<b@example.org>", "DATA")
        talk.say("hello", ".")
        self.assertEqual(seen, [{"id": 123, "quota": 1000000}, (1000000, False)])


BOB = Mailbox("bob", "example.com")


class SettingTests(SynchronousTestCase):
    """What is said and offered, by the settings of a submission."""

    def talk(self, **common: Any) -> Conversation:
        return Conversation(makeSubmission(**{"requireTLS": False, **common}))

    def greeting(self, **common: Any) -> str:
        """What a client is told first."""
        return self.talk(**common).transport.taken().decode("ascii")

    def test_banner(self) -> None:
        """The greeting has the name, and the banner behind it where there is one."""
        self.assertEqual(self.greeting(), "220 mail.example.com ESMTP\r\n")
        self.assertEqual(
            self.greeting(hostname="mx.example", banner="Welcome to Example Mail"),
            "220 mx.example ESMTP Welcome to Example Mail\r\n",
        )

    def test_helloText(self) -> None:
        """The answer to EHLO and HELO is the name and the text, with the client's name in it."""
        for text, said in (
            ("greets {client}", "greets client.example"),
            ("Nice to meet you, {client}", "Nice to meet you, client.example"),
            ("at your service", "at your service"),
        ):
            for verb in ("EHLO", "HELO"):
                talk = self.talk(helloText=text)
                talk.transport.clear()
                [first, *_] = talk.say(f"{verb} client.example").split("\n")
                self.assertEqual(first[4:], f"mail.example.com {said}")

    def test_loginRequiredText(self) -> None:
        """530 has the text that was asked for."""
        talk = self.talk(loginRequiredText="Please authenticate before sending mail")
        talk.transport.clear()
        talk.say("EHLO c")
        self.assertEqual(
            talk.say("MAIL FROM:<a@example.com>"),
            "530 5.7.0 Please authenticate before sending mail",
        )

    def test_loginOptional(self) -> None:
        """Without a login mail is taken where none is required; a login is offered all the same."""
        talk = self.talk(loginRequired=False, insecureLogin=True)
        talk.transport.clear()
        self.assertIn("AUTH PLAIN LOGIN", talk.say("EHLO c"))
        self.assertEqual(talk.say("MAIL FROM:<a@example.com>")[:3], "250")
        talk.say("RSET")
        self.assertEqual(talk.say(RIGHT)[:3], "235")
        self.assertEqual(talk.say("MAIL FROM:<a@example.com>")[:3], "250")

    def test_insecureLogin(self) -> None:
        """A password without TLS is 538 and not offered, unless it is asked for explicitly."""
        talk = self.talk()
        talk.transport.clear()
        self.assertNotIn("AUTH", talk.say("EHLO c"))
        self.assertEqual(talk.say(RIGHT)[:10], "538 5.7.11")
        talk = self.talk(insecureLogin=True)
        talk.transport.clear()
        self.assertIn("AUTH PLAIN LOGIN", talk.say("EHLO c"))
        self.assertEqual(talk.say(RIGHT)[:3], "235")

    def test_mechanisms(self) -> None:
        """What is listed is offered, in that order; any other is 504."""
        offered = [mechanism(name) for name in ("LOGIN", "PLAIN")]
        for mechanisms, line in ((offered, "AUTH LOGIN PLAIN"), (offered[:1], "AUTH LOGIN")):
            talk = self.talk(mechanisms=mechanisms, insecureLogin=True)
            talk.transport.clear()
            self.assertIn(line, talk.say("EHLO c").replace("250-", "").split("\n"))
        self.assertEqual(talk.say(RIGHT)[:9], "504 5.5.4")

    def test_noCommandLimit(self) -> None:
        """0 sets no limit to the commands before a login."""
        talk = self.talk(limits=Limits(commandsBeforeLogin=0))
        talk.transport.clear()
        for _ in range(100):
            self.assertEqual(talk.say("NOOP"), "250 2.0.0 Ok")
