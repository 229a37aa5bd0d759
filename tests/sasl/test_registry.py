"""Tests for :mod:`submitd.sasl`: the registry, and what holds for every mechanism in it."""

from __future__ import annotations

import os
import sys
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface, implementer
from zope.interface.verify import verifyObject

from submitd.interfaces import IExchange, IMechanism, ITLSMechanism
from submitd.sasl import REGISTRY, mechanism
from submitd.session import TLSInfo
from submitd.wire.errors import Refused


@implementer(IMechanism)
class Promises:
    """Says that it is a mechanism, and has nothing of one."""


def bound(name: str) -> Any:
    """A mechanism for one connection, whose TLS has all that any of them can want."""
    made = mechanism(name)
    if not ITLSMechanism.providedBy(made):
        return made
    return made.over(
        TLSInfo("TLSv1.3", "TLS_AES_128_GCM_SHA256", verified=True, channelBinding={}.get)
    )


class RegistryTests(SynchronousTestCase):
    """:func:`submitd.sasl.mechanism`."""

    def test_everyMechanism(self) -> None:
        """Each line of the registry gives a mechanism of that name, with its interfaces."""
        ours = {"PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER", "EXTERNAL"}
        self.assertEqual(set(REGISTRY), ours | {"SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"})
        for name in REGISTRY:
            made = mechanism(name)
            verifyObject(IMechanism, made)
            verifyObject(IExchange, bound(name).server("mail.example.com"))
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
        """Whatever is wrong with somebody's mechanism is one clear error, of one kind."""
        directory = self.mktemp()
        os.mkdir(directory)
        for module, text in (("raisesatimport", "1 / 0"), ("nopython", "def (")):
            with open(os.path.join(directory, f"{module}.py"), "w") as file:
                file.write(text)
        self.patch(sys, "path", [directory, *sys.path])
        for name, said in (
            ("submitd.sasl.nothing:Login", "ModuleNotFoundError"),
            ("submitd.sasl.login:Nothing", "AttributeError"),
            ("raisesatimport:Mechanism", "ZeroDivisionError"),
            ("nopython:Mechanism", "SyntaxError"),
            ("submitd.sasl.credentials:BearerToken", "TypeError"),
            ("submitd.deliveries.discard:Discard", "it lacks some of IMechanism"),
            (f"{__name__}:Promises", "it lacks some of IMechanism"),
            (":Mechanism", "ValueError"),
            ("..sasl:Mechanism", "TypeError"),
            ("submitd.sasl.login:", "AttributeError"),
        ):
            error = str(self.assertRaises(LookupError, mechanism, name))
            self.assertTrue(error.startswith(f"no SASL mechanism {name!r}: {said}"), error)
            self.assertNotIn("\n", error)

    def test_fedWithNoise(self) -> None:
        """Whatever an exchange is fed, it gives a challenge, credentials or a 501."""
        noise = (b"", b"\0", b"\0\0", b"\xff" * 9, b"\x01\x01", b" ", b"x" * 12288, b"\0a\0b")
        for name in REGISTRY:
            for first in (None, *noise):
                for second in noise:
                    exchange = bound(name).server("mail.example.com")
                    try:
                        if isinstance(exchange.respond(first), bytes):
                            exchange.respond(second)
                    except Refused as refused:
                        self.assertEqual(refused.reply.code, 501)
