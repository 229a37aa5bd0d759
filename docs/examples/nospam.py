"""A delivery in front of another one, which refuses what it does not like in a message.

In the configuration::

    [delivery]
    use = "nospam:inFrontOfMaildir"
    path = "/var/mail/Maildir"
    word = "SPAM"

A refusal while the message streams is remembered: the rest is read and dropped, and the client has
its one reply behind the end.  Nobody has to drain anything.
"""

from __future__ import annotations

from typing import Any

import attrs
from zope.interface import implementer

from submitd.deliveries.maildir import Maildir
from submitd.envelope import Envelope
from submitd.interfaces import IDelivery, IMessage, IMessagePolicy, IReceivedMessage
from submitd.session import Session
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

SPAM = Reply(550, "5.7.1", "Spam detected")


@implementer(IDelivery)
@attrs.define(eq=False)
class NoSpam:
    """Hands messages on, unless a word is in them.

    :param delivery: where the good ones go; its ``begin`` gives a message at once.
    :param word: what makes a message a bad one.
    """

    delivery: Any
    word: bytes = b"SPAM"

    def begin(self, session: Session, envelope: Envelope) -> Screened:
        """Begin to take a message."""
        return Screened(self.delivery.begin(session, envelope), self.word)


@implementer(IMessage)
@attrs.define(eq=False)
class Screened:
    """A message on its way; of what has gone by, only what may be half a word is kept."""

    message: Any
    word: bytes
    end: bytes = b""

    def dataReceived(self, chunk: bytes) -> Any:
        """Look, and hand on.

        :raise Refused: 550 5.7.1; from then on nothing more comes here but ``connectionLost``.
        """
        seen = self.end + chunk
        if self.word in seen:
            raise Refused(SPAM, "the word is in the message")
        self.end = seen[-len(self.word) + 1 :] if len(self.word) > 1 else b""
        return self.message.dataReceived(chunk)

    def prepend(self, fields: bytes) -> None:
        """Header fields of policies."""
        self.message.prepend(fields)

    def eomReceived(self) -> Any:
        """Commit."""
        return self.message.eomReceived()

    def connectionLost(self) -> None:
        """Abort: the delivery behind leaves nothing of it."""
        self.message.connectionLost()


def inFrontOfMaildir(path: str, word: str = "SPAM") -> NoSpam:
    """The two together, for the configuration."""
    return NoSpam(Maildir(path), word.encode("utf-8"))


@implementer(IMessagePolicy)
class NoSpamSubject:
    """The same for the header section alone, as a policy: behind the end, before the commit."""

    name = "no-spam-subject"

    def messageReceived(
        self, session: Session, envelope: Envelope, message: IReceivedMessage
    ) -> None:
        """Look at the fields.

        :raise Refused: 550 5.7.1.
        """
        for field in message.header.split(b"\r\n"):
            if field.lower().startswith(b"subject:") and b"SPAM" in field:
                raise Refused(SPAM, "the word is in the subject")
