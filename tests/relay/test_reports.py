"""Reports: what a person reads, what a program reads, what is given back."""

from __future__ import annotations

import email
import email.policy
from email.message import Message
from typing import Any

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from submitd.envelope import Envelope, Recipient
from submitd.extensions.deliverby import DeliverBy
from submitd.relay.outgoing import Outcome, Result
from submitd.relay.reports import (
    Action,
    Original,
    Reporter,
    Told,
    isWanted,
    returnsWhole,
    statusOf,
)
from submitd.wire.address import NULL_PATH, Mailbox, ReversePath
from submitd.wire.reply import Reply

ARRIVED = 1_800_000_000.0
HEADER = b"Subject: hello\r\nMessage-ID: <1@example.org>\r\n"
OK = Reply(250, "2.0.0", "ok")
NO = Outcome(Result.FAILED, Reply(550, "5.1.1", ["no such", "user"]), host="mx.example.net")


def told(
    address: str = "you@example.net",
    action: Action = Action.FAILED,
    outcome: Outcome = NO,
    retryUntil: float | None = None,
    **fields: Any,
) -> Told:
    """A recipient of a report."""
    recipient = Recipient(Mailbox.parse(address.encode()), **fields)
    return Told(recipient=recipient, action=action, outcome=outcome, retryUntil=retryUntil)


def original(
    sender: str = "me@example.org", content: bytes = HEADER, isWhole: bool = False, **fields: Any
) -> Original:
    """A message that is reported on."""
    envelope = Envelope("M1", ReversePath(Mailbox.parse(sender.encode())), **fields)
    return Original(envelope=envelope, arrived=ARRIVED, content=content, isWhole=isWhole)


def report(
    about: Original | None = None, *recipients: Told
) -> tuple[Envelope, bytes, list[Message]]:
    """A report: its envelope, its octets, its parts."""
    envelope, content = Reporter(hostname="mail.example.com").report(
        "R1", about or original(), recipients or (told(),), ARRIVED + 10
    )
    parts: Any = email.message_from_bytes(content).get_payload()
    return envelope, content, parts


class FormTests(SynchronousTestCase):
    """RFC 3464 and RFC 6522."""

    def test_envelope(self) -> None:
        """It goes to the sender, from nobody, and wants no report about itself."""
        envelope, content, _ = report()
        self.assertTrue(envelope.reversePath.isNull)
        [recipient] = envelope.recipients
        self.assertEqual(str(recipient.mailbox), "me@example.org")
        self.assertEqual(recipient.notify, ("NEVER",))
        self.assertEqual((envelope.bodyType, envelope.smtpUtf8), ("7BIT", False))
        self.assertNotIn(b"\n", content.replace(b"\r\n", b""))

    def test_header(self) -> None:
        """Its own header says what it is, so that no holiday notice answers it."""
        message = email.message_from_bytes(report()[1])
        self.assertEqual(message.get_content_type(), "multipart/report")
        self.assertEqual(message.get_param("report-type"), "delivery-status")
        self.assertEqual(message["Auto-Submitted"], "auto-replied")
        self.assertEqual(message["To"], "<me@example.org>")
        self.assertEqual(message["From"], "Mail Delivery System <MAILER-DAEMON@mail.example.com>")
        self.assertEqual(message["References"], "<1@example.org>")
        self.assertEqual(message["Date"], "Fri, 15 Jan 2027 08:00:10 -0000")

    def test_text(self) -> None:
        """A person reads which message it was, who did not get it, and why."""
        text = str(report()[2][0].get_payload())
        for part in (
            'Your message "hello"',
            "could not be delivered",
            "<you@example.net>",
            "mx.example.net said: 550 5.1.1 no such user",
        ):
            self.assertIn(part, text)

    def test_status(self) -> None:
        """A program reads the fields of RFC 3464."""
        about = original(envid="QQ+1")
        [block, first] = report(about, told(orcpt=("rfc822", "you+x@example.org")))[2][
            1
        ].get_payload()
        self.assertEqual(block["Original-Envelope-Id"], "QQ+1")
        self.assertEqual(block["Reporting-MTA"], "dns; mail.example.com")
        self.assertEqual(first["Original-Recipient"], "rfc822;you+x@example.org")
        self.assertEqual(first["Final-Recipient"], "rfc822; you@example.net")
        self.assertEqual(first["Action"], "failed")
        self.assertEqual(first["Status"], "5.1.1")
        self.assertEqual(first["Remote-MTA"], "dns; mx.example.net")
        self.assertEqual(first["Diagnostic-Code"], "smtp; 550 5.1.1 no such user")

    def test_remote(self) -> None:
        """A host without a name is an address in brackets; one behind a socket is our own."""
        for host, named in (
            ("192.0.2.1", "dns; [192.0.2.1]"),
            ("2001:db8::1", "dns; [IPv6:2001:db8::1]"),
            ("/run/lmtp", "dns; mail.example.com"),
        ):
            outcome = Outcome(Result.FAILED, Reply(550, "5.1.1", "no"), host=host)
            [_, first] = report(None, told(outcome=outcome))[2][1].get_payload()
            self.assertEqual(first["Remote-MTA"], named)
            self.assertEqual(first["Diagnostic-Code"], "smtp; 550 5.1.1 no")

    def fields(self, about: Original) -> list[tuple[str, str]]:
        """What a report says of the message as a whole."""
        [block, _] = report(about)[2][1].get_payload()
        return [(name, str(value)) for name, value in block.items()]

    def test_deliverBy(self) -> None:
        """The time by which the message was to arrive is told, also one that has passed."""
        for deadline, said in (
            (ARRIVED + 86400, "Sat, 16 Jan 2027 08:00:00 -0000"),
            (ARRIVED - 86400, "Thu, 14 Jan 2027 08:00:00 -0000"),
        ):
            about = original(extensions={"DELIVERBY": DeliverBy(deadline, "N")})
            self.assertEqual(
                self.fields(about),
                [
                    ("Reporting-MTA", "dns; mail.example.com"),
                    ("Arrival-Date", "Fri, 15 Jan 2027 08:00:00 -0000"),
                    ("Deliver-By-Date", said),
                ],
            )

    def test_hold(self) -> None:
        """A hold is told as the client asked for it, and that of a program by its time."""
        for parameters, said in (
            ({"HOLDFOR": "86400"}, "for;86400"),
            ({"HOLDUNTIL": "2027-01-16T09:00:00+01:00"}, "until;2027-01-16T09:00:00+01:00"),
            ({}, "until;2027-01-16T08:00:00Z"),
        ):
            about = original(extensions={"FUTURERELEASE": ARRIVED + 86400}, parameters=parameters)
            self.assertEqual(
                self.fields(about),
                [
                    ("Reporting-MTA", "dns; mail.example.com"),
                    ("Arrival-Date", "Fri, 15 Jan 2027 08:00:00 -0000"),
                    ("Future-Release-Request", said),
                ],
            )

    def test_noTimes(self) -> None:
        """A parameter that no extension has taken is not believed."""
        names = [name for name, _ in self.fields(original(parameters={"HOLDFOR": "\r\nX: y"}))]
        self.assertEqual(names, ["Reporting-MTA", "Arrival-Date"])

    def test_socket(self) -> None:
        """A next hop behind a socket is at our own host; the path is not told."""
        for action, outcome in (
            (Action.FAILED, attrs.evolve(NO, host="/run/lmtp")),
            (Action.DELIVERED, Outcome(Result.DELIVERED, OK, host="/run/lmtp", isFinal=True)),
        ):
            _, content, parts = report(None, told(action=action, outcome=outcome))
            self.assertNotIn(b"/run/lmtp", content)
            self.assertIn("mail.example.com", str(parts[0].get_payload()).partition("<")[2])
            [_, first] = parts[1].get_payload()
            self.assertEqual(first["Remote-MTA"], "dns; mail.example.com")

    def test_ours(self) -> None:
        """What we said ourselves is no diagnostic of a next hop."""
        outcome = Outcome(Result.FAILED, Reply(550, "", "no route"), isRemote=False)
        [_, first] = report(None, told(outcome=outcome))[2][1].get_payload()
        self.assertEqual((first["Remote-MTA"], first["Diagnostic-Code"]), (None, None))
        self.assertEqual(first["Status"], "5.0.0")

    def test_givenUp(self) -> None:
        """What we give up ourselves has the next hop that was tried last (RFC 3461 6.3)."""
        late = Outcome(Result.FAILED, Reply(550, "5.4.7", "late"), False, host="mx.example.net")
        [_, first] = report(None, told(outcome=late))[2][1].get_payload()
        self.assertEqual(first["Remote-MTA"], "dns; mx.example.net")
        self.assertIsNone(first["Diagnostic-Code"])

    def test_delay(self) -> None:
        """A delay says until when it is tried."""
        later = Outcome(Result.DELAYED, Reply(450, "4.2.1", "later"), host="mx.example.net")
        parts = report(
            None, told(action=Action.DELAYED, outcome=later, retryUntil=ARRIVED + 86400)
        )[2]
        [_, first] = parts[1].get_payload()
        self.assertEqual(first["Will-Retry-Until"], "Sat, 16 Jan 2027 08:00:00 -0000")
        self.assertIn("go on trying until", str(parts[0].get_payload()))

    def test_success(self) -> None:
        """Delivered, and passed on."""
        ok = Outcome(Result.DELIVERED, Reply(250, "2.0.0", "ok"), host="mx.example.net")
        text = str(report(None, told(action=Action.RELAYED, outcome=ok))[2][0].get_payload())
        self.assertIn("taken over by mx.example.net", text)
        here = Outcome(Result.DELIVERED, Reply(250, "2.0.0", "ok"), isRemote=False, isFinal=True)
        text = str(report(None, told(action=Action.DELIVERED, outcome=here))[2][0].get_payload())
        self.assertIn("taken over by the mailbox", text)

    def test_returnedHeader(self) -> None:
        """The header comes back as it was; what is not ASCII in it encoded."""
        part = report()[2][2]
        self.assertEqual(part.get_content_type(), "text/rfc822-headers")
        self.assertEqual(part.get_payload(), HEADER.decode())
        odd = b"Subject: \xff\r\nX: " + b"y" * 2000 + b"\r\n"
        envelope, content, parts = report(original(content=odd))
        self.assertTrue(content.isascii())
        self.assertEqual(envelope.bodyType, "7BIT")
        self.assertLess(max(map(len, content.split(b"\r\n"))), 998)
        payload = parts[2].get_payload(decode=True)
        assert isinstance(payload, bytes)
        self.assertIn(b"\xff", payload)

    def test_returnedWhole(self) -> None:
        """A whole message comes back as it was, 8-bit or not."""
        whole = HEADER + b"X: " + b"y" * 200 + b"\r\n\r\nFrom me \xff\r\n.\r\n"
        envelope, content, parts = report(original(content=whole, isWhole=True))
        self.assertIn(whole, content)
        self.assertEqual(parts[2].get_content_type(), "message/rfc822")
        self.assertEqual(envelope.bodyType, "8BITMIME")

    def test_utf8Recipient(self) -> None:
        """An address in UTF-8 is written in ASCII for who may not read it (RFC 6533)."""
        envelope, content, parts = report(None, told("jörg@example.net", orcpt=("utf-8", "jö@x.y")))
        self.assertTrue(content.isascii())
        self.assertFalse(envelope.smtpUtf8)
        [_, first] = parts[1].get_payload()
        self.assertEqual(first["Final-Recipient"], "utf-8; j\\x{F6}rg@example.net")
        self.assertEqual(first["Original-Recipient"], "utf-8;j\\x{F6}@x.y")

    def test_originalRecipient(self) -> None:
        """It is given back as the sender wrote it, before it was encoded (RFC 3461 4.2)."""
        for orcpt, said in (
            (("rfc822", "a+b=c@x.y"), "rfc822;a+b=c@x.y"),
            (("X400", "/c=us /o=a+b/"), "X400;/c=us /o=a+b/"),
            (("utf-8", "a+b@x.y"), "utf-8;a\\x{2B}b@x.y"),
            (("rfc822", "j\xf6@x.y"), "rfc822;j+C3+B6@x.y"),
        ):
            [_, first] = report(None, told(orcpt=orcpt))[2][1].get_payload()
            self.assertEqual(first["Original-Recipient"], said)

    def test_utf8Sender(self) -> None:
        """Who has such an address himself gets UTF-8, and the types of RFC 6533."""
        about = original("jörg@example.org", "Subject: hällo\r\n".encode())
        envelope, content, parts = report(
            about, told("jö@example.net", orcpt=("utf-8", "jö@x.y")), told("b@example.net")
        )
        self.assertTrue(envelope.smtpUtf8)
        self.assertIn("To: <jörg@example.org>\r\n".encode(), content)
        self.assertIn("Final-Recipient: utf-8; jö@example.net\r\n".encode(), content)
        self.assertIn("Original-Recipient: utf-8;jö@x.y\r\n".encode(), content)
        self.assertIn(b"\r\n\r\nFinal-Recipient: rfc822; b@example.net\r\n", content)
        self.assertEqual(
            [each.get_content_type() for each in parts],
            ["text/plain", "message/global-delivery-status", "message/global-headers"],
        )
        whole = original("jörg@example.org", HEADER + b"\r\nx\r\n", isWhole=True)
        self.assertEqual(report(whole)[2][2].get_content_type(), "message/global")

    def test_subjects(self) -> None:
        """A subject is decoded for the text; a broken one is left out."""
        for subject, shown in (
            (b"=?utf-8?q?j=C3=B6rg?=", "jörg"),
            (b"x" * 300, "x" * 197 + "..."),
            (b"=?unknown?q?a?=", None),
            (b"", None),
            (b"a\r\n b", "a b"),
        ):
            text = report(original(content=b"Subject: " + subject + b"\r\n"))[2][0]
            payload = text.get_payload(decode=True)
            assert isinstance(payload, bytes)
            expected = f'message "{shown}"' if shown else "message without a subject"
            self.assertIn(expected, payload.decode())

    def test_badMessageId(self) -> None:
        """A Message-ID that is none is not referred to."""
        content = "Message-ID: jörg\r\n".encode()
        self.assertNotIn(b"References", report(original(content=content))[1])

    def test_requireTLS(self) -> None:
        """What reports on a message with REQUIRETLS travels with it too (RFC 8689 5)."""
        self.assertTrue(report(original(requireTLS=True))[0].requireTLS)


class WishTests(SynchronousTestCase):
    """Who is told what."""

    def test_isWanted(self) -> None:
        """NOTIFY, and its absence (RFC 3461 4.1)."""
        envelope = original().envelope
        for notify, expected in (
            ((), {Action.FAILED, Action.DELAYED}),
            (("NEVER",), set()),
            (("SUCCESS",), {Action.DELIVERED, Action.RELAYED}),
            (("FAILURE",), {Action.FAILED}),
            (("DELAY",), {Action.DELAYED}),
        ):
            to = told(notify=notify).recipient
            self.assertEqual({each for each in Action if isWanted(each, to, envelope)}, expected)
        nobody = Envelope("M1", NULL_PATH)
        self.assertFalse(isWanted(Action.FAILED, told().recipient, nobody))

    def test_returnsWhole(self) -> None:
        """RET=FULL within the bound, and nothing that a report could not carry."""
        full = original(ret="FULL").envelope
        self.assertTrue(returnsWhole(full, 10, 10))
        self.assertFalse(returnsWhole(full, 11, 10))
        self.assertFalse(returnsWhole(original(ret="HDRS").envelope, 1, 10))
        self.assertFalse(returnsWhole(original(ret="FULL", requireTLS=True).envelope, 1, 10))
        self.assertFalse(returnsWhole(original(ret="FULL", bodyType="BINARYMIME").envelope, 1, 10))

    def test_statusOf(self) -> None:
        """The class of a status is that of the action."""
        self.assertEqual(statusOf(Reply(450, "4.2.1", "x"), Action.FAILED), "5.2.1")
        self.assertEqual(statusOf(Reply(250, "", "x"), Action.RELAYED), "2.0.0")


class AnythingTests(SynchronousTestCase):
    """Headers and replies are other people's."""

    @settings(deadline=None, max_examples=150)
    @given(st.binary(max_size=300), st.text(max_size=100), st.booleans(), st.booleans())
    def test_anything(self, header: bytes, said: str, isWhole: bool, utf8: bool) -> None:
        """Whatever is in them, there is a report, in whole lines, with one recipient."""
        sender = "jörg@example.org" if utf8 else "me@example.org"
        content = header.replace(b"\r", b"").replace(b"\n", b"\r\n") + b"\r\n"
        outcome = Outcome(Result.FAILED, Reply(550, "5.0.0", said), host="mx.example.net")
        about = original(sender, content, isWhole)
        _, octets, _ = report(about, told(outcome=outcome))
        self.assertNotIn(b"\n", octets.replace(b"\r\n", b""))
        self.assertEqual(octets.count(b"\r\nFinal-Recipient: "), 1)
        head = octets.partition(b"\r\n\r\n")[0]
        self.assertEqual(head.lower().count(b"\r\nto:"), 1)
