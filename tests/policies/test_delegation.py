"""Policy delegation."""

from __future__ import annotations

import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import crypto
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import Logger
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd import events
from submitd.envelope import Envelope, Recipient
from submitd.interfaces import (
    IChecked,
    IConnectionPolicy,
    IDataPolicy,
    IDelays,
    IHelloPolicy,
    IMessagePolicy,
    IRecipientPolicy,
    IRunning,
    ISenderPolicy,
)
from submitd.policies import delegation as module
from submitd.policies.delegation import MAX_FIELDS, Delegation, attributes
from submitd.session import Session, TLSInfo
from submitd.wire.address import NULL_PATH, Mailbox
from submitd.wire.errors import Refused
from submitd.wire.policyrequest import ATTRIBUTES
from tests.fixtures import Conversation, MemoryDelivery, makeSubmission
from tests.policies.policyservers import Answering, Endpoint
from tests.spool.support import makeEnvelope, makeSession

ALL = ("CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "END-OF-MESSAGE")


class Message:
    """A message that has been received."""

    byteLength = 1234

    def __init__(self) -> None:
        self.fields: list[bytes] = []
        self.reasons: list[str] = []

    def prepend(self, field: bytes) -> None:
        self.fields.append(field)

    def discard(self, reason: str) -> None:
        self.reasons.append(reason)


class DelegationCase(SynchronousTestCase):
    """Has a policy, a server, and the events."""

    def setUp(self) -> None:
        self.logged: list[dict[str, Any]] = []
        self.patch(events, "log", Logger(namespace="submitd", observer=self.logged.append))
        self.clock = Clock()
        self.clock.advance(1000)
        self.endpoint = Endpoint()
        self.patch(module, "clientEndpoint", lambda reactor, text: self.endpoint)
        self.session = makeSession("alice")
        self.session.mechanism = "PLAIN"

    def policy(self, stages: tuple[str, ...] = ALL, **keys: Any) -> Delegation:
        """A policy that runs."""
        policy = Delegation(endpoint="tcp:127.0.0.1:10023", stages=stages, **keys)
        self.successResultOf(policy.start(self.clock))
        return policy

    def at(self, policy: Delegation, stage: str, envelope: Envelope) -> Deferred[None] | None:
        """Come to a stage."""
        recipient = Recipient(Mailbox("bob", "example.net"))
        self.message = Message()
        call: dict[str, Any] = {
            "CONNECT": lambda: policy.connectionMade(self.session),
            "EHLO": lambda: policy.helloReceived(self.session, "client.example"),
            "MAIL": lambda: policy.validateFrom(self.session, envelope),
            "RCPT": lambda: policy.validateTo(self.session, envelope, recipient),
            "DATA": lambda: policy.dataRequested(self.session, envelope),
            "END-OF-MESSAGE": lambda: policy.messageReceived(
                self.session,
                envelope,
                self.message,  # type: ignore[arg-type, unused-ignore]
            ),
        }[stage]
        waiting: Deferred[None] | None = call()
        return waiting

    def said(self, action: str, stage: str = "RCPT", **keys: Any) -> str:
        """What the client is told after an answer; empty where it may go on."""
        self.envelope = makeEnvelope("A-1")
        self.running = self.policy(**keys)
        waiting = self.at(self.running, stage, self.envelope)
        assert waiting is not None
        self.endpoint.answer(f"action={action}\n\n".encode())
        return self.outcome(waiting)

    def outcome(self, waiting: Deferred[None]) -> str:
        """The reply, and what the log is told besides; or empty."""
        failed: list[Any] = []
        waiting.addErrback(failed.append)
        self.assertIsNone(self.successResultOf(waiting))
        if not failed:
            return ""
        self.assertIsInstance(failed[0].value, Refused)
        return str(failed[0].value)

    def names(self) -> list[str]:
        """The events."""
        return [each["event"] for each in self.logged]


class AttributeTests(DelegationCase):
    """What the server is told."""

    def test_interfaces(self) -> None:
        """It takes part from the connection to the end of the message."""
        for interface in (
            *(IConnectionPolicy, IHelloPolicy, ISenderPolicy, IRecipientPolicy),
            *(IDataPolicy, IMessagePolicy, IRunning, IChecked),
        ):
            self.assertTrue(verifyObject(interface, self.policy()))

    def test_stages(self) -> None:
        """Each stage has its name, and what is known by then."""
        policy = self.policy(context="out")
        self.session.openingCommand = "EHLO"
        self.session.heloName = "client.example"
        self.session.localAddress, self.session.localPort = "192.0.2.1", 587
        envelope = makeEnvelope("A-1", "bob@example.net")
        envelope.size = 99
        for stage in ALL:
            waiting = self.at(policy, stage, envelope)
            asked = self.endpoint.asked()
            self.endpoint.answer(b"action=DUNNO\n\n")
            assert waiting is not None
            self.assertEqual(self.outcome(waiting), "")
            self.assertEqual(tuple(asked), ATTRIBUTES)
            expected = {
                "request": "smtpd_access_policy",
                "protocol_state": stage,
                "protocol_name": "ESMTP",
                "client_address": "192.0.2.7",
                "client_name": "unknown",
                "client_port": "40000",
                "server_address": "192.0.2.1",
                "server_port": "587",
                "helo_name": "client.example",
                "sasl_username": "alice",
                "sasl_method": "PLAIN",
                "policy_context": "out",
            }
            if stage in ("CONNECT", "EHLO"):
                expected |= {"sender": "", "recipient": "", "size": "0", "queue_id": ""}
            else:
                size = "1234" if stage == "END-OF-MESSAGE" else "99"
                late = stage in ("DATA", "END-OF-MESSAGE")
                expected |= {
                    "sender": "alice@example.com",
                    "recipient": "" if stage == "MAIL" else "bob@example.net",
                    "recipient_count": "1" if late else "0",
                    "size": size,
                    "queue_id": "A-1",
                    "instance": "A-1",
                }
            self.assertEqual({name: asked[name] for name in expected}, expected, stage)
        self.assertEqual(len(self.endpoint.lines), 1)

    def test_severalRecipients(self) -> None:
        """At DATA no recipient is named where there are several; blind ones do not count."""
        policy = self.policy()
        envelope = makeEnvelope("A-1", "b@example.net", "c@example.net")
        envelope.blind = (Recipient(Mailbox("archive", "example.com")),)
        self.at(policy, "DATA", envelope)
        asked = self.endpoint.asked()
        self.assertEqual((asked["recipient"], asked["recipient_count"]), ("", "2"))

    def test_bare(self) -> None:
        """Without login, TLS, greeting or sender: empty, and never missing."""
        values = attributes(Session("192.0.2.7"), Envelope("A-1", NULL_PATH, auth="<>"))
        self.assertEqual(values["sender"], "")
        self.assertEqual(values["sasl_sender"], "")
        self.assertEqual(values["protocol_name"], "SMTP")
        self.assertNotIn("sasl_username", values)
        self.assertNotIn("encryption_protocol", values)

    def test_names(self) -> None:
        """A verified name of the client, LMTP, AUTH=."""
        session = Session("192.0.2.7", clientHostname="client.example", openingCommand="LHLO")
        values = attributes(session, Envelope("A-1", NULL_PATH, auth="a@example.com"))
        self.assertEqual(values["client_name"], "client.example")
        self.assertEqual(values["protocol_name"], "LMTP")
        self.assertEqual(values["sasl_sender"], "a@example.com")

    def certificate(self) -> Any:
        """A client's certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Jürgen + Söhne")])
        now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(x509.Name([]))
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(days=1))
            .sign(key, hashes.SHA256())
        )
        return crypto.X509.from_cryptography(made)

    def test_certificate(self) -> None:
        """Fingerprints of a client's certificate; its names only where it was verified."""
        peer = self.certificate()
        session = Session(tls=TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, None, peer))
        values = attributes(session, None)
        self.assertEqual(values["encryption_protocol"], "TLSv1.3")
        self.assertEqual(values["encryption_keysize"], 256)
        self.assertRegex(str(values["ccert_fingerprint"]), r"^([0-9A-F]{2}:){31}[0-9A-F]{2}$")
        self.assertRegex(str(values["ccert_pubkey_fingerprint"]), r"^([0-9A-F]{2}:){31}..$")
        self.assertNotIn("ccert_subject", values)
        session = Session(tls=TLSInfo("TLSv1.3", "X", 256, None, peer, verified=True))
        values = attributes(session, None)
        self.assertEqual(values["ccert_subject"], "J+C3+BCrgen+20+2B+20S+C3+B6hne")
        self.assertEqual(values["ccert_issuer"], "")

    def test_brokenCertificate(self) -> None:
        """A certificate that cannot be read says nothing."""
        values = attributes(Session(tls=TLSInfo("TLSv1.3", "X", 256, None, object())), None)
        self.assertEqual(values["encryption_cipher"], "X")
        self.assertNotIn("ccert_fingerprint", values)

    def test_notAsked(self) -> None:
        """A stage that is not named costs no question and no Deferred."""
        policy = self.policy(("RCPT",))
        for stage in set(ALL) - {"RCPT"}:
            self.assertIsNone(self.at(policy, stage, makeEnvelope("A-1")))
        self.assertEqual(self.endpoint.lines, [])


class ActionTests(DelegationCase):
    """What is done."""

    def test_consent(self) -> None:
        """No objection."""
        for action in ("OK", "dunno", "DUNNO whatever", "permit", "200", "INFO x", "WARN x"):
            self.assertEqual(self.said(action), "")

    def test_refusals(self) -> None:
        """A refusal is told to the client, and who refused to the log."""
        origin = "(delegation tcp:127.0.0.1:10023: "
        for action, said in (
            ("REJECT go", f"554 5.7.1 go {origin}REJECT go)"),
            ("defer_if_permit x", f"450 4.7.1 x {origin}DEFER_IF_PERMIT x)"),
            ("550 5.1.1 y", f"550 5.1.1 y {origin}550 5.1.1 y)"),
            ("571 z", f"571 5.7.1 z {origin}571 z)"),
            ("REJECT\tgo", f"554 5.7.1 go {origin}REJECT go)"),
        ):
            self.assertEqual(self.said(action), said)

    def test_connect(self) -> None:
        """In place of the greeting there is 421 or 554."""
        for action, start in (
            ("450 4.2.0 x", "421 4.2.0 x"),
            ("550 5.1.1 x", "554 5.1.1 x"),
            ("NONSENSE", "421 4.3.0"),
        ):
            self.assertTrue(self.said(action, "CONNECT").startswith(start))

    def test_logged(self) -> None:
        """What is only logged has the server's words."""
        self.assertEqual(self.said("WARN look at this\x07"), "")
        [event] = self.logged
        self.assertEqual(event["action"], "WARN look at this\\x07")
        self.assertEqual((event["stage"], event["user"], event["id"]), ("RCPT", "alice", "A-1"))
        self.logged.clear()
        self.assertEqual(self.said("DEFER_IF_REJECT x"), "")
        self.assertEqual(self.names(), ["delegation-action"])

    def test_unsupported(self) -> None:
        """What cannot be obeyed is logged, and as bad as no answer."""
        for action in (
            "FILTER smtp:[127.0.0.1]:10025",
            "REDIRECT x@example.com",
            "reject_unknown_sender_domain",
            "600 x",
            "PREPEND no field",
            "BCC nobody",
            "BCC ü@example.com",
        ):
            self.logged.clear()
            self.assertTrue(self.said(action).startswith("451 4.3.0"), action)
            self.assertEqual(self.names(), ["delegation-action"])
            self.assertTrue(self.logged[0]["problem"])
            self.assertEqual(self.said(action, on_failure="permit"), "")
            self.assertTrue(self.said(action, on_failure="reject").startswith("554 5.7.1"))

    def test_noMessage(self) -> None:
        """Before MAIL there is nothing that could be held or dropped."""
        for action in ("HOLD", "DISCARD", "PREPEND X-A: b", "BCC a@example.com"):
            self.assertTrue(self.said(action, "EHLO").startswith("451 4.3.0"), action)

    def finish(self) -> Message:
        """Come to the end of the message."""
        waiting = self.at(self.running, "END-OF-MESSAGE", self.envelope)
        if waiting is not None:
            self.endpoint.answer(b"action=PREPEND X-End: 1\n\n")
            self.assertEqual(self.outcome(waiting), "")
        return self.message

    def test_hold(self) -> None:
        """HOLD keeps the message in the spool, with the reason."""
        for action, reason in (("HOLD why", "why"), ("HOLD", "HOLD")):
            self.assertEqual(self.said(action), "")
            self.assertEqual(self.envelope.hold, f"delegation: {reason}")
            self.assertEqual(self.names()[-2:], ["message-held", "delegation-action"])

    def test_discard(self) -> None:
        """DISCARD drops the message behind its end, at whatever stage it was said."""
        for stage in ("MAIL", "RCPT", "DATA"):
            self.assertEqual(self.said("DISCARD spam", stage, stages=("MAIL", "RCPT", "DATA")), "")
            self.assertEqual(self.finish().reasons, ["delegation: spam"])

    def test_discardAtEnd(self) -> None:
        """Also at the end itself; and of that message alone."""
        self.assertEqual(self.said("DISCARD", "END-OF-MESSAGE"), "")
        self.assertEqual(self.message.reasons, ["delegation: DISCARD"])
        self.assertEqual(self.finish().reasons, [])

    def test_prepend(self) -> None:
        """Header fields of all stages stand in front of the message, and of no other one."""
        self.assertEqual(self.said("PREPEND X-A: b"), "")
        self.assertEqual(self.finish().fields, [b"X-A: b\r\n", b"X-End: 1\r\n"])
        self.assertEqual(self.said("PREPEND X-A: b"), "")
        self.envelope = makeEnvelope("A-2")
        self.assertEqual(self.finish().fields, [b"X-End: 1\r\n"])

    def test_otherTransaction(self) -> None:
        """What was said about a message that was given up is not done to the next."""
        self.assertEqual(self.said("DISCARD", stages=("RCPT",)), "")
        self.envelope = makeEnvelope("A-2")
        self.assertEqual(self.finish().reasons, [])

    def test_tooManyFields(self) -> None:
        """Another field for each of a thousand recipients is too much."""
        self.said("PREPEND X-A: 1")
        for at in range(2, MAX_FIELDS + 2):
            waiting = self.at(self.running, "RCPT", self.envelope)
            self.endpoint.answer(b"action=PREPEND X-A: %d\n\n" % at)
            assert waiting is not None
            self.assertEqual(self.outcome(waiting)[:3], "" if at <= MAX_FIELDS else "451")

    def test_sameField(self) -> None:
        """The same field for each of a thousand recipients is one field."""
        self.said("PREPEND X-A: b")
        for _ in range(1000):
            waiting = self.at(self.running, "RCPT", self.envelope)
            self.endpoint.answer(b"action=PREPEND X-A: b\n\n")
            assert waiting is not None
            self.assertEqual(self.outcome(waiting), "")
        self.assertEqual(self.finish().fields, [b"X-A: b\r\n", b"X-End: 1\r\n"])

    def test_blindCopy(self) -> None:
        """BCC adds a recipient of whom nobody is told, once."""
        self.assertEqual(self.said("BCC <audit@example.com>"), "")
        waiting = self.at(self.running, "RCPT", self.envelope)
        self.endpoint.answer(b"action=BCC audit@example.com\n\n")
        assert waiting is not None
        self.assertEqual(self.outcome(waiting), "")
        [blind] = self.envelope.blind
        self.assertEqual((str(blind.mailbox), blind.notify), ("audit@example.com", ("NEVER",)))
        self.assertEqual(len(self.envelope.recipients), 1)


class FailureTests(DelegationCase):
    """A server that is of no use."""

    def test_away(self) -> None:
        """The setting decides; one event for an outage, one for its end."""
        self.endpoint.isAway = True
        for on_failure, start in (
            ("tempfail", "451 4.3.0"),
            ("reject", "554 5.7.1"),
            ("permit", ""),
        ):
            self.logged.clear()
            policy = self.policy(on_failure=on_failure)
            for _ in range(3):
                waiting = self.at(policy, "RCPT", makeEnvelope("A-1"))
                assert waiting is not None
                self.assertEqual(self.outcome(waiting)[:9], start)
            self.assertEqual(self.names(), ["delegation-away"])
            self.assertEqual(self.logged[0]["verdict"], on_failure)
            self.assertIn("Unavailable: cannot connect", self.logged[0]["cause"])
        self.endpoint.isAway = False
        self.clock.advance(60)
        waiting = self.at(policy, "RCPT", makeEnvelope("A-1"))
        self.endpoint.answer(b"action=OK\n\n")
        assert waiting is not None
        self.assertEqual(self.outcome(waiting), "")
        self.assertEqual(self.names(), ["delegation-away", "delegation-back"])

    def test_hangs(self) -> None:
        """Silence is a failure when the time is over."""
        waiting = self.at(self.policy(timeout=3.0), "RCPT", makeEnvelope("A-1"))
        assert waiting is not None
        self.clock.advance(3)
        self.assertIn("451 4.3.0", self.outcome(waiting))
        self.assertIn("no answer within 3 s", self.logged[0]["cause"])

    def test_nonsense(self) -> None:
        """So is what is no answer."""
        waiting = self.at(self.policy(), "RCPT", makeEnvelope("A-1"))
        assert waiting is not None
        self.endpoint.answer(b"\0\0\0\x0dO")
        self.endpoint.answer(b"\n\n")
        self.assertIn("451 4.3.0", self.outcome(waiting))

    def test_notStarted(self) -> None:
        """A policy that nobody has started fails, too."""
        waiting = self.at(Delegation(endpoint="unix:x"), "RCPT", makeEnvelope("A-1"))
        assert waiting is not None
        self.assertIn("451 4.3.0", self.outcome(waiting))
        self.successResultOf(Delegation(endpoint="unix:x").stop())

    def test_clientGone(self) -> None:
        """A client that goes is no outage."""
        waiting = self.at(self.policy(), "RCPT", makeEnvelope("A-1"))
        assert waiting is not None
        waiting.addErrback(lambda _: None)
        waiting.cancel()
        self.assertEqual(self.names(), [])

    def test_stop(self) -> None:
        """At the end its connections are."""
        self.said("OK")
        self.successResultOf(self.running.stop())
        self.assertTrue(self.endpoint.lines[0].isLost)


class CheckTests(SynchronousTestCase):
    """What is wrong before a start."""

    def test_endpoints(self) -> None:
        """Endpoints of Twisted, and no others; no stages would mean no questions."""
        for endpoint in ("tcp:127.0.0.1:10023", "unix:/run/policy.sock", r"tcp:\:\:1:1"):
            self.assertEqual(Delegation(endpoint=endpoint).check(), [])
        for endpoint in ("", "127.0.0.1:10023", "tcp:localhost:many", "tcp:localhost:0", "x:y"):
            [sentence] = Delegation(endpoint=endpoint).check()
            self.assertIn(f'not "{endpoint}"', sentence)
        self.assertEqual(
            Delegation(endpoint="unix:/x", stages=[]).check(),
            ["stages: is empty: it would never be asked"],
        )

    def test_delays(self) -> None:
        """A stage that is over first would keep a permission or a rejection from being one."""
        verifyObject(IDelays, Delegation(endpoint="unix:x"))
        self.assertEqual(Delegation(endpoint="unix:x", timeout=90.0).delays(), {})
        for choice in ("permit", "reject"):
            policy = Delegation(endpoint="unix:x", timeout=90.0, on_failure=choice)
            self.assertEqual(policy.delays(), {"timeout": 90.0})

    def test_values(self) -> None:
        """Values that cannot be."""
        self.assertRaises(ValueError, Delegation, endpoint="unix:x", timeout=0.0)
        self.assertRaises(ValueError, Delegation, endpoint="unix:x", connections=0)


class DialogueTests(SynchronousTestCase):
    """What becomes of a message."""

    def sent(self, action: str) -> tuple[str, MemoryDelivery]:
        """Send a message, and give the last reply."""
        delivery = MemoryDelivery()
        policy = Answering(endpoint="unix:x", action=action)
        submission = makeSubmission(
            delivery=delivery, policies=[policy], loginRequired=False, requireTLS=False
        )
        talk = Conversation(submission)
        talk.protocol.dataReceived(
            b"EHLO client.example\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\n"
            b"DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n"
        )
        return talk.transport.taken().decode("ascii").split("\r\n")[-2], delivery

    def test_prepend(self) -> None:
        """The field is there."""
        said, delivery = self.sent("PREPEND Received-SPF: pass")
        self.assertRegex(said, "^250 2.0.0 Ok: queued as ")
        self.assertTrue(delivery.messages[0].octets.startswith(b"Received-SPF: pass\r\nReceived: "))

    def test_discard(self) -> None:
        """The message is gone, and the client hears what it would hear else."""
        said, delivery = self.sent("DISCARD")
        self.assertRegex(said, "^250 2.0.0 Ok: queued as ")
        self.assertEqual([each.state for each in delivery.begun], ["aborted"])

    def test_holdAndCopy(self) -> None:
        """A delivery that can neither hold nor copy blindly does not get the message."""
        for action in ("HOLD", "BCC audit@example.com"):
            said, delivery = self.sent(action)
            self.assertEqual(said, "451 4.3.0 Temporary local problem, try again later")
            self.assertEqual(delivery.messages, [])
