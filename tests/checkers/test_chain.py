"""Tests for :mod:`submitd.checkers.chain`."""

from __future__ import annotations

import base64
from typing import Any

import attrs
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.credentials import IUsernameHashedPassword, IUsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from zope.interface import Interface, implementer
from zope.interface.verify import verifyObject

from submitd.checkers import LoginUnavailable
from submitd.checkers.cache import CachedChecker
from submitd.checkers.chain import CheckerChain
from submitd.checkers.htpasswd import HtpasswdChecker
from submitd.checkers.salts import Salt
from submitd.checkers.secrets import SecretsChecker
from submitd.interfaces import (
    IBearerToken,
    IChecked,
    IRevised,
    IRunning,
    IScramProof,
    IScramSalts,
)
from submitd.sasl.bearer import ForeignToken, TokenRefused
from submitd.sasl.credentials import BearerToken, UsernameDigest, UsernamePassword
from submitd.sasl.scramkeys import KEY, SCHEME
from tests.checkers.files import FileTestCase

ALICE = UsernamePassword(b"alice", b"wonder")


@implementer(ICredentialsChecker)
@attrs.define(eq=False)
class Says:
    """A back end that always says the same."""

    answer: Any
    credentialInterfaces: tuple[type[Interface], ...] = (IUsernamePassword,)
    asked: int = 0

    def requestAvatarId(self, credentials: Any) -> Any:
        """Say it."""
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@implementer(IScramSalts)
class HasSalt(Says):
    """One that says so of a salt, too."""

    def saltOf(self, username: bytes) -> Any:
        return self.requestAvatarId(username)


class CheckerChainTests(FileTestCase):
    """:class:`submitd.checkers.chain.CheckerChain`."""

    def test_interfaces(self) -> None:
        """It is a checker, and offers what its back ends do, each kind once, in order."""
        chain = CheckerChain([HtpasswdChecker(self.path), SecretsChecker(self.path)])
        for interface in (ICredentialsChecker, IChecked, IRevised, IScramSalts):
            verifyObject(interface, chain)
        self.assertEqual(
            chain.credentialInterfaces, (IUsernamePassword, IUsernameHashedPassword, IScramProof)
        )

    def test_firstYes(self) -> None:
        """The first that says yes is believed, and the others are not asked."""
        checkers = [Says(UnauthorizedLogin()), Says(b"one"), Says(b"two")]
        self.assertLogin(CheckerChain(checkers).requestAvatarId(ALICE), b"one")
        self.assertEqual([each.asked for each in checkers], [1, 1, 0])

    def test_allNo(self) -> None:
        """Before a no all have been asked, so that the time does not tell who knows a name."""
        checkers = [Says(UnauthorizedLogin()), Says(LoginDenied()), Says(UnauthorizedLogin())]
        self.assertRefused(CheckerChain(checkers).requestAvatarId(ALICE))
        self.assertEqual([each.asked for each in checkers], [1, 1, 1])

    def test_why(self) -> None:
        """Of all that say no, the first that says why is heard, by log and client."""
        told, later = TokenRefused(scope="mail"), UnauthorizedLogin("expired")
        chain = CheckerChain([Says(UnauthorizedLogin()), Says(told), Says(later)])
        self.assertIs(self.failureResultOf(chain.requestAvatarId(ALICE)).value, told)

    def test_foreign(self) -> None:
        """Whose token it is says why; who has nothing to do with it, where nobody else does."""
        foreign, judged = ForeignToken("another issuer's"), TokenRefused("it has expired")
        for refusals, expected in (
            ((foreign, judged), judged),
            ((judged, foreign), judged),
            ((foreign, UnauthorizedLogin()), foreign),
            ((UnauthorizedLogin(), foreign), foreign),
            ((foreign, ForeignToken("no JWT")), foreign),
        ):
            chain = CheckerChain([Says(each) for each in refusals])
            found = self.failureResultOf(chain.requestAvatarId(ALICE)).value
            self.assertIs(found, expected)

    def test_running(self) -> None:
        """Those that run are started and stopped, all of them, even where one fails."""
        told: list[Any] = []

        @implementer(IRunning)
        class Runs(Says):
            def start(self, reactor: Any) -> Any:
                told.append((self.answer, reactor))
                return fail(LoginUnavailable("no")) if self.answer == b"bad" else succeed(None)

            def stop(self) -> Any:
                told.append(self.answer)
                return succeed(None)

        clock, good, bad = Clock(), Runs(b"good"), Runs(b"bad")
        chain = CheckerChain([bad, Says(b"x"), good])
        cached = CachedChecker(chain, clock)
        verifyObject(IRunning, chain)
        verifyObject(IRunning, cached)
        self.failureResultOf(cached.start(clock), LoginUnavailable)
        self.assertEqual(told, [(b"bad", clock), (b"good", clock)])
        self.successResultOf(cached.stop())
        self.assertEqual(told[2:], [b"bad", b"good"])
        self.successResultOf(CachedChecker(Says(b"x"), clock).start(clock))
        self.successResultOf(CachedChecker(Says(b"x"), clock).stop())

    def test_noWords(self) -> None:
        """What says nothing is passed over; a no of another kind than Cred's usual is one, too."""
        for before in (UnauthorizedLogin(""), LoginDenied("odd")):
            chain = CheckerChain([Says(before), Says(UnauthorizedLogin("expired"))])
            failure = self.failureResultOf(chain.requestAvatarId(ALICE), UnauthorizedLogin)
            self.assertEqual(str(failure.value), "expired")
            self.assertRefused(CheckerChain([Says(before)]).requestAvatarId(ALICE))

    def test_nobody(self) -> None:
        """An empty chain lets nobody in."""
        self.assertRefused(CheckerChain([]).requestAvatarId(ALICE))

    def test_unavailable(self) -> None:
        """One that cannot tell makes it "not now", unless another says yes."""
        down, no, yes = Says(LoginUnavailable("down")), Says(UnauthorizedLogin()), Says(b"alice")
        for checkers in ([down, no], [no, down], [down, down]):
            self.assertUnavailable(CheckerChain(checkers).requestAvatarId(ALICE))
        self.assertLogin(CheckerChain([down, no, yes]).requestAvatarId(ALICE), b"alice")

    def test_broken(self) -> None:
        """One that raises anything else counts as unavailable, is logged, and the next is asked."""
        broken = Says(ZeroDivisionError("in the back end"))
        chain = CheckerChain([broken, Says(UnauthorizedLogin())])
        self.assertUnavailable(chain.requestAvatarId(ALICE))
        self.assertLogin(CheckerChain([broken, Says(b"a")]).requestAvatarId(ALICE), b"a")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_kinds(self) -> None:
        """A back end is not asked for a kind of credentials that it does not know."""
        passwords, tokens = Says(b"password"), Says(b"token", (IBearerToken,))
        chain = CheckerChain([passwords, tokens])
        self.assertLogin(chain.requestAvatarId(BearerToken(b"alice", b"t")), b"token")
        self.assertLogin(chain.requestAvatarId(ALICE), b"password")
        self.assertRefused(chain.requestAvatarId(UsernameDigest(b"alice", b"<1@x>", b"")))

    def test_waits(self) -> None:
        """The next back end is asked only when the one before has answered."""
        slow: Deferred[bytes] = Deferred()
        after = Says(b"alice")
        login = CheckerChain([Says(slow), after]).requestAvatarId(ALICE)
        self.assertNoResult(login)
        self.assertEqual(after.asked, 0)
        slow.errback(UnauthorizedLogin())
        self.assertLogin(login, b"alice")

    def test_cancelled(self) -> None:
        """When the client has gone, the back ends that were not asked yet are not asked."""
        after = Says(b"alice")
        login = CheckerChain([Says(Deferred()), after]).requestAvatarId(ALICE)
        login.cancel()
        self.failureResultOf(login, CancelledError)
        self.assertEqual(after.asked, 0)

    def test_check(self) -> None:
        """The start is told what is wrong with each; one without files has nothing to tell."""
        chain = CheckerChain(
            [HtpasswdChecker("/no/passwd"), Says(b""), SecretsChecker("/no/secrets")]
        )
        self.assertEqual(
            chain.check(),
            ["/no/passwd: there is no such file", "/no/secrets: there is no such file"],
        )

    def test_revision(self) -> None:
        """It changes when any file does."""
        chain = CheckerChain([SecretsChecker("/no/secrets"), Says(b""), SecretsChecker(self.path)])
        before = chain.revision()
        self.assertEqual(chain.revision(), before)
        self.write("alice:wonder")
        self.assertNotEqual(chain.revision(), before)


class SaltTests(FileTestCase):
    """Which back end's salt is told."""

    one, two = Salt(b"salt-one", 4096), Salt(b"salt-two", 4096)
    none, neither = Salt(b"salt-non", 4096, False), Salt(b"salt-nei", 4096, False)

    def saltOf(self, *answers: Any) -> Any:
        self.checkers = [HasSalt(answer) for answer in answers]
        return CheckerChain([Says(b"passwords"), *self.checkers]).saltOf(b"alice")

    def assertTold(self, asked: Deferred[Any], salt: Salt) -> None:
        """This salt is the answer."""
        self.assertIs(self.successResultOf(asked), salt)

    def test_firstKnown(self) -> None:
        """That of the first that knows the user; those without salts are passed over."""
        self.assertTold(self.saltOf(self.none, self.two, self.one), self.two)
        self.assertEqual([each.asked for each in self.checkers], [1, 1, 0])

    def test_coroutine(self) -> None:
        """A back end may answer by a coroutine."""

        async def later() -> Salt:
            return self.one

        self.assertTold(self.saltOf(later()), self.one)

    def test_unknown(self) -> None:
        """For nobody's name, that of one of them, always the same one for a name."""
        chain = CheckerChain([HasSalt(self.none), HasSalt(self.neither)])
        names = [b"name%d" % at for at in range(100)]
        told = [self.successResultOf(chain.saltOf(name)) for name in names]
        self.assertEqual(told, [self.successResultOf(chain.saltOf(name)) for name in names])
        self.assertEqual({each.salt for each in told}, {self.none.salt, self.neither.salt})

    def test_unknownLikeAny(self) -> None:
        """What is told for nobody's names has all the costs that users' salts have."""
        chain, costs = self.chainOf(("plain", 10_000), (20_000, 30_000)), set()
        for at in range(200):
            salt = self.successResultOf(chain.saltOf(b"nobody%d" % at))
            self.assertFalse(salt.isKnown)
            costs.add(salt.iterations)
        self.assertEqual(costs, {4096, 10_000, 20_000, 30_000})

    def chainOf(self, *files: tuple[str | int, ...]) -> CheckerChain:
        """Files of users: for each a secret in the clear, or the iterations of keys."""
        checkers = []
        for at, users in enumerate(files):
            self.path = f"{self.mktemp()}.{at}"
            self.write(*(f"user{n}:{_secret(each)}" for n, each in enumerate(users)))
            checkers.append(SecretsChecker(self.path))
        return CheckerChain(checkers)

    def test_unavailable(self) -> None:
        """Where one cannot tell, the user may well be there."""
        gone = LoginUnavailable("gone")
        self.assertUnavailable(self.saltOf(gone, self.none))
        self.assertUnavailable(self.saltOf(self.none, gone))
        self.assertTold(self.saltOf(gone, self.one), self.one)
        self.assertUnavailable(self.saltOf())

    def test_broken(self) -> None:
        """One that breaks is logged, and the next one asked."""
        self.assertUnavailable(self.saltOf(ZeroDivisionError(), self.none))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_cancelled(self) -> None:
        """Nobody is asked for a client that has gone."""
        asked = self.saltOf(Deferred(), self.one)
        asked.cancel()
        self.failureResultOf(asked, CancelledError)
        self.assertEqual(self.checkers[1].asked, 0)


def _secret(kind: str | int) -> str:
    keys = base64.b64encode(bytes(KEY)).decode()
    return kind if isinstance(kind, str) else f"{{{SCHEME}}}{kind},{keys},{keys},{keys}"
