"""Tests for :mod:`submitd.checkers.sql`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import execute
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from submitd.checkers.hashes import PasswordHash, verify
from submitd.checkers.sql import SQLChecker
from submitd.interfaces import IChecked
from submitd.sasl.credentials import UsernamePassword
from tests.checkers.files import HASHES, FileTestCase
from tests.spool import postgres

SELECT = "SELECT hash, name FROM users WHERE lower(name) = :login"
WONDER = b"wonder"


def made(url: str, rows: dict[str, str | None]) -> None:
    """A data base with these users and hashes."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE users (name text, hash text)"))
        for name, text in rows.items():
            values = {"name": name, "hash": text}
            connection.execute(sa.text("INSERT INTO users VALUES (:name, :hash)"), values)
    engine.dispose()


class SQLCheckerTests(FileTestCase):
    """SQLite, asked in this thread."""

    def setUp(self) -> None:
        """A data base with some users; count what is verified."""
        super().setUp()
        self.base = Path(self.mktemp()).absolute()
        self.url = f"sqlite:///{self.base}"
        self.verified: list[str] = []

    def checker(self, select: str = SELECT, url: str = "") -> SQLChecker:
        """One whose threads are this one."""
        self.write(f"url = {url or self.url!r}", f"query = {select!r}")

        def counted(password: bytes, expected: PasswordHash) -> bool:
            self.verified.append(expected.scheme)
            return verify(password, expected)

        return SQLChecker(self.path, execute, verify=counted)

    def login(self, checker: SQLChecker, name: str, password: bytes = WONDER) -> Any:
        return checker.requestAvatarId(UsernamePassword(name.encode(), password))

    def test_interfaces(self) -> None:
        """It provides what the Portal and the start ask for."""
        made(self.url, {})
        for interface in (ICredentialsChecker, IChecked):
            verifyObject(interface, self.checker())

    def test_login(self) -> None:
        """Each hash logs its user in, under the name that the data base has, and nobody else."""
        made(self.url, {f"{kind.title()}@Example.org": text for kind, text in HASHES.items()})
        checker = self.checker()
        self.assertEqual(checker.check(), [])
        for kind in HASHES:
            name = f"{kind.title()}@Example.org"
            self.assertLogin(self.login(checker, name.upper()), name.encode())
            self.assertRefused(self.login(checker, name, b"Wonder"))
        self.assertEqual(self.problems(), [])

    def test_withoutName(self) -> None:
        """Without a second column, or with NULL there, the name is what was asked for."""
        made(self.url, {"alice@example.org": HASHES["bcrypt"]})
        for column in ("", ", NULL"):
            checker = self.checker(f"SELECT hash{column} FROM users WHERE name = :login")
            self.assertLogin(self.login(checker, "Alice@example.org"), b"alice@example.org")

    def test_parts(self) -> None:
        """The name is also given as what is in front of its last "@" and what is behind."""
        made(self.url, {"a@b": HASHES["bcrypt"], "alice": HASHES["bcrypt"]})
        checker = self.checker(
            "SELECT hash, :local || '/' || :domain FROM users WHERE :login LIKE name || '%'"
        )
        self.assertLogin(self.login(checker, "a@b@example.org"), b"a@b/example.org")
        self.assertLogin(self.login(checker, "alice"), b"alice/")

    def test_namedByDovecot(self) -> None:
        """Dovecot's name of the scheme may stand in front of a hash that says the same."""
        names = {"{BLF-CRYPT}": "bcrypt", "{SHA512-CRYPT}": "sha512_crypt", "{argon2id}": "argon2"}
        made(self.url, {f"u{at}": each + HASHES[names[each]] for at, each in enumerate(names)})
        checker = self.checker()
        for at in range(3):
            self.assertLogin(self.login(checker, f"u{at}"), f"u{at}".encode())

    def test_unknown(self) -> None:
        """No row, and NULL, cost one hash such as the last one that was good."""
        made(self.url, {"alice": HASHES["bcrypt"], "away": None})
        checker = self.checker()
        self.assertRefused(self.login(checker, "nobody"))
        self.assertLogin(self.login(checker, "alice"), b"alice")
        self.assertRefused(self.login(checker, "nobody"))
        self.assertRefused(self.login(checker, "away"))
        self.assertEqual(self.verified, ["argon2", "bcrypt", "bcrypt", "bcrypt"])

    def test_unusable(self) -> None:
        """A row that cannot be used lets nobody in, and the log says which, without the hash."""
        made(self.url, {"weak": "{SHA}c3VyZQ==", "clear": "wonder"})
        checker = self.checker()
        self.path = self.url
        for name, why in (
            ("weak", "SHA-1 hashes are too weak; set the password anew with submitd-passwd"),
            ("clear", "not a hash of any of "),
        ):
            self.assertRefused(self.login(checker, name))
            [(_, problem)] = self.problems()
            self.assertIn(f"the row of {name} is left out: {why}", problem)

    def test_several(self) -> None:
        """Two rows for one name are a mistake of the query, and not for the client to guess."""
        made(self.url, {"Alice": HASHES["bcrypt"], "alice": HASHES["bcrypt"]})
        self.assertUnavailable(self.login(self.checker(), "alice"))

    def test_bound(self) -> None:
        """What a client says is a value and never a part of the statement."""
        made(self.url, {"alice": HASHES["bcrypt"]})
        self.assertRefused(self.login(self.checker(), "x' OR '1'='1"))

    def test_noDataBase(self) -> None:
        """A data base that does not answer is unavailable, and ``--check`` says so."""
        checker = self.checker()
        self.assertUnavailable(self.login(checker, "alice"))
        self.assertEqual(checker.check(), [f"{self.url}: no such table: users"])

    def test_mistakes(self) -> None:
        """What is wrong with the file is said, with its name, and logs nobody in."""
        said: list[tuple[Callable[[], Any], str]] = [
            (lambda: self.checker("SELECT 1"), "query must have the parameter :login"),
            (lambda: self.checker("SELECT :login, :password"), "has the parameter :password"),
            (lambda: self.checker(url="nonsense"), "url must be such as"),
        ]
        for make, problem in said:
            checker = make()
            [told] = checker.check()
            self.assertTrue(told.startswith(f"{self.path}: ") and problem in told, told)
            self.assertUnavailable(self.login(checker, "alice"))
        self.write("url = 'sqlite://'", "querry = 'SELECT :login'")
        [told] = SQLChecker(self.path).check()
        self.assertIn("querry: unknown key", told)
        os.unlink(self.path)
        self.assertEqual(SQLChecker(self.path).check(), [f"{self.path}: cannot be read: {NOT}"])


NOT = os.strerror(2)


class PostgresTests(TestCase):
    """With a server, in threads."""

    async def test_login(self) -> None:
        """PostgreSQL is asked in the same way."""
        postgres.require(self)
        server = postgres.server()
        made(server.url, {"alice": HASHES["argon2"]})
        self.addCleanup(server.sql, "DROP TABLE users")
        path = Path(self.mktemp())
        path.write_text(f"url = {server.url!r}\nquery = {SELECT!r}\n")
        checker = SQLChecker(str(path))
        self.assertEqual(checker.check(), [])
        name = await checker.requestAvatarId(UsernamePassword(b"ALICE", WONDER))
        self.assertEqual(name, b"alice")
