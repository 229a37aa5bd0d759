"""A SASL mechanism: X-APIKEY, for devices of one's own that have a key and no password.

In the configuration::

    [auth]
    mechanisms = ["PLAIN", "apikey:APIKey"]
    checkers = ["htpasswd:/etc/submitd/passwd", "tokens:/etc/submitd/tokens"]

The device sends one response: its name, a NUL, its key.  ``submitd-passwd --tokens`` makes keys.
"""

from __future__ import annotations

import re

import attrs
from zope.interface import implementer

from submitd.interfaces import IBearerToken, IExchange, IMechanism
from submitd.sasl.credentials import BearerToken, checkName, malformed

_RESPONSE = re.compile(rb"([^\0]+)\0([A-Za-z0-9_-]{1,256})")


@implementer(IMechanism)
@attrs.frozen
class APIKey:
    """The mechanism X-APIKEY."""

    name = "X-APIKEY"
    credentialsInterface = IBearerToken
    needsTLS = True

    def server(self, hostname: str) -> APIKeyExchange:
        """A fresh exchange."""
        return APIKeyExchange()


@implementer(IExchange)
class APIKeyExchange:
    """One response, with AUTH itself or after an empty challenge."""

    def respond(self, response: bytes | None) -> bytes | BearerToken:
        """The credentials, or the empty challenge where AUTH brought no response.

        :raise Refused: 501 5.5.2 when the response is malformed.
        """
        if response is None:
            return b""
        match = _RESPONSE.fullmatch(response)
        if match is None:
            raise malformed("not a name, a NUL and a key")
        return BearerToken(checkName(match[1]), match[2])
