"""Policy ``message-fixups``: what a submission service puts right in a message (RFC 6409 8).

Added where missing: Date (8.2) and Message-ID (8.3).  Removed: Bcc and Resent-Bcc, which are not
for the recipients, and Return-Path, which is for the final delivery alone (RFC 5321 4.4).  With
``private_received`` neither our own Received field nor those that the message came with tell an
address, a name or a login: each of them is left, as a hop at a time.

With ``replace_malformed`` a Date or Message-ID that is malformed counts as missing, and of a field
that may stand there once, and stands twice with the same value, one is left.

Refused with 550 5.6.0, the field named: a line that is no field, a field that may stand there once
and stands twice, a malformed From, Sender, Reply-To, To, Cc, Date or Message-ID, no From at all;
and a field that is not ASCII unless SMTPUTF8 was asked for, or not UTF-8 then.  More than
``max_received`` Received fields are 554 5.4.6.  With ``refuse_unqualified`` a domain without a dot,
in MAIL, RCPT or one of these fields, is 554 5.6.2 (RFC 6409 4.2): nobody knows what the next server
makes of it.

Each of these has its key.  A byte that needs no change is not changed, and what has been put right
once is not changed again.  The work is linear in the header section, which ``limits.header_size``
bounds; a list of addresses above 64 KiB is let through unread, but for From and Sender.
"""

from __future__ import annotations

import re
import secrets
import socket
import time
from collections.abc import Callable
from typing import ClassVar

import attrs
from zope.interface import implementer

from submitd.envelope import Envelope, Recipient
from submitd.equality import sameDomain
from submitd.interfaces import (
    IDataPolicy,
    IHeaderPolicy,
    INamesHost,
    IRecipientPolicy,
    ISenderPolicy,
)
from submitd.message.header import Field, Header
from submitd.message.mailboxes import MAX_OCTETS, readMailboxes
from submitd.message.received import dateTime
from submitd.policies.addresses import domainOrNothing
from submitd.session import Session
from submitd.typed import Count
from submitd.wire.address import Mailbox
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

NO_FROM = Reply(550, "5.6.0", "Header has no From")
TOO_MANY_HOPS = Reply(554, "5.4.6", "Too many Received fields: the message goes round in circles")

# RFC 5322 3.6; RFC 2045 3 for the rest.
SINGULAR = (
    *(b"date", b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc", b"message-id"),
    *(b"in-reply-to", b"references", b"subject"),
    *(b"mime-version", b"content-type", b"content-transfer-encoding"),
)
# Whether a field must be read whatever its length.
ADDRESSES = {b"from": True, b"sender": True, b"reply-to": False, b"to": False, b"cc": False}

# RFC 5322 3.3, with the years and zones of 4.3; comments are behind it alone.
_DATE = re.compile(
    rb"((?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[ \t]*,)?[ \t]*(?:0?[1-9]|[12][0-9]|3[01])[ \t]+"
    rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[ \t]+[0-9]{2,4}[ \t]+"
    rb"(?:[01]?[0-9]|2[0-3]):[0-5][0-9](?::(?:[0-5][0-9]|60))?[ \t]+(?:[+-][0-9]{4}|[A-Z]{1,5}))"
    rb"(?:[ \t]*\([^()]*\))*",
    re.IGNORECASE,
)
# More than RFC 5322 3.6.4: anything printable without a space, since many have no "@" in it.
_MESSAGE_ID = re.compile(rb"<[!-;=?-~\x80-\xff]+>(?:[ \t]*\([^()]*\))*")

_HIDDEN = b"Received: from localhost by localhost; %s\r\n"


def _meant(field: Field) -> bytes:
    """A field's value; that of an encoding has no case (RFC 2045 6.1)."""
    return field.value.lower() if field.name == b"content-transfer-encoding" else field.value


@implementer(ISenderPolicy, IRecipientPolicy, IDataPolicy, IHeaderPolicy, INamesHost)
@attrs.define(eq=False)
class MessageFixups:
    """Completes a message, and refuses one that is broken; for the parameters see their help.

    :ivar hostname: the name of this service; the system's where nobody says.
    :ivar seconds: tells the time, in seconds since 1970.
    """

    name: ClassVar[str] = "message-fixups"

    add_date: bool = attrs.field(
        default=True, metadata={"help": "Add Date where it is missing (RFC 6409 8.2)."}
    )
    add_message_id: bool = attrs.field(
        default=True, metadata={"help": "Add Message-ID where it is missing (RFC 6409 8.3)."}
    )
    message_id_domain: str = attrs.field(
        default="",
        validator=domainOrNothing,
        metadata={
            "help": "What stands behind the @ of a Message-ID that is added. Empty for the domain "
            "of the sender, or hostname for the null sender."
        },
    )
    remove_bcc: bool = attrs.field(default=True, metadata={"help": "Remove Bcc and Resent-Bcc."})
    remove_return_path: bool = attrs.field(
        default=True, metadata={"help": "Remove Return-Path (RFC 5321 4.4)."}
    )
    private_received: bool = attrs.field(
        default=False,
        metadata={
            "help": "Have no Received field tell an address, name or login of the client: neither "
            "the one that is added nor those that the message came with."
        },
    )
    refuse_malformed: bool = attrs.field(
        default=True,
        metadata={
            "help": "Refuse malformed lines, fields that stand twice and may not, malformed "
            "addresses, Date and Message-ID, and a message without From."
        },
    )
    replace_malformed: bool = attrs.field(
        default=False,
        metadata={
            "help": "Put another Date or Message-ID in the place of one that is malformed, where "
            "they are added when they are missing (RFC 6409 8.2, 8.3); and take out a field that "
            "stands there a second time with the same value."
        },
    )
    refuse_non_ascii: bool = attrs.field(
        default=True,
        metadata={
            "help": "Refuse a header that is not ASCII without SMTPUTF8, or not UTF-8 with it."
        },
    )
    refuse_unqualified: bool = attrs.field(
        default=False,
        metadata={
            "help": "Refuse an address whose domain has no dot, of the envelope or the header "
            "(RFC 6409 4.2)."
        },
    )
    max_received: Count = attrs.field(
        default=Count(100),
        metadata={"help": "Received fields above which a message is refused; 0 for any number."},
    )
    hostname: str = attrs.field(init=False, default="", repr=False)
    seconds: Callable[[], float] = attrs.field(init=False, default=time.time, repr=False)

    def validateFrom(self, session: Session, envelope: Envelope) -> None:
        """Refuse a sender whose domain is not qualified.

        :raise Refused: 554 5.6.2.
        """
        mailbox = envelope.reversePath.mailbox
        if self.refuse_unqualified and mailbox is not None:
            _refuseUnqualified(mailbox)

    def validateTo(self, session: Session, envelope: Envelope, recipient: Recipient) -> None:
        """Refuse a recipient whose domain is not qualified.

        :raise Refused: 554 5.6.2.
        """
        if self.refuse_unqualified:
            _refuseUnqualified(recipient.mailbox)

    def dataRequested(self, session: Session, envelope: Envelope) -> None:
        """Have our own Received field hide the client, where it is to."""
        envelope.private = envelope.private or self.private_received

    def headerReceived(self, session: Session, envelope: Envelope, header: Header) -> None:
        """Refuse what is broken, then put the rest right.

        :raise Refused: 550 5.6.0, 554 5.4.6 or 554 5.6.2.
        """
        if 0 < self.max_received < len(header.named(b"received")):
            raise Refused(TOO_MANY_HOPS)
        if self.replace_malformed:
            self._removeMalformed(header)
        if self.refuse_non_ascii:
            _refuseNonAscii(header, envelope.smtpUtf8)
        if self.refuse_malformed:
            _refuseMalformed(header)
        if self.refuse_unqualified:
            _refuseUnqualifiedIn(header)
        self._remove(header)
        if self.private_received:
            self._hide(header)
        self._add(header, envelope)

    def _removeMalformed(self, header: Header) -> None:
        for name in SINGULAR:
            fields = header.named(name)
            # All readers make the same of them; what differs is for the one who sent it.
            if len(fields) > 1 and len({_meant(each) for each in fields}) == 1:
                header.remove(name)
                header.append(fields[0].raw)
        for name, isAdded in ((b"date", self.add_date), (b"message-id", self.add_message_id)):
            found = header.named(name)
            if isAdded and len(found) == 1 and not _isWell(found[0]):
                header.remove(name)

    def _remove(self, header: Header) -> None:
        if self.remove_bcc:
            header.remove(b"bcc")
            header.remove(b"resent-bcc")
        if self.remove_return_path:
            header.remove(b"return-path")

    def _hide(self, header: Header) -> None:
        def hidden(field: Field) -> bytes:
            when = _DATE.fullmatch(field.value.rpartition(b";")[2].strip())
            return _HIDDEN % (when[1] if when else self._now())

        header.rewrite(b"received", hidden)

    def _add(self, header: Header, envelope: Envelope) -> None:
        if self.add_date and not header.named(b"date"):
            header.append(b"Date: %s\r\n" % self._now())
        if self.add_message_id and not header.named(b"message-id"):
            # The envelope's id would be unique; what is behind it keeps anybody from guessing one.
            left = f"{envelope.id}.{secrets.token_hex(8)}"
            header.append(f"Message-ID: <{left}@{self._domain(envelope)}>\r\n".encode("ascii"))

    def _now(self) -> bytes:
        return dateTime(int(self.seconds())).encode("ascii")

    def _domain(self, envelope: Envelope) -> str:
        mailbox = envelope.reversePath.mailbox
        if self.message_id_domain or mailbox is None:
            return self.message_id_domain or self._host()
        domain = sameDomain(mailbox.domain)
        return domain if domain.isascii() else self._host()

    def _host(self) -> str:
        return self.hostname or socket.getfqdn()


def _refuseNonAscii(header: Header, smtpUtf8: bool) -> None:
    """RFC 6531 3.6: UTF-8 in header fields (RFC 6532) is for messages sent with SMTPUTF8."""
    if header.octets.isascii():
        return
    for field in header.fields:
        if not field.raw.isascii():
            if not smtpUtf8:
                raise _broken(field, "is not ASCII and SMTPUTF8 was not asked for")
            try:
                field.raw.decode("utf-8")
            except UnicodeDecodeError:
                raise _broken(field, "is not valid UTF-8") from None


def _refuseMalformed(header: Header) -> None:
    if header.isMalformed:
        culprit = header.malformedField()
        assert culprit is not None
        raise _broken(culprit, "is malformed")
    if not header.named(b"from"):
        raise Refused(NO_FROM)
    for name in SINGULAR:
        found = header.named(name)
        if found:
            if len(found) > 1:
                raise _broken(found[1], "may stand there only once")
            _refuseValue(found[0])


def _refuseValue(field: Field) -> None:
    if field.name in ADDRESSES:
        _refuseAddresses(field)
    elif not _isWell(field):
        raise _broken(field, "is malformed")


def _isWell(field: Field) -> bool:
    if field.name == b"date":
        return _DATE.fullmatch(field.value) is not None
    if field.name == b"message-id":
        return _MESSAGE_ID.fullmatch(field.value) is not None
    return True


def _refuseAddresses(field: Field) -> None:
    value = field.value
    if len(value) > MAX_OCTETS and not ADDRESSES[field.name]:
        return
    try:
        found = readMailboxes(value)
    except ValueError as error:
        raise _broken(field, f"is malformed: {error}") from None
    if field.name == b"sender" and len(found) != 1:
        raise _broken(field, "is malformed: not one mailbox")


def _refuseUnqualified(mailbox: Mailbox) -> None:
    # Postmaster may stand without a domain (RFC 5321 4.5.1).
    domain = mailbox.domain
    if domain and "." not in domain and domain[0] != "[":
        raise Refused(Reply(554, "5.6.2", f"Domain {domain} is not fully qualified"))


def _refuseUnqualifiedIn(header: Header) -> None:
    for name in ADDRESSES:
        for field in header.named(name):
            try:
                found = readMailboxes(field.value)
            except ValueError:
                continue  # too long, or malformed, which is refused where it is to be
            for mailbox in found:
                _refuseUnqualified(mailbox)


def _broken(field: Field, what: str) -> Refused:
    # A line that is no field has no name; nor is it quoted, for it may be anything.
    name = field.name[:64].decode("ascii", "replace").title()
    said = f"Header field {name} {what}" if name else f"A line of the header {what}"
    return Refused(Reply(550, "5.6.0", said))
