"""Tests for :mod:`submitd.sasl.crammd5`."""

from __future__ import annotations

import hmac

from twisted.trial.unittest import SynchronousTestCase

from submitd.sasl.crammd5 import CramMD5, CramMD5Exchange
from submitd.sasl.credentials import UsernameDigest
from submitd.wire.errors import Refused


class CramMD5Tests(SynchronousTestCase):
    """CRAM-MD5."""

    def test_rfcExample(self) -> None:
        """The example of RFC 2195 2 logs in with its secret and with no other."""
        exchange = CramMD5Exchange(b"<1896.697170952@postoffice.reston.mci.net>")
        exchange.respond(None)
        credentials = exchange.respond(b"tim b913a602c7eda7a495b4e6e7334d3890")
        assert isinstance(credentials, UsernameDigest)
        self.assertEqual(credentials.username, b"tim")
        self.assertTrue(credentials.checkPassword(b"tanstaaftanstaaf"))
        self.assertFalse(credentials.checkPassword(b"tanstaaf"))

    def test_challenge(self) -> None:
        """The challenge is a message id with the time and the host's name."""
        challenge = CramMD5(seconds=lambda: 1234.9).server("mail.example.com").respond(None)
        assert isinstance(challenge, bytes)
        self.assertRegex(challenge.decode(), r"^<[0-9a-f]{32}\.1234@mail\.example\.com>$")

    def test_freshChallenge(self) -> None:
        """No two logins get the same challenge, or a recorded response would do for both."""
        mechanism = CramMD5(seconds=lambda: 1.0)
        challenges = {mechanism.server("mail.example.com").respond(None) for _ in range(100)}
        self.assertEqual(len(challenges), 100)

    def test_initialResponse(self) -> None:
        """A response before the challenge answers an older one and is refused."""
        for response in (b"", b"tim b913a602c7eda7a495b4e6e7334d3890"):
            exchange = CramMD5().server("mail.example.com")
            reply = self.assertRaises(Refused, exchange.respond, response).reply
            self.assertEqual((reply.code, reply.status), (501, "5.7.0"))

    def test_nameWithSpaces(self) -> None:
        """The digest stands behind the last space."""
        exchange = CramMD5Exchange(b"<1@x>")
        exchange.respond(None)
        digest = hmac.new(b"secret", b"<1@x>", "md5").hexdigest().encode()
        credentials = exchange.respond(b"alice b c " + digest)
        self.assertEqual(credentials, UsernameDigest(b"alice b c", b"<1@x>", digest))

    def test_malformed(self) -> None:
        """What is not a name, a space and 32 lower-case digits is 501."""
        digest = b"b913a602c7eda7a495b4e6e7334d3890"
        for response in (
            b"",
            b"tim",
            digest,
            b" " + digest,
            b"tim " + digest.upper(),
            b"tim " + digest[:-1],
            b"tim " + digest + b"\n",
            b"tim\n " + digest,
            b"tim  " + digest + b" ",
        ):
            exchange = CramMD5().server("mail.example.com")
            exchange.respond(None)
            refused = self.assertRaises(Refused, exchange.respond, response)
            self.assertEqual(refused.reply.code, 501, response)

    def test_missingResponse(self) -> None:
        """No response at all where one is due is malformed, not a crash."""
        exchange = CramMD5().server("mail.example.com")
        exchange.respond(None)
        self.assertRaises(Refused, exchange.respond, None)
