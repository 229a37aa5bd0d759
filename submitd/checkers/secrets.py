"""``secrets:FILE``: the secrets themselves, for mechanisms that never send them (CRAM-MD5).

One ``name:secret`` per line.  The secret is the rest of the line as it stands, or ``{plain}`` and
the rest, or ``{base64}`` and its base64, which keeps it from eyes that pass by and from nobody
else.  A file that its group or others have any access to is refused whole.  A line whose secret
looks like a password hash is refused too: with it, whoever stole the hash could log in.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import (
    IUsernameHashedPassword,
    IUsernamePassword,
)
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from zope.interface import Interface, implementer

from submitd.checkers import AvatarId, LoginUnavailable, foldName
from submitd.checkers.userfile import BadLine, FileChecker, UserFile, grant

_PREFIXED = re.compile(rb"\{([A-Za-z0-9._-]+)\}(.*)", re.DOTALL)
_LOOKS_HASHED = re.compile(rb"\$[A-Za-z0-9-]+\$")


def parseSecret(value: bytes) -> bytes:
    """The secret that a line keeps.

    :raise BadLine: when it keeps none.
    """
    match = _PREFIXED.fullmatch(value)
    scheme = match[1].lower() if match else b""
    if match and scheme == b"base64":
        secret = _fromBase64(match[2].strip())
    elif match and scheme == b"plain":
        secret = match[2]
    elif match:
        raise BadLine("only {plain} and {base64} are known here")
    elif _LOOKS_HASHED.match(value):
        raise BadLine("it looks like a hash; put {plain} in front if it is the secret itself")
    else:
        secret = value
    if not secret:
        raise BadLine("the secret is empty")
    return secret


def _fromBase64(text: bytes) -> bytes:
    try:
        secret = base64.b64decode(text, validate=True)
    except binascii.Error:
        raise BadLine("not valid base64") from None
    if base64.b64encode(secret) != text:
        raise BadLine("not canonical base64")
    return secret


@implementer(ICredentialsChecker)
class SecretsChecker(FileChecker[bytes]):
    """Checks passwords and challenge digests against secrets that are kept as they are.

    :param path: the file.
    """

    credentialInterfaces: tuple[type[Interface], ...] = (IUsernamePassword, IUsernameHashedPassword)

    def __init__(self, path: str) -> None:
        super().__init__(UserFile(path, parseSecret, private=True))
        self._nobodys = os.urandom(16)
        self._key = os.urandom(32)

    def requestAvatarId(self, credentials: Any) -> Deferred[AvatarId]:
        """The user's name as the file writes it.

        :raise UnauthorizedLogin: (the Deferred) for an unknown user or a wrong secret.
        :raise LoginUnavailable: (the Deferred) when the file was never usable.
        """
        try:
            accounts = self._file.accounts()
        except LoginUnavailable as error:
            return fail(error)
        account = accounts.get(foldName(credentials.username))
        # An unknown user costs the same comparison.
        secret = account.entries[0] if account else self._nobodys
        return self._matches(credentials, secret).addCallback(grant, account)

    def _matches(self, credentials: Any, secret: bytes) -> Deferred[bool]:
        if IUsernameHashedPassword.providedBy(credentials):
            return maybeDeferred(credentials.checkPassword, secret)
        # Digests, since compare_digest tells different lengths apart by time.
        return succeed(
            hmac.compare_digest(self._digest(credentials.password), self._digest(secret))
        )

    def _digest(self, secret: bytes) -> bytes:
        return hmac.digest(self._key, secret, "sha256")
