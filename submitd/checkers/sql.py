"""``sql:FILE``: password hashes in an SQL data base; the file says where and how they are found.

It is TOML, such as::

    url = "postgresql://submitd@db.example.com/mail"
    query = "SELECT password, username FROM mailbox WHERE username = :login AND active"

The query (query.py) has the parameters ``:login``, ``:local`` and ``:domain``: the user name in
lower case (ASCII letters), what is in front of its last "@", and what is behind.  Its one row is
the hash (hashes.py) and perhaps the user's name as it is to be known here; without, that is
``:login``.  No row, or NULL for the hash: nobody can log in under that name.

An unknown user costs the hash of whoever logged in last, whose answer is thrown away.  (That of
whoever was asked for last would tell, where the schemes are mixed, who is a user.)

A data base tells nobody of changes, so there is no ``revision()``: a password that was changed is
known here when the memory for good logins is over at the latest.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from zope.interface import Interface, implementer

from submitd import events
from submitd.checkers import AvatarId, LoginUnavailable, foldName
from submitd.checkers.hashes import NOBODYS, PasswordHash, parseHash, verify
from submitd.checkers.hashthreads import HashThreads
from submitd.checkers.userfile import BadLine
from submitd.interfaces import IChecked
from submitd.query import NoAnswer, Query, Rows
from submitd.sasl.credentials import nameProblem
from submitd.threads import Run, deferToThread
from submitd.typed import readObject

PARAMETERS = frozenset({"login", "local", "domain"})


@attrs.frozen
class SQLSettings:
    """What the file says."""

    url: str = attrs.field(
        repr=False,
        metadata={"help": "The data base, as SQLAlchemy writes it: postgresql://user@host/mail."},
    )
    query: str = attrs.field(
        metadata={"help": "A SELECT of hash and, perhaps, name, with :login, :local and :domain."}
    )


@implementer(ICredentialsChecker, IChecked)
class SQLChecker:
    """Checks passwords against the hashes of a data base.

    :param path: the file that says how it is asked.
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
        self._hashThreads = HashThreads(run)
        self._verify = verify
        self._somebodys = NOBODYS
        self._problem = ""
        try:
            settings = readObject(Path(path), SQLSettings)
            self._query = Query(settings.url, settings.query, PARAMETERS, run)
        except ValueError as error:
            self._problem = f"{path}: {error}"

    def check(self) -> list[str]:
        """What is wrong with the file, or with the data base."""
        return [self._problem] if self._problem else self._query.check()

    def requestAvatarId(self, credentials: Any) -> Deferred[AvatarId]:
        """The user's name as the data base writes it.

        :raise UnauthorizedLogin: (the Deferred) for an unknown user or a wrong password.
        :raise LoginUnavailable: (the Deferred) when the data base does not say, or says nonsense.
        """
        return Deferred.fromCoroutine(self._ask(credentials))

    async def _ask(self, credentials: Any) -> AvatarId:
        if self._problem:
            raise LoginUnavailable(self._problem)
        login = foldName(credentials.username).decode("utf-8")
        found = self._read(login, await self._rows(login))
        expected, name = found or (self._somebodys, b"")
        matched = await self._hashThreads.compute(self._verify, credentials.password, expected)
        if found is None or not matched:
            raise UnauthorizedLogin()
        self._somebodys = expected
        return name

    async def _rows(self, login: str) -> Rows:
        local, _, domain = login.rpartition("@") if "@" in login else (login, "", "")
        values = {"login": login, "local": local, "domain": domain}
        try:
            return await self._query.ask({name: values[name] for name in self._query.parameters})
        except NoAnswer as error:
            raise LoginUnavailable(str(error)) from None

    def _read(self, login: str, rows: Rows) -> tuple[PasswordHash, bytes] | None:
        """Hash and name of a user; ``None`` for one who cannot log in."""
        if len(rows) > 1:
            raise LoginUnavailable(f"{self._query.name}: {len(rows)} rows for one user")
        if not rows or not rows[0] or rows[0][0] is None:
            return None
        text, *rest = rows[0]
        name = _octets(rest[0] if rest and rest[0] is not None else login)
        try:
            if nameProblem(name):
                raise BadLine(nameProblem(name))
            return parseHash(_octets(text)), name
        except BadLine as error:
            problem = f"the row of {login} is left out: {error}"
            events.emit(events.FILE_PROBLEM, file=self._query.name, problem=problem)
            return None


def _octets(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8")
