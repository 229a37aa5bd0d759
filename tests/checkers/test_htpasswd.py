"""Tests for :mod:`submitd.checkers.htpasswd`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from passlib.hash import bcrypt
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, execute
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from submitd.checkers.hashes import (
    BCRYPT_OCTETS,
    SCHEMES,
    PasswordHash,
    parseHash,
    verify,
)
from submitd.checkers.htpasswd import HtpasswdChecker
from submitd.checkers.userfile import BadLine
from submitd.interfaces import IChecked, IRevised, ISubmitter, IWarns
from submitd.realm import SubmissionRealm
from submitd.sasl.credentials import UsernamePassword
from tests.checkers.files import HASHES, FileTestCase

WONDER = UsernamePassword(b"alice", b"wonder")


class HtpasswdCheckerTests(FileTestCase):
    """:class:`submitd.checkers.htpasswd.HtpasswdChecker`."""

    def setUp(self) -> None:
        """Count what is verified."""
        super().setUp()
        self.verified: list[PasswordHash] = []

    def verify(self, password: bytes, expected: PasswordHash) -> bool:
        """Count, and verify in earnest."""
        self.verified.append(expected)
        return verify(password, expected)

    def checker(self, **options: Any) -> HtpasswdChecker:
        """A checker whose thread is this one."""
        return HtpasswdChecker(self.path, **{"run": execute, "verify": self.verify, **options})

    def test_interfaces(self) -> None:
        """It provides what the Portal, the start and the cache ask for."""
        for interface in (ICredentialsChecker, IChecked, IRevised, IWarns):
            verifyObject(interface, self.checker())

    def test_everyScheme(self) -> None:
        """Each scheme logs its user in, and nobody with a wrong password."""
        self.assertEqual(set(HASHES), set(SCHEMES))
        self.write(*[f"{scheme}:{text}" for scheme, text in HASHES.items()])
        checker = self.checker()
        for scheme in SCHEMES:
            name = scheme.encode()
            good = checker.requestAvatarId(UsernamePassword(name, b"wonder"))
            self.assertLogin(good, name)
            self.assertRefused(checker.requestAvatarId(UsernamePassword(name, b"Wonder")))
        self.assertEqual(self.problems(), [])

    def test_portal(self) -> None:
        """Through a Portal, the avatar has the name as the file writes it."""
        self.write("Alice:" + HASHES["bcrypt"])
        portal = Portal(SubmissionRealm(), [self.checker()])
        login = portal.login(WONDER, None, ISubmitter)
        self.assertEqual(self.successResultOf(login)[1].avatarId, "Alice")

    def test_unknownUser(self) -> None:
        """An unknown user costs exactly one hash, of the file's kind, and is never let in."""
        self.write("alice:" + HASHES["bcrypt"])
        checker = self.checker()
        self.assertRefused(checker.requestAvatarId(UsernamePassword(b"eve", b"wonder")))
        self.assertEqual([one.scheme for one in self.verified], ["bcrypt"])

    def test_unknownUsersAreLikeKnownOnes(self) -> None:
        """In a mixed file, unknown names cost each scheme as often as known ones, and always it."""
        self.write(*[f"user{at}:{text}" for at, text in enumerate(HASHES.values())])
        checker = self.checker()
        first = Counter[str]()
        for at in range(700):
            name = f"unknown{at}".encode()
            costs = set()
            for _ in range(2):
                chosen = checker._somebodys(checker._file.accounts(), name)
                costs.add(chosen.scheme)
            self.assertEqual(len(costs), 1)
            first.update(costs)
        self.assertEqual(set(first), set(SCHEMES))
        self.assertGreater(min(first.values()), 40)

    def test_nobodyInTheFile(self) -> None:
        """With an empty file a login still costs a hash of the default cost."""
        self.write("# nobody yet")
        costs: list[PasswordHash] = []
        checker = self.checker(verify=lambda _, expected: costs.append(expected) or True)
        self.assertRefused(checker.requestAvatarId(WONDER))
        self.assertFalse(verify(b"wonder", costs[0]))

    def test_reprHidesHash(self) -> None:
        """A hash in a traceback is not shown."""
        self.assertNotIn("$2b$", repr(parseHash(HASHES["bcrypt"].encode())))

    def test_changed(self) -> None:
        """A changed password counts from the next login on, and a removed user is out."""
        self.write("alice:" + HASHES["bcrypt"], "bob:" + HASHES["bcrypt"])
        checker = self.checker()
        before = checker.revision()
        self.assertLogin(checker.requestAvatarId(WONDER), b"alice")
        self.write("bob:" + HASHES["bcrypt"])
        self.assertNotEqual(checker.revision(), before)
        self.assertRefused(checker.requestAvatarId(WONDER))

    def test_neverThere(self) -> None:
        """Without a file nobody is told that a password is wrong."""
        checker = self.checker()
        self.assertUnavailable(checker.requestAvatarId(WONDER))
        self.assertEqual(checker.check(), [f"{self.path}: there is no such file"])

    def test_tooMany(self) -> None:
        """Where too many wait already, a login is unavailable at once."""
        self.write("alice:" + HASHES["bcrypt"])
        checker = self.checker(run=lambda *_: Deferred())
        logins = [checker.requestAvatarId(WONDER) for _ in range(101)]
        self.assertNoResult(logins[99])
        self.assertUnavailable(logins[100])


class InThreadTests(TestCase):
    """The default way to run a verification."""

    async def test_thread(self) -> None:
        """Without being given a way, the reactor's threads are used."""
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("alice:" + HASHES["argon2"])
        self.assertEqual(await HtpasswdChecker(path).requestAvatarId(WONDER), b"alice")


class ParseHashTests(FileTestCase):
    """:func:`submitd.checkers.hashes.parseHash` and :func:`submitd.checkers.hashes.verify`."""

    def test_otherWriters(self) -> None:
        """Hashes as htpasswd -B and openssl passwd -6 write them are taken."""
        text = HASHES["bcrypt"].replace("$2b$", "$2y$")
        self.assertTrue(verify(b"wonder", parseHash(text.encode())))
        openssl = (
            b"$6$abcdefgh$BCZD4MZ76CcLzsq3Z/oJZrs85Zay4i7PQhYtp/EgUD76cHglMu8sPEcHVrZO9rYRjrSVhX44"
            b"VDTFY7p4lwpMa1"
        )
        self.assertTrue(verify(b"wonder", parseHash(openssl)))

    def test_dovecot(self) -> None:
        """A passwd-file of Dovecot's is taken as it is, where its hashes are good enough."""
        for prefix, scheme in (
            ("{SHA512-CRYPT}", "sha512_crypt"),
            ("{sha256-crypt}", "sha256_crypt"),
            ("{BLF-CRYPT}", "bcrypt"),
            ("{ARGON2ID}", "argon2"),
            ("{CRYPT}", "sha512_crypt"),
        ):
            expected = parseHash(f"{prefix}{HASHES[scheme]}:5000:5000::/home::".encode())
            self.assertEqual(expected.scheme, scheme)
            self.assertTrue(verify(b"wonder", expected))
        for bad in (b"{PLAIN}secret", b"{SHA512-CRYPT}secret", b"{MD5-CRYPT}$1$a$b", b"{CRYPT}"):
            error = self.assertRaises(BadLine, parseHash, bad)
            self.assertNotIn("secret", str(error))

    def test_furtherFields(self) -> None:
        """What stands behind a further colon, and blanks around the hash, are left alone."""
        text = f" {HASHES['bcrypt']}\t:x:y".encode()
        self.assertEqual(parseHash(text).text, HASHES["bcrypt"])

    def test_saltOfOldPHP(self) -> None:
        """A bcrypt salt with stray bits is taken without a warning at each login."""
        stray = "$2y$04$" + "a" * 22 + HASHES["bcrypt"][29:]
        verify(b"wonder", parseHash(stray.encode()))
        self.assertEqual(self.flushWarnings(), [])

    def test_weak(self) -> None:
        """Fast hashes are refused, and the reason says which and what to do."""
        for text, what in (
            ("$apr1$abcdefgh$" + "x" * 22, "apr1 (MD5) hashes are too weak"),
            ("$1$abcdefgh$" + "x" * 22, "MD5 hashes are too weak"),
            ("{SHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=", "SHA-1 hashes are too weak"),
            ("{SSHA}VBPuJHI7uixaa6LQGWx4s+5GKNE=", "salted SHA-1 hashes are too weak"),
        ):
            error = self.assertRaises(BadLine, parseHash, text.encode())
            self.assertTrue(str(error).startswith(what), str(error))
            self.assertIn("submitd-passwd", str(error))

    def test_malformed(self) -> None:
        """What is no hash, or half of one, is named without being quoted."""
        for value in (
            b"",
            b"s3cret",
            b"s3cret\xff",
            b"abJnggxhB/yWI",
            b"$2b$04$s3cret",
            b"$2x$04$" + HASHES["bcrypt"][7:].encode(),
            b"$6$rounds=1000$s3cret",
            b"$argon2id$v=19$m=64,t=1,p=1$HmNsbS1FKMWYE6I0xlgrJQ",
            b"$argon2id$v=19$m=s3cret",
            HASHES["sha512_crypt"][:-1].encode(),
        ):
            error = self.assertRaises(BadLine, parseHash, value)
            self.assertNotIn("s3cret", str(error))
            self.assertIsNone(error.__cause__)

    def test_longPasswordWithBcrypt(self) -> None:
        """bcrypt reads 72 octets: a longer password works as it did where it was set."""
        text = bcrypt.using(rounds=4).hash(b"x" * BCRYPT_OCTETS)
        self.assertTrue(verify(b"x" * 200, parseHash(text.encode())))
        self.assertFalse(verify(b"x" * (BCRYPT_OCTETS - 1), parseHash(text.encode())))
