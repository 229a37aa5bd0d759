"""twisted.mail as a peer: with_twistedmail.py tls|plain CERTIFICATE KEY USER PASSWORD

Reads each message and answers 250.  Prints "ready PORT", and at SIGUSR2 "accepted MESSAGES OCTETS".
"""

# mypy: allow-untyped-calls
# twisted.mail is not annotated throughout.

from __future__ import annotations

import signal
import sys
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet import defer, ssl
from twisted.internet import reactor as untyped
from twisted.mail import smtp
from twisted.mail.imap4 import PLAINCredentials
from zope.interface import implementer

reactor: Any = untyped


@implementer(smtp.IMessageDelivery)
class Discard:
    """Takes mail from anybody to anybody."""

    messages = octets = 0

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        """None: an empty line would end the header."""
        return b""

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        """Anybody."""
        return origin

    def validateTo(self, user: Any) -> Any:
        """Anybody."""
        return lambda: Message(self)

    def report(self) -> None:
        """Say how many."""
        print("accepted", self.messages, self.octets, flush=True)


@implementer(smtp.IMessage)
class Message:
    """Counts."""

    def __init__(self, discard: Discard) -> None:
        self._discard = discard
        self._octets = 0

    def lineReceived(self, line: bytes) -> None:
        """Count."""
        self._octets += len(line) + 2

    def eomReceived(self) -> Any:
        """Count the message."""
        self._discard.messages += 1
        self._discard.octets += self._octets
        return defer.succeed(None)

    def connectionLost(self) -> None:
        """Nothing was kept."""


@implementer(IRealm)
class Realm:
    """Gives everybody the same avatar."""

    def __init__(self, discard: Discard) -> None:
        self._discard = discard

    def requestAvatar(self, avatarId: Any, mind: Any, *interfaces: Any) -> Any:
        """The delivery."""
        return smtp.IMessageDelivery, self._discard, lambda: None


class Factory(smtp.SMTPFactory):
    """Makes the connections."""

    protocol = smtp.ESMTP
    noisy = False
    domain: Any = "peer.example.org"

    def __init__(self, discard: Discard, portal: Portal | None) -> None:
        super().__init__(portal)
        self._discard = discard

    def buildProtocol(self, addr: Any) -> Any:
        """Offer PLAIN, or need no login."""
        made = super().buildProtocol(addr)
        if self.portal is None:
            made.delivery = self._discard
        else:
            made.challengers = {b"PLAIN": PLAINCredentials}
        return made


def main(mode: str, certificate: str, key: str, user: str, password: str) -> None:
    """Serve until a signal ends the process."""
    discard = Discard()
    if mode == "tls":
        checker = InMemoryUsernamePasswordDatabaseDontUse()
        checker.addUser(user.encode(), password.encode())
        factory = Factory(discard, Portal(Realm(discard), [checker]))
        context = ssl.DefaultOpenSSLContextFactory(key, certificate)
        port = reactor.listenSSL(0, factory, context, backlog=512, interface="127.0.0.1")
    else:
        port = reactor.listenTCP(0, Factory(discard, None), backlog=512, interface="127.0.0.1")
    signal.signal(signal.SIGUSR2, lambda *_: discard.report())
    print("ready", port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
