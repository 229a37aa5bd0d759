"""Bearer tokens of OAuth 2.0 (RFC 6750): what XOAUTH2 and OAUTHBEARER have in common.

Both send what would be the Authorization field of a HTTP request.  After a failed login both send
one more challenge that says why in JSON, so that the client fetches a new token in place of asking
for a password.  They differ in how the cause is written there: XOAUTH2 has the status of a HTTP
answer, OAUTHBEARER the error code of OAuth.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from twisted.cred.error import UnauthorizedLogin
from twisted.python.failure import Failure

# RFC 6750 2.1: b64token = 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
_TOKEN = re.compile(rb"[A-Za-z0-9._~+/-]+=*")
# The scheme's name has no case (RFC 9110 11.1).
AUTHORIZATION = rb"(?i:bearer) +(" + _TOKEN.pattern + rb")"
"""The pattern of a token with its scheme (RFC 6750 2.1), the token being its one group."""

# RFC 6750 3.1: the error codes, and the status of a HTTP answer that goes with each.
ERROR_CODE = {"400": "invalid_request", "401": "invalid_token", "403": "insufficient_scope"}
HTTP_STATUS = {code: status for status, code in ERROR_CODE.items()}


def isToken(token: bytes) -> bool:
    """Whether this can be a bearer token."""
    return _TOKEN.fullmatch(token) is not None


class TokenRefused(UnauthorizedLogin):
    """A token is not accepted, and the client is told what would be.

    :param cause: what the log says about it.
    :param told: ``status`` (an error code of OAuth, or the status of a HTTP answer), ``scope``,
        ``schemes`` or ``openid-configuration`` for the JSON of the last challenge.
    """

    def __init__(self, cause: str = "token refused", /, **told: str) -> None:
        super().__init__(cause)
        self.told = told


class ForeignToken(TokenRefused):
    """A token is not of those that this checker judges; what another one says of it counts."""


def failureChallenge(
    usual: Mapping[str, str], failure: Failure, statuses: Mapping[str, str]
) -> bytes:
    """The JSON that a client is sent after a failed login; the same for every cause.

    A checker that knows better fails with :class:`TokenRefused`.

    :param usual: what is told where the checker says nothing.
    :param statuses: the mechanism's own word for a status that it writes in another way.
    """
    refused = failure.value
    told = {**usual, **(refused.told if isinstance(refused, TokenRefused) else {})}
    told["status"] = statuses.get(told["status"], told["status"])
    return json.dumps(told, separators=(",", ":")).encode("ascii")
