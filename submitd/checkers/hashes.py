"""Hashes of passwords: how they are read, made and compared.

Taken are argon2, bcrypt, scrypt, sha512_crypt, sha256_crypt and pbkdf2, as passlib writes them, and
as ``htpasswd -B``, ``-2`` and ``-5`` or ``openssl passwd -6`` do; also with ``{SHA512-CRYPT}``,
``{BLF-CRYPT}`` and the like in front, as Dovecot writes them.  A fast hash (apr1, SHA-1, DES,
MD5) is a mistake: whoever gets hold of it would have the password the same day.

A hash costs 10 to 450 ms by design, so those of logins are computed in threads (hashthreads.py).
"""

from __future__ import annotations

import re
import warnings

import attrs
from passlib.context import CryptContext
from passlib.exc import PasslibHashWarning

from submitd.checkers.userfile import BadLine

SCHEMES = (
    "argon2",
    "bcrypt",
    "scrypt",
    "sha512_crypt",
    "sha256_crypt",
    "pbkdf2_sha512",
    "pbkdf2_sha256",
)

# How the hashes begin that people do have in such files, for a message that says what to change.
_WEAK = {
    "$apr1$": "apr1 (MD5) hashes",
    "$1$": "MD5 hashes",
    "{SHA}": "SHA-1 hashes",
    "{SSHA}": "salted SHA-1 hashes",
    "{MD5}": "MD5 hashes",
    "$2x$": "hashes of a broken bcrypt",
}

# bcrypt has never read further; its newest library refuses longer passwords in place of cutting
# them, which would lock out whoever has a long one.
BCRYPT_OCTETS = 72

# What Dovecot writes in front of a hash that says by itself what it is.
_DOVECOTS = re.compile(r"\{(?:(?:SHA512-|SHA256-|BLF-)?CRYPT|ARGON2ID?)\}", re.IGNORECASE)

# What a new hash costs: OWASP's recommendations, which keep ten logins at once within 200 MB.
COSTS: dict[str, dict[str, int]] = {
    "argon2": {"memory_cost": 19_456, "time_cost": 2, "parallelism": 1},
    "bcrypt": {"rounds": 12},
    "scrypt": {"rounds": 14, "block_size": 8, "parallelism": 5},
    "sha512_crypt": {"rounds": 656_000},
    "pbkdf2_sha256": {"rounds": 600_000},
}

_context = CryptContext(schemes=list(SCHEMES))


@attrs.frozen
class PasswordHash:
    """The hash of a password.

    :param scheme: one of :data:`SCHEMES`.
    :param text: the hash.
    """

    scheme: str
    text: str = attrs.field(repr=False)


# Of 16 random octets that were not kept, for a login where there is nobody at all.
NOBODYS = PasswordHash(
    "argon2",
    "$argon2id$v=19$m=19456,t=2,p=1$K2WsNUYoZYyREkJISSllTA"
    "$tNZPfrAUKfQIK6/iBz1oC7UtgzwRIj08iuJtPXbK5gg",
)


def parseHash(value: bytes) -> PasswordHash:
    """The hash in a line of a file; what follows a further colon is left alone, as Apache does.

    :raise BadLine: when it is malformed, too weak or unknown.
    """
    try:
        text = value.partition(b":")[0].strip().decode("ascii")
    except UnicodeDecodeError:
        raise BadLine("not a hash") from None
    prefix = _DOVECOTS.match(text)
    text = text[prefix.end() :] if prefix else text
    scheme = None if text.startswith(tuple(_WEAK)) else _context.identify(text)
    if scheme is None:
        raise BadLine(_whyUnknown(text))
    try:
        return PasswordHash(scheme, _normalized(scheme, text))
    except (ValueError, TypeError):
        # The text of passlib's error may quote the hash.
        raise BadLine(f"malformed {scheme} hash") from None


def _normalized(scheme: str, text: str) -> str:
    handler = _context.handler(scheme)
    with warnings.catch_warnings():
        # Old PHP left the last bits of a bcrypt salt set, and passlib would warn at each login.
        warnings.simplefilter("ignore", PasslibHashWarning)
        parsed = handler.from_string(handler.normhash(text) if scheme == "bcrypt" else text)
    if parsed.checksum is None:
        raise ValueError("a salt without a digest")
    return str(parsed.to_string())


def _whyUnknown(text: str) -> str:
    if not text:
        return "there is no hash"
    for prefix, what in _WEAK.items():
        if text.startswith(prefix):
            return f"{what} are too weak; set the password anew with submitd-passwd"
    return f"not a hash of any of {', '.join(SCHEMES)}"


def hashPassword(password: bytes, scheme: str = "argon2") -> str:
    """A new hash, as a line of the file keeps it.

    :param scheme: one of :data:`COSTS`.
    :raise ValueError: when the scheme does not read the whole password.
    """
    if scheme == "bcrypt" and len(password) > BCRYPT_OCTETS:
        raise ValueError(f"bcrypt reads {BCRYPT_OCTETS} octets of a password and no more")
    return str(_context.handler(scheme).using(**COSTS[scheme]).hash(password))


def verify(password: bytes, expected: PasswordHash) -> bool:
    """Whether the hash was made with the password.  This takes long; meant for a thread."""
    if expected.scheme == "bcrypt":
        password = password[:BCRYPT_OCTETS]
    return bool(_context.handler(expected.scheme).verify(password, expected.text))
