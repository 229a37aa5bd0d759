"""Tests for :mod:`submitd.policies.logins`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from submitd.policies.addresses import Addresses
from submitd.policies.logins import includes, readLoginLine, readLogins


class LoginsTests(SynchronousTestCase):
    """Whose messages a policy is about."""

    def test_includes(self) -> None:
        """A name, an address, a domain and those below it; nobody in an empty list."""
        logins = readLogins(
            "logins", ["printer", "Alice@example.com", "@legal.example", "@*.far.example"]
        )
        for login in ("printer", "alice@EXAMPLE.com", "x@legal.example", "y@very.far.example"):
            self.assertTrue(includes(logins, login), login)
        for login in ("Printer", "bob", "bob@example.com", "x@sub.legal.example", "@", "a@b@c"):
            self.assertFalse(includes(logins, login), login)
        self.assertFalse(includes(readLogins("logins", []), "alice"))

    def test_mistakes(self) -> None:
        """What nobody has as a login is named with its key."""
        for name in ("", " alice", "@", "a@", "@@"):
            error = self.assertRaises(ValueError, readLogins, "except_logins", ["bob", name])
            self.assertIn(f'except_logins: "{name}": ', str(error))

    def test_line(self) -> None:
        """A file has one of them in a line."""
        logins: Addresses[bool] = Addresses()
        readLoginLine([b"@example.com"], logins)
        self.assertTrue(includes(logins, "alice@example.com"))
        self.assertRaises(ValueError, readLoginLine, [b"alice", b"bob"], logins)
