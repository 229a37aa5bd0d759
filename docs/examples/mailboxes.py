"""A delivery that answers for each recipient, for LMTP: a Maildir for each, with a quota.

In the configuration::

    [[listener]]
    endpoint = "unix:/run/submitd/lmtp.sock"
    tls = "off"
    require_tls = false
    lmtp = true
    [auth]
    required = false
    [delivery]
    use = "mailboxes:Mailboxes"
    path = "/var/mail"
    quota = "1 GiB"

Where a listener speaks SMTP there is one reply for all: the first that is no 250.
"""

from __future__ import annotations

import re
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred, gatherResults
from zope.interface import implementer

from submitd.deliveries.maildir import Maildir, MaildirMessage, Outcome
from submitd.envelope import Envelope
from submitd.interfaces import IChecked, IDelivery, IMessage
from submitd.session import Session
from submitd.typed import Size
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

DELIVERED = Reply(250, "2.1.5", "Delivered")
NO_MAILBOX = Reply(550, "5.1.1", "No such mailbox")
OVER_QUOTA = Reply(452, "4.2.2", "Mailbox full")

_NAME = re.compile("[a-z0-9][a-z0-9_-]*")


@implementer(IDelivery, IChecked)
@attrs.define(eq=False)
class Mailboxes:
    """A directory of Maildirs; whose there is none has no mailbox.

    :param path: the directory.
    :param quota: octets that the new messages of one may have; 0 for no limit.
    """

    path: Path = attrs.field(converter=Path, metadata={"help": "The directory of the Maildirs."})
    quota: Size = attrs.field(default=Size(0), metadata={"help": "Octets that one may have."})

    def check(self) -> list[str]:
        """See :meth:`submitd.interfaces.IChecked.check`."""
        return [] if self.path.is_dir() else [f"path: there is no directory {self.path}"]

    def begin(self, session: Session, envelope: Envelope) -> Copies:
        """One copy for each recipient that can have it."""
        copies: list[MaildirMessage | Reply] = []
        for recipient in envelope.recipients:
            alone = attrs.evolve(envelope, recipients=[recipient])
            found = self._mailbox(recipient.mailbox.localPart.lower())
            copies.append(found if isinstance(found, Reply) else found.begin(session, alone))
        return Copies(copies)

    def _mailbox(self, name: str) -> Maildir | Reply:
        # What a client says becomes no path, unless it is a plain name.
        if not _NAME.fullmatch(name) or not (self.path / name).is_dir():
            return NO_MAILBOX
        new = self.path / name / "new"
        used = sum(file.stat().st_size for file in new.iterdir()) if new.is_dir() else 0
        return OVER_QUOTA if self.quota and used >= self.quota else Maildir(self.path / name)


@implementer(IMessage)
@attrs.define(eq=False)
class Copies:
    """A message on its way to several, some of whom will not have it."""

    copies: list[MaildirMessage | Reply]

    @property
    def _open(self) -> list[MaildirMessage]:
        return [each for each in self.copies if isinstance(each, MaildirMessage)]

    def dataReceived(self, chunk: bytes) -> Deferred[None] | None:
        """Hand on, and wait for the slowest."""
        waiting = [each.dataReceived(chunk) for each in self._open]
        slow = [each for each in waiting if each is not None]
        return gatherResults(slow, consumeErrors=True).addCallback(lambda _: None) if slow else None

    def prepend(self, fields: bytes) -> None:
        """Header fields of policies."""
        for each in self._open:
            each.prepend(fields)

    def eomReceived(self) -> Deferred[Outcome]:
        """Commit one after the other; the replies in the recipients' order."""
        return Deferred.fromCoroutine(self._commit())

    async def _commit(self) -> list[Reply]:
        try:
            return [await _outcome(each) for each in self.copies]
        except BaseException:
            # One reply for all says 4yz now, and the sender tries all again.
            self.connectionLost()
            raise

    def connectionLost(self) -> None:
        """Abort: nothing is left of it anywhere."""
        for each in self._open:
            each.connectionLost()


async def _outcome(copy: MaildirMessage | Reply) -> Reply:
    if isinstance(copy, Reply):
        return copy
    try:
        await copy.eomReceived()
    except Refused as refused:
        return refused.reply
    return DELIVERED
