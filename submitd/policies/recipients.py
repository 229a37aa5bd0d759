"""Policy ``recipients``: how many there may be, and which; and who may use the null sender.

``most`` lowers the number of recipients of one message; LIMITS (RFC 9422) tells clients, and one
more is 452 4.5.3.  Of two files, ``refused`` names recipients that are refused, ``allowed`` those
that alone are taken; who stands in both is refused.  A line is an address, ``@DOMAIN`` for a whole
domain, or ``@*.DOMAIN`` for all domains below it; ``#`` begins a comment.  The files are read again
when they change.

The null sender ``<>``, which reports have, may be used by the logins of ``null_sender_logins`` and
from the networks of ``null_sender_from``; this policy leaves it alone where neither is given.

Refused: a recipient 550 5.7.1, the null sender 553 5.7.1.  As long as a file has never been read it
is 451 4.3.0: not knowing whom to refuse is no reason to take everybody.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import attrs
from zope.interface import implementer

from submitd.envelope import Envelope, Recipient
from submitd.interfaces import IChecked, IConnectionPolicy, IRecipientPolicy, ISenderPolicy, IWarns
from submitd.policies.addresses import Addresses, WatchedFile, readPattern
from submitd.policies.logins import sameLogin
from submitd.session import Session
from submitd.typed import Count
from submitd.wire.address import Mailbox
from submitd.wire.errors import Refused
from submitd.wire.network import Networks
from submitd.wire.reply import LOCAL_ERROR, Reply

RECIPIENT_REFUSED = Reply(550, "5.7.1", "Recipient address rejected: not allowed")
NULL_REFUSED = Reply(553, "5.7.1", "Null sender not allowed")

_MEMBER = True


@implementer(IConnectionPolicy, ISenderPolicy, IRecipientPolicy, IChecked, IWarns)
@attrs.define(eq=False)
class Recipients:
    """Refuses recipients; for the parameters see their help.

    :raise ValueError: for a network that is none.
    """

    name: ClassVar[str] = "recipients"

    most: Count = attrs.field(
        default=Count(0),
        metadata={"help": "Recipients of one message; 0 for what limits.recipients says."},
    )
    allowed: Path | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(Path),
        metadata={
            "help": "A file of lines ADDRESS, @DOMAIN or @*.DOMAIN: the only recipients taken."
        },
    )
    refused: Path | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(Path),
        metadata={"help": "A file of such lines: recipients that are refused."},
    )
    null_sender_logins: tuple[str, ...] | None = attrs.field(
        default=None,
        metadata={"help": "Logins that may use the null sender <>; an empty list for none."},
    )
    null_sender_from: tuple[str, ...] | None = attrs.field(
        default=None,
        metadata={
            "help": 'Networks that it may be used from, such as ["192.0.2.0/24", "unix"]; an empty '
            "list for none."
        },
    )
    _allowed: WatchedFile[bool] | None = attrs.field(init=False, repr=False)
    _refused: WatchedFile[bool] | None = attrs.field(init=False, repr=False)
    _logins: frozenset[str] = attrs.field(init=False, repr=False)
    _networks: Networks = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._allowed = None if self.allowed is None else WatchedFile(self.allowed, readLine)
        self._refused = None if self.refused is None else WatchedFile(self.refused, readLine)
        self._logins = frozenset(map(sameLogin, self.null_sender_logins or ()))
        try:
            self._networks = Networks.parse(self.null_sender_from or ())
        except ValueError as error:
            raise ValueError(f"null_sender_from: {error}") from None

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        files = (self._allowed, self._refused)
        return [each for file in files if file is not None for each in file.check()]

    def warnings(self) -> list[str]:
        """See :meth:`submitd.interfaces.IWarns.warnings`."""
        files = (self._allowed, self._refused)
        return [each for file in files if file is not None for each in file.warnings()]

    def connectionMade(self, session: Session) -> None:
        """Lower the number of recipients, before EHLO tells it."""
        if self.most > 0 and not 0 < session.maxRecipients <= self.most:
            session.maxRecipients = self.most

    def validateFrom(self, session: Session, envelope: Envelope) -> None:
        """Refuse the null sender where it is not allowed.

        :raise Refused: 553 5.7.1.
        """
        if not envelope.reversePath.isNull:
            return
        if self.null_sender_logins is None and self.null_sender_from is None:
            return
        user = session.user
        if user is not None and sameLogin(user.avatarId) in self._logins:
            return
        # By XCLIENT a client may have no address; that does not make a unix socket of it.
        isKnown = bool(session.remoteAddress) or session.direct is None
        if not isKnown or session.remoteAddress not in self._networks:
            raise Refused(NULL_REFUSED)

    def validateTo(self, session: Session, envelope: Envelope, recipient: Recipient) -> None:
        """Refuse a recipient by the files.

        :raise Refused: 550 5.7.1, or 451 4.3.0 while a file has never been read.
        """
        mailbox = recipient.mailbox
        if self._refused is not None and _isIn(self._refused, mailbox):
            raise Refused(RECIPIENT_REFUSED, f"{mailbox} is in {self.refused}")
        if self._allowed is not None and not _isIn(self._allowed, mailbox):
            raise Refused(RECIPIENT_REFUSED, f"{mailbox} is not in {self.allowed}")


def readLine(words: list[bytes], addresses: Addresses[bool]) -> None:
    """Take a line of a file of recipients.

    :raise ValueError: when it is broken; says why.
    """
    if len(words) > 1:
        raise ValueError("more than one address in a line")
    addresses.set(readPattern(words[0]), _MEMBER)


def _isIn(file: WatchedFile[bool], mailbox: Mailbox) -> bool:
    content = file.content()
    if content is None:
        raise Refused(LOCAL_ERROR, f"{file.path} has never been read")
    return any(content.find(mailbox))
