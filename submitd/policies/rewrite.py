"""Policy ``rewrite``: other addresses in the places of some (RFC 6409 8.7, 8.8).

By the lines of the file ``senders`` MAIL FROM is rewritten, and with ``header`` the mailboxes in
From, Sender, Reply-To, Resent-From, Resent-Sender and Disposition-Notification-To.  By those of
``aliases`` a recipient becomes another one, or several; with ``header_recipients`` also in To, Cc,
Resent-To and Resent-Cc, as far as there is one new address: who is behind an alias of several is
not told.  To and Cc stay as they are otherwise, for an alias is a matter of the envelope alone (RFC
5321 3.9.1).  See newaddresses.py for the lines; only what they name is changed.

Policies behind this one, the delivery, the log of the message and reports know the new addresses
alone; those in front have been asked about the old ones.  The client has one reply for its RCPT,
and whoever of an alias is refused, by a policy behind or for want of room, is that reply.  Nobody
becomes a recipient twice.  The null sender stays.

ORCPT is kept, and is the address that the client gave where there is none (RFC 3461 5.2.1).  NOTIFY
and ORCPT go to all addresses of an alias, but SUCCESS to the first alone: no report says "expanded"
(5.2.7.3).

An address list that cannot be told for certain, or is longer than 64 KiB, stays as it is, and so
does a malformed header section: message-fixups refuses these, but for long lists other than From
and Sender.  All other octets stay.  The work is linear in the header section.

Refused: an address that would not be ASCII, where SMTPUTF8 was not asked for, 553 5.6.7; one that
would be too long, 501, or 550 5.6.0 in the header; an alias with more addresses than a message may
have, 550 5.5.3.  As long as a file has never been read it is 451 4.3.0: what it would have changed
must not go out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import attrs
from zope.interface import implementer

from submitd import events
from submitd.envelope import Envelope, Recipient
from submitd.equality import sameAddress, sameDomain
from submitd.interfaces import (
    IChecked,
    IDataPolicy,
    IHeaderPolicy,
    IRecipientPolicy,
    ISenderPolicy,
    IWarns,
)
from submitd.message.header import Field, Header
from submitd.message.mailboxes import rewriteMailboxes
from submitd.policies.addresses import WatchedFile
from submitd.policies.newaddresses import (
    AliasFile,
    Rule,
    Rules,
    expand,
    follow,
    newAddress,
    readAlias,
    readSender,
)
from submitd.session import Session
from submitd.wire.address import Mailbox, ReversePath, badRecipient, badSender, readMailbox
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR, UTF8_ADDRESS, Reply

TOO_MANY_ADDRESSES = Reply(550, "5.5.3", "Recipient stands for too many addresses")

SENDERS = (
    *(b"from", b"sender", b"reply-to", b"resent-from", b"resent-sender"),
    b"disposition-notification-to",
)
RECIPIENTS = (b"to", b"cc", b"resent-to", b"resent-cc")

_NOTE = "rewrite"


@implementer(ISenderPolicy, IRecipientPolicy, IDataPolicy, IHeaderPolicy, IChecked, IWarns)
@attrs.define(eq=False)
class Rewrite:
    """Rewrites addresses; for the parameters see their help.

    :raise ValueError: for ``header_recipients`` without ``aliases``.
    """

    name: ClassVar[str] = "rewrite"

    senders: Path | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(Path),
        metadata={
            "help": "A file of lines ADDRESS NEW: what becomes of senders. ADDRESS may be @DOMAIN, "
            "@*.DOMAIN or a name alone, NEW may be @NEWDOMAIN."
        },
    )
    aliases: Path | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(Path),
        metadata={
            "help": "A file of lines ADDRESS NEW [NEW ...] in the same way: what becomes of "
            "recipients."
        },
    )
    header: bool = attrs.field(
        default=True,
        metadata={
            "help": "Whether From, Sender, Reply-To and their like in the message are rewritten as "
            "the sender is."
        },
    )
    header_recipients: bool = attrs.field(
        default=False,
        metadata={
            "help": "Whether To and Cc are rewritten as recipients are, as far as an alias has one "
            "address."
        },
    )
    _senders: WatchedFile[Rule] | None = attrs.field(init=False, repr=False)
    _aliases: AliasFile | None = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if self.header_recipients and self.aliases is None:
            raise ValueError("header_recipients needs aliases")
        self._senders = None if self.senders is None else WatchedFile(self.senders, readSender)
        self._aliases = None if self.aliases is None else AliasFile(self.aliases, readAlias)

    @property
    def _files(self) -> list[WatchedFile[Rule]]:
        return [file for file in (self._senders, self._aliases) if file is not None]

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        if not self._files:
            return ["rewrites nothing: there is neither senders nor aliases"]
        return [each for file in self._files for each in file.check()]

    def warnings(self) -> list[str]:
        """See :meth:`submitd.interfaces.IWarns.warnings`."""
        return [each for file in self._files for each in file.warnings()]

    def validateFrom(self, session: Session, envelope: Envelope) -> None:
        """Rewrite the sender.

        :raise Refused: 451 4.3.0, 501 5.1.7 or 553 5.6.7.
        """
        before = envelope.reversePath.mailbox
        if self._senders is None or before is None:
            return
        new = newAddress(_rules(self._senders), before)
        if new == before:
            return
        try:
            new = _usable(new, envelope)
        except ValueError as error:
            raise badSender(error) from None
        envelope.reversePath = ReversePath(new)
        _tell(session, envelope, "MAIL", [before], [new])

    def validateTo(self, session: Session, envelope: Envelope, recipient: Recipient) -> None:
        """Put whom an alias stands for in its place.

        :raise Refused: 451 4.3.0, 501 5.1.3, 550 5.5.3 or 553 5.6.7.
        """
        before, most = recipient.mailbox, session.maxRecipients
        if self._aliases is None:
            return
        found = expand(_rules(self._aliases), before, most)
        if found == [before]:
            return
        if 0 < most < len(found):
            raise Refused(TOO_MANY_ADDRESSES, f"{before} has more than {most}")
        try:
            news = [_usable(each, envelope) for each in found]
        except ValueError as error:
            raise badRecipient(error) from None
        self._replace(recipient, news)
        session.notes[_NOTE] = envelope.id
        _tell(session, envelope, "RCPT", [before], news)

    def _replace(self, recipient: Recipient, news: list[Mailbox]) -> None:
        if recipient.orcpt is None:
            before = recipient.mailbox
            recipient.orcpt = ("rfc822" if before.isAscii else "utf-8", str(before))
        recipient.mailbox, *more = news
        recipient.others += tuple(self._beside(recipient, each) for each in more)

    def _beside(self, recipient: Recipient, mailbox: Mailbox) -> Recipient:
        """Another recipient, of whose delivery nobody is told."""
        notify, parameters = recipient.notify, {**recipient.parameters}
        if "SUCCESS" in notify:
            notify = tuple(each for each in notify if each != "SUCCESS") or ("NEVER",)
            parameters["NOTIFY"] = ",".join(notify)
        return attrs.evolve(
            recipient,
            mailbox=mailbox,
            parameters=parameters,
            notify=notify,
            others=(),
            placedBy=self,
        )

    def dataRequested(self, session: Session, envelope: Envelope) -> None:
        """Leave out who has become a recipient twice."""
        if session.notes.get(_NOTE) != envelope.id:
            return
        first: dict[tuple[str, str], Recipient] = {}
        for each in envelope.recipients:
            first.setdefault(sameAddress(each.mailbox), each)
        if len(first) < len(envelope.recipients):
            envelope.asked = [*envelope.known]
            envelope.recipients = [*first.values()]

    def headerReceived(self, session: Session, envelope: Envelope, header: Header) -> None:
        """Rewrite the addresses in the header section.

        :raise Refused: 451 4.3.0, 550 5.6.0 or 553 5.6.7.
        """
        if header.isMalformed:
            return
        if self._senders is not None and self.header:
            rules = _rules(self._senders)
            for name in SENDERS:
                _rewrite(session, envelope, header, name, lambda each: newAddress(rules, each))
        if self._aliases is not None and self.header_recipients:
            aliases = _rules(self._aliases)
            for name in RECIPIENTS:
                _rewrite(session, envelope, header, name, lambda each: follow(aliases, each))


def _rules(file: WatchedFile[Rule]) -> Rules:
    rules = file.content()
    if rules is None:
        raise Refused(LOCAL_ERROR, f"{file.path} has never been read")
    return rules


def _usable(mailbox: Mailbox, envelope: Envelope) -> Mailbox:
    """A new address as this message can have it.

    :raise ValueError: for one that has become too long.
    :raise Refused: 553 5.6.7 for one that is not ASCII, where that was not asked for.
    """
    if not mailbox.isAscii and not envelope.smtpUtf8:
        mailbox = Mailbox(mailbox.localPart, sameDomain(mailbox.domain))
        if not mailbox.isAscii:
            raise Refused(UTF8_ADDRESS, f"{mailbox} is not ASCII")
    return readMailbox(bytes(mailbox))


def _rewrite(
    session: Session,
    envelope: Envelope,
    header: Header,
    name: bytes,
    new: Callable[[Mailbox], Mailbox],
) -> None:
    """Rewrite all fields of a name, with one event, for there may be thousands."""
    before: list[Mailbox] = []
    after: list[Mailbox] = []

    def other(mailbox: Mailbox) -> Mailbox:
        found = new(mailbox)
        if found == mailbox:
            return mailbox
        try:
            found = _usable(found, envelope)
        except ValueError as error:
            text = f"{_title(name)} cannot be rewritten: {error}"
            raise Refused(Reply(550, "5.6.0", text)) from None
        before.append(mailbox)
        after.append(found)
        return found

    rewritten = {field.raw: _rewritten(field, other) for field in header.named(name)}
    if before:
        header.rewrite(name, lambda field: rewritten[field.raw])
        _tell(session, envelope, _title(name), before, after)


def _rewritten(field: Field, new: Callable[[Mailbox], Mailbox]) -> bytes:
    """A field with new addresses, whole lines; its own octets where it has none."""
    name, colon, body = field.raw.partition(b":")
    try:
        made = rewriteMailboxes(body, new)
    except ValueError:
        return field.raw  # nobody can tell what is an address in it
    if made == body:
        return field.raw
    return name + colon + made + (b"" if made.endswith(b"\r\n") else b"\r\n")


def _title(name: bytes) -> str:
    return name.decode("ascii").title()


def _tell(
    session: Session, envelope: Envelope, where: str, before: list[Mailbox], after: list[Mailbox]
) -> None:
    events.emit(
        events.ADDRESS_REWRITTEN,
        session=session.id,
        id=envelope.id,
        where=where,
        before=_joined(before),
        after=_joined(after),
    )


def _joined(mailboxes: list[Mailbox]) -> str:
    """Each once; the log shows as much of it as it shows of any value."""
    texts = dict.fromkeys(map(str, mailboxes[: events.MAX_VALUE]))
    return ", ".join(texts)
