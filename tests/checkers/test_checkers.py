"""Tests for :mod:`submitd.checkers`: what the back ends have in common."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from submitd.checkers import LoginUnavailable, foldName
from submitd.wire.errors import Refused
from submitd.wire.reply import LOGIN_UNAVAILABLE


class CheckersTests(SynchronousTestCase):
    """The contract's words."""

    def test_unavailable(self) -> None:
        """Not being able to tell is a refusal with 454, and its cause is for the log alone."""
        error = LoginUnavailable("data base down")
        self.assertIsInstance(error, Refused)
        self.assertIs(error.reply, LOGIN_UNAVAILABLE)
        self.assertEqual(error.cause, "data base down")

    def test_foldName(self) -> None:
        """ASCII letters have no case in user names; all other characters are themselves."""
        self.assertEqual(foldName(b"Alice@Example.COM"), b"alice@example.com")
        self.assertNotEqual(foldName("Ä".encode()), foldName("ä".encode()))
        self.assertNotEqual(foldName("\u212a".encode()), b"k")
