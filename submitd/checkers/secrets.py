"""``secrets:FILE``: secrets, for mechanisms that never send them (CRAM-MD5, SCRAM-SHA-256).

One ``name:secret`` per line.  The secret is the rest of the line as it stands, or ``{plain}`` and
the rest, or ``{base64}`` and its base64, which keeps it from eyes that pass by and from nobody
else.  Or it is ``{SCRAM-SHA-256}`` and the keys of one (:mod:`submitd.sasl.scramkeys`), from which
it cannot be had again: SCRAM, PLAIN and LOGIN are verified with them, CRAM-MD5 cannot be.

A file that its group or others have any access to is refused whole.  A line whose secret looks like
a password hash is refused too: with it, whoever stole the hash could log in.

What a login costs is fixed by what its user's line is.  An unknown user costs what somebody in the
file does, whose answer is thrown away; which one is fixed by the name, as is the salt that is told.
"""

from __future__ import annotations

import hmac
import os
import re
from collections.abc import Mapping
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import (
    IUsernameHashedPassword,
    IUsernamePassword,
)
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from zope.interface import Interface, implementer

from submitd.checkers import AvatarId, LoginUnavailable, foldName
from submitd.checkers.hashthreads import HashThreads
from submitd.checkers.salts import Salt, numberFor, saltFor
from submitd.checkers.userfile import Account, BadLine, FileChecker, UserFile, grant
from submitd.interfaces import IScramProof, IScramSalts
from submitd.sasl.scramkeys import ITERATIONS, KEY, SCHEME, ScramKeys
from submitd.threads import Run, deferToThread
from submitd.wire.base64text import decodeBase64

Secret = bytes | ScramKeys

_PREFIXED = re.compile(rb"\{([A-Za-z0-9._-]+)\}(.*)", re.DOTALL)
_LOOKS_HASHED = re.compile(rb"\$[A-Za-z0-9-]+\$")


def parseSecret(value: bytes) -> Secret:
    """The secret that a line keeps, or its keys.

    :raise BadLine: when it keeps none.
    """
    match = _PREFIXED.fullmatch(value)
    scheme = match[1].lower() if match else b""
    if match and scheme == b"base64":
        secret = _fromBase64(match[2].strip())
    elif match and scheme == b"plain":
        secret = match[2]
    elif match and scheme == SCHEME.lower().encode("ascii"):
        return _keys(match[2].strip())
    elif match:
        raise BadLine(f"only {{plain}}, {{base64}} and {{{SCHEME}}} are known here")
    elif _LOOKS_HASHED.match(value):
        raise BadLine("it looks like a hash; put {plain} in front if it is the secret itself")
    else:
        secret = value
    if not secret:
        raise BadLine("the secret is empty")
    return secret


def _fromBase64(text: bytes) -> bytes:
    try:
        return decodeBase64(text)
    except ValueError as error:
        raise BadLine(str(error)) from None


def _keys(text: bytes) -> ScramKeys:
    try:
        return ScramKeys.parse(text.decode("ascii", "replace"))
    except ValueError as error:
        raise BadLine(f"{SCHEME}: {error}") from None


def matches(password: bytes, secret: Secret) -> bool:
    """Whether it is the password of a line.  With keys, this takes long; meant for a thread."""
    if isinstance(secret, ScramKeys):
        return secret.verify(password)
    # Digests, since compare_digest tells different lengths apart by time.
    return hmac.compare_digest(_digest(password), _digest(secret))


_key = os.urandom(32)


def _digest(secret: bytes) -> bytes:
    return hmac.digest(_key, secret, "sha256")


@implementer(ICredentialsChecker, IScramSalts)
class SecretsChecker(FileChecker[Secret]):
    """Checks passwords, challenge digests and SCRAM's proofs against the secrets of a file.

    :param path: the file.
    :param run: calls a function in another thread and gives a Deferred of its result.
    """

    credentialInterfaces: tuple[type[Interface], ...] = (
        IUsernamePassword,
        IUsernameHashedPassword,
        IScramProof,
    )

    def __init__(self, path: str, run: Run = deferToThread) -> None:
        super().__init__(UserFile(path, parseSecret, private=True))
        self._hashThreads = HashThreads(run)
        self._nobodys = os.urandom(16)

    def requestAvatarId(self, credentials: Any) -> Deferred[AvatarId]:
        """The user's name as the file writes it.

        :raise UnauthorizedLogin: (the Deferred) for an unknown user or a wrong secret.
        :raise LoginUnavailable: (the Deferred) when the file was never usable, or when too many
            verifications are waiting.
        """
        try:
            account, secret = self._find(credentials.username)
        except LoginUnavailable as error:
            return fail(error)
        return self._matches(credentials, secret).addCallback(grant, account)

    def saltOf(self, username: bytes) -> Deferred[Salt]:
        """See :meth:`submitd.interfaces.IScramSalts.saltOf`."""
        try:
            account, secret = self._find(username)
        except LoginUnavailable as error:
            return fail(error)
        salt, iterations = saltFor(username), ITERATIONS[0]
        if isinstance(secret, ScramKeys):
            salt, iterations = secret.salt, secret.iterations
        return succeed(Salt(salt, iterations, account is not None))

    def _find(self, username: bytes) -> tuple[Account[Secret] | None, Secret]:
        """A user and the user's secret; for an unknown one, one that is like somebody's."""
        accounts = self._file.accounts()
        likeSomebodys = self._likeSomebodys(accounts, username)  # which takes time itself
        account = accounts.get(foldName(username))
        return account, account.entries[0] if account else likeSomebodys

    def _likeSomebodys(self, accounts: Mapping[bytes, Account[Secret]], username: bytes) -> Secret:
        chosen = list(accounts)[numberFor(username) % len(accounts)] if accounts else None
        somebodys = accounts[chosen].entries[0] if chosen is not None else b""
        if isinstance(somebodys, ScramKeys):
            salt = saltFor(username, len(somebodys.salt))
            return ScramKeys(salt, somebodys.iterations, os.urandom(KEY), os.urandom(KEY))
        return self._nobodys

    def _matches(self, credentials: Any, secret: Secret) -> Deferred[bool]:
        if IScramProof.providedBy(credentials):
            return self._isProved(credentials, secret)
        if IUsernameHashedPassword.providedBy(credentials):
            # A digest of the password cannot be made of its keys: the user is as good as unknown.
            known = self._nobodys if isinstance(secret, ScramKeys) else secret
            return maybeDeferred(credentials.checkPassword, known)
        if isinstance(secret, ScramKeys):
            return self._hashThreads.compute(matches, credentials.password, secret)
        return succeed(matches(credentials.password, secret))

    def _isProved(self, credentials: Any, secret: Secret) -> Deferred[bool]:
        if isinstance(secret, ScramKeys):
            return maybeDeferred(credentials.checkKeys, secret.storedKey, secret.serverKey)
        # Anew each time: what is remembered of users would tell who is one.
        salt = saltFor(credentials.username)
        derived = self._hashThreads.compute(ScramKeys.derive, secret, salt, ITERATIONS[0])
        return derived.addCallback(
            lambda keys: credentials.checkKeys(keys.storedKey, keys.serverKey)
        )
