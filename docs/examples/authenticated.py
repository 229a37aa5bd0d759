"""A server that takes mail of its users alone, and saves it as .eml files named by them.

    python authenticated.py 2587 DIRECTORY certificate.pem private_key.pem

The users are a dict here.  What is in it beside the password becomes the attributes of the avatar,
which every later stage sees as ``session.user.attributes``.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from eml import EmlFiles
from ownaddress import OwnAddress
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.internet.task import react
from zope.interface import implementer

from submitd.realm import SubmissionRealm
from submitd.sasl import mechanism
from submitd.service import SubmissionService, submissionService
from submitd.settings import ListenerSettings
from submitd.tls import ServerTLS, TLSSettings

Users = Mapping[str, Mapping[str, Any]]

USERS: Users = {
    "alice": {"password": "secret123", "email": "alice@example.com", "roles": ["sender"]},
    "bob": {"password": "password456", "email": "bob@example.com", "roles": ["sender", "boss"]},
}


@implementer(ICredentialsChecker)
@attrs.frozen
class DictChecker:
    """Knows the users of a dict.

    ``checkPassword`` of the credentials compares a password that was sent (PLAIN, LOGIN) as well
    as the digest of a challenge (CRAM-MD5); so this checker is the same for all three.
    """

    users: Users
    credentialInterfaces = (IUsernamePassword, IUsernameHashedPassword)

    def requestAvatarId(self, credentials: Any) -> Any:
        """The user's name.

        :raise UnauthorizedLogin: for another name or another password; the client is told the same.
        """
        known = self.users.get(credentials.username.decode("utf-8"), {})
        matches = credentials.checkPassword(known.get("password", "").encode("utf-8"))
        if not (known and matches):
            raise UnauthorizedLogin()
        return credentials.username


def portal(users: Users) -> Portal:
    """Who may log in, and what is known about them; the password stays here."""

    def attributes(name: str) -> dict[str, Any]:
        return {key: value for key, value in users[name].items() if key != "password"}

    return Portal(SubmissionRealm(attributes), [DictChecker(users)])


def server(
    reactor: Any, endpoint: str, directory: Path, certificate: Path, key: Path
) -> SubmissionService:
    """The service, not yet started: no AUTH before TLS, no MAIL before AUTH."""
    return submissionService(
        reactor,
        [ListenerSettings(endpoint=endpoint)],
        ServerTLS(TLSSettings(certificate=certificate, private_key=key)),
        portal=portal(USERS),
        mechanisms=[mechanism(name) for name in ("PLAIN", "LOGIN", "CRAM-MD5")],
        policies=[OwnAddress()],
        delivery=EmlFiles(directory),
    )


def main(reactor: Any, port: str, directory: str, certificate: str, key: str) -> Deferred[None]:
    """Run until the process is told to end."""
    service = server(reactor, f"tcp:{port}", Path(directory), Path(certificate), Path(key))
    service.startService()
    reactor.addSystemEventTrigger("before", "shutdown", service.stopService)
    print(f"listening on port {port}", flush=True)
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
