"""CRAM-MD5 (RFC 2195): the client proves that it knows the secret without sending it.

Each login gets a challenge of its own, so that a recorded response is worthless; for the same
reason a response before the challenge is refused.  It still asks for TLS: whoever listens can try
passwords against the digest at leisure, and without TLS can take over the connection after it.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable

import attrs
from twisted.cred.credentials import IUsernameHashedPassword
from zope.interface import implementer

from submitd.interfaces import IExchange, IMechanism
from submitd.sasl.credentials import SERVER_FIRST, UsernameDigest, checkName, malformed
from submitd.wire.errors import Refused

# RFC 2195 2: user name, a space, 32 lower-case hexadecimal digits.  The name may have spaces.
_RESPONSE = re.compile(rb"(.*) ([0-9a-f]{32})", re.DOTALL)


@implementer(IMechanism)
@attrs.frozen
class CramMD5:
    """The mechanism CRAM-MD5.

    :param seconds: the time of day, for the challenge.
    """

    name = "CRAM-MD5"
    credentialsInterface = IUsernameHashedPassword
    needsTLS = True

    seconds: Callable[[], float] = time.time

    def server(self, hostname: str) -> CramMD5Exchange:
        """A fresh exchange with a fresh challenge."""
        stamp = f"<{secrets.token_hex(16)}.{int(self.seconds())}@{hostname}>"
        return CramMD5Exchange(stamp.encode("utf-8"))


@implementer(IExchange)
class CramMD5Exchange:
    """The challenge, then one response.

    :param challenge: a message id (RFC 5322) that was never used before.
    """

    def __init__(self, challenge: bytes) -> None:
        self._challenge = challenge
        self._sent = False

    def respond(self, response: bytes | None) -> bytes | UsernameDigest:
        """The challenge, or the credentials after it."""
        if not self._sent:
            if response is not None:
                raise Refused(SERVER_FIRST, "CRAM-MD5 takes no initial response")
            self._sent = True
            return self._challenge
        match = _RESPONSE.fullmatch(response or b"")
        if match is None:
            raise malformed("CRAM-MD5 response is not a name, a space and a digest")
        return UsernameDigest(checkName(match[1]), self._challenge, match[2])
