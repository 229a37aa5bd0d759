"""Tests for :mod:`submitd.sasl`: the registry, and what holds for every mechanism in it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface
from zope.interface.verify import verifyObject

from submitd.interfaces import IExchange, IMechanism
from submitd.sasl import REGISTRY, mechanism
from submitd.wire.errors import Refused


class RegistryTests(SynchronousTestCase):
    """:func:`submitd.sasl.mechanism`."""

    def test_everyMechanism(self) -> None:
        """Each line of the registry gives a mechanism of that name, with its interfaces."""
        self.assertEqual(set(REGISTRY), {"PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2"})
        for name in REGISTRY:
            made = mechanism(name)
            verifyObject(IMechanism, made)
            verifyObject(IExchange, made.server("mail.example.com"))
            self.assertEqual(made.name, name)
            self.assertTrue(issubclass(type(made.credentialsInterface), type(Interface)))

    def test_needTLS(self) -> None:
        """None of them is offered in the clear."""
        self.assertTrue(all(mechanism(name).needsTLS for name in REGISTRY))

    def test_anyCase(self) -> None:
        """A configuration may write a name in lower case."""
        self.assertEqual(mechanism("cram-md5").name, "CRAM-MD5")

    def test_unknown(self) -> None:
        """A name that is not there is refused with the names that are."""
        error = self.assertRaises(LookupError, mechanism, "GSSAPI")
        self.assertIn("'GSSAPI'", str(error))
        self.assertIn("PLAIN, LOGIN, CRAM-MD5, XOAUTH2", str(error))

    def test_fromElsewhere(self) -> None:
        """A mechanism outside the tree is named as package.module:Class."""
        self.assertEqual(mechanism("submitd.sasl.login:Login").name, "LOGIN")

    def test_brokenFromElsewhere(self) -> None:
        """A module or class that is not there is one clear error, not a traceback of imports."""
        for name in ("submitd.sasl.nothing:Login", "submitd.sasl.login:Nothing"):
            self.assertIn(name, str(self.assertRaises(LookupError, mechanism, name)))

    def test_fedWithNoise(self) -> None:
        """Whatever an exchange is fed, it gives a challenge, credentials or a 501."""
        noise = (b"", b"\0", b"\0\0", b"\xff" * 9, b"\x01\x01", b" ", b"x" * 12288, b"\0a\0b")
        for name in REGISTRY:
            for first in (None, *noise):
                for second in noise:
                    exchange = mechanism(name).server("mail.example.com")
                    try:
                        if isinstance(exchange.respond(first), bytes):
                            exchange.respond(second)
                    except Refused as refused:
                        self.assertEqual(refused.reply.code, 501)
