"""Tests for :mod:`submitd.sasl.xoauth2`."""

from __future__ import annotations

import json

from twisted.cred.error import UnauthorizedLogin
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd.interfaces import IFailureChallenge
from submitd.sasl.bearer import TokenRefused
from submitd.sasl.credentials import BearerToken
from submitd.sasl.xoauth2 import XOAuth2
from submitd.wire.errors import Refused


def respond(response: bytes) -> object:
    """What XOAUTH2 makes of a response."""
    return XOAuth2().server("mail.example.com").respond(response)


class XOAuth2Tests(SynchronousTestCase):
    """XOAUTH2."""

    def test_wellFormed(self) -> None:
        """User and token come out; the scheme's name has no case."""
        for scheme in (b"Bearer", b"bearer", b"BEARER"):
            self.assertEqual(
                respond(b"user=a@b.example\x01auth=" + scheme + b" ya29.vF9-_~+/x==\x01\x01"),
                BearerToken(b"a@b.example", b"ya29.vF9-_~+/x=="),
            )
        # RFC 6750 2.1: any number of spaces.
        self.assertEqual(respond(b"user=a\x01auth=Bearer  t\x01\x01"), BearerToken(b"a", b"t"))

    def test_noInitialResponse(self) -> None:
        """Without a response the challenge is empty, and then comes the response."""
        exchange = XOAuth2().server("mail.example.com")
        self.assertEqual(exchange.respond(None), b"")
        self.assertEqual(
            exchange.respond(b"user=a\x01auth=Bearer t\x01\x01"), BearerToken(b"a", b"t")
        )

    def test_malformed(self) -> None:
        """Other fields, orders, separators, schemes and characters are 501 5.5.2."""
        for response in (
            b"",
            b"user=a\x01auth=Bearer t\x01",
            b"user=a\x01auth=Bearer t\x01\x01\x01",
            b"user=a\x01auth=Bearer t\x01\x01\n",
            b"auth=Bearer t\x01user=a\x01\x01",
            b"user=\x01auth=Bearer t\x01\x01",
            b"user=a\x01auth=Bearer \x01\x01",
            b"user=a\x01auth=Bearer t t\x01\x01",
            b"user=a\x01auth=Bearer =t\x01\x01",
            b"user=a\x01auth=Basic t\x01\x01",
            b"user=a\x01auth=t\x01\x01",
            b"user=a\nb\x01auth=Bearer t\x01\x01",
            b"user=\xff\x01auth=Bearer t\x01\x01",
            b"USER=a\x01auth=Bearer t\x01\x01",
            b"user=a\x01host=x\x01auth=Bearer t\x01\x01",
        ):
            refused = self.assertRaises(Refused, respond, response)
            self.assertEqual((refused.reply.code, refused.reply.status), (501, "5.5.2"), response)

    def test_failureChallenge(self) -> None:
        """A failed login sends JSON that names the scheme, and no cause."""
        exchange = XOAuth2().server("mail.example.com")
        verifyObject(IFailureChallenge, exchange)
        challenge = exchange.loginFailed(Failure(UnauthorizedLogin("no such user")))
        self.assertEqual(json.loads(challenge), {"status": "401", "schemes": "bearer", "scope": ""})

    def test_failureStatus(self) -> None:
        """An error code of OAuth is written as the status of a HTTP answer (RFC 6750 3.1)."""
        exchange = XOAuth2().server("mail.example.com")
        for told, status in (
            ("invalid_token", "401"),
            ("insufficient_scope", "403"),
            ("400", "400"),
            ("temporarily_unavailable", "temporarily_unavailable"),
        ):
            challenge = exchange.loginFailed(Failure(TokenRefused(status=told, scope="x")))
            self.assertEqual(
                json.loads(challenge), {"status": status, "schemes": "bearer", "scope": "x"}
            )
