"""XOAUTH2: a user name with a bearer token of OAuth 2.0 (RFC 6750).

Google's and Microsoft's forerunner of OAUTHBEARER (RFC 7628), and what their mail programs send:
``user=NAME ^A auth=Bearer TOKEN ^A ^A``, read strictly.  A failed login has one more challenge,
JSON, before its 535.
"""

from __future__ import annotations

import re

import attrs
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd.interfaces import IBearerToken, IExchange, IFailureChallenge, IMechanism
from submitd.sasl.bearer import AUTHORIZATION, HTTP_STATUS, failureChallenge
from submitd.sasl.credentials import BearerToken, checkName, malformed

_RESPONSE = re.compile(rb"user=([^\x01]*)\x01auth=" + AUTHORIZATION + rb"\x01\x01")


@implementer(IMechanism)
@attrs.frozen
class XOAuth2:
    """The mechanism XOAUTH2."""

    name = "XOAUTH2"
    credentialsInterface = IBearerToken
    needsTLS = True

    def server(self, hostname: str) -> XOAuth2Exchange:
        """A fresh exchange; the host name plays no part."""
        return XOAuth2Exchange()


@implementer(IExchange, IFailureChallenge)
class XOAuth2Exchange:
    """One response, with AUTH itself or after an empty challenge."""

    def respond(self, response: bytes | None) -> bytes | BearerToken:
        """The credentials, or the empty challenge where AUTH brought no response."""
        if response is None:
            return b""
        match = _RESPONSE.fullmatch(response)
        if match is None:
            raise malformed("XOAUTH2 response is not user, bearer token and two ^A")
        return BearerToken(checkName(match[1]), match[2])

    def loginFailed(self, failure: Failure) -> bytes:
        """The JSON that Google's and Microsoft's clients know."""
        usual = {"status": "401", "schemes": "bearer", "scope": ""}
        return failureChallenge(usual, failure, HTTP_STATUS)
