"""Tests for :mod:`submitd.sasl.plain`."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from submitd.sasl.credentials import UsernamePassword
from submitd.sasl.plain import Plain
from submitd.wire.errors import Refused


def respond(response: bytes) -> object:
    """What PLAIN makes of a response."""
    return Plain().server("mail.example.com").respond(response)


class PlainTests(SynchronousTestCase):
    """PLAIN."""

    def test_initialResponse(self) -> None:
        """A response with AUTH itself becomes credentials at once."""
        self.assertEqual(respond(b"\0alice\0pass"), UsernamePassword(b"alice", b"pass"))

    def test_noInitialResponse(self) -> None:
        """Without a response the challenge is empty (RFC 4954 4), and then comes the response."""
        exchange = Plain().server("mail.example.com")
        self.assertEqual(exchange.respond(None), b"")
        self.assertEqual(exchange.respond(b"\0a\0b"), UsernamePassword(b"a", b"b"))

    def test_sameIdentity(self) -> None:
        """Clients that send the user name as the identity too ask for nothing special."""
        self.assertEqual(respond(b"Alice\0alice\0pass"), UsernamePassword(b"alice", b"pass"))

    def test_otherIdentity(self) -> None:
        """Asking to act as somebody else is kept in the credentials, for the dialogue to refuse."""
        self.assertEqual(respond(b"bob\0alice\0p"), UsernamePassword(b"alice", b"p", b"bob"))

    def test_malformed(self) -> None:
        """Wrong numbers of NULs, empty fields and impossible names are 501 5.5.2."""
        for response in (
            b"",
            b"alice",
            b"alice\0pass",
            b"\0alice\0pass\0",
            b"\0\0\0\0",
            b"\0\0pass",
            b"\0alice\0",
            b"\0al\nice\0pass",
            b"\0\xff\0pass",
            b"b\nob\0alice\0pass",
            b"\0" + b"x" * 5000 + b"\0pass",
        ):
            refused = self.assertRaises(Refused, respond, response)
            self.assertEqual((refused.reply.code, refused.reply.status), (501, "5.5.2"), response)
