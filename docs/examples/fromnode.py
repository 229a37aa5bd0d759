"""What fromnode.cjs does with smtp-server, done with submitd.

python fromnode.py 2587 certificate.pem private_key.pem
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd.envelope import Envelope, Recipient
from submitd.interfaces import (
    IDelivery,
    IDisconnectObserver,
    ILoginPolicy,
    IMessage,
    IRecipientPolicy,
    ISenderPolicy,
    ISubmitter,
)
from submitd.realm import SubmissionRealm
from submitd.sasl import mechanism
from submitd.service import SubmissionService, submissionService
from submitd.session import Session
from submitd.settings import LimitSettings, ListenerSettings
from submitd.tls import ServerTLS, TLSSettings
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

USERS = {"alice": {"password": "secret123", "email": "alice@example.com"}}


@implementer(ICredentialsChecker)
class Users:
    """The part of ``onAuth`` that says yes or no."""

    credentialInterfaces = (IUsernamePassword, IUsernameHashedPassword)

    def requestAvatarId(self, credentials: Any) -> Any:
        """The user's name; ``checkPassword`` is for PLAIN, LOGIN and CRAM-MD5 alike."""
        user = USERS.get(credentials.username.decode("utf-8"))
        if user is None or not credentials.checkPassword(user["password"].encode("utf-8")):
            raise Refused(Reply(535, "5.7.8", "Invalid username or password"))
        return credentials.username


async def known(name: str) -> dict[str, str]:
    """The part of ``onAuth`` that gives ``user``; here it is ``session.user.attributes``."""
    return {"email": USERS[name]["email"]}


@implementer(ILoginPolicy, ISenderPolicy, IRecipientPolicy, IDisconnectObserver)
class Callbacks:
    """The callbacks, in one object or in several."""

    def loginRequested(self, session: Session, credentials: Any) -> None:
        """The part of ``onAuth`` that looks at the session: before the checker is asked."""
        print(f"{session.mechanismTried} from {session.remoteAddress}", flush=True)

    def loginSucceeded(self, session: Session, avatar: ISubmitter) -> None:
        """Nothing to be said."""

    def loginFailed(self, session: Session, credentials: Any, failure: Failure) -> None:
        """Nothing to be said."""

    def validateFrom(self, session: Session, envelope: Envelope) -> None:
        """``onMailFrom``."""
        assert session.user is not None
        if str(envelope.reversePath.mailbox) != session.user.attributes["email"]:
            raise Refused(Reply(553, "5.7.1", "You can only send from your own address"))

    def validateTo(self, session: Session, envelope: Envelope, recipient: Recipient) -> None:
        """``onRcptTo``."""
        if recipient.mailbox.localPart == "nobody":
            raise Refused(Reply(550, "5.1.1", "No such user"))

    def connectionLost(self, session: Session, reason: Failure) -> None:
        """``onClose``."""
        print(f"{session.remoteAddress} is gone", flush=True)


@implementer(IDelivery)
@attrs.define(eq=False)
class Store:
    """``onData``, as it begins."""

    kept: list[tuple[str, list[str], bytes]] = attrs.field(factory=list)

    def begin(self, session: Session, envelope: Envelope) -> Stored:
        """A message begins."""
        return Stored(self.kept, session, envelope)


@implementer(IMessage)
@attrs.define(eq=False)
class Stored:
    """``onData``, as it goes on: ``stream`` and ``callback`` are methods here."""

    kept: list[tuple[str, list[str], bytes]]
    session: Session
    envelope: Envelope
    text: bytes = b""

    def dataReceived(self, chunk: bytes) -> None:
        """``stream.on("data")``; a coroutine holds the client back until it ends."""
        self.text += chunk
        if b"SPAM" in self.text:
            raise Refused(Reply(550, "5.7.1", "Spam detected"))

    def prepend(self, fields: bytes) -> None:
        """The header fields of policies, where there are any."""
        self.text = fields + self.text

    def eomReceived(self) -> Reply:
        """``stream.on("end")``: what returns from here is kept, and the client is told so."""
        assert self.session.user is not None
        recipients = [str(recipient.mailbox) for recipient in self.envelope.recipients]
        self.kept.append((self.session.user.avatarId, recipients, self.text))
        return Reply(250, "2.0.0", f"Kept as number {len(self.kept)}")

    def connectionLost(self) -> None:
        """The client went, or the message was refused: nothing of it is to be left."""


def server(reactor: Any, endpoint: str, certificate: Path, key: Path) -> SubmissionService:
    """``new SMTPServer(...)``."""
    return submissionService(
        reactor,
        [ListenerSettings(endpoint=endpoint)],
        ServerTLS(TLSSettings(certificate=certificate, private_key=key)),
        LimitSettings(message_size=100000),
        hostname="mail.example.com",
        banner="Welcome",
        mechanisms=[mechanism(name) for name in ("PLAIN", "LOGIN", "CRAM-MD5")],
        portal=Portal(SubmissionRealm(known), [Users()]),
        policies=[Callbacks()],
        delivery=Store(),
    )


def main(reactor: Any, port: str, certificate: str, key: str) -> Deferred[None]:
    """``server.listen``, until the process is told to end."""
    endpoint = f"tcp:{port}:interface=127.0.0.1"
    service = server(reactor, endpoint, Path(certificate), Path(key))
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
