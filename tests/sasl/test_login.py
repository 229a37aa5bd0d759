"""Tests for :mod:`submitd.sasl.login`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from submitd.sasl.credentials import UsernamePassword
from submitd.sasl.login import Login
from submitd.wire.errors import Refused


class LoginTests(SynchronousTestCase):
    """LOGIN."""

    def setUp(self) -> None:
        """One exchange each."""
        self.exchange = Login().server("mail.example.com")

    def test_twoChallenges(self) -> None:
        """The challenges are the very words that clients look for."""
        self.assertEqual(self.exchange.respond(None), b"Username:")
        self.assertEqual(self.exchange.respond(b"alice"), b"Password:")
        self.assertEqual(self.exchange.respond(b"pass"), UsernamePassword(b"alice", b"pass"))

    def test_initialResponse(self) -> None:
        """AUTH LOGIN with a response brings the user name (Outlook does so)."""
        self.assertEqual(self.exchange.respond(b"alice"), b"Password:")
        self.assertEqual(self.exchange.respond(b"pass"), UsernamePassword(b"alice", b"pass"))

    def test_emptyName(self) -> None:
        """An empty name (AUTH LOGIN =) is malformed, not a second question."""
        self.assertEqual(self.assertRaises(Refused, self.exchange.respond, b"").reply.code, 501)

    def test_malformed(self) -> None:
        """An impossible name is refused before the password travels; so is an empty password."""
        self.assertEqual(self.assertRaises(Refused, self.exchange.respond, b"a\0b").reply.code, 501)
        self.exchange.respond(b"alice")
        for password in (b"", b"a\0b"):
            refused = self.assertRaises(Refused, self.exchange.respond, password)
            self.assertEqual(refused.reply.code, 501)
