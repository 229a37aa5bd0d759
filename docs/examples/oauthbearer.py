"""A SASL mechanism: OAUTHBEARER (RFC 7628), the standard's successor of XOAUTH2.

In the configuration::

    [auth]
    mechanisms = ["oauthbearer:OAuthBearer"]
    checkers = ["tokens:/etc/submitd/tokens"]
"""

from __future__ import annotations

import re

import attrs
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd.interfaces import IBearerToken, IExchange, IFailureChallenge, IMechanism
from submitd.sasl.credentials import BearerToken, checkName, malformed

# RFC 7628 3.1: gs2-header kvsep *kvpair kvsep, with the user's name in the GS2 header (RFC 5801 4).
_RESPONSE = re.compile(
    rb"n,a=(?P<name>[^,\x01]+),\x01(?:[A-Za-z]+=[^\x01]*\x01)*?"
    rb"auth=(?i:bearer) (?P<token>[A-Za-z0-9._~+/-]+=*)\x01(?:[A-Za-z]+=[^\x01]*\x01)*\x01"
)


@implementer(IMechanism)
@attrs.frozen
class OAuthBearer:
    """The mechanism OAUTHBEARER."""

    name = "OAUTHBEARER"
    credentialsInterface = IBearerToken
    needsTLS = True

    def server(self, hostname: str) -> OAuthBearerExchange:
        """A fresh exchange."""
        return OAuthBearerExchange()


@implementer(IExchange, IFailureChallenge)
class OAuthBearerExchange:
    """One response, with AUTH itself or after an empty challenge."""

    def respond(self, response: bytes | None) -> bytes | BearerToken:
        """The credentials, or the empty challenge where AUTH brought no response.

        :raise Refused: 501 5.5.2 when the response is malformed.
        """
        if response is None:
            return b""
        match = _RESPONSE.fullmatch(response)
        if match is None:
            raise malformed("not an OAUTHBEARER response")
        # RFC 5801 4: "," and "=" in a name are written as =2C and =3D.
        name = match["name"].replace(b"=2C", b",").replace(b"=3D", b"=")
        return BearerToken(checkName(name), match["token"])

    def loginFailed(self, failure: Failure) -> bytes:
        """RFC 7628 3.2.2: why, in JSON; the same for every cause."""
        return b'{"status":"invalid_token"}'
