"""Tests for :mod:`submitd.sasl.credentials`."""

from __future__ import annotations

import hmac

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from submitd.interfaces import IBearerToken
from submitd.sasl.credentials import (
    MAX_OCTETS,
    BearerToken,
    UsernameDigest,
    UsernamePassword,
    checkName,
    checkPassword,
    nameProblem,
)
from submitd.wire.errors import Refused


class NameTests(SynchronousTestCase):
    """What a user name can be."""

    def test_ordinary(self) -> None:
        """Addresses, plain words, spaces and characters special to a directory are all names."""
        for name in ("alice", "alice@example.com", "Ä b", "a)(uid=*", "../x", "%u", "'--", "用户"):
            self.assertEqual(nameProblem(name.encode()), "", name)

    def test_impossible(self) -> None:
        """What could forge a log line or cannot be a name is refused with 501 5.5.2."""
        for name in (
            b"",
            b"a\nb",
            b"a\r",
            b"\0",
            b"\x1b[2J",
            b"\x7f",
            "a\u202eb".encode(),
            "a\u2028b".encode(),
            "a\u200bb".encode(),
            b"\xff",
            b"\xc0\x80",
            b"x" * (MAX_OCTETS + 1),
        ):
            refused = self.assertRaises(Refused, checkName, name)
            self.assertEqual((refused.reply.code, refused.reply.status), (501, "5.5.2"), name)

    def test_longest(self) -> None:
        """A name of exactly the limit is taken."""
        self.assertEqual(checkName(b"x" * MAX_OCTETS), b"x" * MAX_OCTETS)

    def test_causeDoesNotQuote(self) -> None:
        """The cause for the log never repeats what the client sent."""
        self.assertNotIn("evil", str(self.assertRaises(Refused, checkName, b"evil\n")))

    @settings(deadline=None, max_examples=100)
    @given(st.binary(max_size=40))
    def test_anyOctets(self, name: bytes) -> None:
        """Whatever the octets, the answer is the name or a refusal."""
        try:
            self.assertEqual(checkName(name), name)
        except Refused:
            self.assertNotEqual(nameProblem(name), "")


class PasswordTests(SynchronousTestCase):
    """What a password can be."""

    def test_anyEncoding(self) -> None:
        """A password in an old encoding is compared as it was sent, not refused."""
        self.assertEqual(checkPassword(b"p\xe4\xdf \n"), b"p\xe4\xdf \n")

    def test_impossible(self) -> None:
        """No password, a NUL (bcrypt would stop there) and an endless one are malformed."""
        for password in (b"", b"a\0b", b"x" * (MAX_OCTETS + 1)):
            self.assertEqual(self.assertRaises(Refused, checkPassword, password).reply.code, 501)


class CredentialsTests(SynchronousTestCase):
    """The credentials provide Cred's interfaces and keep their secret."""

    def test_interfaces(self) -> None:
        """Each provides exactly one credentials interface, so that the Portal's choice is sure."""
        password = UsernamePassword(b"alice", b"wonder")
        digest = UsernameDigest(b"alice", b"<1@x>", b"0" * 32)
        verifyObject(IUsernamePassword, password)
        verifyObject(IUsernameHashedPassword, digest)
        verifyObject(IBearerToken, BearerToken(b"alice", b"t"))
        self.assertFalse(IUsernameHashedPassword.providedBy(password))
        self.assertFalse(IUsernamePassword.providedBy(digest))

    def test_reprHidesSecrets(self) -> None:
        """No repr shows a password, a digest or a token: they would end up in a log."""
        for credentials in (
            UsernamePassword(b"alice", b"wonder"),
            UsernameDigest(b"alice", b"<1@x>", b"wonder"),
            BearerToken(b"alice", b"wonder"),
        ):
            self.assertIn("alice", repr(credentials))
            self.assertNotIn("wonder", repr(credentials))
            self.assertNotIn("wonder", str(credentials))

    def test_checkPassword(self) -> None:
        """A password matches itself alone."""
        credentials = UsernamePassword(b"alice", b"wonder")
        self.assertTrue(credentials.checkPassword(b"wonder"))
        self.assertFalse(credentials.checkPassword(b"wonde"))

    def test_checkDigest(self) -> None:
        """A digest matches the secret it was made with, for its own challenge."""
        digest = hmac.new(b"wonder", b"<1@x>", "md5").hexdigest().encode()
        self.assertTrue(UsernameDigest(b"a", b"<1@x>", digest).checkPassword(b"wonder"))
        self.assertFalse(UsernameDigest(b"a", b"<2@x>", digest).checkPassword(b"wonder"))
        self.assertFalse(UsernameDigest(b"a", b"<1@x>", digest).checkPassword(b"wonde"))
