"""What SCRAM-SHA-256 makes of a password (RFC 5802 3): keys, from which it cannot be had again.

Whoever steals them cannot log in with them, but can try passwords against them; how many in a
second is what the iterations are for.  On one line they are as Dovecot writes them:
``{SCRAM-SHA-256}ITERATIONS,SALT,STOREDKEY,SERVERKEY``, all but the first in base64.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

import attrs
from passlib.utils import saslprep

from submitd.wire.base64text import decodeBase64

SCHEME = "SCRAM-SHA-256"

# RFC 7677 4 wants 4096 at least; the most is what a login may cost.
ITERATIONS = range(4096, 1_000_001)
# For new keys: trying a password against stolen ones costs a tenth of a second, and so does each
# login of a slow client.
COST = 100_000
# Octets.
SALTS = range(8, 65)
KEY = 32

_BASE64 = "([A-Za-z0-9+/]+=*)"
_KEYS = re.compile(rf"([1-9][0-9]{{0,6}}),{_BASE64},{_BASE64},{_BASE64}")


@attrs.frozen
class ScramKeys:
    """The keys of one password.

    :param storedKey: a proof is checked with it.
    :param serverKey: our own proof is made with it.
    """

    salt: bytes
    iterations: int
    storedKey: bytes = attrs.field(repr=False)
    serverKey: bytes = attrs.field(repr=False)

    @classmethod
    def derive(cls, password: bytes, salt: bytes, iterations: int) -> ScramKeys:
        """Make them of a password.  This takes long; meant for a thread."""
        salted = hashlib.pbkdf2_hmac("sha256", preparedPassword(password), salt, iterations)
        clientKey = hmac.digest(salted, b"Client Key", "sha256")
        serverKey = hmac.digest(salted, b"Server Key", "sha256")
        return cls(salt, iterations, hashlib.sha256(clientKey).digest(), serverKey)

    @classmethod
    def parse(cls, text: str) -> ScramKeys:
        """Read what a line has behind ``{SCRAM-SHA-256}``.

        :raise ValueError: when they are malformed, or out of bounds; never quotes them.
        """
        match = _KEYS.fullmatch(text)
        if match is None:
            raise ValueError("not iterations, salt and two keys with commas between them")
        iterations = int(match[1])
        salt, storedKey, serverKey = (
            decodeBase64(each.encode("ascii")) for each in match.groups()[1:]
        )
        if iterations not in ITERATIONS:
            raise ValueError(f"iterations are not {ITERATIONS[0]} to {ITERATIONS[-1]}")
        if len(salt) not in SALTS:
            raise ValueError(f"the salt has not {SALTS[0]} to {SALTS[-1]} octets")
        if len(storedKey) != KEY or len(serverKey) != KEY:
            raise ValueError(f"a key has not {KEY} octets")
        return cls(salt, iterations, storedKey, serverKey)

    def __str__(self) -> str:
        """As a line has them, with the scheme in front."""
        rest = (self.salt, self.storedKey, self.serverKey)
        text = ",".join(base64.b64encode(each).decode("ascii") for each in rest)
        return f"{{{SCHEME}}}{self.iterations},{text}"

    def verify(self, password: bytes) -> bool:
        """Whether they were made of the password.  This takes long; meant for a thread."""
        derived = ScramKeys.derive(password, self.salt, self.iterations)
        return hmac.compare_digest(derived.storedKey, self.storedKey)


def prepared(text: str) -> str:
    """The one form of a name or password that can be typed in several ways (SASLprep, RFC 4013).

    :raise ValueError: when it has characters that are in none.
    """
    if text.isascii() and text.isprintable():
        return text
    try:
        return str(saslprep(text))
    except AssertionError:
        raise ValueError("no form of its own") from None


def preparedPassword(password: bytes) -> bytes:
    """The same for a password; one that has no such form stays as it is."""
    try:
        return prepared(password.decode("utf-8")).encode("utf-8")
    except ValueError:
        return password
