"""The Received field."""

from __future__ import annotations

import os
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd.envelope import Envelope, Recipient
from submitd.message import received
from submitd.message.received import receivedField
from submitd.realm import Submitter
from submitd.session import Session, TLSInfo
from submitd.wire.address import NULL_PATH, Mailbox

NOW = 1_000_000_000.9


def makeSession(**changes: Any) -> Session:
    """A session of a client that said EHLO."""
    settings: dict[str, Any] = {
        "remoteAddress": "192.0.2.1",
        "clientHostname": "[192.0.2.1]",
        "heloName": "client.example.com",
        "openingCommand": "EHLO",
    }
    return Session(**{**settings, **changes})


def makeEnvelope(*recipients: Mailbox, **changes: Any) -> Envelope:
    """An envelope with an id that is known."""
    return Envelope("ID", NULL_PATH, recipients=[Recipient(each) for each in recipients], **changes)


def field(session: Session, envelope: Envelope, hostname: str = "mail.example.com") -> str:
    """The field's text, unfolded (RFC 5322 2.2.3), after its form has been looked at."""
    session.envelope = envelope
    octets = receivedField(session, envelope, hostname, NOW)
    assert octets.startswith(b"Received: ") and octets.endswith(b"\r\n")
    lines = octets[:-2].split(b"\r\n")
    for line in lines:
        assert not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", line), line
        assert line[:1] == b" " or line is lines[0]
        assert line.strip()
        assert len(line) <= 998
    return b"".join(lines).decode("utf-8")


class ReceivedTests(SynchronousTestCase):
    """receivedField."""

    def setUp(self) -> None:
        self.date = "Sun, 09 Sep 2001 01:46:40 +0000"
        self.addCleanup(self.setZone, os.environ.get("TZ"))
        self.setZone("UTC")

    def setZone(self, zone: str | None) -> None:
        """The local time zone from now on; ``None`` for the machine's own."""
        if zone is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = zone
        time.tzset()
        received.dateTime.cache_clear()

    def test_plain(self) -> None:
        """The clauses of RFC 5321 4.4, in their order."""
        self.assertEqual(
            field(makeSession(), makeEnvelope(Mailbox("bob", "example.org"))),
            "Received: from client.example.com ([192.0.2.1]) by mail.example.com with ESMTP"
            f" id ID for <bob@example.org>; {self.date}",
        )

    def test_secure(self) -> None:
        """TLS and login are told by the protocol word, what TLS agreed on by a clause."""
        session = makeSession(
            secure=True,
            tls=TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384"),
            user=Submitter("alice@example.com"),
        )
        text = field(session, makeEnvelope())
        self.assertIn(" with ESMTPSA (TLSv1.3) id ID tls TLS_AES_256_GCM_SHA384;", text)

    def test_suites(self) -> None:
        """The clause has a registered name; where there is none, OpenSSL's is in the comment."""
        for cipher, comment, clause in [
            (
                "ECDHE-RSA-AES128-GCM-SHA256",
                "(TLSv1.2)",
                " tls TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            ),
            (
                "ECDHE-ECDSA-CHACHA20-POLY1305",
                "(TLSv1.2)",
                " tls TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
            ),
            ("AES128-SHA", "(TLSv1.2 AES128-SHA)", ""),
            ("TLS_X y", "(TLSv1.2 TLS_X y)", ""),
        ]:
            session = makeSession(secure=True, tls=TLSInfo("TLSv1.2", cipher))
            text = field(session, makeEnvelope())
            self.assertIn(f" with ESMTPS {comment} id ID{clause};", text)

    def test_priority(self) -> None:
        """The priority that was asked for stands behind ``for``, and in front of ``tls``."""
        envelope = makeEnvelope(Mailbox("bob", "example.org"), extensions={"MT-PRIORITY": -4})
        session = makeSession(secure=True, tls=TLSInfo("TLSv1.3", "TLS_AES_256_GCM_SHA384"))
        text = field(session, envelope)
        self.assertIn(" for <bob@example.org> priority -4 tls TLS_AES_256_GCM_SHA384;", text)
        urgent = makeEnvelope(extensions={"MT-PRIORITY": 0})
        self.assertIn(" id ID priority 0;", field(makeSession(), urgent))

    def test_noLogin(self) -> None:
        """The name that somebody logs in with is not told to those who read the message."""
        session = makeSession(user=Submitter("my-secret-login"))
        text = field(session, makeEnvelope(Mailbox("bob", "example.org")))
        self.assertNotIn("my-secret-login", text)

    def test_protocolWords(self) -> None:
        """The words are those that RFC 3848 and RFC 6531 4.3 registered."""
        user = Submitter("alice")
        for opening, secure, who, utf8, word in [
            ("HELO", False, None, False, "SMTP"),
            ("EHLO", False, None, False, "ESMTP"),
            ("EHLO", True, None, False, "ESMTPS"),
            ("EHLO", False, user, False, "ESMTPA"),
            ("EHLO", True, user, True, "UTF8SMTPSA"),
            ("LHLO", True, None, False, "LMTPS"),
        ]:
            session = makeSession(openingCommand=opening, secure=secure, user=who)
            self.assertIn(f" with {word} id ", field(session, makeEnvelope(smtpUtf8=utf8)))

    def test_verifiedName(self) -> None:
        """A verified name of the client's address stands before the address."""
        text = field(makeSession(clientHostname="host.example.net"), makeEnvelope())
        self.assertIn("from client.example.com (host.example.net [192.0.2.1]) by", text)

    def test_ipv6(self) -> None:
        """IPv6 addresses are literals of RFC 5321 4.1.3: tagged, without a zone."""
        for address, literal in [
            ("2001:db8::1", "[IPv6:2001:db8::1]"),
            ("fe80::1%eth0", "[IPv6:fe80::1]"),
            ("::ffff:192.0.2.7", "[192.0.2.7]"),
        ]:
            text = field(makeSession(remoteAddress=address, clientHostname=""), makeEnvelope())
            self.assertIn(f"from client.example.com ({literal}) by", text)

    def test_literalHello(self) -> None:
        """A client may call itself by its address."""
        text = field(makeSession(heloName="[192.0.2.1]"), makeEnvelope())
        self.assertIn("from [192.0.2.1] ([192.0.2.1]) by", text)

    def test_foreignLiteralHello(self) -> None:
        """An address that is not the client's own is no more than what it said."""
        text = field(makeSession(heloName="[10.0.0.1]"), makeEnvelope())
        self.assertIn("from [192.0.2.1] ([192.0.2.1]) (helo [10.0.0.1]) by", text)

    def test_badHello(self) -> None:
        """What is no domain stands in a comment, and cannot get out of it."""
        for said, shown in [
            ("my_pc", "my_pc"),
            ("a) by evil.example", r"a\) by evil.example"),
            ("(\\", r"\(\\"),
            ("x\r\nSubject: y", "x??Subject: y"),
            ("zoë", "zo?"),
        ]:
            text = field(makeSession(heloName=said), makeEnvelope())
            self.assertIn(f"from [192.0.2.1] ([192.0.2.1]) (helo {shown}) by mail", text)

    def test_unixSocket(self) -> None:
        """A client without an address has no TCP-info."""
        session = makeSession(remoteAddress="", clientHostname="")
        self.assertIn("from client.example.com by mail", field(session, makeEnvelope()))
        session = makeSession(remoteAddress="", clientHostname="", heloName="[127.0.0.1]")
        self.assertIn("from localhost (helo [127.0.0.1]) by", field(session, makeEnvelope()))

    def test_severalRecipients(self) -> None:
        """No recipient reads about another."""
        text = field(makeSession(), makeEnvelope(Mailbox("a", "b.c"), Mailbox("d", "b.c")))
        self.assertNotIn(" for ", text)

    def test_utf8(self) -> None:
        """UTF-8 appears only in a message that may carry it (RFC 6531 3.7.3)."""
        mailbox = Mailbox("zoë", "bücher.example")
        text = field(makeSession(), makeEnvelope(mailbox, smtpUtf8=True))
        self.assertIn(" for <zoë@bücher.example>;", text)
        text = field(makeSession(), makeEnvelope(mailbox), "bücher.example")
        self.assertTrue(text.isascii())
        self.assertIn("by xn--bcher-kva.example with", text)

    def test_folding(self) -> None:
        """Lines have 78 octets at most wherever there is a space to fold at."""
        session = makeSession(clientHostname="host.example.net")
        octets = receivedField(session, makeEnvelope(Mailbox("b", "c.d")), "mail.example", NOW)
        self.assertGreater(octets.count(b"\r\n"), 1)
        for line in octets.split(b"\r\n"):
            self.assertLessEqual(len(line), 78)

    def test_localTime(self) -> None:
        """The time is local and says how far from UTC, east, west and by half hours."""
        for zone, ending in [
            ("EST5", "Sat, 08 Sep 2001 20:46:40 -0500"),
            ("IST-5:30", "Sun, 09 Sep 2001 07:16:40 +0530"),
            ("NST3:30", "Sat, 08 Sep 2001 22:16:40 -0330"),
        ]:
            self.setZone(zone)
            text = field(makeSession(), makeEnvelope())
            self.assertTrue(text.endswith(f"; {ending}"), text)
            parsed = parsedate_to_datetime(text.partition("; ")[2])
            self.assertEqual(parsed.timestamp(), int(NOW))

    @settings(deadline=None, max_examples=200)
    @given(st.text(max_size=300), st.text(max_size=300), st.text(max_size=50))
    def test_anything(self, helo: str, name: str, address: str) -> None:
        """Whatever a client, its name or a proxy says, the field has the form of one."""
        session = makeSession(heloName=helo, clientHostname=name, remoteAddress=address)
        text = field(session, makeEnvelope())
        self.assertIn(" by mail.example.com with ESMTP id ID; ", text)
