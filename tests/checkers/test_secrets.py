"""Tests for :mod:`submitd.checkers.secrets`."""

from __future__ import annotations

import hmac

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import Portal
from zope.interface.verify import verifyObject

from submitd.checkers.secrets import SecretsChecker, parseSecret
from submitd.checkers.userfile import BadLine
from submitd.interfaces import IChecked, IRevised, ISubmitter, IWarns
from submitd.realm import SubmissionRealm
from submitd.sasl.credentials import UsernameDigest, UsernamePassword
from tests.checkers.files import HASHES, FileTestCase


def digest(name: bytes, secret: bytes) -> UsernameDigest:
    """What CRAM-MD5 makes of a client with that secret."""
    challenge = b"<1@mail.example.com>"
    return UsernameDigest(name, challenge, hmac.new(secret, challenge, "md5").hexdigest().encode())


class SecretsCheckerTests(FileTestCase):
    """:class:`submitd.checkers.secrets.SecretsChecker`."""

    def test_interfaces(self) -> None:
        """It provides what the Portal, the start and the cache ask for."""
        checker = SecretsChecker(self.path)
        for interface in (ICredentialsChecker, IChecked, IRevised, IWarns):
            verifyObject(interface, checker)

    def test_login(self) -> None:
        """Password and digest are both checked; the name comes back as the file writes it."""
        checker = SecretsChecker(self.write("Alice:wonder", "bob:{base64}YnVpbGRlcg=="))
        self.assertLogin(checker.requestAvatarId(digest(b"alice", b"wonder")), b"Alice")
        self.assertLogin(checker.requestAvatarId(UsernamePassword(b"ALICE", b"wonder")), b"Alice")
        self.assertLogin(checker.requestAvatarId(digest(b"bob", b"builder")), b"bob")

    def test_wrong(self) -> None:
        """A wrong secret, another user's secret and an unknown user are refused alike."""
        checker = SecretsChecker(self.write("alice:wonder", "bob:builder"))
        for name, secret in ((b"alice", b"builder"), (b"alice", b"wonde"), (b"eve", b"wonder")):
            self.assertRefused(checker.requestAvatarId(digest(name, secret)))
            self.assertRefused(checker.requestAvatarId(UsernamePassword(name, secret)))

    def test_unknownUserIsCompared(self) -> None:
        """An unknown user costs the same comparison, with a secret that nobody has."""
        checker = SecretsChecker(self.write("alice:wonder"))
        compared = []

        class Watched(UsernameDigest):
            def checkPassword(self, password: bytes) -> bool:
                compared.append(password)
                return True

        self.assertRefused(checker.requestAvatarId(Watched(b"eve", b"<1@x>", b"0" * 32)))
        self.assertEqual(len(compared), 1)
        self.assertNotIn(b"wonder", compared)

    def test_changed(self) -> None:
        """A changed secret is in force at once, with another revision."""
        checker = SecretsChecker(self.write("alice:wonder"))
        before = checker.revision()
        self.write("alice:land")
        self.assertNotEqual(checker.revision(), before)
        self.assertRefused(checker.requestAvatarId(digest(b"alice", b"wonder")))
        self.assertLogin(checker.requestAvatarId(digest(b"alice", b"land")), b"alice")

    def test_openToOthers(self) -> None:
        """A file that others can read is refused: nobody logs in, and the start says why."""
        checker = SecretsChecker(self.write("alice:wonder", mode=0o644))
        [problem] = checker.check()
        self.assertIn("it needs 0600", problem)
        self.assertUnavailable(checker.requestAvatarId(digest(b"alice", b"wonder")))

    def test_portal(self) -> None:
        """Behind a Portal it serves both kinds of credentials."""
        portal = Portal(SubmissionRealm(), [SecretsChecker(self.write("alice:wonder"))])
        for credentials in (digest(b"alice", b"wonder"), UsernamePassword(b"alice", b"wonder")):
            login = portal.login(credentials, None, ISubmitter)
            self.assertEqual(self.successResultOf(login)[1].avatarId, "alice")


class ParseSecretTests(FileTestCase):
    """:func:`submitd.checkers.secrets.parseSecret`."""

    def test_kept(self) -> None:
        """Secrets come out as they went in, however they are kept."""
        for value, secret in (
            (b"wonder", b"wonder"),
            (b" a:b # c ", b" a:b # c "),
            (b"{plain}{x}y", b"{x}y"),
            (b"{PLAIN}$6$x", b"$6$x"),
            (b"{base64}d29uZGVy", b"wonder"),
            (b"{Base64}AP8= ", b"\0\xff"),
            (b"{", b"{"),
            (b"{}x", b"{}x"),
            (b"$5", b"$5"),
        ):
            self.assertEqual(parseSecret(value), secret)

    def test_refused(self) -> None:
        """Nothing, unknown schemes, bad base64 and hashes are bad lines, and are not quoted."""
        for value in (
            b"",
            b"{plain}",
            b"{base64}",
            b"{base64}d29uZGVy=",
            b"{base64}!",
            b"{SHA}d29uZGVy",
            *[text.encode() for text in HASHES.values()],
        ):
            error = self.assertRaises(BadLine, parseSecret, value)
            self.assertNotIn("d29u", str(error))
