"""Policy message-fixups."""

from __future__ import annotations

import email
import re
from email import policy as emailPolicy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd.envelope import Envelope
from submitd.interfaces import IDataPolicy, IHeaderPolicy, IRecipientPolicy, ISenderPolicy
from submitd.message.header import Header
from submitd.message.received import receivedField
from submitd.policies import fixups
from submitd.policies.fixups import MessageFixups
from submitd.realm import Submitter
from submitd.session import Session
from submitd.wire.address import NULL_PATH, Mailbox, ReversePath
from submitd.wire.errors import Refused

NOW = 1_000_000_000.9
DATE = r"\w{3}, \d\d \w{3} 2001 \d\d:46:40 [+-]\d{4}"
COMPLETE = (
    "From: a@example.com\r\n"
    "Date: Mon, 01 Jan 2024 12:00:00 +0100\r\n"
    "Message-ID: <x@example.com>\r\n"
)
SENDER = Mailbox("a", "example.com")

values = st.text(
    st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20
).filter(lambda text: "=?" not in text)
folded = st.lists(values, min_size=1, max_size=3).map("\r\n ".join)
others = st.tuples(st.sampled_from(["X-A", "x-b", "Comments", "Keywords", "List-Id"]), folded)
own = st.sampled_from(
    [
        ("Date", "1 Jan 24 1:02 GMT (really)"),
        ("MESSAGE-ID", "<a.b@c>"),
        ("To", "x@example.org,\r\n\t(comment) y@example.org"),
        ("Bcc", "secret@example.org,\r\n more@example.org"),
        ("bcc", ""),
        ("Resent-Bcc", "x@example.org"),
        ("Return-Path", "<x@example.org>"),
        ("Subject", "  spaces   stay "),
        (
            "Received",
            "from a (b [10.0.0.1]) by c with ESMTP;\r\n Mon, 1 Jan 2024 12:00:00 +0100 (X)",
        ),
        ("Received", "from a by b; nobody knows when"),
        ("Received", "from localhost by localhost; Mon, 1 Jan 2024 12:00:00 +0100"),
        ("received", "without anything"),
    ]
)


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A well-formed header section: what may stand once does so at most, except for Bcc."""
    drawn = draw(st.lists(others | own, max_size=8))
    seen: set[str] = set()
    fields = ["From: a@example.com\r\n"]
    for name, value in drawn:
        once = name.lower() in ("date", "message-id", "to", "subject", "bcc")
        if not once or name.lower() not in seen:
            seen.add(name.lower())
            fields.append(f"{name}:{draw(st.sampled_from(['', ' ']))}{value}\r\n")
    return "".join(draw(st.permutations(fields))).encode("ascii")


class FixupsTestCase(SynchronousTestCase):
    """Has a policy with some keys, and a transaction."""

    def make(self, **keys: Any) -> MessageFixups:
        policy = MessageFixups(**keys)
        policy.seconds = lambda: NOW
        return policy

    def fixed(
        self,
        octets: bytes | str,
        sender: Mailbox | None = SENDER,
        smtpUtf8: bool = False,
        **keys: Any,
    ) -> bytes:
        """The section as the policy leaves it."""
        header = Header(octets if isinstance(octets, bytes) else octets.encode())
        envelope = Envelope("ID-1", ReversePath(sender), smtpUtf8=smtpUtf8)
        self.make(**keys).headerReceived(Session(), envelope, header)
        return header.octets

    def refusal(self, octets: bytes | str, **keys: Any) -> str:
        """What the client is told."""
        refused = self.assertRaises(Refused, self.fixed, octets, **keys)
        return f"{refused.reply.code} {refused.reply.status} {refused.reply.lines[0]}"


class CompleteTests(FixupsTestCase):
    """What is added and removed."""

    def test_interfaces(self) -> None:
        """It takes part at MAIL and RCPT, before and behind DATA."""
        for interface in (ISenderPolicy, IRecipientPolicy, IDataPolicy, IHeaderPolicy):
            self.assertTrue(verifyObject(interface, MessageFixups()))

    def test_complete(self) -> None:
        """A message that needs nothing is left alone."""
        octets = COMPLETE.encode()
        self.assertIs(self.fixed(octets, private_received=True), octets)

    def test_added(self) -> None:
        """Date and Message-ID are added behind what is there; each has its key."""
        made = self.fixed("From: a@example.com\r\n").decode()
        self.assertRegex(
            made,
            rf"^From: a@example.com\r\nDate: {DATE}\r\n"
            r"Message-ID: <ID-1\.[0-9a-f]{16}@example\.com>\r\n$",
        )
        self.assertNotIn(b"Date", self.fixed("From: a@b.c\r\n", add_date=False))
        self.assertNotIn(b"Message-ID", self.fixed("From: a@b.c\r\n", add_message_id=False))

    def test_repeated(self) -> None:
        """A field that stands there again, with the same value, goes where that is asked for."""
        octets = (
            b"From: a@b.example\r\nDate: Sun, 09 Sep 2001 01:46:40 +0000\r\nMessage-ID: <a@b>\r\n"
            b"Content-Transfer-Encoding: 7bit\r\nSubject: x\r\ncontent-transfer-encoding: 7BIT\r\n"
        )
        made = self.fixed(octets, replace_malformed=True)
        self.assertEqual(made.lower().count(b"content-transfer-encoding: 7bit\r\n"), 1)
        self.assertEqual(made.count(b"\r\n"), octets.count(b"\r\n") - 1)
        self.assertIn("only once", self.refusal(octets))
        other = octets.replace(b"7BIT", b"base64")
        self.assertIn("only once", self.refusal(other, replace_malformed=True))
        for more in (b"Message-ID: <A@b>\r\n", b"subject: X\r\n"):
            self.assertIn("only once", self.refusal(octets + more, replace_malformed=True))

    def test_replaced(self) -> None:
        """A Date or Message-ID that nobody can read is replaced where that is asked for."""
        octets = b"From: a@example.com\r\nDate: 2024-01-01 \xff\r\nMessage-ID:\r\nX: y\r\n"
        self.assertIn("550 5.6.0", self.refusal(octets))
        made = self.fixed(octets, replace_malformed=True).decode("ascii")
        self.assertRegex(
            made,
            rf"^From: a@example.com\r\nX: y\r\nDate: {DATE}\r\n"
            r"Message-ID: <ID-1\.[0-9a-f]{16}@example\.com>\r\n$",
        )
        kept = COMPLETE.encode()
        self.assertIs(self.fixed(kept, replace_malformed=True), kept)
        twice = "From: a@b.example\r\nDate: x\r\nDate: y\r\n"
        self.assertIn("only once", self.refusal(twice, replace_malformed=True))
        for key, broken in (("add_date", "Date: x"), ("add_message_id", "Message-ID: x")):
            keys: dict[str, Any] = {"replace_malformed": True, key: False}
            said = self.refusal(f"From: a@b.example\r\n{broken}\r\n", **keys)
            self.assertIn("is malformed", said)

    def test_unique(self) -> None:
        """No two Message-IDs are the same."""
        self.assertNotEqual(self.fixed("From: a@b.c\r\n"), self.fixed("From: a@b.c\r\n"))

    def test_domain(self) -> None:
        """A Message-ID has the sender's domain in ASCII, or the one of the key."""
        self.patch(fixups.socket, "getfqdn", lambda: "host.example")
        for sender, domain in (
            (Mailbox("a", "Example.COM"), "example.com"),
            (Mailbox("a", "bücher.example"), "xn--bcher-kva.example"),
            (Mailbox("a", "[192.0.2.1]"), "[192.0.2.1]"),
            (Mailbox("a", "\u2024.example"), "host.example"),
            (None, "host.example"),
        ):
            made = self.fixed("From: a@b.c\r\n", sender)
            self.assertIn(f"@{domain}>\r\n".encode(), made)
        made = self.fixed("From: a@b.c\r\n", message_id_domain="ids.example")
        self.assertIn(b"@ids.example>", made)
        error = self.assertRaises(ValueError, MessageFixups, message_id_domain="no domain")
        self.assertRaises(ValueError, MessageFixups, message_id_domain="a." * 200 + "example")
        self.assertIn("must be a domain", str(error))

    def test_hostname(self) -> None:
        """Where the sender has no domain it is the name of the service."""
        policy, header = self.make(), Header(b"From: a@b.c\r\n")
        policy.hostname = "mx.example.com"
        policy.headerReceived(Session(), Envelope("ID-1", NULL_PATH), header)
        self.assertIn(b"@mx.example.com>\r\n", header.octets)

    def test_removed(self) -> None:
        """Bcc and Return-Path go, however often they are there; each has its key."""
        extra = "Bcc: x@y.z,\r\n v@y.z\r\nreturn-path: <a@b.c>\r\nResent-BCC: \r\nBCC: a@b.c\r\n"
        keep = {"refuse_malformed": False}
        self.assertEqual(self.fixed(extra + COMPLETE, **keep), COMPLETE.encode())
        kept = self.fixed(extra + COMPLETE, remove_bcc=False, remove_return_path=False, **keep)
        self.assertEqual(kept, (extra + COMPLETE).encode())

    @given(headers(), st.booleans())
    @settings(deadline=None, max_examples=150)
    def test_nothingElse(self, octets: bytes, private: bool) -> None:
        """All other fields are the same octets, and mean the same to the email package."""
        made = self.fixed(octets, private_received=private)
        gone = (b"bcc", b"resent-bcc", b"return-path")
        changed = (b"received",) if private else ()
        before = [each for each in Header(octets).fields if each.name not in gone]
        after = Header(made).fields
        kept = after[: len(before)]
        for old, new in zip(before, kept, strict=True):
            self.assertEqual(new.name, old.name)
            if old.name not in changed:
                self.assertEqual(new.raw, old.raw)
        self.assertLessEqual({each.name for each in after[len(before) :]}, {b"date", b"message-id"})

        parse = emailPolicy.SMTP.clone(max_line_length=None)
        parsed = email.message_from_bytes(made + b"\r\nbody", policy=parse)
        expected = email.message_from_bytes(octets + b"\r\nbody", policy=parse)
        for name in ("From", "To", "Subject", "X-A", "X-B", "Comments", "Keywords", "List-Id"):
            self.assertEqual(parsed.get_all(name), expected.get_all(name))
        self.assertEqual(parsed.get_payload(), "body")
        for name in ("Date", "Message-ID"):
            self.assertEqual(len(parsed.get_all(name)), 1)

    @given(headers(), st.booleans())
    @settings(deadline=None, max_examples=100)
    def test_idempotent(self, octets: bytes, private: bool) -> None:
        """What has been put right is not changed again."""
        once = self.fixed(octets, private_received=private)
        again = Header(once)
        policy = self.make(private_received=private)
        policy.seconds = lambda: NOW + 1000
        policy.headerReceived(Session(), Envelope("ID-2", NULL_PATH), again)
        self.assertIs(again.octets, once)

    @given(
        st.binary(max_size=200) | st.text("From:to a@b,<>\r\n\t(;\0é", max_size=80).map(str.encode)
    )
    @settings(deadline=None, max_examples=200)
    def test_anything(self, octets: bytes) -> None:
        """Any octets are put right or refused, and nothing else happens."""
        for keys in ({}, {"refuse_malformed": False, "refuse_non_ascii": False}):
            header = Header(octets)
            try:
                self.make(private_received=True, **keys).headerReceived(
                    Session(), Envelope("ID", NULL_PATH), header
                )
            except Refused as refused:
                self.assertFalse(keys)
                self.assertEqual(refused.reply.status, "5.6.0")
                self.assertIs(header.octets, octets)


class PrivateTests(FixupsTestCase):
    """private_received."""

    def test_redacted(self) -> None:
        """A Received field of the client's says that there was a hop, and when; no more."""
        field = (
            "Received: from alice-laptop (unknown [10.0.0.5]) (Authenticated sender: alice)\r\n"
            "\tby hub.private (Postfix) with ESMTPSA id ABC for <bob@example.org>;\r\n"
            "\tMon, 01 Jan 2024 12:00:00 +0100 (CET)\r\n"
        )
        made = self.fixed(field + COMPLETE, private_received=True)
        hidden = "Received: from localhost by localhost; Mon, 01 Jan 2024 12:00:00 +0100\r\n"
        self.assertEqual(made, (hidden + COMPLETE).encode())
        self.assertEqual(self.fixed(field + COMPLETE), (field + COMPLETE).encode())

    def test_noDate(self) -> None:
        """One whose date cannot be read gets the time: nothing of it can stay."""
        for value in ("", "from a", "from a; yesterday", "from a; 1 Jan 2024 12:00:00 +0100 by me"):
            made = self.fixed(f"Received: {value}\r\n{COMPLETE}", private_received=True).decode()
            self.assertRegex(made, f"^Received: from localhost by localhost; {DATE}\r\n")

    def test_ours(self) -> None:
        """Our own field tells neither address nor name, and is a trace field all the same."""
        session = Session(
            "192.0.2.7", heloName="laptop.private", user=Submitter("alice@example.com")
        )
        session.clientHostname = "client.example"
        envelope = Envelope("ID", NULL_PATH)
        self.make().dataRequested(session, envelope)
        self.assertIn(b"192.0.2.7", receivedField(session, envelope, "mail.example.com", NOW))
        self.make(private_received=True).dataRequested(session, envelope)
        field = receivedField(session, envelope, "mail.example.com", NOW).decode()
        self.assertRegex(
            re.sub(r"\r\n ", " ", field),
            rf"^Received: from localhost by mail.example.com with ESMTPA id ID; {DATE}\r\n$",
        )
        self.make().dataRequested(session, envelope)
        self.assertTrue(envelope.private, "one policy undoes what another has asked for")


class RefusedTests(FixupsTestCase):
    """What is refused, the field named; tests/dialogues/fixups_refused.smtp has more."""

    def test_hops(self) -> None:
        """A message that has been through too many hops is in a loop."""
        hops = "Received: x\r\n" * 101
        said = self.refusal(hops + COMPLETE)
        self.assertTrue(said.startswith("554 5.4.6"), said)
        self.fixed(hops + COMPLETE, max_received=101)
        self.fixed(hops + COMPLETE, max_received=0)

    def test_unqualified(self) -> None:
        """A domain without a dot is refused in each field of addresses where the key says so."""
        for name in ("From", "Sender", "Reply-To", "To", "Cc"):
            octets = f"{name}: a@b.example, A group: root@localhost;\r\n"
            if name == "Sender":
                octets = "Sender: root@localhost\r\n"
            octets += "" if name == "From" else "From: a@b.example\r\n"
            refused = self.refusal(octets, refuse_unqualified=True)
            self.assertEqual(refused, "554 5.6.2 Domain localhost is not fully qualified")
            self.fixed(octets)
        good = "From: a@[192.0.2.1], b@[IPv6:2001:db8::1]\r\nTo: undisclosed:;\r\n"
        self.fixed(good, refuse_unqualified=True)
        # Who lets broken lists through does so whatever is in them.
        broken = "From: root@localhost <\r\n"
        self.fixed(broken, refuse_malformed=False, refuse_unqualified=True)

    def test_singular(self) -> None:
        """Each field that RFC 5322 3.6 has once is refused twice; the key turns that off."""
        for name, value in (
            ("Date", "1 Jan 2024 12:00 +0000"),
            ("From", "a@b.example"),
            ("Sender", "a@b.example"),
            ("Reply-To", "a@b.example"),
            ("To", "a@b.example"),
            ("Cc", "a@b.example"),
            ("Bcc", "a@b.example"),
            ("Message-Id", "<a@b>"),
            ("In-Reply-To", "<a@b>"),
            ("References", "<a@b>"),
            ("Subject", "x"),
            ("Content-Type", "text/plain"),
        ):
            octets = f"{name}: {value}\r\n{name.upper()}: {value}\r\n"
            octets += "" if name == "From" else "From: a@b.example\r\n"
            said = f"550 5.6.0 Header field {name} may stand there only once"
            self.assertEqual(self.refusal(octets), said)
            self.fixed(octets, refuse_malformed=False)

    def test_dates(self) -> None:
        """Dates as mail programs write them are taken, and others are not."""
        for good in (
            "Mon, 1 Jan 2024 12:00:00 +0100",
            "mon,1 jan 2024 12:00 GMT",
            "31 Dec 99 23:59:60 -0000 (a comment) (another)",
            "Mon, 01 Jan 2024 1:02:03 EST",
        ):
            self.fixed(f"From: a@b.example\r\nDate: {good}\r\n")
        for bad in (
            "",
            "Mon, 32 Jan 2024 12:00:00 +0100",
            "Mon, 1 Jan 2024 24:00:00 +0100",
            "Mon, 1 Jan 2024 12:00:00",
            "2024-01-01T12:00:00Z",
            "Mon, 1 Jan 2024 12:00:00 +0100 x",
            "(" * 1000,
        ):
            said = self.refusal(f"From: a@b.example\r\nDate: {bad}\r\n")
            self.assertEqual(said, "550 5.6.0 Header field Date is malformed")

    def test_longLists(self) -> None:
        """A To that is longer than any that is read is let through; a From is not."""
        many = ",\r\n ".join(f"x{at}@example.com" for at in range(5000))
        self.fixed(f"{COMPLETE}To: {many}\r\n")
        self.assertIn("too long", self.refusal(f"From: {many}\r\n"))

    def test_manyLines(self) -> None:
        """Very many fields take linear time."""
        lines = b"x:\r\n" * 9_000
        made = self.fixed(
            lines + COMPLETE.encode() + b"Received: x\r\n" * 900,
            max_received=0,
            private_received=True,
        )
        self.assertTrue(made.startswith(lines))

    def test_utf8(self) -> None:
        """What is not ASCII needs SMTPUTF8, and then must be UTF-8; the key turns that off."""
        utf8 = COMPLETE.encode() + "Subject: Grüße\r\n".encode()
        latin = COMPLETE.encode() + b"Subject: Gr\xfc\xdfe\r\n"
        for octets in (utf8, latin):
            self.assertIn("Subject is not ASCII", self.refusal(octets))
            self.assertIs(self.fixed(octets, refuse_non_ascii=False), octets)
        self.assertIs(self.fixed(utf8, smtpUtf8=True), utf8)
        self.assertIn("Subject is not valid UTF-8", self.refusal(latin, smtpUtf8=True))

    def test_names(self) -> None:
        """The name in a reply is bounded, whatever the client calls its fields."""
        said = self.refusal(f"{'x' * 5000} : 1\r\n{COMPLETE}")
        self.assertLess(len(said), 120)
        self.assertEqual(
            self.refusal(f"\0\r\n{COMPLETE}"), "550 5.6.0 A line of the header is malformed"
        )
