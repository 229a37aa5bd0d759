"""OAUTHBEARER (RFC 7628): a bearer token of OAuth 2.0, with a user name or without.

``n,a=NAME,^A host=...^A port=...^A auth=Bearer TOKEN^A^A``: a header of GS2 (RFC 5801 4), then
pairs of key and value.  The name may be left out (``n,,``): whose the token is, the checker says
then.  Channels cannot be bound to a bearer token, so ``p=`` in the header is refused; ``y``, which
says that the client could have done it, is not.

A client that does not know yet what is wanted sends an empty ``auth=`` (4.3).  It gets credentials
with an empty token, which no checker accepts, so that the failed login tells it.

Of the pairs ``auth`` alone counts.  ``host`` and ``port`` are for tokens that are bound to them,
which these are not, and a service behind a proxy or with several names does not know what the
client calls it; they are read and not compared.  Any other pair has to be ignored (3.1).
"""

from __future__ import annotations

import re

import attrs
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd.interfaces import IBearerToken, IExchange, IFailureChallenge, IMechanism
from submitd.sasl.bearer import AUTHORIZATION, ERROR_CODE, failureChallenge
from submitd.sasl.credentials import BearerToken, checkName, malformed
from submitd.sasl.gs2 import HEADER, unescaped

# RFC 7628 3.1: key    = 1*(ALPHA)
#               value  = *(VCHAR / SP / HTAB / CR / LF )
#               kvpair = key "=" value kvsep
_PAIR = rb"[A-Za-z]+=[\x20-\x7e\t\r\n]*\x01"
_RESPONSE = re.compile(HEADER + rb"\x01(?P<pairs>(?:" + _PAIR + rb")*)\x01")
_TOKEN = re.compile(AUTHORIZATION)


@implementer(IMechanism)
@attrs.frozen
class OAuthBearer:
    """The mechanism OAUTHBEARER."""

    name = "OAUTHBEARER"
    credentialsInterface = IBearerToken
    needsTLS = True

    def server(self, hostname: str) -> OAuthBearerExchange:
        """A fresh exchange; the host name plays no part."""
        return OAuthBearerExchange()


@implementer(IExchange, IFailureChallenge)
class OAuthBearerExchange:
    """One response, with AUTH itself or after an empty challenge."""

    def respond(self, response: bytes | None) -> bytes | BearerToken:
        """The credentials, or the empty challenge where AUTH brought no response."""
        if response is None:
            return b""
        match = _RESPONSE.fullmatch(response)
        if match is None:
            raise malformed("OAUTHBEARER response is not a GS2 header with pairs behind it")
        if match["kind"] is not None:
            raise malformed("OAUTHBEARER cannot bind a channel")
        token = _tokenOf(match["pairs"])
        name = match["identity"]
        return BearerToken(checkName(unescaped(name)) if name else b"", token)

    def loginFailed(self, failure: Failure) -> bytes:
        """RFC 7628 3.2.2: an error code of OAuth, and what else the checker tells."""
        return failureChallenge({"status": "invalid_token"}, failure, ERROR_CODE)


def _tokenOf(pairs: bytes) -> bytes:
    """The token of the one pair ``auth``; empty where that is."""
    values = [each[5:] for each in pairs.split(b"\x01") if each.startswith(b"auth=")]
    if len(values) != 1:
        raise malformed(f"OAUTHBEARER response has {len(values)} pairs auth in place of one")
    match = _TOKEN.fullmatch(values[0])
    if match is None and values[0]:
        raise malformed("OAUTHBEARER response has no bearer token in auth")
    return match[1] if match else b""
