"""Tests for :mod:`submitd.checkers.factory` and ``twisted/plugins/submitd_cred.py``."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString, makeChecker
from twisted.plugin import IPlugin, getPlugins
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

import submitd
from submitd.checkers.certificates import CertificatesChecker
from submitd.checkers.dovecot import DovecotChecker
from submitd.checkers.factory import CheckerFactory
from submitd.checkers.htpasswd import HtpasswdChecker
from submitd.checkers.jwt import JWTChecker
from submitd.checkers.oauth import OAuthChecker
from submitd.checkers.secrets import SecretsChecker
from submitd.checkers.sql import SQLChecker
from submitd.checkers.tokens import TokensChecker
from submitd.interfaces import IChecked

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(submitd.__file__)))


class CheckerFactoryTests(SynchronousTestCase):
    """The back ends as Twisted finds them."""

    def factories(self) -> dict[str, CheckerFactory]:
        """All of ours."""
        found = getPlugins(ICheckerFactory)
        return {each.authType: each for each in found if isinstance(each, CheckerFactory)}

    def test_found(self) -> None:
        """Twisted finds each back end by its name and makes a checker of it."""
        for kind, expected in (
            ("certificates", CertificatesChecker),
            ("htpasswd", HtpasswdChecker),
            ("jwt", JWTChecker),
            ("oauth", OAuthChecker),
            ("secrets", SecretsChecker),
            ("sql", SQLChecker),
            ("tokens", TokensChecker),
        ):
            self.assertIsInstance(makeChecker(f"{kind}:/no/such:file"), expected)
        self.assertIsInstance(makeChecker("dovecot:/no/socket"), DovecotChecker)
        known = {"certificates", "dovecot", "htpasswd", "jwt", "oauth", "secrets", "sql", "tokens"}
        self.assertEqual(set(self.factories()), known)

    def test_interfaces(self) -> None:
        """Factory and checker provide what they promise, for the same credentials."""
        for factory in self.factories().values():
            verifyObject(ICheckerFactory, factory)
            verifyObject(IPlugin, factory)
            checker = factory.generateChecker("/no/file")
            for interface in (ICredentialsChecker, IChecked):
                verifyObject(interface, checker)
            self.assertEqual(
                tuple(checker.credentialInterfaces), tuple(factory.credentialInterfaces)
            )

    def test_wholePath(self) -> None:
        """A path may have colons: all behind the first one is the path."""
        [problem] = makeChecker("htpasswd:/no/such:file").check()
        self.assertEqual(problem, "/no/such:file: there is no such file")

    def test_withoutPath(self) -> None:
        """Without a path the error says what is missing."""
        for kind in ("certificates", "htpasswd", "jwt", "oauth", "secrets", "sql", "tokens"):
            for text in (kind, f"{kind}:", f"{kind}: "):
                error = self.assertRaises(InvalidAuthArgumentString, makeChecker, text)
                self.assertTrue(str(error).startswith(f"{kind}: needs the path of a file"), error)
        error = self.assertRaises(InvalidAuthArgumentString, makeChecker, "dovecot:")
        self.assertIn("dovecot: needs the path of the socket", str(error))

    def test_help(self) -> None:
        """Each says in words what it is, and what its string looks like."""
        for factory in self.factories().values():
            self.assertIn("file", factory.authHelp)
            self.assertNotIn("\n", factory.argStringFormat)

    def test_light(self) -> None:
        """Looking for plug-ins imports no back end, no passlib, no reactor: every twistd looks."""
        program = (
            "import sys, twisted.plugins.submitd_cred\n"
            "heavy = ('passlib', 'jwt', 'submitd.checkers.htpasswd', 'twisted.internet.reactor')\n"
            "print([name for name in heavy if name in sys.modules])"
        )
        said = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": ROOT},
        )
        self.assertEqual(said.stdout, "[]\n")
