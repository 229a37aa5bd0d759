"""Tests for :mod:`submitd.sasl.external`."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd.interfaces import ICertificateLogin, ITLSMechanism
from submitd.sasl.credentials import CertificateLogin
from submitd.sasl.external import External
from submitd.session import TLSInfo
from submitd.wire.errors import Refused

SHOWN = TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", peerCertificate=object(), verified=True)


def respond(response: bytes | None) -> Any:
    """What comes of one response."""
    mechanism = External().over(SHOWN)
    assert mechanism is not None
    return mechanism.server("mail.example.com").respond(response)


class ExternalTests(SynchronousTestCase):
    """:class:`submitd.sasl.external.External`."""

    def test_over(self) -> None:
        """It is there where a certificate was verified, and nowhere else."""
        verifyObject(ITLSMechanism, External())
        unverified = TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", peerCertificate=object())
        for tls in (None, unverified):
            self.assertIsNone(External().over(tls))
        self.assertEqual(External().over(SHOWN), External(SHOWN))

    def test_wellFormed(self) -> None:
        """The response is a name, or nothing; with them comes what TLS has shown."""
        for name in (b"", b"alice@example.org", "j\u00f6rg".encode()):
            made = respond(name)
            self.assertEqual(made, CertificateLogin(name, SHOWN))
            verifyObject(ICertificateLogin, made)
            self.assertNotIn("TLS", repr(made))

    def test_noInitialResponse(self) -> None:
        """Without an initial response there is an empty challenge."""
        self.assertEqual(respond(None), b"")

    def test_malformed(self) -> None:
        """A name that nobody can have is 501."""
        for name in (b"\xff", b"a\0b", b"a\r\nb", b"a" * 1025):
            error = self.assertRaises(Refused, respond, name)
            self.assertEqual(error.reply.code, 501)
