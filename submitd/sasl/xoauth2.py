"""XOAUTH2: a user name with a bearer token of OAuth 2.0 (RFC 6750).

Google's and Microsoft's forerunner of OAUTHBEARER (RFC 7628), and what their mail programs send:
``user=NAME ^A auth=Bearer TOKEN ^A ^A``, read strictly.  After a failed login the client is sent
one more challenge that says why in JSON, so that it fetches a new token in place of asking for a
password.
"""

from __future__ import annotations

import json
import re

import attrs
from twisted.cred.error import UnauthorizedLogin
from twisted.python.failure import Failure
from zope.interface import implementer

from submitd.interfaces import IBearerToken, IExchange, IFailureChallenge, IMechanism
from submitd.sasl.credentials import BearerToken, checkName, malformed

# RFC 6750 2.1: b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
_TOKEN = rb"[A-Za-z0-9._~+/-]+=*"
# The scheme's name has no case (RFC 9110 11.1).
_RESPONSE = re.compile(rb"user=([^\x01]*)\x01auth=(?i:bearer) (" + _TOKEN + rb")\x01\x01")


def isToken(token: bytes) -> bool:
    """Whether this can be a bearer token."""
    return re.fullmatch(_TOKEN, token) is not None


class TokenRefused(UnauthorizedLogin):
    """A token is not accepted, and the client is told what would be.

    :param told: ``status``, ``schemes`` or ``scope`` for the JSON of the last challenge.
    """

    def __init__(self, **told: str) -> None:
        super().__init__("token refused")
        self.told = told


@implementer(IMechanism)
@attrs.frozen
class XOAuth2:
    """The mechanism XOAUTH2.

    :param scope: the scope a token needs, for the client to ask for.
    """

    name = "XOAUTH2"
    credentialsInterface = IBearerToken
    needsTLS = True

    scope: str = ""

    def server(self, hostname: str) -> XOAuth2Exchange:
        """A fresh exchange; the host name plays no part."""
        return XOAuth2Exchange(self.scope)


@implementer(IExchange, IFailureChallenge)
class XOAuth2Exchange:
    """One response, with AUTH itself or after an empty challenge.

    :param scope: what a failure tells the client to ask for.
    """

    def __init__(self, scope: str) -> None:
        self._scope = scope

    def respond(self, response: bytes | None) -> bytes | BearerToken:
        """The credentials, or the empty challenge where AUTH brought no response."""
        if response is None:
            return b""
        match = _RESPONSE.fullmatch(response)
        if match is None:
            raise malformed("XOAUTH2 response is not user, bearer token and two ^A")
        return BearerToken(checkName(match[1]), match[2])

    def loginFailed(self, failure: Failure) -> bytes:
        """The JSON that Google's and Microsoft's clients know; the same for every cause.

        A checker that knows better fails with :class:`TokenRefused`.
        """
        told = {"status": "401", "schemes": "bearer", "scope": self._scope}
        if isinstance(failure.value, TokenRefused):
            told.update(failure.value.told)
        return json.dumps(told, separators=(",", ":")).encode("ascii")
