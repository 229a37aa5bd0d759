"""A realm as one writes it for Twisted's own mail server; it knows nothing of submitd.

Its avatars provide ``twisted.mail.smtp.IMessageDelivery``: whoever is logged in sends from their
own address only, and every message is appended to a file of its recipient.
"""

from __future__ import annotations

from pathlib import Path

from twisted.cred.portal import IRealm
from twisted.internet.defer import succeed
from twisted.mail import smtp
from zope.interface import implementer


@implementer(smtp.IMessage)
class FileMessage:
    """One message for one recipient."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = []

    def lineReceived(self, line):
        self.lines.append(line)

    def eomReceived(self):
        with self.path.open("ab") as file:
            file.write(b"\n".join(self.lines) + b"\n\n")
        return succeed(None)

    def connectionLost(self):
        self.lines = []


@implementer(smtp.IMessageDelivery)
class FileDelivery:
    """What somebody who is logged in may do."""

    def __init__(self, directory: Path, login: bytes) -> None:
        self.directory = directory
        self.login = login

    def receivedHeader(self, helo, origin, recipients):
        return b"Received: by tickets.example.com"

    def validateFrom(self, helo, origin):
        if bytes(str(origin), "ascii") != self.login:
            raise smtp.SMTPBadSender(origin)
        return origin

    def validateTo(self, user):
        return lambda: FileMessage(self.directory / user.dest.local.decode("ascii"))


@implementer(IRealm)
class FileRealm:
    """Gives a delivery to each login."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def requestAvatar(self, avatarId, mind, *interfaces):
        if smtp.IMessageDelivery not in interfaces:
            raise NotImplementedError
        return smtp.IMessageDelivery, FileDelivery(self.directory, avatarId), lambda: None
