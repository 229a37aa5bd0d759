"""Header sections and what the fix-ups make of them: nothing lost, nothing made up, or 5yz."""

from __future__ import annotations

import re
from typing import Any

from submitd.message.header import Header
from submitd.message.incoming import IncomingMessage
from submitd.message.mailboxes import readMailboxes
from submitd.policies.fixups import MessageFixups
from submitd.wire.address import readMailbox
from submitd.wire.errors import Refused
from tests.fixtures import MemoryDelivery
from tests.fuzz.target import Target, cuttings, same
from tests.fuzz.test_wire import CONTROL, LONG, ODD


class FakeEnvelope:
    """What the fix-ups want to know of an envelope."""

    id = "fuzz"
    private = False
    smtpUtf8 = False

    class reversePath:
        """Of nobody."""

        mailbox = None


def section(data: bytes) -> None:
    """Fields come out as they came in; fix-ups refuse, or leave a header that they leave alone."""
    header = Header(data)
    assert b"".join(field.raw for field in header.fields) == data == header.octets
    assert (header.malformedField() is not None) is header.isMalformed
    for field in header.fields:
        assert b"\n" not in field.name and field in header.named(field.name)
        assert not re.search(rb"\r\n(?![ \t])", field.value)
    for utf8 in (False, True):
        for private in (False, True):
            _fixed(data, utf8, private)
    same([_received(chunks) for chunks in cuttings(data + b"\r\nbody\r\n")])
    mailboxes(data)


def _fixed(data: bytes, utf8: bool, private: bool) -> None:
    envelope: Any = FakeEnvelope()
    envelope.smtpUtf8 = utf8
    policy = MessageFixups(message_id_domain="example.com", private_received=private)
    header = Header(data)
    try:
        policy.headerReceived(None, envelope, header)  # type: ignore[arg-type]
    except Refused as refused:
        assert refused.reply.code in (550, 554) and refused.reply.wire.isascii()
        return
    fixed = header.octets
    assert not header.isMalformed and len(header.named(b"from")) == 1
    assert not header.named(b"bcc") and header.named(b"date") and header.named(b"message-id")
    again = Header(fixed)
    policy.headerReceived(None, envelope, again)  # type: ignore[arg-type]
    assert again.octets == fixed or private
    assert len(again.fields) == len(header.fields)
    kept = [field.raw for field in Header(data).fields if field.name == b"subject"]
    assert [field.raw.rstrip() for field in again.named(b"subject")] == [
        one.rstrip() for one in kept
    ]


def _received(chunks: list[bytes]) -> tuple[bytes, bytes, str]:
    """What a delivery gets of a message, and what the policies are shown."""
    delivery, shown = MemoryDelivery(), []

    def review(header: Header) -> None:
        shown.append(header.octets)
        header.append(b"X-Seen: yes\r\n")

    sink = delivery.begin(None, None)
    incoming = IncomingMessage(sink, 4000, 500, review=review, reviewLimit=1000)
    for chunk in filter(None, chunks):
        incoming.dataReceived(chunk)
    incoming.finish()
    assert len(incoming.header) <= 500 and len(incoming._held) <= 4000
    if incoming.problem is not None:
        assert incoming.problem.check(Refused) and sink.state == "aborted"
        return b"", b"", str(incoming.problem.value.reply)
    return sink.octets, b"".join(shown), ""


def mailboxes(data: bytes) -> None:
    """An address list: addresses that are read alike by RFC 5321's rules, or ValueError."""
    for octets in (data, b"a@b.example, " * 30 + data):
        try:
            found = readMailboxes(octets)
        except ValueError as error:
            assert str(error).isprintable() and len(str(error)) < 80
            continue
        for mailbox in found:
            assert readMailbox(bytes(mailbox)) == mailbox and not CONTROL.search(str(mailbox))
        try:
            assert len(readMailboxes(octets, 2)) <= 2
        except ValueError:
            assert len(found) > 2


HEADER = Target(
    "header",
    section,
    [
        b"From: a@b.example\r\n",
        b"To: c@d.example\r\n",
        b"Subject: x\r\n",
        b"Bcc: e@f.example\r\n",
        b"Date: Fri, 21 Nov 1997 09:55:06 -0600\r\n",
        b"Message-ID: <1@b.example>\r\n",
        b"\r\n",
        b"Received: from x ([192.0.2.9]) by y; Fri, 21 Nov 1997 09:55:06 -0600\r\n",
        b" folded\r\n",
        b"Return-Path: <x@y.example>\r\n",
        b"\t\r\n",
        b"Sender: ",
        b"From ",
        b": ",
        b":",
        b"no field\r\n",
        "Subject: ü\r\n".encode(),
        b"X: =?utf-8?q?=0D=0A?=\r\n",
        b"From: A <a@b.example>, (c) ",
        *LONG[:4],
        *ODD,
    ],
    60,
)
MAILBOXES = Target(
    "mailboxes",
    mailboxes,
    [
        b"a@b.example",
        b"<",
        b">",
        b",",
        b";",
        b"(",
        b")",
        b'"',
        b"\\",
        b"group: ",
        b"John Q. Public ",
        b"@",
        b".",
        b" ",
        b"\r\n ",
        b"[192.0.2.1]",
        b"@a.example,@b.example:",
        b"=?utf-8?q?x?=",
        b"(((",
        *LONG[:4],
        *ODD,
    ],
    60,
)

HeaderTests = HEADER.tests(__name__)
MailboxesTests = MAILBOXES.tests(__name__)
