"""Tests for :mod:`submitd.checkers.tokens`."""

from __future__ import annotations

import datetime

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import Portal
from zope.interface.verify import verifyObject

from submitd.checkers.tokens import TokensChecker, digestOf, parseExpiry, parseToken
from submitd.checkers.userfile import BadLine
from submitd.interfaces import IChecked, IRevised, ISubmitter, IWarns
from submitd.realm import SubmissionRealm
from submitd.sasl.credentials import BearerToken
from tests.checkers.files import FileTestCase

NOW = datetime.datetime(2026, 6, 15, 12, tzinfo=datetime.UTC).timestamp()


def line(name: str, token: bytes, expiry: str = "") -> str:
    """A line of the file."""
    return f"{name}:{digestOf(token).hex()}" + (f":{expiry}" if expiry else "")


class TokensCheckerTests(FileTestCase):
    """:class:`submitd.checkers.tokens.TokensChecker`."""

    def setUp(self) -> None:
        """It is noon of 15 June 2026."""
        super().setUp()
        self.checker = TokensChecker(self.path, seconds=lambda: NOW)

    def test_interfaces(self) -> None:
        """It provides what the Portal, the start and the cache ask for."""
        for interface in (ICredentialsChecker, IChecked, IRevised, IWarns):
            verifyObject(interface, self.checker)

    def test_login(self) -> None:
        """Each token of a user logs that user in, and nobody else."""
        self.write(line("Alice", b"t1"), line("bob", b"t2"), line("alice", b"t3"))
        for token in (b"t1", b"t3"):
            self.assertLogin(self.checker.requestAvatarId(BearerToken(b"alice", token)), b"Alice")
        for name, token in (
            (b"alice", b"t2"),
            (b"bob", b"t1"),
            (b"alice", b""),
            (b"eve", b"t1"),
            (b"", b"t1"),
        ):
            self.assertRefused(self.checker.requestAvatarId(BearerToken(name, token)))

    def test_digestIsNoToken(self) -> None:
        """Whoever has read the file cannot log in with what it says."""
        self.write(line("alice", b"t1"))
        for stolen in (digestOf(b"t1"), digestOf(b"t1").hex().encode()):
            self.assertRefused(self.checker.requestAvatarId(BearerToken(b"alice", stolen)))

    def test_expiry(self) -> None:
        """A token is good until its time; a date means its end."""
        for expiry, good in (
            ("2026-06-15", True),
            ("2026-06-14", False),
            ("2026-06-15T12:00:01", True),
            ("2026-06-15T12:00:00", False),
            ("2026-06-15T14:00:01+02:00", True),
            ("2026-06-15T11:59:59Z", False),
        ):
            self.write(line("alice", b"t1", expiry))
            login = self.checker.requestAvatarId(BearerToken(b"alice", b"t1"))
            if good:
                self.assertLogin(login, b"alice")
            else:
                self.assertRefused(login)

    def test_neverThere(self) -> None:
        """Without a file nobody is told that a token is wrong."""
        self.assertUnavailable(self.checker.requestAvatarId(BearerToken(b"alice", b"t1")))
        self.assertEqual(self.checker.check(), [f"{self.path}: there is no such file"])

    def test_revision(self) -> None:
        """A change of the file changes the revision."""
        self.write(line("alice", b"t1"))
        before = self.checker.revision()
        self.write(line("alice", b"t2"))
        self.assertNotEqual(self.checker.revision(), before)

    def test_portal(self) -> None:
        """A Portal takes bearer tokens to it."""
        self.write(line("alice", b"t1"))
        portal = Portal(SubmissionRealm(), [self.checker])
        login = portal.login(BearerToken(b"alice", b"t1"), None, ISubmitter)
        self.assertEqual(self.successResultOf(login)[1].avatarId, "alice")


class ParseTokenTests(FileTestCase):
    """:func:`submitd.checkers.tokens.parseToken`."""

    def test_malformed(self) -> None:
        """Bad digests and expiries are bad lines; a bad expiry never means "for ever"."""
        good = "0" * 64
        for value in (
            "",
            "0" * 63,
            "g" * 64,
            "é" * 64,
            digestOf(b"").hex(),
            f"{good}:tomorrow",
            f"{good}:2026-02-30",
            f"{good}:2026-06-15T25:00",
            f"{good}:9999-12-31",
        ):
            self.assertRaises(BadLine, parseToken, value.encode())

    def test_reprHidesDigest(self) -> None:
        """A token in a traceback is not shown."""
        self.assertNotIn("\\xaa", repr(parseToken(b"aa" * 32)))

    def test_wholeDay(self) -> None:
        """A date lasts for 24 hours."""
        self.assertEqual(parseExpiry("2026-06-15"), NOW + 12 * 3600)
