"""``htpasswd:FILE``: password hashes in a file of Apache's format, one ``name:hash`` per line.

Which hashes are taken, hashes.py says.  A line with any other is left out and named in the log.

An unknown user costs the hash of somebody in the file, whose answer is thrown away: which one is
fixed by the name, so that unknown names take as long as known ones do, each always the same, even
where the file mixes schemes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred, fail
from zope.interface import Interface, implementer

from submitd.checkers import AvatarId, LoginUnavailable, foldName
from submitd.checkers.hashes import NOBODYS, PasswordHash, parseHash, verify
from submitd.checkers.hashthreads import HashThreads
from submitd.checkers.userfile import Account, FileChecker, UserFile, grant
from submitd.threads import Run, deferToThread


@implementer(ICredentialsChecker)
class HtpasswdChecker(FileChecker[PasswordHash]):
    """Checks passwords against the hashes of a file, as the file is now.

    :param path: the file.
    :param run: calls a function in another thread and gives a Deferred of its result.
    :param verify: compares a password with a hash.
    """

    credentialInterfaces: tuple[type[Interface], ...] = (IUsernamePassword,)

    def __init__(
        self,
        path: str,
        run: Run = deferToThread,
        *,
        verify: Callable[[bytes, PasswordHash], bool] = verify,
    ) -> None:
        super().__init__(UserFile(path, parseHash))
        self._hashThreads = HashThreads(run)
        self._verify = verify
        self._key = os.urandom(32)

    def requestAvatarId(self, credentials: Any) -> Deferred[AvatarId]:
        """The user's name as the file writes it.

        :raise UnauthorizedLogin: (the Deferred) for an unknown user or a wrong password.
        :raise LoginUnavailable: (the Deferred) when the file was never usable, or when too many
            verifications are waiting.
        """
        try:
            accounts = self._file.accounts()
        except LoginUnavailable as error:
            return fail(error)
        folded = foldName(credentials.username)
        account = accounts.get(folded)
        somebodys = self._somebodys(accounts, folded)  # for known users too: it takes time itself
        expected = account.entries[0] if account else somebodys
        matched = self._hashThreads.compute(self._verify, credentials.password, expected)
        return matched.addCallback(grant, account)

    def _somebodys(
        self, accounts: Mapping[bytes, Account[PasswordHash]], name: bytes
    ) -> PasswordHash:
        if not accounts:
            return NOBODYS
        digest = hashlib.blake2b(name, key=self._key, digest_size=8).digest()
        chosen = list(accounts)[int.from_bytes(digest, "big") % len(accounts)]
        return accounts[chosen].entries[0]
