"""Tests for :mod:`submitd.checkers.cache`."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, execute
from twisted.internet.task import Clock
from zope.interface import Interface, implementer
from zope.interface.verify import verifyObject

from submitd.checkers import LoginUnavailable
from submitd.checkers.cache import CachedChecker
from submitd.checkers.hashes import PasswordHash, verify
from submitd.checkers.htpasswd import HtpasswdChecker
from submitd.checkers.secrets import SecretsChecker
from submitd.interfaces import IChecked, IRevised, IScramSalts
from submitd.sasl.credentials import UsernameDigest, UsernamePassword
from tests.checkers.files import HASHES, FileTestCase

ALICE = UsernamePassword(b"alice", b"wonder")


@implementer(ICredentialsChecker, IRevised)
class Slow:
    """A back end that answers when the test says so."""

    credentialInterfaces: tuple[type[Interface], ...] = (IUsernamePassword, IUsernameHashedPassword)

    def __init__(self) -> None:
        self.asked: list[Deferred[bytes]] = []
        self.number = 0

    def revision(self) -> int:
        """A number of the test's."""
        return self.number

    def requestAvatarId(self, credentials: Any) -> Deferred[bytes]:
        """Wait."""
        self.asked.append(Deferred())
        return self.asked[-1]


@implementer(ICredentialsChecker)
class Unrevised:
    """A back end that only checks."""

    credentialInterfaces: tuple[type[Interface], ...] = (IUsernamePassword,)

    def requestAvatarId(self, credentials: Any) -> bytes:
        """Everybody is themselves."""
        name: bytes = credentials.username
        return name


class CachedCheckerTests(FileTestCase):
    """:class:`submitd.checkers.cache.CachedChecker`."""

    def setUp(self) -> None:
        """A cache before a slow back end."""
        super().setUp()
        self.clock = Clock()
        self.slow = Slow()
        self.cache = CachedChecker(self.slow, self.clock, seconds=300, size=3)

    def answer(self, avatarId: bytes | Exception) -> None:
        """Have the back end answer the last login."""
        answer = self.slow.asked[-1]
        answer.errback(avatarId) if isinstance(avatarId, Exception) else answer.callback(avatarId)

    def assertAsked(self, times: int) -> None:
        """The back end has been asked so often."""
        self.assertEqual(len(self.slow.asked), times)

    def logIn(self, credentials: Any) -> bool:
        """Log in; whether the cache knew."""
        before = len(self.slow.asked)
        login = self.cache.requestAvatarId(credentials)
        known = len(self.slow.asked) == before
        if not known:
            self.answer(credentials.username)
        self.assertLogin(login, credentials.username)
        return known

    def test_interfaces(self) -> None:
        """It provides what the Portal and the start ask for, for the back end's credentials."""
        for interface in (ICredentialsChecker, IChecked, IRevised):
            verifyObject(interface, self.cache)
        self.assertEqual(self.cache.credentialInterfaces, self.slow.credentialInterfaces)

    def test_remembered(self) -> None:
        """A good login is not verified again, until its time is over."""
        self.assertFalse(self.logIn(ALICE))
        self.clock.advance(299)
        self.assertTrue(self.logIn(ALICE))
        self.clock.advance(1)
        self.assertFalse(self.logIn(ALICE))

    def test_useDoesNotProlong(self) -> None:
        """Steady use does not keep an entry beyond its time: a back end without files is asked."""
        self.logIn(ALICE)
        for _ in range(299):
            self.clock.advance(1)
            self.assertTrue(self.logIn(ALICE))
        self.clock.advance(1)
        self.assertFalse(self.logIn(ALICE))

    def test_failuresAreNot(self) -> None:
        """A refused login, and one that could not be decided, is asked anew each time."""
        for error in (UnauthorizedLogin(), LoginUnavailable("down")):
            for _ in range(2):
                before = len(self.slow.asked)
                login = self.cache.requestAvatarId(ALICE)
                self.answer(error)
                self.failureResultOf(login, type(error))
                self.assertAsked(before + 1)

    def test_otherPassword(self) -> None:
        """A known user with another password is verified, and so is another user."""
        self.logIn(ALICE)
        for username, password in (
            (b"alice", b"wonde"),
            (b"alic", b"ewonder"),
            (b"alicew", b"onder"),
            (b"bob", b"wonder"),
            (b"Alice", b"wonder"),
        ):
            self.assertFalse(self.logIn(UsernamePassword(username, password)))
            self.cache._memory._known.popitem()

    @settings(deadline=None, max_examples=200)
    @given(
        st.binary(max_size=9), st.binary(max_size=9), st.binary(max_size=9), st.binary(max_size=9)
    )
    def test_keys(self, name: bytes, password: bytes, other: bytes, another: bytes) -> None:
        """Two logins have the same key only if they are the same."""
        digestOf = self.cache._memory._digestOf
        self.assertEqual(
            digestOf((name, password)) == digestOf((other, another)),
            (name, password) == (other, another),
        )

    def test_keyOfTheProcess(self) -> None:
        """Two caches have different keys: what one keeps cannot be guessed against elsewhere."""
        other = CachedChecker(self.slow, self.clock)
        keys = {each._memory._digestOf((b"a", b"b")) for each in (other, self.cache)}
        self.assertEqual(len(keys), 2)

    def test_keepsNoPassword(self) -> None:
        """Neither password nor user name can be found in what is kept."""
        self.logIn(UsernamePassword(b"somebody", b"wonder"))
        keys = repr(vars(self.cache)) + repr(vars(self.cache._memory))
        self.assertNotIn("wonder", keys)

    def test_bounded(self) -> None:
        """When there are too many, the one that was not used for longest goes."""
        people = [UsernamePassword(b"user%d" % at, b"x") for at in range(4)]
        for person in people[:3]:
            self.logIn(person)
        self.assertTrue(self.logIn(people[0]))
        self.logIn(people[3])
        self.assertEqual(len(self.cache._memory), 3)
        self.assertTrue(self.logIn(people[0]))
        self.assertFalse(self.logIn(people[1]))

    def test_revised(self) -> None:
        """When the users change, everything is forgotten at once."""
        self.logIn(ALICE)
        self.slow.number += 1
        self.assertFalse(self.logIn(ALICE))

    def test_revisedMeanwhile(self) -> None:
        """A login that was verified against the users of before is not remembered."""
        login = self.cache.requestAvatarId(ALICE)
        self.slow.number += 1
        self.answer(b"alice")
        self.assertLogin(login, b"alice")
        self.assertFalse(self.logIn(ALICE))

    def test_shared(self) -> None:
        """Logins with the same credentials at the same time cost one verification."""
        logins = [self.cache.requestAvatarId(ALICE) for _ in range(5)]
        self.assertAsked(1)
        self.answer(b"alice")
        for login in logins:
            self.assertLogin(login, b"alice")
        refused = [self.cache.requestAvatarId(UsernamePassword(b"bob", b"x")) for _ in range(2)]
        self.assertAsked(2)
        self.answer(UnauthorizedLogin())
        for login in refused:
            self.assertRefused(login)

    def test_notSharedWithTheUsersOfBefore(self) -> None:
        """Who comes after a change of users does not join a verification begun before it."""
        before = self.cache.requestAvatarId(ALICE)
        self.slow.number += 1
        after = self.cache.requestAvatarId(ALICE)
        self.assertAsked(2)
        self.slow.asked[0].callback(b"alice")
        self.slow.asked[1].errback(UnauthorizedLogin())
        self.assertLogin(before, b"alice")
        self.assertRefused(after)

    def test_oneOfSeveralCancelled(self) -> None:
        """A client that goes away does not take the others' login with it."""
        gone, stays = (self.cache.requestAvatarId(ALICE) for _ in range(2))
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        self.answer(b"alice")
        self.assertLogin(stays, b"alice")

    def test_allCancelled(self) -> None:
        """A question that nobody waits for is given up: who comes later is not to join it."""
        for gone in [self.cache.requestAvatarId(ALICE) for _ in range(2)]:
            gone.cancel()
            self.failureResultOf(gone, CancelledError)
        later = self.cache.requestAvatarId(ALICE)
        self.assertAsked(2)
        self.slow.asked[1].callback(b"alice")
        self.assertLogin(later, b"alice")

    def test_otherCredentials(self) -> None:
        """A digest is never remembered: each is for a challenge of its own."""
        credentials = UsernameDigest(b"alice", b"<1@x>", b"0" * 32)
        for at in range(1, 3):
            self.cache.requestAvatarId(credentials)
            self.assertAsked(at)

    def test_salts(self) -> None:
        """The checker behind it is asked for salts, each time."""
        checker = SecretsChecker(self.write("alice:wonder"))
        cached = CachedChecker(checker, Clock())
        verifyObject(IScramSalts, cached)
        salt = self.successResultOf(cached.saltOf(b"alice"))
        self.assertEqual(salt, self.successResultOf(checker.saltOf(b"alice")))
        self.failureResultOf(CachedChecker(Unrevised(), Clock()).saltOf(b"alice"), TypeError)

    def test_backEndThatOnlyChecks(self) -> None:
        """A back end without files can be cached too, and a plain answer is taken."""
        cache = CachedChecker(Unrevised(), self.clock)
        for _ in range(2):
            self.assertLogin(cache.requestAvatarId(ALICE), b"alice")
        self.assertEqual((cache.check(), cache.revision()), ([], None))

    def test_removedUser(self) -> None:
        """With a real file, a user who is removed or has a new password is out at once."""
        verified = []

        def counted(password: bytes, expected: PasswordHash) -> bool:
            verified.append(expected)
            return verify(password, expected)

        self.write("alice:" + HASHES["bcrypt"], "bob:" + HASHES["argon2"])
        cache = CachedChecker(HtpasswdChecker(self.path, execute, verify=counted), self.clock)
        self.assertEqual(cache.check(), [])
        for _ in range(3):
            self.assertLogin(cache.requestAvatarId(ALICE), b"alice")
        self.assertEqual(len(verified), 1)
        self.write("bob:" + HASHES["argon2"])
        self.assertRefused(cache.requestAvatarId(ALICE))
        self.write("alice:land", mode=0o600)
        secrets = CachedChecker(SecretsChecker(self.path), self.clock)
        self.assertRefused(secrets.requestAvatarId(ALICE))
