"""The credentials that the mechanisms make, and what a user name can be.

Names and passwords stay octets: a checker compares what was sent.  No ``repr`` shows a secret, for
credentials end up in tracebacks and log events.
"""

from __future__ import annotations

import hmac
import unicodedata

import attrs
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from zope.interface import implementer

from submitd.interfaces import IBearerToken, ICertificateLogin, ITrustedLogin
from submitd.session import TLSInfo
from submitd.wire.errors import Refused
from submitd.wire.reply import Reply

# RFC 4616 2 asks for 255 at least.  A longer secret is never a person's, and some hashes take time
# that grows with it.
MAX_OCTETS = 1024

MALFORMED = Reply(501, "5.5.2", "Malformed response")
# RFC 4954 4: where the mechanism has the server begin, an initial response is 501 5.7.0.
SERVER_FIRST = Reply(501, "5.7.0", "This mechanism takes no initial response")


def malformed(cause: str) -> Refused:
    """The refusal of a response that no user could have sent; ``cause`` is for the log."""
    return Refused(MALFORMED, cause)


def nameProblem(name: bytes) -> str:
    """Why nobody can have this user name, never quoting it; empty when somebody can."""
    if not name:
        return "the user name is empty"
    if len(name) > MAX_OCTETS:
        return f"the user name has more than {MAX_OCTETS} octets"
    try:
        text = name.decode("utf-8")
    except UnicodeDecodeError:
        return "the user name is not UTF-8"
    if text.isascii() and text.isprintable():
        return ""
    # Cc, Cf, Zl, Zp: what forges a log line or shows one name as another.
    if any(unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") for character in text):
        return "the user name has control or format characters"
    return ""


def checkName(name: bytes) -> bytes:
    """Give the user name back.

    :raise Refused: when nobody can have it.
    """
    problem = nameProblem(name)
    if problem:
        raise malformed(problem)
    return name


def checkPassword(password: bytes) -> bytes:
    """Give the password back; any octets but NUL (RFC 4616 2), UTF-8 or not.

    :raise Refused: when it is empty, too long, or has a NUL.
    """
    if not password:
        raise malformed("the password is empty")
    if len(password) > MAX_OCTETS:
        raise malformed(f"the password has more than {MAX_OCTETS} octets")
    if b"\0" in password:
        raise malformed("the password has a NUL")
    return password


@implementer(IUsernamePassword)
@attrs.frozen
class UsernamePassword:
    """A user name with its password in the clear, of PLAIN and LOGIN.

    :param authorizationId: whom the user asks to act as (RFC 4616 2); empty for themselves.
    """

    username: bytes
    password: bytes = attrs.field(repr=False)
    authorizationId: bytes = b""

    def checkPassword(self, password: bytes) -> bool:
        """Whether ``password`` is the one that was sent."""
        return hmac.compare_digest(self.password, password)


@implementer(IUsernameHashedPassword)
@attrs.frozen
class UsernameDigest:
    """A user name with the keyed digest of a challenge, of CRAM-MD5 (RFC 2195).

    :param digest: 32 hexadecimal digits in lower case.
    """

    username: bytes
    challenge: bytes = attrs.field(repr=False)
    digest: bytes = attrs.field(repr=False)

    def checkPassword(self, password: bytes) -> bool:
        """Whether the digest was made with ``password``."""
        expected = hmac.new(password, self.challenge, "md5").hexdigest().encode("ascii")
        return hmac.compare_digest(self.digest, expected)


@implementer(IBearerToken)
@attrs.frozen
class BearerToken:
    """A user name, or none, with an access token, of XOAUTH2 and OAUTHBEARER."""

    username: bytes
    token: bytes = attrs.field(repr=False)


@implementer(ICertificateLogin)
@attrs.frozen
class CertificateLogin:
    """The certificate that the client has shown, of EXTERNAL.

    :param username: who the client wants to be; empty for whose certificate it is.
    """

    username: bytes
    tls: TLSInfo = attrs.field(repr=False)


@implementer(ITrustedLogin)
@attrs.frozen
class TrustedLogin:
    """A user name that a trusted proxy vouches for (XCLIENT), or the client's network."""

    username: bytes
