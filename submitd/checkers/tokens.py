"""``tokens:FILE``: bearer tokens, for XOAUTH2 and OAUTHBEARER without an identity provider.

One ``name:digest`` or ``name:digest:expiry`` per line: the SHA-256 of the token in 64 hexadecimal
digits, and an ISO 8601 date or time until which it is good (a date to its end; UTC where no zone is
given).  A user may have several.  Tokens are random and long, so a plain digest is enough;
``submitd-passwd --tokens`` makes them.

A token is looked for among those of its user, so one that comes without a name is refused.
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable
from typing import Any

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import Deferred, execute, fail
from zope.interface import Interface, implementer

from submitd.checkers import AvatarId, LoginUnavailable, foldName
from submitd.checkers.userfile import BadLine, FileChecker, UserFile, grant
from submitd.interfaces import IBearerToken

_DIGEST = re.compile(r"[0-9A-Fa-f]{64}")


@attrs.frozen
class Token:
    """One token of a file.

    :param digest: the SHA-256 of the token.
    :param goodUntil: seconds since 1970; infinite where it does not expire.
    """

    digest: bytes = attrs.field(repr=False)
    goodUntil: float = float("inf")


def digestOf(token: bytes) -> bytes:
    """What the file keeps of a token."""
    return hashlib.sha256(token).digest()


def parseToken(value: bytes) -> Token:
    """The token that a line keeps.

    :raise BadLine: when digest or expiry are malformed.
    """
    try:
        text = value.strip().decode("ascii")
    except UnicodeDecodeError:
        raise BadLine("not ASCII") from None
    digest, _, expiry = text.partition(":")
    if not _DIGEST.fullmatch(digest):
        raise BadLine("the digest is not 64 hexadecimal digits")
    if bytes.fromhex(digest) == digestOf(b""):
        raise BadLine("it is the digest of no token at all")
    return Token(bytes.fromhex(digest), parseExpiry(expiry) if expiry else float("inf"))


def parseExpiry(text: str) -> float:
    """A date, to its end, or a time; in seconds since 1970.

    :raise BadLine: when it is neither.
    """
    try:
        moment = datetime.datetime.fromisoformat(text)
        if len(text) <= len("2026-01-31"):
            moment += datetime.timedelta(days=1)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=datetime.UTC)
        return moment.timestamp()
    except (ValueError, OverflowError):
        raise BadLine("the expiry is not an ISO 8601 date or time") from None


@implementer(ICredentialsChecker)
class TokensChecker(FileChecker[Token]):
    """Checks bearer tokens against the digests of a file, as the file is now.

    :param path: the file.
    :param seconds: the time of day, since 1970.
    """

    credentialInterfaces: tuple[type[Interface], ...] = (IBearerToken,)

    def __init__(self, path: str, *, seconds: Callable[[], float] = time.time) -> None:
        super().__init__(UserFile(path, parseToken, several=True))
        self._seconds = seconds
        self._nobodys = (Token(os.urandom(32)),)

    def requestAvatarId(self, credentials: Any) -> Deferred[AvatarId]:
        """The user's name as the file writes it.

        :raise UnauthorizedLogin: (the Deferred) for an unknown user, or a wrong or expired token.
        :raise LoginUnavailable: (the Deferred) when the file was never usable.
        """
        try:
            accounts = self._file.accounts()
        except LoginUnavailable as error:
            return fail(error)
        account = accounts.get(foldName(credentials.username))
        good = self._matches(credentials.token, account.entries if account else self._nobodys)
        return execute(grant, good, account)

    def _matches(self, token: bytes, known: tuple[Token, ...]) -> bool:
        digest, now, good = digestOf(token), self._seconds(), False
        for one in known:
            good |= hmac.compare_digest(digest, one.digest) and now < one.goodUntil
        return good
