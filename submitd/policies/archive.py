"""Policy ``archive``: a blind copy of every message, or of those of some logins.

To ``address`` the message goes as to one more recipient, of whom nobody is told: not in a reply,
not in a header field, not in a report to the sender (NOTIFY=NEVER, RFC 3461), and it does not count
as one of the client's.  It needs a delivery that can keep a recipient to itself
(``IBlindCopyDelivery``); with any other the message is 451.  To ``delivery``, a second one with
keys of its own, the message goes as it goes to the first one, and it is safe there before the 250.
When that fails, ``on_failure`` decides: ``refuse`` is 451 (452 for a full disk), ``accept`` an
event.

``logins`` and the lines of ``login_file`` say whose: a login, ``@DOMAIN`` for all logins of a
domain, ``@*.DOMAIN`` for those of all domains below it.  Where neither is given, it is everybody,
also without a login.  While the file has never been read nobody knows whose, and ``on_failure``
decides as well.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

import attrs
from twisted.internet.defer import Deferred, succeed
from zope.interface import alsoProvides, implementer

from submitd.envelope import Envelope, Recipient
from submitd.equality import sameAddress
from submitd.interfaces import (
    IBringsDelivery,
    IChecked,
    IDataPolicy,
    IDelivery,
    IMayBlindCopy,
    IRunning,
    IWarns,
)
from submitd.message.copied import Copy
from submitd.policies.addresses import Addresses, WatchedFile
from submitd.policies.logins import includes, readLoginLine, readLogins
from submitd.session import Session
from submitd.typed import Table
from submitd.wire.address import Mailbox, readMailbox
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR


@implementer(IDataPolicy, IBringsDelivery, IRunning, IChecked, IWarns)
@attrs.define(eq=False, slots=False)
class Archive:
    """Copies messages to an address or a delivery; for the parameters see their help.

    :raise ValueError: for an address or a pattern that is none.
    :ivar sink: the second delivery; the service makes it of ``delivery``, and a program that embeds
        the service sets its own.
    """

    name: ClassVar[str] = "archive"

    address: str = attrs.field(
        default="",
        metadata={"help": "An address that gets a copy, unknown to the client. Empty for none."},
    )
    delivery: Table | None = attrs.field(
        default=None,
        metadata={
            "help": "A delivery that gets a copy before the client is answered: a table as "
            '[delivery] is, such as { use = "maildir", path = "archive" }.'
        },
    )
    logins: tuple[str, ...] = attrs.field(
        default=(),
        converter=tuple,
        metadata={"help": 'Whose messages: logins, "@DOMAIN" or "@*.DOMAIN". Empty for all.'},
    )
    login_file: Path | None = attrs.field(
        default=None,
        converter=attrs.converters.optional(Path),
        metadata={"help": "A file of such lines; it is read again when it changes."},
    )
    on_failure: Literal["refuse", "accept"] = attrs.field(
        default="refuse",
        metadata={
            "help": 'When there can be no copy in the second delivery: "refuse" the message, or '
            '"accept" it and log an event.'
        },
    )
    sink: IDelivery | None = attrs.field(init=False, default=None, repr=False)
    _mailbox: Mailbox | None = attrs.field(init=False, repr=False, default=None)
    _given: Addresses[bool] = attrs.field(init=False, repr=False)
    _file: WatchedFile[bool] | None = attrs.field(init=False, repr=False, default=None)
    _copy: Copy | None = attrs.field(init=False, repr=False, default=None)

    def __attrs_post_init__(self) -> None:
        if self.address:
            self._mailbox = _readAddress(self.address)
            alsoProvides(self, IMayBlindCopy)
        self._given = readLogins("logins", self.logins)
        if self.login_file is not None:
            self._file = WatchedFile(self.login_file, readLoginLine)

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        found = [] if self._file is None else self._file.check()
        if not self.address and self.delivery is None and self.sink is None:
            found.append("copies to nobody: there is neither address nor delivery")
        sink: Any = self.sink
        if IChecked.providedBy(sink):
            found += [f"delivery: {sentence}" for sentence in sink.check()]
        return found

    def warnings(self) -> list[str]:
        """See :meth:`submitd.interfaces.IWarns.warnings`."""
        return [] if self._file is None else self._file.warnings()

    def start(self, reactor: Any) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.start`; what its delivery has running."""
        sink: Any = self.sink
        return sink.start(reactor) if IRunning.providedBy(sink) else succeed(None)

    def stop(self) -> Deferred[None]:
        """See :meth:`submitd.interfaces.IRunning.stop`."""
        sink: Any = self.sink
        return sink.stop() if IRunning.providedBy(sink) else succeed(None)

    def dataRequested(self, session: Session, envelope: Envelope) -> None:
        """Have the message copied.

        :raise Refused: 451 4.3.0 when nobody can tell whether it is to be.
        """
        if not self._concerns(session):
            return
        # DATA may come again in the same transaction, when a later policy had refused it.
        if self._mailbox is not None and not _isAmong(self._mailbox, envelope):
            envelope.blind += (Recipient(self._mailbox, notify=("NEVER",)),)
        if self.sink is not None:
            if self._copy is None:
                self._copy = Copy(self.sink, self.on_failure == "refuse", self.name)
            if self._copy not in envelope.copies:
                envelope.copies += (self._copy,)

    def _concerns(self, session: Session) -> bool:
        if not self.logins and self._file is None:
            return True
        if session.user is None:
            return False
        login = session.user.avatarId
        if includes(self._given, login):
            return True
        if self._file is None:
            return False
        content = self._file.content()
        if content is None:
            if self.on_failure == "refuse":
                raise Refused(LOCAL_ERROR, f"{self.login_file} has never been read")
            return False
        return includes(content, login)


def _readAddress(address: str) -> Mailbox:
    try:
        mailbox = readMailbox(address.encode())
    except ValueError as error:
        raise ValueError(f'address "{address}" is none: {error}') from None
    if not mailbox.isAscii:
        raise ValueError("address must be ASCII: a message without SMTPUTF8 may have no other")
    return mailbox


def _isAmong(mailbox: Mailbox, envelope: Envelope) -> bool:
    same = sameAddress(mailbox)
    return any(
        sameAddress(each.mailbox) == same for each in (*envelope.recipients, *envelope.blind)
    )
