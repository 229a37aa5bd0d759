"""PLAIN (RFC 4616): ``[authzid] NUL authcid NUL passwd`` in one response.

The authorization identity goes into the credentials only where it differs from the user name; to
let somebody act as somebody else, or not, is for the dialogue, which refuses it.
"""

from __future__ import annotations

import attrs
from twisted.cred.credentials import IUsernamePassword
from zope.interface import implementer

from submitd.interfaces import IExchange, IMechanism
from submitd.sasl.credentials import UsernamePassword, checkName, checkPassword, malformed


@implementer(IMechanism)
@attrs.frozen
class Plain:
    """The mechanism PLAIN."""

    name = "PLAIN"
    credentialsInterface = IUsernamePassword
    needsTLS = True

    def server(self, hostname: str) -> PlainExchange:
        """A fresh exchange; the host name plays no part."""
        return PlainExchange()


@implementer(IExchange)
class PlainExchange:
    """One response, with AUTH itself or after an empty challenge."""

    def respond(self, response: bytes | None) -> bytes | UsernamePassword:
        """The credentials, or the empty challenge where AUTH brought no response."""
        if response is None:
            return b""
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise malformed(f"PLAIN has {len(parts) - 1} NULs in place of 2")
        authorizationId, username, password = parts
        username, password = checkName(username), checkPassword(password)
        if authorizationId.lower() == username.lower():
            authorizationId = b""  # some clients send the same name twice
        elif authorizationId:
            checkName(authorizationId)
        return UsernamePassword(username, password, authorizationId)
