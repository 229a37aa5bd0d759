"""Tests for :mod:`submitd.sasl.oauthbearer`."""

from __future__ import annotations

import json

from twisted.cred.error import UnauthorizedLogin
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd.interfaces import IFailureChallenge
from submitd.sasl.bearer import TokenRefused
from submitd.sasl.credentials import BearerToken
from submitd.sasl.oauthbearer import OAuthBearer
from submitd.wire.errors import Refused


def respond(response: bytes) -> object:
    """What OAUTHBEARER makes of a response."""
    return OAuthBearer().server("mail.example.com").respond(response)


class OAuthBearerTests(SynchronousTestCase):
    """OAUTHBEARER."""

    def test_standard(self) -> None:
        """The example of RFC 7628 4.1."""
        token = b"vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
        self.assertEqual(
            respond(
                b"n,a=user@example.com,\x01host=server.example.com\x01port=587\x01"
                b"auth=Bearer " + token + b"\x01\x01"
            ),
            BearerToken(b"user@example.com", token),
        )

    def test_wellFormed(self) -> None:
        """The scheme has no case; pairs are in any order, and unknown ones are passed over."""
        for response in (
            b"n,a=alice,\x01auth=Bearer t\x01\x01",
            b"y,a=alice,\x01auth=bearer t\x01\x01",
            b"n,a=alice,\x01auth=BEARER   t\x01host=h\x01port=1\x01\x01",
            b"n,a=alice,\x01mthd=POST\x01qs=\x01X=a b=c\r\n\t~\x01auth=Bearer t\x01\x01",
            b"n,a=alice,\x01host=h\x01host=h\x01authx=y\x01auth=Bearer t\x01\x01",
        ):
            self.assertEqual(respond(response), BearerToken(b"alice", b"t"), response)

    def test_noName(self) -> None:
        """Without a name the credentials have none: the checker says whose the token is."""
        for flag in (b"n", b"y"):
            self.assertEqual(respond(flag + b",,\x01auth=Bearer t\x01\x01"), BearerToken(b"", b"t"))

    def test_escapes(self) -> None:
        """Comma and equals sign in a name are written with an escape, each read once."""
        for written, name in (
            (b"a=3Db=2Cc", b"a=b,c"),
            (b"a=3db=2cc", b"a=b,c"),
            (b"=3D2C", b"=2C"),
            ("jürgen".encode(), "jürgen".encode()),
        ):
            self.assertEqual(
                respond(b"n,a=" + written + b",\x01auth=Bearer t\x01\x01"), BearerToken(name, b"t")
            )

    def test_asks(self) -> None:
        """An empty auth asks what would be accepted (RFC 7628 4.3): a token that nobody has."""
        self.assertEqual(
            respond(b"n,a=a,\x01host=h\x01port=143\x01auth=\x01\x01"), BearerToken(b"a", b"")
        )

    def test_noInitialResponse(self) -> None:
        """Without a response the challenge is empty, and then comes the response."""
        exchange = OAuthBearer().server("mail.example.com")
        self.assertEqual(exchange.respond(None), b"")
        self.assertEqual(
            exchange.respond(b"n,a=a,\x01auth=Bearer t\x01\x01"), BearerToken(b"a", b"t")
        )

    def test_malformed(self) -> None:
        """Another header, other pairs, another scheme and characters are 501 5.5.2."""
        for response in (
            b"",
            b"\x01",  # which answers the challenge after a failed login, and begins nothing
            b"n,,\x01\x01",
            b"n,,\x01",
            b"n,,",
            b"n,a=a,\x01auth=Bearer t\x01",
            b"n,a=a,\x01auth=Bearer t\x01\x01\x01",
            b"n,a=a,\x01auth=Bearer t\x01\x01\n",
            b"n,a=a,\x01auth=Bearer t\x01auth=Bearer t\x01\x01",
            b"n,a=a,\x01auth=Bearer t\x01auth=\x01\x01",
            b"n,a=a,\x01auth=Bearer\x01\x01",
            b"n,a=a,\x01auth=Bearer \x01\x01",
            b"n,a=a,\x01auth=Bearer t t\x01\x01",
            b"n,a=a,\x01auth=Bearer =t\x01\x01",
            b"n,a=a,\x01auth=Basic t\x01\x01",
            b"n,a=a,\x01auth= Bearer t\x01\x01",
            b"n,a=a,\x01AUTH=Bearer t\x01\x01",
            b"n,a=a,\x01host=h\xc3\xa4\x01auth=Bearer t\x01\x01",
            b"n,a=a,\x01host=h\x00\x01auth=Bearer t\x01\x01",
            b"n,a=a,\x01x1=h\x01auth=Bearer t\x01\x01",
            b"n,a=a,\x01=h\x01auth=Bearer t\x01\x01",
            b"n,a=a,auth=Bearer t\x01\x01",
            b"n,a=,\x01auth=Bearer t\x01\x01",
            b"n,a=a=2D,\x01auth=Bearer t\x01\x01",
            b"n,a=a=b,\x01auth=Bearer t\x01\x01",
            b"n,a=a\x01auth=Bearer t\x01\x01",
            b"n,a=a,b,\x01auth=Bearer t\x01\x01",
            b"n,user=a,\x01auth=Bearer t\x01\x01",
            b"n,a=a\nb,\x01auth=Bearer t\x01\x01",
            b"n,a=\xff,\x01auth=Bearer t\x01\x01",
            b"n,a=a\x00,\x01auth=Bearer t\x01\x01",
            b"N,a=a,\x01auth=Bearer t\x01\x01",
            b"z,a=a,\x01auth=Bearer t\x01\x01",
            b",a=a,\x01auth=Bearer t\x01\x01",
            b"F,n,a=a,\x01auth=Bearer t\x01\x01",
            b"user=a\x01auth=Bearer t\x01\x01",
        ):
            refused = self.assertRaises(Refused, respond, response)
            self.assertEqual((refused.reply.code, refused.reply.status), (501, "5.5.2"), response)

    def test_binding(self) -> None:
        """A channel cannot be bound to a token, and who asks for that is refused with the cause."""
        refused = self.assertRaises(
            Refused, respond, b"p=tls-exporter,a=a,\x01auth=Bearer t\x01\x01"
        )
        self.assertEqual(refused.reply.code, 501)
        self.assertEqual(str(refused.cause), "OAUTHBEARER cannot bind a channel")

    def test_failureChallenge(self) -> None:
        """A failed login sends JSON with an error code of OAuth, and what the checker tells."""
        exchange = OAuthBearer().server("mail.example.com")
        verifyObject(IFailureChallenge, exchange)
        where = "https://example.com/.well-known/openid-configuration"
        for error, told in (
            (UnauthorizedLogin("no such user"), {"status": "invalid_token"}),
            (TokenRefused("somebody else's"), {"status": "invalid_token"}),
            (TokenRefused(status="400"), {"status": "invalid_request"}),
            (
                TokenRefused(status="insufficient_scope", scope="mail"),
                {"status": "insufficient_scope", "scope": "mail"},
            ),
            (
                TokenRefused(**{"openid-configuration": where}),
                {"status": "invalid_token", "openid-configuration": where},
            ),
        ):
            self.assertEqual(json.loads(exchange.loginFailed(Failure(error))), told)
