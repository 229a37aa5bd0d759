"""Maildirs as a next hop: the recipients' own, one file for each of them.

A path may have ``{local}`` and ``{domain}`` in it.  They become part of a path only when they are
plain (letters, digits, ``._+-`` and no dot in front), whatever an address may be else; what is
behind a ``+`` is left out.  A recipient whose Maildir has no directory above it is unknown: 5.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from submitd.deliveries.maildir import Maildir
from submitd.envelope import Envelope, Recipient
from submitd.equality import sameAddress
from submitd.interfaces import IBody
from submitd.relay.outgoing import Outcome, Outgoing, Result, judge
from submitd.session import Session
from submitd.threads import deferToThread
from submitd.turns import Turns
from submitd.waiting import over
from submitd.wire.address import Mailbox
from submitd.wire.errors import Refused
from submitd.wire.reply import LOCAL_ERROR, Reply

UNKNOWN = Reply(550, "5.1.1", "No such mailbox here")
DELIVERED = Reply(250, "2.0.0", "Delivered to the mailbox")

PLACEHOLDERS = ("{local}", "{domain}")
"""What a recipient's address is put for in a path."""

_PLAIN = re.compile(r"[a-z0-9_][a-z0-9._+-]*")


def maildirOf(pattern: str, mailbox: Mailbox) -> Path | None:
    """The Maildir of a recipient; ``None`` when it can have none."""
    local, domain = sameAddress(mailbox)
    local = local.partition("+")[0]
    if not (_PLAIN.fullmatch(local) and _PLAIN.fullmatch(domain)):
        return None
    return Path(pattern.replace("{local}", local).replace("{domain}", domain))


@attrs.define(eq=False)
class LocalHop:
    """Delivers into Maildirs.

    :param pattern: the path.
    :param turns: one is to be had for each message.
    :param run: runs a function in a thread and gives a Deferred.
    """

    pattern: str
    turns: Turns
    run: Callable[..., Any] = deferToThread
    _maildirs: dict[Path, Maildir] = attrs.field(factory=dict, init=False)

    async def deliver(self, message: Outgoing, read: Callable[[], IBody]) -> tuple[Outcome, ...]:
        """Deliver a message to each of its recipients.

        :param read: gives the message, from its beginning.
        """
        return tuple([await self._one(message, each, read()) for each in message.recipients])

    async def close(self) -> None:
        """There is nothing to close."""

    async def _one(self, message: Outgoing, recipient: Recipient, body: IBody) -> Outcome:
        path = maildirOf(self.pattern, recipient.mailbox)
        if path is None or not await self.run(path.parent.is_dir):
            return _outcome(UNKNOWN)
        maildir = self._maildirs.get(path)
        if maildir is None:
            maildir = self._maildirs[path] = Maildir(path)
            maildir.run = self.run
        envelope = Envelope(message.id, message.reversePath, recipients=[recipient])
        file = maildir.begin(Session(), envelope)
        try:
            while chunk := await body.next():
                await over(file.dataReceived(chunk))
            await file.eomReceived()
        except Refused as refused:
            file.connectionLost()
            return _outcome(refused.reply)
        except Exception:
            file.connectionLost()
            return _outcome(LOCAL_ERROR)
        return _outcome(DELIVERED)


def _outcome(reply: Reply) -> Outcome:
    result = judge(reply)
    return Outcome(result, reply, isRemote=False, isFinal=result is Result.DELIVERED)
